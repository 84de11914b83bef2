//! The ground of random programs that debug themselves: breakpoints, watchpoints, steps, OS Lock.
//!
//! `tests/src/own_debug` puts a table of programs into memory before the guest begins; without one
//! it has nothing to do. Each program is a page: the debug registers and the state that it begins
//! with, what the handler is to answer to each exception, the code, and a log, into which the handler
//! writes ESR, ELR, SPSR and FAR. The last thing that this guest does is an SMC, where whoever
//! debugs it reads the logs, and may begin anew at the address that the table then has.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;

use stepwell_guests::exception;
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::report::Outcome;

// X19: programs left, X20: the program, whose page TPIDR_EL1 has for the handler.
global_asm!(
    r#"
    .equ TABLE, 0x40800000
    .equ TABLE_AGAIN, 8
    .equ PAGE, 0x1000
    .equ MDSCR, 0
    .equ OSLAR, 8
    .equ BREAKPOINTS, 16
    .equ WATCHPOINTS, 64
    .equ BEGIN, 96               // SPSR and ELR
    .equ CONSTANTS, 112          // X11 to X13
    .equ ANSWERS, 0x90
    .equ LOG, 0x400              // how many, X1 at the end, then four words each
    .equ LOG_MAX, 48
    .equ DATA, 0xf00

    .section .text.own_debug, "ax"
    .globl own_debug_run
own_debug_run:
    adrp    x1, own_debug_vectors
    add     x1, x1, :lo12:own_debug_vectors
    msr     vbar_el1, x1
    mov     x1, #3               // EL0 reads the counters
    msr     cntkctl_el1, x1
own_debug_again:
    movz    x0, #TABLE >> 16, lsl #16
    adr     x1, own_debug_again
    str     x1, [x0, #TABLE_AGAIN]
    ldr     x19, [x0]
    add     x20, x0, #PAGE
own_debug_next:
    cbz     x19, own_debug_done
    msr     tpidr_el1, x20
    ldr     x1, [x20, #OSLAR]
    msr     oslar_el1, x1
    ldp     x1, x2, [x20, #BREAKPOINTS]
    msr     dbgbvr0_el1, x1
    msr     dbgbcr0_el1, x2
    ldp     x1, x2, [x20, #BREAKPOINTS + 16]
    msr     dbgbvr1_el1, x1
    msr     dbgbcr1_el1, x2
    ldp     x1, x2, [x20, #BREAKPOINTS + 32]
    msr     dbgbvr2_el1, x1
    msr     dbgbcr2_el1, x2
    ldp     x1, x2, [x20, #WATCHPOINTS]
    msr     dbgwvr0_el1, x1
    msr     dbgwcr0_el1, x2
    ldp     x1, x2, [x20, #WATCHPOINTS + 16]
    msr     dbgwvr1_el1, x1
    msr     dbgwcr1_el1, x2
    ldr     x1, [x20, #MDSCR]
    msr     mdscr_el1, x1
    ldp     x1, x2, [x20, #BEGIN]
    msr     spsr_el1, x1
    msr     elr_el1, x2
    ldp     x11, x12, [x20, #CONSTANTS]
    ldr     x13, [x20, #CONSTANTS + 16]
    add     x10, x20, #DATA
    movz    x14, #0x0900, lsl #16
    msr     sp_el0, x10
    mov     x1, #0
    mov     x9, #0
    isb
    eret
own_debug_done:
    smc     #0
    b       .

    // A synchronous exception of a program: logged, and answered as its page says.
    .balign 64
own_debug_exception:
    stp     x0, x1, [sp, #-64]!
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    mrs     x5, mdscr_el1        // not stepped in here
    bic     x0, x5, #1
    msr     mdscr_el1, x0
    isb
    mrs     x0, tpidr_el1
    ldr     x1, [x0, #LOG]
    add     x2, x0, #LOG + 16
    add     x2, x2, x1, lsl #5
    mrs     x3, esr_el1
    mrs     x4, elr_el1
    stp     x3, x4, [x2]
    mrs     x6, spsr_el1
    mrs     x7, far_el1
    stp     x6, x7, [x2, #16]
    add     x2, x0, #ANSWERS
    ldrb    w2, [x2, x1]
    add     x1, x1, #1
    str     x1, [x0, #LOG]
    cmp     x1, #LOG_MAX
    b.hs    6f
    movz    w7, #0x00ff
    movk    w7, #0x5600, lsl #16 // SVC #0xff: the end
    cmp     w3, w7
    b.eq    6f
    lsr     w3, w3, #26
    and     w7, w3, #0x3e
    cmp     w7, #0x30
    b.ne    1f
    msr     dbgbcr0_el1, xzr
    msr     dbgbcr1_el1, xzr
    msr     dbgbcr2_el1, xzr
1:  cmp     w7, #0x34
    b.ne    2f
    msr     dbgwcr0_el1, xzr
    msr     dbgwcr1_el1, xzr
2:  cmp     w3, #0x3c            // BRK
    b.eq    3f
    cmp     w3, #0x18            // a trapped register
    b.eq    3f
    cbnz    w3, 4f               // undefined
3:  add     x4, x4, #4
4:  bfi     x6, x2, #21, #1      // SS
    ubfx    x7, x2, #1, #1
    eor     x6, x6, x7, lsl #9   // D
    ubfx    x7, x2, #2, #1
    eor     x5, x5, x7           // MDSCR_EL1.SS
    tbz     w2, #3, 5f
    ubfx    x7, x2, #4, #1
    msr     oslar_el1, x7
5:  msr     elr_el1, x4
    msr     spsr_el1, x6
    msr     mdscr_el1, x5
    isb
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp], #64
    eret
6:  msr     oslar_el1, xzr
    msr     mdscr_el1, xzr
    msr     dbgbcr0_el1, xzr
    msr     dbgbcr1_el1, xzr
    msr     dbgbcr2_el1, xzr
    msr     dbgwcr0_el1, xzr
    msr     dbgwcr1_el1, xzr
    isb
    ldr     x1, [sp, #8]
    str     x1, [x0, #LOG + 8]
    add     sp, sp, #64
    sub     x19, x19, #1
    add     x20, x20, #PAGE
    b       own_debug_next

    .section .text.own_debug_vectors, "ax"
    .balign 0x800
own_debug_vectors:
    .irp kind, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 0x80
    .if \kind == 0 || \kind == 8
    b       own_debug_exception
    .else
    b       .                    // never
    .endif
    .endr
    .text
"#
);

/// Where the table is.
const TABLE: *const u64 = 0x4080_0000 as *const u64;

unsafe extern "C" {
    safe fn own_debug_run() -> !;
}

fn run() -> Outcome {
    // SAFETY: RAM that nothing else uses.
    if unsafe { TABLE.read_volatile() } == 0 {
        return Ok(0);
    }
    // The programs mask all interrupts: whoever debugs this may have the timer's pending.
    gic::start(0);
    gic::enable(0, timer::INTID);
    own_debug_run()
}

stepwell_guests::guest!("own_debug", run, exception::unexpected);
