//! Accesses a device with a pair, which carries no syndrome to emulate it by.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::asm;

use stepwell_guests::hardware::gic::GICD;
use stepwell_guests::report::{self, Failure, Outcome};

fn run() -> Outcome {
    report::line("bad_mmio: ldp from the GIC");
    let (low, high): (u64, u64);
    // SAFETY: a device's address, no Rust object.
    unsafe { asm!("ldp {l}, {h}, [{a}]", l = out(reg) low, h = out(reg) high, a = in(reg) GICD) };
    Err(Failure::new("survived", low, high))
}

stepwell_guests::guest!("bad_mmio", run);
