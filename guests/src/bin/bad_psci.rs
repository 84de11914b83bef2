//! Calls the firmware with garbage. It must be told so, and nothing else may happen.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame, class};
use stepwell_guests::hardware::psci::{AFFINITY_INFO, CPU_ON, FEATURES, call};
use stepwell_guests::report::{Outcome, check, require};

static UNDEFINED: AtomicU64 = AtomicU64::new(0);

/// A machine without EL2 that knows no such function raises an undefined instruction at the HVC.
fn handle(frame: &mut Frame) {
    if frame.class() != class::UNKNOWN {
        exception::unexpected(frame);
    }
    UNDEFINED.store(UNDEFINED.load(Relaxed) + 1, Relaxed);
    frame.x[0] = u64::MAX;
    frame.elr += 4;
}

/// Functions that would rightly end the machine or the CPU.
fn ends(function: u64) -> bool {
    let number = function & 0xffff;
    let psci = function & 0x3fff_0000 == 0x0400_0000;
    psci && matches!(number, 1 | 2 | 8 | 9 | 0x0c | 0x0d | 0x0e | 0x12)
}

fn run() -> Outcome {
    let mut state: u64 = 0x0dd_ba11;
    for round in 0..2_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of them look like PSCI.
        let function = match round % 4 {
            0 => state & 0xffff_ffff,
            1 => 0x8400_0000 | state & 0x3f,
            2 => 0xc400_0000 | state & 0x3f,
            _ => state,
        };
        let number = function & 0xff;
        // CPU_ON and its like are called below, with targets that do not exist.
        if !ends(function & 0xffff_ffff) && number != 3 {
            call(function, state | 1 << 40, !state, state >> 7);
        }
    }
    for target in [0x100_u64, 0x0001_0000, 0xff_0000_0000, u64::MAX] {
        require("CPU_ON of nobody", (call(CPU_ON, target, state, state) as i32) < 0)?;
        require("AFFINITY_INFO of nobody", (call(AFFINITY_INFO, target, 0, 0) as i32) < 0)?;
    }
    check("garbage feature", call(FEATURES, u64::MAX, 0, 0) as i32 as u64, u64::MAX)?;
    Ok(state)
}

stepwell_guests::guest!("bad_psci", run, handle);
