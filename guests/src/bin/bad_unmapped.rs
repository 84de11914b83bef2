//! Reads far beyond RAM, where there is nothing.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use stepwell_guests::hardware::read32;
use stepwell_guests::report::{self, Failure, Outcome};

fn run() -> Outcome {
    report::line("bad_unmapped: reading 0x3000000000");
    let value = read32(0x30_0000_0000);
    Err(Failure::new("survived", value.into(), 0))
}

stepwell_guests::guest!("bad_unmapped", run);
