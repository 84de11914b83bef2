//! Waits for a byte on its console, and resets or switches off the machine by it.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use stepwell_guests::hardware::{psci, read32, uart};
use stepwell_guests::report::{self, Failure, Outcome};

/// UARTFR.RXFE: the receive FIFO is empty.
const RXFE: u32 = 1 << 4;

fn run() -> Outcome {
    report::line("reset: up");
    while read32(uart::FR) & RXFE != 0 {}
    let byte = read32(uart::BASE) & 0xff;
    if byte == u32::from(b'r') {
        let answer = psci::call(psci::SYSTEM_RESET, 0, 0, 0);
        return Err(Failure::new("a reset that returned", answer, 0));
    }
    Ok(byte.into())
}

stepwell_guests::guest!("reset", run);
