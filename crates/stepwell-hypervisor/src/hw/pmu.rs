//! The PMU: kept from the guest, who is not offered one.
//!
//! It would count what EL2 does, and its interrupt never comes to the guest; until it is virtual, it
//! traps. A CPU without one is left to itself, so that the guest finds what it finds on a board without
//! EL2. That is not nothing on QEMU 7.2, which keeps the registers of a PMU that was switched off: they
//! hold what is written to them, and count nothing.
//!
//! Source: Arm ARM, DDI 0487 L.b, "The Performance Monitors Extension"; MDCR_EL2.

use super::registers::{isb, mrs, msr};
use core::arch::global_asm;
use spin::Once;
use stepwell_arch::debug::mdcr_el2;

global_asm!(
    r#"
    // try_pmcr_el0() -> whether PMCR_EL0 can be read. Runs with exceptions masked; clobbers ELR_EL2
    // and SPSR_EL2, which hold nothing of a guest's outside of it.
    .section .text.probe, "ax"
    .balign 0x800
.Lprobe_vectors:
    .balign 0x200
    mrs     x2, elr_el2                 // undefined: go on behind it, and say so
    add     x2, x2, #4
    msr     elr_el2, x2
    mov     x0, #0
    eret
    .balign 0x200
    .global try_pmcr_el0
try_pmcr_el0:
    mrs     x1, vbar_el2
    adr     x2, .Lprobe_vectors
    msr     vbar_el2, x2
    isb
    mov     x0, #1
    mrs     x2, pmcr_el0
    msr     vbar_el2, x1
    isb
    ret
    .text
"#
);

unsafe extern "C" {
    fn try_pmcr_el0() -> u64;
}

/// Whether the CPU has a PMU of Arm's; 0xf is one that is not, which HCR_EL2.TIDCP traps.
fn is_there() -> bool {
    !matches!(mrs!("id_aa64dfr0_el1") >> 8 & 0xf, 0 | 0xf)
}

/// Whether the CPU says that it has none, and has the registers of one.
pub fn has_remains() -> bool {
    static FOUND: Once<bool> = Once::new();
    // SAFETY: the only exception that it may take goes to vectors of its own; it changes no memory,
    // and no register that a call must keep.
    !is_there() && *FOUND.call_once(|| unsafe { try_pmcr_el0() } != 0)
}

/// What of MDCR_EL2 keeps the PMU from the guest.
pub fn mdcr() -> u64 {
    let has_registers = is_there() || has_remains();
    // HPMN: no event counter is EL2's own.
    let counters = if has_registers { mrs!("pmcr_el0") >> 11 & mdcr_el2::HPMN_MASK } else { 0 };
    counters | if is_there() { mdcr_el2::TPM | mdcr_el2::TPMCR } else { 0 }
}

/// Puts the registers into their reset state.
pub fn reset() {
    const RESET_COUNTERS: u64 = 1 << 1 | 1 << 2; // P, C
    const ALL: u64 = 0xffff_ffff;
    let counters = mrs!("pmcr_el0") >> 11 & 0x1f;
    msr!("pmcr_el0", RESET_COUNTERS);
    msr!("pmcntenclr_el0", ALL);
    msr!("pmintenclr_el1", ALL);
    msr!("pmovsclr_el0", ALL);
    msr!("pmccfiltr_el0", 0);
    for counter in 0..counters {
        msr!("pmselr_el0", counter);
        isb();
        msr!("pmxevtyper_el0", 0);
        msr!("pmxevcntr_el0", 0);
    }
    msr!("pmselr_el0", 0);
    msr!("pmccntr_el0", 0);
    msr!("pmuserenr_el0", 0);
    isb();
}
