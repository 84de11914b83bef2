//! Writes garbage all over the GIC. It may confuse itself, not the machine: it must end by itself.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::asm;

use stepwell_guests::exception::{Frame, class};
use stepwell_guests::hardware::gic::{GICD, GICR};
use stepwell_guests::hardware::{read32, read64, write32, write64};
use stepwell_guests::report::Outcome;

/// A device may answer with an external abort; then the access is skipped.
fn handle(frame: &mut Frame) {
    if frame.class() == class::DATA_ABORT {
        frame.elr += 4;
    } else {
        stepwell_guests::exception::unexpected(frame);
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Byte and halfword accesses, which most registers do not allow.
fn narrow(address: u64, value: u64) {
    // SAFETY: a device's address, no Rust object.
    unsafe {
        asm!("strb {v:w}, [{a}]", "strh {v:w}, [{a}]", "ldrb {t:w}, [{a}]", "ldrh {t:w}, [{a}]",
            a = in(reg) address, v = in(reg) value, t = out(reg) _);
    }
}

fn run() -> Outcome {
    let mut state = 0x1234_5678_9abc_def1;
    for (base, size) in [(GICD, 0x1_0000), (GICR, 0x2_0000)] {
        for offset in (0..size).step_by(4) {
            write32(base + offset, xorshift(&mut state) as u32);
            let _ = read32(base + offset);
        }
        for _ in 0..2_000 {
            let garbage = xorshift(&mut state);
            let address = base + (garbage >> 20) % size;
            write64(address & !7, garbage);
            let _ = read64(address & !7);
            narrow(address & !1, garbage);
        }
    }
    Ok(state)
}

stepwell_guests::guest!("bad_gic", run, handle);
