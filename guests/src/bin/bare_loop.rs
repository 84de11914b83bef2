//! What a step costs at the very least: an EL2 that only counts steps and returns.
//!
//! The yardstick of `cargo xtask bench`, and no guest at all: it owns the machine at EL2
//! (`virtualization=on`), drops to EL1 into the loop that `step_loop` has too, and its vector for
//! synchronous exceptions of EL1 executes fourteen instructions a step. There is no stage 2, no
//! link and no MMU. After a warm-up it takes the time of [`STEPS`] steps by the counter, prints
//! both, and powers off by PSCI over SMC.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::{asm, global_asm};

use stepwell_guests::hardware::psci;
use stepwell_guests::report::{line, number};
use stepwell_guests::{exception, instruction, read_register, write_register};

/// Steps that are timed.
const STEPS: u64 = 1_000_000;
/// Steps before, in which QEMU translates what it will execute.
const WARM_UP: u64 = 100_000;

/// HCR_EL2.RW: EL1 is AArch64.
const HCR_RW: u64 = 1 << 31;
/// MDCR_EL2.TDE: debug exceptions of EL1 come to EL2.
const MDCR_TDE: u64 = 1 << 8;
/// MDSCR_EL1.SS: software step is on.
const MDSCR_SS: u64 = 1 << 0;

global_asm!(include_str!("../stepped_loop.s"));
global_asm!(
    r#"
    // step_el1(steps): counts so many steps of the loop at EL1, then returns.
    .text
    .globl step_el1
step_el1:
    stp     x29, x30, [sp, #-96]!
    stp     x27, x28, [sp, #16]
    stp     x25, x26, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x21, x22, [sp, #64]
    stp     x19, x20, [sp, #80]
    stp     x0, xzr, [sp, #-16]!        // the steps that are left
    adrp    x1, bare_vectors
    add     x1, x1, :lo12:bare_vectors
    msr     vbar_el2, x1
    adrp    x1, bare_turns
    add     x1, x1, :lo12:bare_turns
    msr     elr_el2, x1
    mov     x1, #0x3c5                  // EL1h, all masked
    orr     x1, x1, #(1 << 21)          // SS: execute one
    msr     spsr_el2, x1
    adrp    x1, bare_word
    add     x1, x1, :lo12:bare_word
    mov     x9, #-1
    isb
    eret

    .balign 64
bare_turns:
    stepped_loop

    .balign 0x800
bare_vectors:
    .skip   0x400
    stp     x0, x1, [sp, #-16]!
    mrs     x0, esr_el2
    lsr     x0, x0, #26
    cmp     x0, #0x32                   // Software Step from a lower EL
    b.ne    bare_other
    ldr     x1, [sp, #16]
    sub     x1, x1, #1
    str     x1, [sp, #16]
    cbz     x1, bare_done
    mrs     x0, spsr_el2
    orr     x0, x0, #(1 << 21)
    msr     spsr_el2, x0
    ldp     x0, x1, [sp], #16
    eret
bare_done:
    add     sp, sp, #32
    ldp     x19, x20, [sp, #80]
    ldp     x21, x22, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #32]
    ldp     x27, x28, [sp, #16]
    ldp     x29, x30, [sp], #96
    ret
bare_other:
    bl      guest_panicked
    b       .

    .bss
    .balign 8
bare_word:
    .skip   8
    .text
"#
);

unsafe extern "C" {
    safe fn step_el1(steps: u64);
}

#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    write_register!("hcr_el2", HCR_RW);
    write_register!("mdcr_el2", MDCR_TDE);
    // Software Step does not come while the OS Lock is set, which it is at reset.
    write_register!("oslar_el1", 0);
    write_register!("mdscr_el1", MDSCR_SS);
    step_el1(WARM_UP);
    let start = read_register!("cntpct_el0");
    step_el1(STEPS);
    let ticks = read_register!("cntpct_el0") - start;
    line("bare_loop: steps, ticks, ticks a second");
    for value in [STEPS, ticks, read_register!("cntfrq_el0")] {
        number(value);
        line("");
    }
    power_off()
}

#[unsafe(no_mangle)]
extern "C" fn guest_exception(_: &mut exception::Frame) {
    guest_panicked()
}

#[unsafe(no_mangle)]
extern "C" fn guest_panicked() -> ! {
    line("bare_loop: FAIL unexpected exception");
    power_off()
}

fn power_off() -> ! {
    // SAFETY: the machine is gone after the call; for EL2 its conduit is SMC.
    unsafe { asm!("smc #0", inout("x0") psci::SYSTEM_OFF => _) };
    loop {
        instruction!("wfi");
    }
}
