//! The smallest guest: one loop, summing.
//!
//! What a stepper must get right before anything else; also the loop that benchmarks step through.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;

use stepwell_guests::report::{Outcome, check};

global_asm!(
    r#"
    .text
    .globl loop_start, loop_end
sum_to:
    mov     x1, #0
loop_start:
    add     x1, x1, x0
    subs    x0, x0, #1
    b.ne    loop_start
loop_end:
    mov     x0, x1
    ret
"#
);

unsafe extern "C" {
    safe fn sum_to(n: u64) -> u64;
}

fn run() -> Outcome {
    check("sum", sum_to(10_000), 50_005_000)?;
    Ok(50_005_000)
}

stepwell_guests::guest!("loop_sum", run);
