//! Calls every function of the firmware that there might be, and prints what it answers.
//!
//! Each id of the ranges of PSCI, with and without bit 30, those of PSCI 0.1, and some of other
//! services, with several arguments; then PSCI_FEATURES of each. Calls that would rightly end the CPU
//! or the machine are left out; CPU_SUSPEND is called with an interrupt pending, and with one to come.
//! What is right is what a board without EL2 answers: the tests compare.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::asm;
use core::ops::Range;

use stepwell_guests::exception::{self, Frame, class};
use stepwell_guests::hardware::psci::{CPU_OFF, FEATURES, call};
use stepwell_guests::hardware::{gic, timer, uart};
use stepwell_guests::report::{Outcome, check, line, number, require};
use stepwell_guests::{instruction, read_register};

/// Ids that are tried: more than each range has.
const IDS: [Range<u64>; 7] = [
    0x8400_0000..0x8400_0040,
    0xc400_0000..0xc400_0040,
    0x95c1_ba50..0x95c1_ba70,
    // SMCCC_VERSION and its like; the vendor's and the standard hypervisor's services.
    0x8000_0000..0x8000_0004,
    0x8600_0000..0x8600_0004,
    0x8600_ff00..0x8600_ff04,
    0..4,
];
/// Arguments: nobody, oneself at an address between instructions, oneself, a power state that asks
/// for too much, something with all bits set, and an affinity level.
const ARGUMENTS: [[u64; 3]; 6] = [
    [0x00ff_0000, 0x4020_0000, 0],
    [0, 0x4020_0002, 0],
    [0, 0x4020_0000, 0],
    [0x0100_0000, 0, 0],
    [u64::MAX, u64::MAX, u64::MAX],
    [0, 1, 0],
];

/// An HVC that means nothing may be undefined.
fn handle(frame: &mut Frame) {
    if frame.class() != class::UNKNOWN {
        exception::unexpected(frame);
    }
    frame.x[0] = 0xdead;
    frame.elr += 4;
}

/// Functions that end the CPU or the machine, whatever their arguments.
fn ends(function: u64) -> bool {
    const SYSTEM_OFF: u64 = 0x8400_0008;
    const SYSTEM_RESET: u64 = 0x8400_0009;
    const CPU_OFF_0_1: u64 = 0x95c1_ba5f;
    matches!(function, CPU_OFF | SYSTEM_OFF | SYSTEM_RESET | CPU_OFF_0_1)
}

/// Those that wait, unless the power state is refused.
fn suspends(function: u64) -> bool {
    matches!(function, 0x8400_0001 | 0xc400_0001 | 0x95c1_ba5e)
}

fn print(name: &str, function: u64, arguments: [u64; 3], answer: u64) {
    uart::write(name);
    for value in [function, arguments[0], arguments[1], answer] {
        uart::write(" ");
        number(value);
    }
    line("");
}

/// What HVC leaves in X1 to X3, which a call must keep.
fn kept(function: u64) -> [u64; 3] {
    let [one, two, three]: [u64; 3];
    // SAFETY: the functions that are called so change nothing but registers.
    unsafe {
        asm!("hvc #0", inout("x0") function => _, inout("x1") 0x1111_u64 => one,
            inout("x2") 0x2222_u64 => two, inout("x3") 0x3333_u64 => three);
    }
    [one, two, three]
}

/// CPU_SUSPEND returns when an interrupt is pending, though masked, and not before.
fn suspend(function: u64) -> Outcome {
    const MS: u64 = 1_000;
    timer::start(0);
    check("with an interrupt pending", call(function, 0, 0x4020_0000, 0), 0)?;
    let wait = timer::ticks_of_us(20 * MS);
    let start = read_register!("cntvct_el0");
    timer::start(wait);
    check("with an interrupt to come", call(function, 0, 0x4020_0000, 0), 0)?;
    instruction!("isb");
    let passed = read_register!("cntvct_el0") - start;
    timer::stop();
    require("it waited", passed >= wait)?;
    print("suspend", function, [0; 3], 0);
    Ok(0)
}

fn run() -> Outcome {
    for function in IDS.into_iter().flatten().filter(|&function| !ends(function)) {
        for arguments in ARGUMENTS {
            if !suspends(function) || arguments[0] & 0xfffe_0000 != 0 {
                let [x1, x2, x3] = arguments;
                print("call", function, arguments, call(function, x1, x2, x3));
            }
        }
        print("features", function, [0; 3], call(FEATURES, function, 0, 0));
    }
    for function in [CPU_OFF, 0x8400_0008, 0x8400_0009, 0x95c1_ba5f, 0x8400_000e, u64::MAX] {
        print("features", function, [0; 3], call(FEATURES, function, 0, 0));
    }
    // Bits 63:32 are looked at.
    print("call", 1 << 32 | 0x8400_0000, [0; 3], call(1 << 32 | 0x8400_0000, 0, 0, 0));
    for function in [0x8400_0000, 0x8400_0005, 0x8000_0000] {
        check("X1 to X3 are kept", u64::from(kept(function) == [0x1111, 0x2222, 0x3333]), 1)?;
    }
    gic::start(0);
    gic::enable(0, timer::INTID);
    for function in [0x8400_0001, 0xc400_0001, 0x95c1_ba5e] {
        suspend(function)?;
    }
    Ok(0)
}

stepwell_guests::guest!("firmware", run, handle);
