//! PL011 UART.

/// The UART.
#[derive(Debug, Default)]
pub struct Pl011 {}

impl Pl011 {
    /// At reset.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }
    /// A guest's load.
    pub fn read(&mut self, offset: u64, bytes: u8) -> u64 {
        let _ = (offset, bytes);
        0
    }
    /// A guest's store; a byte to transmit comes back.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) -> Option<u8> {
        let _ = (offset, bytes, value);
        None
    }
    /// Console input; returns how many bytes were taken.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        bytes.len()
    }
    /// UARTINTR.
    #[must_use]
    pub fn irq_line(&self) -> bool {
        false
    }
}
