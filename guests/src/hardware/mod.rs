//! The devices of QEMU's `virt` board that the guests touch.
//!
//! Accesses are one plain load or store each: what a hypervisor can emulate from the syndrome
//! alone. Guests that do otherwise (`device_forms`) write their own.

pub mod cpus;
pub mod gic;
pub mod psci;
pub mod timer;
pub mod uart;

use core::arch::asm;

/// Reads a 32-bit device register.
#[must_use]
#[inline(never)]
pub fn read32(address: u64) -> u32 {
    let value: u32;
    // SAFETY: only device addresses are read, which are no Rust objects.
    unsafe { asm!("ldr {v:w}, [{a}]", v = out(reg) value, a = in(reg) address, options(nostack)) };
    value
}

/// Writes a 32-bit device register.
#[inline(never)]
pub fn write32(address: u64, value: u32) {
    // SAFETY: only device addresses are written, which are no Rust objects.
    unsafe { asm!("str {v:w}, [{a}]", v = in(reg) value, a = in(reg) address, options(nostack)) };
}

/// Reads a 64-bit device register.
#[must_use]
pub fn read64(address: u64) -> u64 {
    let value: u64;
    // SAFETY: as read32.
    unsafe { asm!("ldr {v}, [{a}]", v = out(reg) value, a = in(reg) address, options(nostack)) };
    value
}

/// Writes a 64-bit device register.
pub fn write64(address: u64, value: u64) {
    // SAFETY: as write32.
    unsafe { asm!("str {v}, [{a}]", v = in(reg) value, a = in(reg) address, options(nostack)) };
}
