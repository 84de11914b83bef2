//! Access to system registers: the one place where MRS and MSR are written.
//!
//! Own macros rather than a crate of accessors: what EL2 needs most (list registers, the debug
//! registers, AT and PAR) the crates for it lack, and one mechanism is easier to read than two.

/// Reads a system register by the assembler's name for it.
macro_rules! mrs {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a system register that exists at EL2 changes no memory; a name that
        // the assembler does not know does not build.
        #[allow(unsafe_code, reason = "the one way to read a system register")]
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack));
        }
        value
    }};
}

/// As `mrs!`, into a register that holds a value before, which the CPU may leave there.
macro_rules! mrs_over {
    ($name:literal, $before:expr) => {{
        let mut value: u64 = $before;
        // SAFETY: as in `mrs!`.
        #[allow(unsafe_code, reason = "the one way to read a system register")]
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), inout(reg) value, options(nostack));
        }
        value
    }};
}

/// Writes a system register by the assembler's name for it, which is one of [`HARMLESS`]: any other
/// does not build, and takes `msr_unsafe!`. What the write does to the guest is said where it is
/// used.
macro_rules! msr {
    ($name:literal, $value:expr) => {{
        const { assert!($crate::hw::registers::is_harmless($name), "see HARMLESS") };
        let value: u64 = $value;
        // SAFETY: the register is one of those that no value of can make EL2 unsound.
        #[allow(unsafe_code, reason = "the one way to write a system register")]
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack));
        }
    }};
}

/// Writes a system register that EL2's safety rests on: its caller says in an `unsafe` block why this
/// value is right.
macro_rules! msr_unsafe {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack))
    }};
}

pub(crate) use {mrs, mrs_over, msr, msr_unsafe};

/// Registers of which no value can give the guest memory that is not its own, or EL2 other memory,
/// code or stack: at worst the guest misbehaves, or an access of EL2's traps and ends the machine
/// with a message. A family is named by what all its names begin with.
///
/// Not among them, and written by `msr_unsafe!`: HCR_EL2 (VM, TGE and E2H), VTCR_EL2 and VTTBR_EL2,
/// which confine the guest, and VBAR_EL2. SCTLR_EL2, TTBR0_EL2, TCR_EL2, MAIR_EL2, SPSel, SP_EL0,
/// ELR_EL2 and SPSR_EL2 are written in assembly only.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    // EL1's and EL0's own, which act at EL1 and EL0 only, behind stage 2.
    "sctlr_el1", "cpacr_el1", "ttbr0_el1", "ttbr1_el1", "tcr_el1", "mair_el1", "amair_el1",
    "vbar_el1", "esr_el1", "far_el1", "afsr0_el1", "afsr1_el1", "elr_el1", "spsr_el1", "sp_el1",
    "tpidr_el0", "tpidrro_el0", "tpidr_el1", "contextidr_el1", "par_el1", "csselr_el1",
    // RES0 or UNKNOWN at EL2, keys, tags, numbers and limits of EL1's: SVCR, SMCR_EL1, SMPRI_EL1,
    // TPIDR2_EL0; APIA to APGA; RGSR_EL1, GCR_EL1, TFSR_EL1, TFSRE0_EL1; SCXTNUM_EL1 and _EL0; LORSA
    // to LORC_EL1; VDISR_EL2, VSESR_EL2; ACCDATA_EL1.
    "s3_3_c4_c2_2", "s3_0_c1_c2_6", "s3_0_c1_c2_4", "s3_3_c13_c0_5", "s3_0_c2_c1_", "s3_0_c2_c2_",
    "s3_0_c2_c3_", "s3_0_c1_c0_5", "s3_0_c1_c0_6", "s3_0_c5_c6_", "s3_0_c13_c0_7", "s3_3_c13_c0_7",
    "s3_0_c10_c4_", "s3_4_c12_c1_1", "s3_4_c5_c2_3", "s3_0_c13_c0_5",
    // FP, SIMD and SVE, which the compiler uses nowhere at EL2: FPCR, FPSR, ZCR_EL1. Lengths of
    // vectors (ZCR_EL2, SMCR_EL2): what EL2 copies has room for the longest.
    "s3_3_c4_c4_0", "s3_3_c4_c4_1", "s3_0_c1_c2_0", "s3_4_c1_c2_0", "s3_4_c1_c2_6",
    // What the guest reads of itself.
    "vmpidr_el2", "vpidr_el2",
    // Traps of registers and instructions, and what they enable: none gives access to memory.
    "cptr_el2", "hstr_el2", "cnthctl_el2", "mdcr_el2", "s3_4_c1_c1_4", "s3_4_c1_c1_5", "s3_4_c1_c1_6",
    "s3_4_c3_c1_4", "s3_4_c3_c1_5", "s3_4_c10_c5_0", "s3_4_c1_c2_2",
    // Debug: a debug exception of EL2's is one from EL2, which ends the machine with a message.
    "mdscr_el1", "mdccint_el1", "oslar_el1", "osdlr_el1", "dbgbvr", "dbgbcr", "dbgwvr", "dbgwcr",
    "dbgprcr_el1", "dbgclaim", "oseccr_el1", "osdtr", "dbgdtr",
    // So does an interrupt, as EL2 has no handlers of any.
    "daif",
    // Timers and counters.
    "cntkctl_el1", "cntv_cval_el0", "cntv_ctl_el0", "cntvoff_el2", "cnthp_ctl_el2", "cnthp_cval_el2",
    "pm",
    // The GIC's CPU interface, virtual and physical. No list register has HW set.
    "ich_hcr_el2", "ich_vmcr_el2", "ich_ap0r0_el2", "ich_ap1r0_el2", "ich_lr", "icc_sgi1r_el1",
    // This CPU's number: whoever uses it as an index asks whether there is such a place.
    "tpidr_el2",
];

/// Tells whether a register is one of [`HARMLESS`].
pub(crate) const fn is_harmless(name: &str) -> bool {
    let name = name.as_bytes();
    let mut families = HARMLESS;
    while let [family, others @ ..] = families {
        if begins_with(name, family.as_bytes()) {
            return true;
        }
        families = others;
    }
    false
}

const fn begins_with(mut name: &[u8], mut family: &[u8]) -> bool {
    while let ([first, others @ ..], [wanted, more @ ..]) = (name, family) {
        if *first != *wanted {
            return false;
        }
        (name, family) = (others, more);
    }
    family.is_empty()
}

/// Synchronises what has been written with what executes next.
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) }
}

/// Orders memory accesses for every observer.
pub fn dsb() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// Waits until an interrupt is pending, masked or not.
pub fn wfi() {
    // SAFETY: a hint; barrier first so that what was written is seen by who wakes us.
    unsafe { core::arch::asm!("dsb sy", "wfi", options(nostack, preserves_flags)) }
}

/// Drops every stage-1 and stage-2 translation of all guests, on all CPUs: the VMID that changed
/// need not be the one that this CPU runs.
pub fn invalidate_guest_translations() {
    // SAFETY: dropping cached translations is always allowed.
    unsafe {
        core::arch::asm!(
            "dsb ish",
            "tlbi alle1is",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        )
    }
}

/// Drops this CPU's stage-1 and stage-2 translations of the VMID that it runs.
pub fn invalidate_own_translations() {
    // SAFETY: dropping cached translations is always allowed.
    unsafe {
        core::arch::asm!(
            "dsb nshst",
            "tlbi vmalls12e1",
            "dsb nsh",
            "isb",
            options(nostack, preserves_flags)
        )
    }
}

/// Drops the stage-1 translations of the VMID that this CPU runs, on all CPUs.
pub fn invalidate_guests_stage1() {
    // SAFETY: dropping cached translations is always allowed.
    unsafe {
        core::arch::asm!(
            "dsb ish",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        )
    }
}

/// Makes instructions that were written as data visible to instruction fetch, on all CPUs.
pub fn invalidate_instruction_caches() {
    // SAFETY: dropping cached instructions is always allowed.
    unsafe {
        core::arch::asm!(
            "dsb ish",
            "ic ialluis",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        )
    }
}

/// Writes `bytes` bytes from `address` on back from the data caches: a guest with its caches off,
/// or its instruction fetch, reads them from memory.
pub fn clean_data_cache(address: u64, bytes: u64) {
    let line = 4_u64 << (mrs!("ctr_el0") >> 16 & 0xf);
    let mut at = address & !(line - 1);
    while at < address.saturating_add(bytes) {
        // SAFETY: cleaning and invalidating a line loses nothing.
        unsafe { core::arch::asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) }
        at += line;
    }
    dsb();
}

/// As [`clean_data_cache`], of the line that `address` is in: an aligned access of at most 16 bytes
/// lies in one.
pub fn clean_data_line(address: u64) {
    // SAFETY: cleaning and invalidating a line loses nothing.
    unsafe { core::arch::asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) }
    dsb();
}

/// MPIDR_EL1.Aff3 to Aff0 of this CPU.
#[must_use]
pub fn affinity() -> u64 {
    mrs!("mpidr_el1") & 0xff_00ff_ffff
}

/// Remembers the number of this CPU, in TPIDR_EL2.
pub fn set_cpu_number(cpu: usize) {
    msr!("tpidr_el2", cpu as u64);
}

/// The number of this CPU: 0 is the boot CPU.
#[must_use]
pub fn cpu_number() -> usize {
    usize::try_from(mrs!("tpidr_el2")).unwrap_or(0)
}
