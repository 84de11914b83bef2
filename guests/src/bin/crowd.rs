//! A loop of plain instructions on every CPU, for `cargo xtask bench`: how fast several vCPUs are
//! stepped, and how soon they stop. The guest never ends by itself.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;

use stepwell_guests::hardware::psci::{CPU_ON, call};
use stepwell_guests::report::Outcome;

const CPUS_MAX: u64 = 8;

global_asm!(
    include_str!("../stepped_loop.s"),
    r#"
    .text
    .globl  crowd_member, loop_start, loop_end
crowd_member:                           // with neither stack nor translation
    mrs     x5, mpidr_el1
    and     x5, x5, #0xff
    adrp    x1, crowd_words
    add     x1, x1, :lo12:crowd_words
    add     x1, x1, x5, lsl #6          // a cache line each
loop_start:
    mov     x9, #-1
    stepped_loop
    b       loop_start
loop_end:

    .bss
    .balign 64
crowd_words:
    .skip   512
    .text
    "#
);

unsafe extern "C" {
    fn crowd_member() -> !;
}

fn run() -> Outcome {
    let entry = crowd_member as *const () as u64;
    for cpu in 1..CPUS_MAX {
        // Those that are not there are refused, and nobody minds.
        let _started = call(CPU_ON, cpu, entry, 0);
    }
    // SAFETY: it uses general-purpose registers and memory of its own.
    unsafe { crowd_member() }
}

stepwell_guests::guest!("crowd", run);
