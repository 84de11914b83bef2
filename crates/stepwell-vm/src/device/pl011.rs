//! The PL011 UART, the guest's console.
//!
//! Registers and their values at reset are those of QEMU 7.2's model, and so is the transmitter: it
//! sends at once and raises its interrupt after every byte. The receiver's interrupt is raised with any
//! byte in the FIFO, whatever the trigger level; as there, the receive-timeout interrupt is never raised,
//! and nothing is looped back, both of which Arm's (DDI 0183) does. Unlike QEMU's it announces what moves
//! into the FIFO from behind, too: a driver that has acknowledged the interrupt first and has not read
//! everything would wait forever.
//!
//! Behind the FIFO is a queue, because pasted text does not wait; what fits in neither is refused
//! and stays with the sender.

use heapless::Deque;

const DR: u64 = 0x000;
const RSR: u64 = 0x004;
const FR: u64 = 0x018;
const ILPR: u64 = 0x020;
const IBRD: u64 = 0x024;
const FBRD: u64 = 0x028;
const LCR_H: u64 = 0x02c;
const CR: u64 = 0x030;
const IFLS: u64 = 0x034;
const IMSC: u64 = 0x038;
const RIS: u64 = 0x03c;
const MIS: u64 = 0x040;
const ICR: u64 = 0x044;
const DMACR: u64 = 0x048;
const PERIPHERAL_ID: u64 = 0xfe0;

const FR_RXFE: u32 = 1 << 4; // receive FIFO empty
const FR_RXFF: u32 = 1 << 6; // receive FIFO full
const FR_TXFE: u32 = 1 << 7; // transmit FIFO empty, always
const LCR_FEN: u32 = 1 << 4; // FIFOs enabled
const CR_RESET: u32 = 0x300; // transmitter and receiver enabled
const IFLS_RESET: u32 = 0x12;
const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
/// PeriphID0..3, PCellID0..3.
const IDS: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

const FIFO_BYTES: usize = 16;
/// Input that the FIFO and the queue hold together.
const QUEUE_BYTES: usize = 4096;

/// The UART.
#[derive(Clone, Debug)]
pub struct Pl011 {
    /// Input; the FIFO is its front.
    queue: Deque<u8, QUEUE_BYTES>,
    /// How much of the queue is in the FIFO.
    in_fifo: usize,
    raw_interrupts: u32,
    interrupt_mask: u32,
    line_control: u32,
    control: u32,
    fifo_levels: u32,
    integer_baud: u32,
    fractional_baud: u32,
    low_power: u32,
    dma_control: u32,
    /// The level of UARTINTR that was told last.
    reported_line: bool,
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Pl011 {
    /// Returns the UART at reset.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: Deque::new(),
            in_fifo: 0,
            raw_interrupts: 0,
            interrupt_mask: 0,
            line_control: 0,
            control: CR_RESET,
            fifo_levels: IFLS_RESET,
            integer_baud: 0,
            fractional_baud: 0,
            low_power: 0,
            dma_control: 0,
            reported_line: false,
        }
    }

    /// Performs a guest's load; reading DR takes a byte out. Registers are at multiples of 4, and
    /// a narrower load sees the lower bits.
    #[must_use]
    pub fn read(&mut self, offset: u64, bytes: u8) -> u64 {
        let word = match offset {
            DR => self.receive(),
            FR => self.flags(),
            ILPR => self.low_power,
            IBRD => self.integer_baud,
            FBRD => self.fractional_baud,
            LCR_H => self.line_control,
            CR => self.control,
            IFLS => self.fifo_levels,
            IMSC => self.interrupt_mask,
            RIS => self.raw_interrupts,
            MIS => self.raw_interrupts & self.interrupt_mask,
            DMACR => self.dma_control,
            PERIPHERAL_ID.. => usize::try_from((offset - PERIPHERAL_ID) / 4)
                .ok()
                .and_then(|n| IDS.get(n))
                .map_or(0, |&id| id.into()),
            // RSR: no input of ours has errors.
            _ => 0,
        };
        u64::from(match bytes {
            1 => word & 0xff,
            2 => word & 0xffff,
            _ => word,
        })
    }

    /// Performs a guest's store; returns a byte that it transmits.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) -> Option<u8> {
        let word = match bytes {
            1 => value as u32 & 0xff,
            2 => value as u32 & 0xffff,
            _ => value as u32,
        };
        match offset {
            DR => {
                self.raw_interrupts |= INT_TX;
                return Some(word as u8);
            }
            ILPR => self.low_power = word,
            IBRD => self.integer_baud = word & 0xffff,
            FBRD => self.fractional_baud = word & 0x3f,
            LCR_H => self.set_line_control(word),
            CR => self.control = word,
            IFLS => self.fifo_levels = word,
            IMSC => self.interrupt_mask = word,
            ICR => self.raw_interrupts &= !word,
            DMACR => self.dma_control = word,
            // RSR has no errors to clear; FR, RIS, MIS and the ids cannot be written.
            RSR => {}
            _ => {}
        }
        None
    }

    /// Takes console input; returns how many of the bytes there was room for.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.iter().take_while(|&&byte| self.queue.push_back(byte).is_ok()).count();
        self.fill_fifo();
        taken
    }

    /// Returns how many bytes [`Pl011::push_input`] would take.
    #[must_use]
    pub const fn input_room(&self) -> usize {
        QUEUE_BYTES - self.queue.len()
    }

    /// Returns the level of UARTINTR.
    #[must_use]
    pub const fn irq_line(&self) -> bool {
        self.raw_interrupts & self.interrupt_mask != 0
    }

    /// Returns the level of UARTINTR if it is another than this returned last, or than at reset.
    pub fn line_change(&mut self) -> Option<bool> {
        let line = self.irq_line();
        (core::mem::replace(&mut self.reported_line, line) != line).then_some(line)
    }

    const fn fifo_bytes(&self) -> usize {
        if self.line_control & LCR_FEN != 0 { FIFO_BYTES } else { 1 }
    }

    fn flags(&self) -> u32 {
        let empty = if self.in_fifo == 0 { FR_RXFE } else { 0 };
        let full = if self.in_fifo >= self.fifo_bytes() { FR_RXFF } else { 0 };
        FR_TXFE | empty | full
    }

    /// Moves the FIFO's end along the queue.
    fn fill_fifo(&mut self) {
        let filled = self.queue.len().min(self.fifo_bytes());
        if filled > self.in_fifo {
            self.raw_interrupts |= INT_RX;
        }
        self.in_fifo = filled;
    }

    fn receive(&mut self) -> u32 {
        if self.in_fifo == 0 {
            // Of what was lost with the FIFO it may still be raised.
            self.raw_interrupts &= !INT_RX;
            return 0;
        }
        let byte = self.queue.pop_front().unwrap_or(0);
        self.in_fifo -= 1;
        self.fill_fifo();
        if self.in_fifo == 0 {
            self.raw_interrupts &= !INT_RX;
        }
        byte.into()
    }

    fn set_line_control(&mut self, value: u32) {
        let fifo_switched = (self.line_control ^ value) & LCR_FEN != 0;
        self.line_control = value;
        if fifo_switched {
            // What was in the FIFO is lost; what waits behind it is not.
            for _ in 0..core::mem::take(&mut self.in_fifo) {
                let _ = self.queue.pop_front();
            }
            self.fill_fifo();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_values_are_those_of_the_virt_board() {
        let mut uart = Pl011::new();
        let read: Vec<u64> = (0..19).map(|n| uart.read(4 * n, 4)).collect();
        let mut expected = [0; 19];
        (expected[6], expected[12], expected[13]) = (0x90, 0x300, 0x12);
        assert_eq!(read, expected);
        let ids: Vec<u64> = (0..8).map(|n| uart.read(0xfe0 + 4 * n, 4)).collect();
        assert_eq!(ids, [0x11, 0x10, 0x14, 0, 0x0d, 0xf0, 5, 0xb1]);
    }

    #[test]
    fn a_byte_is_sent_at_once_and_its_interrupt_raised() {
        let mut uart = Pl011::new();
        uart.write(IMSC, 4, INT_TX.into());
        assert!(!uart.irq_line());
        assert_eq!(uart.line_change(), None);
        assert_eq!(uart.write(DR, 1, b'x'.into()), Some(b'x'));
        assert!(uart.irq_line());
        assert_eq!([uart.line_change(), uart.line_change()], [Some(true), None]);
        uart.write(ICR, 4, INT_TX.into());
        assert!(!uart.irq_line());
        assert_eq!([uart.line_change(), uart.line_change()], [Some(false), None]);
        assert_eq!(uart.read(FR, 4), 0x90);
    }

    #[test]
    fn input_arrives_in_order_through_fifo_and_queue() {
        let mut uart = Pl011::new();
        uart.write(LCR_H, 4, LCR_FEN.into());
        uart.write(IMSC, 4, INT_RX.into());
        let text: Vec<u8> = (0..40).collect();
        assert_eq!(uart.push_input(&text), 40);
        assert_ne!(uart.read(FR, 4) & u64::from(FR_RXFF), 0);
        // As Linux does: acknowledge, then read until empty.
        uart.write(ICR, 4, INT_RX.into());
        let mut received = Vec::new();
        while uart.read(FR, 4) & u64::from(FR_RXFE) == 0 {
            received.push(uart.read(DR, 4) as u8);
        }
        assert_eq!(received, text);
        assert!(!uart.irq_line());
        assert_eq!(uart.read(DR, 4), 0);
    }

    #[test]
    fn without_fifo_one_byte_fills_the_receiver() {
        let mut uart = Pl011::new();
        uart.push_input(b"ab");
        assert_ne!(uart.read(FR, 4) & u64::from(FR_RXFF), 0);
        uart.write(ICR, 4, 0x7ff);
        assert_eq!(uart.read(DR, 4), b'a'.into());
        assert_ne!(uart.read(RIS, 4) & u64::from(INT_RX), 0, "the next one is announced again");
        assert_eq!(uart.read(DR, 4), b'b'.into());
    }

    #[test]
    fn input_that_finds_no_room_is_refused() {
        let mut uart = Pl011::new();
        assert_eq!(uart.push_input(&[0; QUEUE_BYTES + 5]), QUEUE_BYTES);
        assert_eq!(uart.push_input(b"x"), 0);
        let _ = uart.read(DR, 4);
        assert_eq!(uart.input_room(), 1);
        assert_eq!(uart.push_input(b"xy"), 1);
    }

    #[test]
    fn switching_the_fifo_drops_what_was_in_it() {
        let mut uart = Pl011::new();
        uart.push_input(b"ab");
        uart.write(LCR_H, 4, LCR_FEN.into());
        assert_eq!(uart.read(DR, 4), b'b'.into());
        uart.push_input(b"c");
        uart.write(LCR_H, 4, 0);
        assert_eq!(uart.read(RIS, 4), INT_RX.into());
        assert_eq!((uart.read(DR, 4), uart.read(RIS, 4)), (0, 0));
    }

    #[test]
    fn nothing_is_looped_back_and_no_timeout_raised() {
        let mut uart = Pl011::new();
        uart.write(CR, 4, 0x380);
        assert_eq!((uart.write(DR, 4, b'q'.into()), uart.read(FR, 4)), (Some(b'q'), 0x90));
        assert_eq!((uart.read(RIS, 4), uart.read(DR, 4)), (INT_TX.into(), 0));
        assert_eq!(uart.push_input(b"z"), 1);
        assert_eq!(uart.read(RIS, 4), (INT_TX | INT_RX).into());
        assert_eq!(uart.read(DR, 4), b'z'.into());
        assert_eq!(uart.read(RIS, 4), INT_TX.into());
    }

    #[test]
    fn every_access_is_survived() {
        let mut uart = Pl011::new();
        for offset in (0..0x1004).chain([u64::MAX]) {
            for bytes in [1, 2, 4, 8] {
                uart.write(offset, bytes, u64::MAX);
                let _ = uart.read(offset, bytes);
            }
        }
    }
}
