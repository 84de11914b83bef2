//! The hypervisor's log, on the machine's PL011.
//!
//! For the boot's few lines and for the last words of a hypervisor that found a bug in itself.
//! What guests print goes over the link.

use arm_pl011_uart::{PL011Registers, Uart};
use core::fmt::{self, Write};
use core::ptr::NonNull;
use safe_mmio::UniqueMmioPointer;
use spin::Mutex;

static UART: Mutex<Option<Uart<'static>>> = Mutex::new(None);

/// Sends the log to the PL011 at `address` from now on.
pub fn setup(address: u64) {
    let Some(registers) = NonNull::new(address as *mut PL011Registers) else { return };
    // SAFETY: the device tree says that a PL011 is there, EL2 maps it as device memory, and
    // guests reach only an emulated one.
    let uart = Uart::new(unsafe { UniqueMmioPointer::new(registers) });
    *UART.lock() = Some(uart);
}

struct Writer;

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(uart) = UART.lock().as_mut() {
            for byte in text.bytes() {
                while uart.is_tx_fifo_full() {}
                uart.write_word(byte);
            }
        }
        Ok(())
    }
}

/// Writes one line.
pub fn line(text: fmt::Arguments<'_>) {
    let _infallible = Writer.write_fmt(format_args!("stepwell: {text}\r\n"));
}

/// Writes one line although another CPU, or this one, may hold the UART for good.
pub fn last_words(text: fmt::Arguments<'_>) {
    // SAFETY: nothing else of this image runs to any purpose after this; a torn line is fine.
    unsafe { UART.force_unlock() };
    line(text);
}
