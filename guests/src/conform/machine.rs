//! The vectors and handlers of conformance cases, and the way into a case and out of it.
//!
//! Handlers are straight code: what they execute can be declared. They use X20 to X25 without
//! saving them, which no case touches. X17 has the handler's address, X28 where the next exception
//! is written down (six words), X27 where the interrupt is, X26 where the final registers go.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .text.conform, "ax"
    .balign 0x800
    .globl conform_vectors
conform_vectors:
    .macro  slot first:vararg
    .balign 0x80
    \first
    .endm
    slot    br x17
    slot    b conform_irq
    slot    b conform_fiq
    slot    b conform_unexpected
    slot    br x17
    slot    b conform_irq
    slot    b conform_fiq
    slot    b conform_unexpected
    slot    br x17
    slot    b conform_irq
    slot    b conform_fiq
    slot    b conform_unexpected
    slot    b conform_unexpected
    slot    b conform_unexpected
    slot    b conform_unexpected
    slot    b conform_unexpected
    .balign 0x80

    // Nine instructions, which every handler begins with.
    .macro  note
    mrs     x20, esr_el1
    mrs     x21, elr_el1
    mrs     x22, spsr_el1
    mrs     x23, far_el1
    stp     x20, x21, [x28], #16
    stp     x22, x23, [x28], #16
    mrs     x24, daif
    mrs     x25, mdscr_el1
    stp     x24, x25, [x28], #16
    .endm

    .globl conform_return, conform_skip, conform_link, conform_legal, conform_to_el1
    .globl conform_step, conform_step_skip, conform_clear
conform_return:
    note
    eret
conform_skip:
    note
    add     x21, x21, #4
    msr     elr_el1, x21
    eret
conform_link:
    note
    msr     elr_el1, x30
    eret
conform_legal:
    note
    bic     x22, x22, #0x100000
    msr     spsr_el1, x22
    eret
conform_to_el1:
    note
    msr     elr_el1, x16
    mov     x22, #0x3c5
    msr     spsr_el1, x22
    eret
conform_step:
    note
    orr     x22, x22, #0x200000
    msr     spsr_el1, x22
    eret
    // EC >> 1 is 0x19 for a step exception, from either level.
conform_step_skip:
    note
    lsr     x20, x20, #27
    cmp     x20, #0x19
    cset    x24, ne
    add     x21, x21, x24, lsl #2
    msr     elr_el1, x21
    orr     x22, x22, #0x200000
    msr     spsr_el1, x22
    eret
conform_clear:
    note
    msr     dbgbcr0_el1, xzr
    msr     dbgwcr0_el1, xzr
    isb
    eret

    // Switches the timer off, so that its level goes down, and ends the interrupt.
    .globl conform_irq
conform_irq:
    mrs     x20, icc_iar1_el1
    msr     cntv_ctl_el0, xzr
    isb
    msr     icc_eoir1_el1, x20
    mrs     x21, spsr_el1
    mrs     x22, elr_el1
    stp     x20, x21, [x27], #16
    stp     x22, xzr, [x27], #16
    eret

    // The same, of an interrupt in Group 0.
    .globl conform_fiq
conform_fiq:
    mrs     x20, icc_iar0_el1
    msr     cntv_ctl_el0, xzr
    isb
    msr     icc_eoir0_el1, x20
    mrs     x21, spsr_el1
    mrs     x22, elr_el1
    stp     x20, x21, [x27], #16
    stp     x22, xzr, [x27], #16
    eret

    // Every case comes here.
    .globl conform_end
conform_end:
    adr     x17, conform_leave
    svc     #0xff
1:  b       1b

    // conform_run(entry): executes a case. See runner.rs, Entry.
    .globl conform_run
conform_run:
    sub     sp, sp, #112
    stp     x29, x30, [sp]
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mrs     x9, vbar_el1
    str     x9, [sp, #96]
    adr     x9, conform_vectors
    msr     vbar_el1, x9
    ldp     x9, x10, [x0]
    ldp     x17, x28, [x0, #16]
    ldp     x27, x26, [x0, #32]
    ldp     x11, x12, [x0, #48]
    ldp     x1, x2, [x0, #72]
    ldr     x0, [x0, #64]
    msr     elr_el1, x9
    msr     spsr_el1, x10
    msr     sp_el0, x12
    msr     mdscr_el1, x11
    isb
    mov     x3, xzr
    mov     x4, xzr
    mov     x5, xzr
    mov     x6, xzr
    mov     x7, xzr
    mov     x8, xzr
    mov     x9, xzr
    // What comes after this instruction is the case's.
    .globl conform_enter
conform_enter:
    eret

    // Back, from whichever exception came first after conform_end.
conform_leave:
    msr     mdscr_el1, xzr
    isb
    stp     x0, x1, [x26]
    stp     x2, x3, [x26, #16]
    stp     x4, x5, [x26, #32]
    stp     x6, x7, [x26, #48]
    stp     x8, x9, [x26, #64]
    stp     x28, x27, [x26, #80]
    ldr     x9, [sp, #96]
    msr     vbar_el1, x9
    isb
    ldp     x29, x30, [sp]
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    add     sp, sp, #112
    ret
    .purgem slot
    .purgem note
    .text
"#
);
