//! A stage-1 map in which EL0 and EL1 run the same code at the same addresses.
//!
//! Code and constants are read-only for both (EL1 may not execute what EL0 can write), everything
//! else of the guest is writable by both and executed by none, and so are the devices.

use core::cell::UnsafeCell;

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: written by one CPU before the MMU is on, and by none later.
unsafe impl Sync for Table {}

const EMPTY: Table = Table(UnsafeCell::new([0; 512]));
static LEVEL1: Table = EMPTY;
static LEVEL2: Table = EMPTY;
static LEVEL3: Table = EMPTY;

const BLOCK: u64 = 1;
const TABLE_OR_PAGE: u64 = 3;
const NORMAL: u64 = 1 << 2;
const EL0_TOO: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const NEVER_EXECUTE: u64 = 3 << 53;

/// The guest's image and memory lie in these two megabytes.
const IMAGE: u64 = 0x4020_0000;
/// SCTLR_EL1: M, C, I, and UMA, which lets EL0 mask interrupts as EL1 does.
const SCTLR: u64 = 1 << 0 | 1 << 2 | 1 << 12 | 1 << 9;

unsafe extern "C" {
    static writable_start: u8;
}

/// Maps all that the cases need, and switches the MMU on.
pub fn start() {
    let both = NORMAL | EL0_TOO | INNER_SHAREABLE | ACCESS_FLAG;
    let data = both | NEVER_EXECUTE;
    let writable = &raw const writable_start as u64;
    // SAFETY: the MMU is off and this is the only CPU.
    let (level1, level2, level3) =
        unsafe { (&mut *LEVEL1.0.get(), &mut *LEVEL2.0.get(), &mut *LEVEL3.0.get()) };
    level1[0] = BLOCK | EL0_TOO | ACCESS_FLAG | NEVER_EXECUTE;
    level1[1] = LEVEL2.0.get() as u64 | TABLE_OR_PAGE;
    for (block, entry) in (0_u64..).zip(level2.iter_mut()) {
        *entry = (0x4000_0000 + (block << 21)) | BLOCK | data;
    }
    level2[1] = LEVEL3.0.get() as u64 | TABLE_OR_PAGE;
    for (page, entry) in (0_u64..).zip(level3.iter_mut()) {
        let address = IMAGE + (page << 12);
        let kind = if address < writable { both | READ_ONLY } else { data };
        *entry = address | TABLE_OR_PAGE | kind;
    }
    crate::write_register!("mair_el1", 0xff00);
    // 39-bit VA, walks cacheable and inner shareable, no TTBR1, 40-bit PA.
    crate::write_register!("tcr_el1", 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32);
    crate::write_register!("ttbr0_el1", LEVEL1.0.get() as u64);
    crate::instruction!("dsb ish");
    crate::instruction!("tlbi vmalle1");
    crate::instruction!("dsb ish");
    crate::write_register!("sctlr_el1", crate::read_register!("sctlr_el1") | SCTLR);
}

/// Switches the MMU off again.
pub fn stop() {
    crate::write_register!("sctlr_el1", crate::read_register!("sctlr_el1") & !SCTLR);
}
