//! Loops for `cargo xtask bench` to step through, each in a page of its own.
//!
//! The guest comes to rest in the first, which is that of `bare_loop`. For the others the bench
//! writes the PC: loop *n* begins *n* pages after `loop_start`. x9 counts the turns. Each loop
//! reads the clock before and after them, into x10 and x11, so that the difference holds nothing
//! but the steps between, whatever the machine does when it stops. The guest never ends by itself.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;

use stepwell_guests::hardware::gic;
use stepwell_guests::report::Outcome;

global_asm!(
    include_str!("../stepped_loop.s"),
    r#"
    .macro  begin
    .balign 0x1000
    mrs     x10, cntvct_el0
    .endm
    // Plain steps, so that what is looked at is apart from the branch and what that causes.
    .macro  plain
    .rept   8
    add     x2, x2, x9
    .endr
    .endm
    .macro  turn
    subs    x9, x9, #1
    b.ne    1b
    .endm
    .macro  finish
    mrs     x11, cntvct_el0
2:  b       2b
    .endm

    .section .text.loops, "ax"
    .globl  enter_loops
enter_loops:
    adrp    x1, loop_vectors
    add     x1, x1, :lo12:loop_vectors
    msr     vbar_el1, x1
    isb
    adrp    x1, loop_word
    add     x1, x1, :lo12:loop_word
    mov     x6, #0x09000000             // the PL011's flags
    add     x6, x6, #0x18
    mov     x9, #-1
    b       loop_start

    .balign 0x1000
    .globl  loop_start, loop_end
loop_start:                             // 0: what bare_loop has
    begin
    stepped_loop
    finish

    begin                               // 1: one run of 128
1:  .rept   126
    add     x2, x2, x9
    .endr
    turn
    finish

    begin                               // 2: a device
1:  plain
    ldr     w2, [x6]
    plain
    turn
    finish

    begin                               // 3: an exclusive pair
1:  plain
    ldxr    x2, [x1]
    stxr    w3, x2, [x1]
    plain
    turn
    finish

    begin                               // 4: an exception of the guest's own, and its return
1:  plain
    svc     #0
    plain
    turn
    finish

    begin                               // 5: an identification register
1:  plain
    mrs     x2, id_aa64pfr0_el1
    plain
    turn
    finish

    begin                               // 6: call and return, in different pages
1:  plain
    bl      loop_function
    plain
    turn
    finish

    begin                               // 7: a call to the hypervisor: PSCI_VERSION
1:  plain
    mov     x0, #0x84000000
    hvc     #0
    plain
    turn
    finish

    begin                               // 8: a barrier
1:  plain
    isb
    plain
    turn
    finish

    .balign 0x1000                      // 9: an interrupt, which stays pending to the end
    mov     x4, #1                      // SGI 1, to itself
    movk    x4, #0x0100, lsl #16
    msr     icc_sgi1r_el1, x4
    mrs     x10, cntvct_el0
1:  plain
    msr     daifclr, #2
    plain
    turn
    mrs     x11, cntvct_el0
    mrs     x3, icc_iar1_el1
    msr     icc_eoir1_el1, x3
2:  b       2b

    .balign 0x1000
loop_function:
    ret
loop_interrupted:                       // back, with interrupts masked again
    mrs     x3, spsr_el1
    orr     x3, x3, #0x80
    msr     spsr_el1, x3
    eret
loop_end:

    .balign 0x1000
loop_vectors:
    .skip   0x200
    eret
    .balign 0x80
    b       loop_interrupted

    .bss
    .balign 8
loop_word:
    .skip   8
    .text
"#
);

unsafe extern "C" {
    safe fn enter_loops() -> !;
}

fn run() -> Outcome {
    // For the ninth loop.
    gic::start(0);
    gic::enable(0, 1);
    enter_loops()
}

stepwell_guests::guest!("step_loop", run);
