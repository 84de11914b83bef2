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

/// Writes a system register by the assembler's name for it. What the write does to the guest or
/// to EL2 is said where it is used.
macro_rules! msr {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: those that change EL2's own translation or vectors are given tables and code that
        // map and handle everything that runs; none changes its stack.
        #[allow(unsafe_code, reason = "the one way to write a system register")]
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack));
        }
    }};
}

pub(crate) use {mrs, mrs_over, msr};

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
