//! The ground of a random program: boot, handlers and checksum, with the program appended.
//!
//! `tests/src/random` generates programs and appends each to this image. It finds what it needs in
//! a table of addresses (`RNDNOTES`), writes the program's address into it, and reads a stream of
//! PCs with the places that the table names. Without a program this guest has nothing to do.
//!
//! Two rules make a program's main line the same whatever interrupts do. The handlers of interrupts
//! (IRQ, FIQ, and SError, which only a hypervisor's test mode makes) keep every register and every
//! byte that the program can see; and they have no branch, so that each excursion is the same list of addresses, between which only another excursion may lie. The one
//! place where an interrupt would break a main line, an exception return with interrupts unmasked,
//! is a restartable sequence: the handler returns to its start.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;

use stepwell_guests::hardware::{gic, write32};
use stepwell_guests::report::Outcome;
use stepwell_guests::{exception, translation, write_register};

const VIRTUAL_TIMER: u32 = 27;
const PHYSICAL_TIMER: u32 = 30;
/// Sent by a timer's handler to interrupt itself.
const NESTED_SGI: u32 = 1;
/// Sent by programs, to have an interrupt pending at a place of their choice.
const SGI: u32 = 2;
/// As that one, in Group 0: taken as FIQ.
const FAST_SGI: u32 = 3;
/// A lower number is the higher priority.
const PRIORITIES: [(u64, u32); 2] = [(0, 0xa080_40a0), (28, 0xa060_a0a0)];

// Addresses of data: what programs see and the checksum covers, and what is the handlers' own.
global_asm!(
    r#"
    .equ DATA, 0x40600000
    .equ DATA_BYTES, 0x2000
    .equ OWN, 0x40700000
    .equ OWN_VIRTUAL, 0          // interrupts of the virtual timer that are left
    .equ OWN_VIRTUAL_PERIOD, 8   // ticks
    .equ OWN_PHYSICAL, 16
    .equ OWN_PHYSICAL_PERIOD, 24
    .equ OWN_LEAVE, 32           // where `svc #0xff` at EL0 leads
    .equ OWN_STEPS, 40           // steps of the guest's own that are left
    .equ ACCUMULATOR, DATA

    .section .rodata.notes, "a"
    .balign 8
    .globl random_notes
random_notes:
    .ascii  "RNDNOTES"
    .quad   0                    // the program, written by the generator
    .quad   random_vectors
    .quad   random_interrupt
    .quad   random_interrupt_end
    .quad   random_return
    .quad   random_finish
    .quad   DATA
    .quad   OWN
    .quad   random_fast_interrupt
    .quad   random_fast_interrupt_end
    .quad   random_error
    .quad   random_error_end

    .section .text.random, "ax"
    // u64 random_run(program): runs it and returns the checksum.
    .globl random_run
random_run:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    adrp    x1, random_vectors
    add     x1, x1, :lo12:random_vectors
    msr     vbar_el1, x1
    movz    x16, #DATA >> 16, lsl #16
    mov     x1, x16
    add     x2, x16, #DATA_BYTES
    movz    x3, #0x9e37, lsl #48
    movk    x3, #0x79b9, lsl #32
1:  str     x3, [x1], #8         // what programs load is no mere zero
    eor     x3, x3, x3, ror #7
    add     x3, x3, x3, lsl #3
    cmp     x1, x2
    b.lo    1b
    mov     x17, x0
    mov     x0, x3
    mov     x1, x3
    mov     x2, x3
    mov     x3, xzr
    mov     x4, #4
    mov     x5, #5
    mov     x6, #6
    mov     x7, #7
    mov     x8, #8
    mov     x9, #9
    mov     x10, #10
    mov     x11, #11
    mov     x12, #12
    mov     x13, #13
    mov     x14, #14
    mov     x15, #15
    movz    x1, #0x8060, lsl #16 // SP_EL0, by the alias for EL0
    movk    x1, #0x1800
    msr     sp_el0, x1
    msr     oslar_el1, xzr       // the program steps itself
    isb
    msr     daifclr, #7
    br      x17
random_finish:
    msr     daifset, #7
    msr     cntv_ctl_el0, xzr
    msr     cntp_ctl_el0, xzr
    isb
    movz    x16, #DATA >> 16, lsl #16
    mrs     x17, tpidr_el0
    eor     x0, x0, x17
    mrs     x17, tpidr_el1
    eor     x1, x1, x17, ror #8
    stp     x0, x1, [x16, #16]
    stp     x2, x3, [x16, #32]
    stp     x4, x5, [x16, #48]
    stp     x6, x7, [x16, #64]
    stp     x8, x9, [x16, #80]
    stp     x10, x11, [x16, #96]
    stp     x12, x13, [x16, #112]
    stp     x14, x15, [x16, #128]
    add     x2, x16, #DATA_BYTES
    mov     x0, #0
2:  ldr     x3, [x16], #8
    eor     x0, x3, x0, ror #61
    add     x0, x0, x0, lsl #5
    cmp     x16, x2
    b.lo    2b
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #96
    ret

    // Returns from an exception that never was: to x21 with PSTATE x22, interrupts unmasked before.
    .balign 64
random_return:
    msr     elr_el1, x21
    msr     spsr_el1, x22
    msr     daifclr, #7
    eret
random_return_end:

    // Keeps X0 to X3 and takes X0 and X1 from ELR_EL1 and SPSR_EL1; an exception return that was
    // begun is begun anew.
    .macro enter_excursion
    sub     sp, sp, #48
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    mrs     x0, elr_el1
    mrs     x1, spsr_el1
    adr     x2, random_return
    sub     x3, x0, x2
    cmp     x3, #16
    csel    x0, x2, x0, lo
    .endm
    .macro leave_excursion
    msr     elr_el1, x0
    msr     spsr_el1, x1
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #48
    .endm

    .balign 64
random_fast_interrupt:
    enter_excursion
    mrs     x2, icc_iar0_el1
    msr     icc_eoir0_el1, x2
    leave_excursion
random_fast_interrupt_end:
    eret

    .balign 64
random_error:
    enter_excursion
    leave_excursion
random_error_end:
    eret

    .balign 64
random_interrupt:
    sub     sp, sp, #80
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    str     x6, [sp, #48]
    mrs     x0, elr_el1
    mrs     x1, spsr_el1
    adr     x2, random_return    // within it: back to its start
    sub     x3, x0, x2
    cmp     x3, #16
    csel    x0, x2, x0, lo
    stp     x0, x1, [sp, #56]
    mrs     x2, icc_iar1_el1
    movz    x3, #OWN >> 16, lsl #16
    // The virtual timer goes off again a period from now, while there are any left.
    cmp     x2, #27
    cset    x5, eq
    ldp     x4, x0, [x3, #OWN_VIRTUAL]
    sub     x4, x4, x5
    str     x4, [x3, #OWN_VIRTUAL]
    mrs     x1, cntvct_el0
    add     x0, x0, x1
    mrs     x1, cntv_cval_el0
    cmp     x5, #0
    csel    x0, x0, x1, ne
    msr     cntv_cval_el0, x0
    cmp     x4, #0
    cset    x0, gt
    msr     cntv_ctl_el0, x0
    // So does the physical one.
    cmp     x2, #30
    cset    x6, eq
    ldp     x4, x0, [x3, #OWN_PHYSICAL]
    sub     x4, x4, x6
    str     x4, [x3, #OWN_PHYSICAL]
    mrs     x1, cntpct_el0
    add     x0, x0, x1
    mrs     x1, cntp_cval_el0
    cmp     x6, #0
    csel    x0, x0, x1, ne
    msr     cntp_cval_el0, x0
    cmp     x4, #0
    cset    x0, gt
    msr     cntp_ctl_el0, x0
    // The virtual timer's handler interrupts itself by an SGI of higher priority; any other
    // handler can be interrupted by what has a higher one.
    movz    x1, #0x100, lsl #16
    orr     x0, x5, x1
    msr     icc_sgi1r_el1, x0
    isb
    msr     daifclr, #2
    nop
    nop
    msr     daifset, #2
    msr     icc_eoir1_el1, x2
    ldp     x0, x1, [sp, #56]
    msr     elr_el1, x0
    msr     spsr_el1, x1
    ldr     x6, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #80
random_interrupt_end:
    eret

    // A synchronous exception: what it was goes into the checksum, then as its class asks.
    .balign 64
random_exception:
    sub     sp, sp, #64
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    str     x6, [sp, #48]
    mrs     x0, esr_el1
    mrs     x1, spsr_el1
    mrs     x2, elr_el1
    movz    x3, #DATA >> 16, lsl #16
    ldr     x4, [x3]
    eor     x4, x0, x4, ror #57
    eor     x4, x1, x4, ror #57
    eor     x4, x2, x4, ror #57
    lsr     x5, x0, #26
    and     w6, w5, #0x3e
    cmp     w6, #0x24
    b.ne    1f
    mrs     x6, far_el1          // a data abort
    eor     x4, x6, x4, ror #57
1:  str     x4, [x3]
    movz    x3, #OWN >> 16, lsl #16
    cmp     x5, #0x15
    b.eq    3f
    cmp     x5, #0x32
    b.eq    4f
    and     w6, w5, #0x3e
    cmp     w6, #0x20
    b.eq    5f
    add     x2, x2, #4           // aborts, BRK, undefined: past the instruction
2:  msr     elr_el1, x2
    msr     spsr_el1, x1
    ldr     x6, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #64
    eret
3:  and     w6, w0, #0xffff      // SVC
    cmp     w6, #0xff
    b.ne    2b
    ldr     x2, [x3, #OWN_LEAVE]
    mov     x1, #0x205           // EL1h, interrupts unmasked
    b       2b
4:  ldr     x6, [x3, #OWN_STEPS] // the guest's own step of its EL0
    subs    x6, x6, #1
    str     x6, [x3, #OWN_STEPS]
    b.le    6f
    orr     x1, x1, #1 << 21
    b       2b
5:  mov     x2, x30              // a call to nowhere
    b       2b
6:  mrs     x6, mdscr_el1
    bic     x6, x6, #1
    msr     mdscr_el1, x6
    isb
    b       2b

    .section .text.random_vectors, "ax"
    .balign 0x800
random_vectors:
    .irp kind, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 0x80
    .if \kind == 4 || \kind == 8
    b       random_exception
    .elseif \kind == 5 || \kind == 9
    b       random_interrupt
    .elseif \kind == 6 || \kind == 10
    b       random_fast_interrupt
    .elseif \kind == 7 || \kind == 11
    b       random_error
    .else
    b       .                    // never
    .endif
    .endr
    .text
"#
);

unsafe extern "C" {
    static random_notes: [u64; 13];
    safe fn random_run(program: u64) -> u64;
}

fn run() -> Outcome {
    // SAFETY: the table is part of the image, and nobody writes it while the guest runs.
    let program = unsafe { core::ptr::read_volatile(&raw const random_notes[1]) };
    if program == 0 {
        return Ok(0);
    }
    translation::start();
    gic::start(0);
    for (first, priorities) in PRIORITIES {
        write32(gic::GICR_SGI + gic::IPRIORITYR + first, priorities);
    }
    for intid in [VIRTUAL_TIMER, PHYSICAL_TIMER, NESTED_SGI, SGI, FAST_SGI] {
        gic::enable(0, intid);
    }
    gic::set_group_1(0, FAST_SGI, false);
    gic::enable_group_0();
    // The program reads its own debug and timer registers as it left them.
    write_register!("mdscr_el1", 0);
    Ok(random_run(program))
}

stepwell_guests::guest!("random", run, exception::unexpected);
