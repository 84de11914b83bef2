//! The hypervisor's log, on the machine's own UART.
//!
//! For the boot's few lines, for what guests print where nobody is at the other end of the link,
//! and for the last words of a hypervisor that found a bug in itself.

use crate::console::{self, Console, Registers};
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use spin::Mutex;
use stepwell_arch::Pa;

/// The console, once it is known.
///
/// No lock, since it is used before locks can be: see [`setup`].
struct Port(UnsafeCell<Option<Console>>);

// SAFETY: it is written by the boot CPU alone, before any other is switched on, and read after.
unsafe impl Sync for Port {}

// In data, not in BSS, which is cleared only after the first words.
#[unsafe(link_section = ".data.early")]
static PORT: Port = Port(UnsafeCell::new(None));
/// Held while a line is written, so that lines stay whole.
static LINE: Mutex<()> = Mutex::new(());

/// Where QEMU's `virt` board has its PL011.
const VIRT_PL011: Pa = Pa(0x0900_0000);

/// A UART's registers in the machine.
struct Mmio(Console);

impl Mmio {
    fn at(&self, offset: u32) -> u64 {
        self.0.registers.base.0 + (u64::from(offset) << self.0.spacing.shift)
    }
}

impl Registers for Mmio {
    fn read(&self, offset: u32) -> u32 {
        let at = self.at(offset);
        // SAFETY: the device tree says that the UART is there, and it is mapped as device memory;
        // guests reach only an emulated one.
        unsafe {
            match self.0.spacing.bytes {
                1 => u32::from((at as *const u8).read_volatile()),
                2 => u32::from((at as *const u16).read_volatile()),
                _ => (at as *const u32).read_volatile(),
            }
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        let at = self.at(offset);
        // SAFETY: as in `read`.
        unsafe {
            match self.0.spacing.bytes {
                1 => (at as *mut u8).write_volatile(value as u8),
                2 => (at as *mut u16).write_volatile(value as u16),
                _ => (at as *mut u32).write_volatile(value),
            }
        }
    }
}

/// Sends the log to a UART from now on.
///
/// # Safety
///
/// The UART must be there, and be mapped as device memory from now on, or the MMU be off. This must
/// be the boot CPU, while it is alone.
pub unsafe fn setup(console: Console) {
    console.uart.enable(&mut Mmio(console));
    // SAFETY: no other CPU runs, the caller says, and no reference to the cell's contents is ever kept.
    unsafe { *PORT.0.get() = Some(console) }
}

/// Sends the log to where QEMU's `virt` board has a UART: there is no device tree to tell, and
/// nothing to lose.
///
/// # Safety
///
/// As for [`setup`], but for the UART: nothing of EL2's may be at its address, and EL2 must be about to
/// give up.
pub unsafe fn guess() {
    // SAFETY: the caller's promise. Where there is no UART, nothing is lost by what is written.
    unsafe { setup(Console::pl011(VIRT_PL011)) }
}

struct Writer;

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        // SAFETY: it is written only while no other CPU runs; see `Port`.
        let Some(port) = (unsafe { *PORT.0.get() }) else { return };
        for &byte in bytes {
            console::send(port.uart, &mut Mmio(port), byte);
        }
    }
}

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// Writes one line without asking who else does: before the MMU is on, or for last words, which
/// another CPU in the middle of a line must not hold back. A torn line is fine.
pub fn unlocked_line(text: fmt::Arguments<'_>) {
    let _infallible = Writer.write_fmt(format_args!("stepwell: {text}\r\n"));
}

/// Writes one line.
pub fn line(text: fmt::Arguments<'_>) {
    let _whole = LINE.lock();
    unlocked_line(text);
}

/// Writes what a guest wrote, as it is.
pub fn guest(bytes: &[u8]) {
    let _whole = LINE.lock();
    Writer.bytes(bytes);
}
