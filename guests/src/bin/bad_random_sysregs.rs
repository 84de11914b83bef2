//! Reads every system-register encoding, then writes garbage to those that this code can do
//! without.
//!
//! Each access is an instruction made at run time; undefined ones are skipped. It must end by
//! itself: nothing that EL1 can write may harm anything else.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::Frame;
use stepwell_guests::instruction;
use stepwell_guests::report::Outcome;

global_asm!(
    r#"
    // x0: value in; the instruction is written over the first one.
    .section .data.poke, "awx"
    .balign 64
    .globl poke
poke:
    nop
    ret
    .text
"#
);

unsafe extern "C" {
    fn poke(value: u64) -> u64;
}

static UNDEFINED: AtomicU64 = AtomicU64::new(0);

/// Skips the instruction if it is the made one; an interrupt that was let in is masked again.
fn handle(frame: &mut Frame) {
    UNDEFINED.store(UNDEFINED.load(Relaxed) + 1, Relaxed);
    frame.spsr |= 0x3c0;
    if !frame.is_interrupt() {
        if frame.elr != poke as *const () as u64 {
            stepwell_guests::exception::unexpected(frame);
        }
        frame.elr += 4;
    }
}

/// Makes and executes MSR or MRS of x0 with an encoding (bits 20:5 of the instruction).
fn access(base: u32, encoding: u32, value: u64) -> u64 {
    let place = poke as *mut u32;
    // SAFETY: `poke` lies in writable memory, and is executed only below.
    unsafe {
        place.write_volatile(base | encoding << 5);
        core::arch::asm!("dc cvau, {p}", "dsb ish", "ic ivau, {p}", "dsb ish", "isb", p = in(reg) place);
        poke(value)
    }
}

/// What this code depends on: writing garbage there ends the guest by its own fault.
fn needed(encoding: u32) -> bool {
    let (op1, crn, crm) = (encoding >> 11 & 7, encoding >> 7 & 15, encoding >> 3 & 15);
    match (op1, crn, crm) {
        // SCTLR and its like; translation; vectors; SPSel and other PSTATE fields.
        (0, 1 | 2 | 10 | 12, _) | (0 | 3, 4, _) => true,
        // Counter-timer control of what the tests of time need is not needed here.
        _ => false,
    }
}

fn run() -> Outcome {
    let mut state: u64 = 0x005e_ed0f_5eed;
    // op0 = 2 and 3 in bits 15:14.
    for encoding in 0x8000..=0xffff_u32 {
        // MRS x0.
        access(0xd520_0000, encoding, 0);
    }
    for _ in 0..4_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let encoding = 0x8000 | (state >> 24) as u32 & 0x7fff;
        if !needed(encoding) {
            access(0xd500_0000, encoding, state);
            instruction!("msr daifset, #15");
        }
    }
    Ok(UNDEFINED.load(Relaxed))
}

stepwell_guests::guest!("bad_random_sysregs", run, handle);
