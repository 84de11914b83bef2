//! Jumps to where there is no memory.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use stepwell_guests::report::{self, Failure, Outcome};

fn run() -> Outcome {
    report::line("bad_fetch: jumping to 0x30000000");
    // SAFETY: none: this is what the guest is for.
    let nowhere: extern "C" fn() = unsafe { core::mem::transmute(0x3000_0000_u64) };
    nowhere();
    Err(Failure::new("survived", 1, 0))
}

stepwell_guests::guest!("bad_fetch", run);
