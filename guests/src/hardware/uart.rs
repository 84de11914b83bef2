//! PL011, transmit side, polled.

use super::{read32, write32};

/// Where it is.
pub const BASE: u64 = 0x0900_0000;
/// UARTFR: flags.
pub const FR: u64 = BASE + 0x18;
/// UARTFR.TXFF: the transmit FIFO is full.
pub const TXFF: u32 = 1 << 5;

/// Sends one byte.
pub fn put(byte: u8) {
    while read32(FR) & TXFF != 0 {}
    write32(BASE, byte.into());
}

/// Sends text.
pub fn write(text: &str) {
    for byte in text.bytes() {
        put(byte);
    }
}
