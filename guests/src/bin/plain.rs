//! Everyday instructions: arithmetic, selection, bit fields, division, loads and stores, calls.
//!
//! First with the MMU off, then with it on, through an alias of the same memory, and from a
//! read-only alias of the code.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;

use stepwell_guests::report::{Outcome, check};
use stepwell_guests::translation;

global_asm!(
    r#"
    .text
    .balign 4
arithmetic:
    mov     x1, #0x1234
    movk    x1, #0xabcd, lsl #16
    movn    x2, #0xff
    add     x3, x1, x2
    adds    x4, x3, x1, lsl #3
    adc     x4, x4, x2
    sbc     x5, x4, x3
    madd    x6, x3, x4, x5
    msub    x6, x6, x1, x3
    smulh   x7, x6, x2
    umulh   x8, x6, x2
    umull   x9, w6, w1
    mov     x10, #7
    udiv    x11, x9, x10
    sdiv    x12, x2, x10
    udiv    x13, x9, xzr            // by zero: 0
    clz     x14, x11
    cls     x15, x12
    rbit    x16, x11
    rev     x17, x16
    rev16   x17, x17
    extr    x3, x16, x17, #13
    ubfx    x4, x3, #5, #17
    sbfiz   x5, x4, #3, #9
    bfi     x5, x3, #20, #11
    cmp     x5, x4
    csel    x6, x5, x4, hi
    csinc   x7, x6, x5, lt
    csinv   x8, x7, x6, mi
    csneg   x9, x8, x7, vs
    ccmp    x9, #3, #4, ne
    cset    x10, eq
    eor     x0, x3, x5
    eon     x0, x0, x6
    add     x0, x0, x7
    orn     x0, x0, x8
    bic     x0, x0, x14
    add     x0, x0, x9
    add     x0, x0, x10
    add     x0, x0, x11
    add     x0, x0, x12
    add     x0, x0, x13
    add     x0, x0, x15
    ret

    // x0: 64 bytes of memory.
memory:
    ldr     x1, =0x0123456789abcdef
    str     x1, [x0]
    ldrb    w2, [x0, #1]
    ldrsb   x3, [x0, #2]
    ldrh    w4, [x0, #4]
    ldrsh   x5, [x0, #0]
    ldrsw   x6, [x0]
    stp     x2, x3, [x0, #16]!
    ldp     x7, x8, [x0], #16
    stp     w4, w5, [x0]
    ldpsw   x9, x10, [x0]
    str     x6, [x0, #8]!
    ldr     x11, [x0], #-24
    mov     x12, #2
    ldr     x13, [x0, x12, lsl #3]
    ldur    x14, [x0, #-8]
    strb    w13, [x0, w12, uxtw]
    ldar    x15, [x0]
    stlr    x14, [x0]
    prfm    pldl1keep, [x0]
    eor     x0, x1, x7
    add     x0, x0, x8
    add     x0, x0, x9
    add     x0, x0, x10
    add     x0, x0, x11
    add     x0, x0, x13
    add     x0, x0, x15
    ret

    // Recursive, through every kind of branch. x0: n; returns n!.
factorial:
    cbnz    x0, 1f
    mov     x0, #1
    ret
1:  stp     x29, x30, [sp, #-32]!
    mov     x29, sp
    str     x0, [sp, #16]
    sub     x0, x0, #1
    tbz     x0, #63, 2f
    b       3f
2:  adr     x9, factorial
    tbnz    x0, #0, 4f
    blr     x9
    b       5f
4:  bl      factorial
5:  ldr     x1, [sp, #16]
    mul     x0, x0, x1
3:  ldp     x29, x30, [sp], #32
    ret

    // x0: how many. A jump table and a backward branch.
table:
    mov     x1, #0
1:  and     x2, x0, #3
    adr     x3, 2f
    add     x3, x3, x2, lsl #3
    br      x3
2:  add     x1, x1, #1
    b       3f
    add     x1, x1, #16
    b       3f
    eor     x1, x1, #0xff
    b       3f
    lsl     x1, x1, #1
    b       3f
3:  subs    x0, x0, #1
    b.ne    1b
    mov     x0, x1
    ret
    .ltorg

    // A leaf that does not care where it is: x0 + its own address.
whereabouts:
    adr     x1, whereabouts
    add     x0, x0, x1
    ret
"#
);

unsafe extern "C" {
    safe fn arithmetic() -> u64;
    safe fn memory(bytes: u64) -> u64;
    safe fn factorial(n: u64) -> u64;
    safe fn table(n: u64) -> u64;
    fn whereabouts(n: u64) -> u64;
}

static mut SCRATCH: [u64; 16] = [0; 16];

fn everyday(scratch: u64) -> Outcome {
    check("factorial", factorial(20), 2_432_902_008_176_640_000)?;
    let sum = arithmetic() ^ memory(scratch + 32) ^ table(201);
    check("again", arithmetic() ^ memory(scratch + 32) ^ table(201), sum)?;
    Ok(sum)
}

/// Calls `whereabouts` where an alias has it.
fn call_alias(offset: u64) -> u64 {
    // SAFETY: the alias maps the same code, executable for EL1.
    let alias: extern "C" fn(u64) -> u64 =
        unsafe { core::mem::transmute(whereabouts as *const () as u64 + offset) };
    alias(offset)
}

fn run() -> Outcome {
    let scratch = (&raw mut SCRATCH) as u64;
    let off = everyday(scratch)?;
    check("code at its own address", call_alias(0), whereabouts as *const () as u64)?;
    translation::start();
    check("with the MMU on", everyday(scratch)?, off)?;
    check("through an alias", everyday(scratch + translation::EL0_ALIAS)?, off)?;
    let alias = translation::READ_ONLY_ALIAS;
    check("code alias", call_alias(alias), whereabouts as *const () as u64 + 2 * alias)?;
    translation::stop();
    check("with the MMU off again", everyday(scratch)?, off)?;
    Ok(off)
}

stepwell_guests::guest!("plain", run);
