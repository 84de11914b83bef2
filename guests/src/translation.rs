//! A stage-1 map of 1 GiB blocks, for the guests that switch the MMU on.

use core::cell::UnsafeCell;

/// The level-1 table: 39 bits of virtual address.
#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: written by one CPU before the MMU is on, and by none later.
unsafe impl Sync for Table {}

static LEVEL1: Table = Table(UnsafeCell::new([0; 512]));

const BLOCK: u64 = 1;
const NORMAL: u64 = 1 << 2;
const EL0_TOO: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const NEVER_EXECUTE: u64 = 3 << 53;

/// Added to an address in RAM: the same memory, for EL1 and EL0 (so EL1 cannot execute there).
pub const EL0_ALIAS: u64 = 0x4000_0000;
/// Added to an address in RAM: the same memory, read-only and executable for EL1.
pub const READ_ONLY_ALIAS: u64 = 0x8000_0000;
/// An address that is not mapped.
pub const UNMAPPED: u64 = 0x1_4000_0000;

/// Maps devices and RAM one to one, and RAM twice more, then switches the MMU on.
pub fn start() {
    let ram = 0x4000_0000 | BLOCK | NORMAL | INNER_SHAREABLE | ACCESS_FLAG;
    // SAFETY: the MMU is off and this is the only CPU.
    let table = unsafe { &mut *LEVEL1.0.get() };
    table[0] = BLOCK | ACCESS_FLAG | NEVER_EXECUTE;
    table[1] = ram;
    table[2] = ram | EL0_TOO;
    table[3] = ram | READ_ONLY;
    join();
}

/// Has a level-2 table map the GiB of `address`. Before [`start`].
pub fn add_table(address: u64, table: u64) {
    const TABLE: u64 = 3;
    // SAFETY: the MMU is off and this is the only CPU.
    let level1 = unsafe { &mut *LEVEL1.0.get() };
    level1[(address >> 30) as usize] = table | TABLE;
}

/// Switches the MMU on with the map that [`start`] made: on the other CPUs.
pub fn join() {
    crate::write_register!("mair_el1", 0xff00);
    // 39-bit VA, walks cacheable and inner shareable, no TTBR1, 40-bit PA.
    crate::write_register!("tcr_el1", 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32);
    crate::write_register!("ttbr0_el1", LEVEL1.0.get() as u64);
    crate::instruction!("dsb ish");
    crate::instruction!("tlbi vmalle1");
    crate::instruction!("dsb ish");
    // M, C, I.
    crate::write_register!("sctlr_el1", crate::read_register!("sctlr_el1") | 0x1005);
}

/// Lets EL0 read and execute what [`READ_ONLY_ALIAS`] maps, too.
pub fn let_el0_read() {
    // SAFETY: one CPU, which walks this table but does not use that part of it yet.
    let entry = unsafe { &mut (*LEVEL1.0.get())[3] };
    *entry |= EL0_TOO;
    crate::instruction!("dsb ish");
    crate::instruction!("tlbi vmalle1");
    crate::instruction!("dsb ish");
    crate::instruction!("isb");
}

/// Switches the MMU off again.
pub fn stop() {
    crate::write_register!("sctlr_el1", crate::read_register!("sctlr_el1") & !0x1005);
}
