//! What takes instructions of the host's own CPU: caches and counters.
//!
//! Linux lets a program do all of these (SCTLR_EL1.UCI and UCT, CNTKCTL_EL1.EL0VCTEN).

#![expect(unsafe_code, reason = "cache maintenance and counters have no other way")]

use core::arch::asm;

/// Log2 of words: the smallest line of data caches, and of instruction caches.
const DMINLINE_SHIFT: u32 = 16;

fn line_bytes(shift: u32) -> u64 {
    let ctr: u64;
    // SAFETY: it reads a register that Linux lets programs read, or emulates.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    4 << (ctr >> shift & 0xf)
}

fn lines(address: u64, length: u64, line: u64) -> impl Iterator<Item = u64> {
    let first = address - address % line;
    (first..address.saturating_add(length)).step_by(line as usize)
}

/// Has memory and data caches agree on mapped memory.
pub fn clean_data_cache(address: u64, length: u64) {
    for at in lines(address, length, line_bytes(DMINLINE_SHIFT)) {
        // SAFETY: of memory that is mapped it changes nothing that a program can see.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Drops mapped memory from instruction caches: it has other instructions now.
pub fn drop_instructions(address: u64, length: u64) {
    for at in lines(address, length, line_bytes(0)) {
        // SAFETY: what is dropped is fetched again.
        unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
}

/// The host's counter. It is what KVM makes guests' counters from: the host's own has no offset.
#[must_use]
pub fn counter() -> u64 {
    let value: u64;
    // SAFETY: it reads a register that Linux lets programs read.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nostack, preserves_flags)) };
    value
}

/// Ticks of it in a second.
#[must_use]
pub fn frequency_hz() -> u64 {
    let value: u64;
    // SAFETY: as above.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value & 0xffff_ffff
}

/// DCZID_EL0, which a guest reads as the host does.
#[must_use]
pub fn dczid() -> u64 {
    let value: u64;
    // SAFETY: it reads a register that programs may read.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
