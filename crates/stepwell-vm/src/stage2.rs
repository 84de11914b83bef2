//! Stage-2 translation tables of one domain: from [`Ipa`] to [`Pa`].
//!
//! One fixed shape keeps this small: 4 KiB granule, 39 bits of IPA, starting at level 1 with a
//! single table, so that no tables are concatenated. 512 GiB hold any machine that we make. Blocks
//! of 1 GiB and 2 MiB are used wherever alignment allows and split when a part of one changes; they
//! are not merged again.
//!
//! Break-before-make is built in rather than left to callers: to split a live block, or to replace
//! any valid entry by another output, the entry is made invalid, [`TableMemory::invalidate`] is
//! called, and only then the new entry is written. Changing only permissions, or unmapping, needs
//! the invalidation but no break. A vCPU that touches the range in between takes a translation
//! fault, so whoever changes live tables stops the domain's vCPUs or lets them retry.
//!
//! See "VMSAv8-64 translation table format descriptors" and "TLB maintenance requirements, using
//! break-before-make" in the Arm Architecture Reference Manual (DDI 0487). The tables' memory is
//! behind a trait, so there is nothing unsafe here, and the host tests compare with a map of pages.

use core::sync::atomic::{AtomicU64, Ordering};
use stepwell_arch::{Ipa, Pa};
use thiserror::Error;

/// Bytes of a page, and of a table.
pub const PAGE_BYTES: u64 = 0x1000;
const IPA_BITS: u32 = 39;
const PA_BITS: u32 = 48;
const ENTRIES: usize = 512;
/// Where walks start.
pub const FIRST_LEVEL: u32 = 1;
const LAST_LEVEL: u32 = 3;

const VALID: u64 = 1 << 0;
const TABLE_OR_PAGE: u64 = 1 << 1; // a table above the last level, a page on it
const MEM_ATTR_MASK: u64 = 0xf << 2;
const MEM_ATTR_NORMAL: u64 = 0xf << 2; // Normal, Write-Back inner and outer
const MEM_ATTR_DEVICE: u64 = 0x1 << 2; // Device-nGnRE
const S2AP_READ: u64 = 1 << 6;
const S2AP_WRITE: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESS_FLAG: u64 = 1 << 10; // no access flag faults
const EXECUTE_NEVER: u64 = 1 << 54; // at EL1 and at EL0
const OUTPUT: u64 = 0x0000_ffff_ffff_f000;
const PERMISSIONS: u64 = S2AP_READ | S2AP_WRITE | EXECUTE_NEVER;

/// What a page of [`TableMemory`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageUse {
    /// A table of this level.
    Table(u32),
    /// A copy of guest code, which a level-3 entry may map.
    Code,
}

/// Where translation tables live, and who caches them.
pub trait TableMemory {
    /// Allocates a page: 4 KiB, aligned, zero.
    fn allocate(&mut self, what: PageUse) -> Option<Pa>;
    /// Frees a page that no walk can reach any more.
    fn free(&mut self, page: Pa);
    /// Tells whether a guest may have these bytes mapped.
    fn may_map(&self, pa: Pa, bytes: u64) -> bool;
    /// Reads an entry.
    fn read(&self, table: Pa, index: usize) -> u64;
    /// Writes an entry with a single 64-bit store.
    fn write(&mut self, table: Pa, index: usize, value: u64);
    /// Makes the writes so far visible to table walks and forgets every cached translation of the
    /// range for this domain, on all CPUs: DSB ISHST; TLBI IPAS2E1IS of each page, or
    /// VMALLS12E1IS; DSB ISH; TLBI VMALLE1IS; DSB ISH; ISB.
    fn invalidate(&mut self, ipa: Ipa, bytes: u64);
}

/// What stage 2 lets a guest do; its own tables may let it do less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Permissions {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, execute: true };

    /// What a guest may do with flash: nothing while a bank shows something else than its array.
    #[must_use]
    pub const fn of_flash(is_array: bool) -> Self {
        Self { read: is_array, write: false, execute: is_array }
    }

    /// What both permit.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            execute: self.execute && other.execute,
        }
    }

    const fn bits(self) -> u64 {
        (if self.read { S2AP_READ } else { 0 })
            | (if self.write { S2AP_WRITE } else { 0 })
            | (if self.execute { 0 } else { EXECUTE_NEVER })
    }

    const fn of(entry: u64) -> Self {
        Self {
            read: entry & S2AP_READ != 0,
            write: entry & S2AP_WRITE != 0,
            execute: entry & EXECUTE_NEVER == 0,
        }
    }
}

/// VTTBR_EL2 for tables that a [`Stage2`] built: nobody else makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vttbr(u64);

impl Vttbr {
    /// The table of the first level.
    #[must_use]
    pub const fn root(self) -> Pa {
        Pa(self.0 & OUTPUT)
    }

    /// What the register holds.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The VMID.
    #[must_use]
    pub const fn vmid(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// A [`Vttbr`] that several CPUs look at.
#[derive(Debug)]
pub struct SharedVttbr(AtomicU64);

impl SharedVttbr {
    /// Makes one.
    #[must_use]
    pub const fn new(tables: Vttbr) -> Self {
        Self(AtomicU64::new(tables.0))
    }

    /// Which tables it names.
    #[must_use]
    pub fn load(&self) -> Vttbr {
        Vttbr(self.0.load(Ordering::Acquire))
    }

    /// Names other tables.
    pub fn store(&self, tables: Vttbr) {
        self.0.store(tables.0, Ordering::Release);
    }
}

/// Memory type of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Normal, Write-Back Cacheable, Inner Shareable.
    Normal,
    /// Device-nGnRE.
    Device,
}

impl MemoryKind {
    const fn bits(self) -> u64 {
        match self {
            Self::Normal => MEM_ATTR_NORMAL | INNER_SHAREABLE,
            Self::Device => MEM_ATTR_DEVICE,
        }
    }
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Output address of the very byte asked for.
    pub pa: Pa,
    /// What is allowed.
    pub permissions: Permissions,
    /// Memory type.
    pub kind: MemoryKind,
    /// Bytes of the page or block around it.
    pub size: u64,
}

/// Why an operation was refused. None of them is a guest's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Stage2Error {
    /// Ours: an address or a length is no multiple of 4 KiB.
    #[error("{0:#x} is not a multiple of 4 KiB")]
    Unaligned(u64),
    /// Ours: beyond 39 bits of IPA or 48 bits of PA.
    #[error("a range at {0:#x} leaves the address space")]
    OutOfRange(u64),
    /// Ours: the guest may not have this memory.
    #[error("the memory at {0} is not this guest's")]
    NotTheGuests(Pa),
    /// Ours: the range overlaps a mapping.
    #[error("IPA {0} is mapped already")]
    AlreadyMapped(Ipa),
    /// Ours: the range has a hole.
    #[error("IPA {0} is not mapped")]
    NotMapped(Ipa),
    /// The machine's: no memory for another table.
    #[error("no memory left for stage-2 tables")]
    OutOfTables,
}

/// One domain's tables.
///
/// They are not freed on drop, since that needs the memory that they are in: see
/// [`Stage2::free`].
#[derive(Debug)]
pub struct Stage2 {
    root: Pa,
}

/// An entry that a walk ended at.
#[derive(Clone, Copy)]
struct Leaf {
    table: Pa,
    index: usize,
    level: u32,
    entry: u64,
}

impl Stage2 {
    /// Makes empty tables.
    ///
    /// # Errors
    ///
    /// [`Stage2Error::OutOfTables`].
    pub fn new<M: TableMemory>(memory: &mut M) -> Result<Self, Stage2Error> {
        let root = memory.allocate(PageUse::Table(FIRST_LEVEL));
        Ok(Self { root: root.ok_or(Stage2Error::OutOfTables)? })
    }

    /// Returns VTTBR_EL2 for these tables.
    #[must_use]
    pub const fn vttbr(&self, vmid: u8) -> Vttbr {
        Vttbr(self.root.0 | (vmid as u64) << 48)
    }

    /// Maps a range that is not mapped. When it fails part of the range may be mapped.
    ///
    /// The new entries are visible to walks after a DSB, which is the caller's; nothing has to be
    /// invalidated, because invalid entries are not cached.
    ///
    /// # Errors
    ///
    /// Every [`Stage2Error`] but [`Stage2Error::NotMapped`].
    pub fn map<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        pa: Pa,
        bytes: u64,
        permissions: Permissions,
        kind: MemoryKind,
    ) -> Result<(), Stage2Error> {
        check(ipa.0, bytes, IPA_BITS)?;
        check(pa.0, bytes, PA_BITS)?;
        if !memory.may_map(pa, bytes) {
            return Err(Stage2Error::NotTheGuests(pa));
        }
        let attributes = VALID | ACCESS_FLAG | permissions.bits() | kind.bits();
        let mut done = 0;
        while done < bytes {
            let (to, from) = (pa.offset(done), ipa.offset(done));
            let level = largest_level(from.0 | to.0, bytes - done);
            let leaf = self.table_for(memory, from, level)?;
            if leaf.entry & VALID != 0 {
                return Err(Stage2Error::AlreadyMapped(from));
            }
            let page = if level == LAST_LEVEL { TABLE_OR_PAGE } else { 0 };
            memory.write(leaf.table, leaf.index, to.0 & OUTPUT | attributes | page);
            done += level_bytes(level);
        }
        Ok(())
    }

    /// Changes what the guest may do in a mapped range, splitting blocks that reach beyond it.
    /// When it fails part of the range may have changed.
    ///
    /// # Errors
    ///
    /// Every [`Stage2Error`] but [`Stage2Error::AlreadyMapped`].
    pub fn protect<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        bytes: u64,
        permissions: Permissions,
    ) -> Result<(), Stage2Error> {
        self.change(memory, ipa, bytes, |entry| entry & !PERMISSIONS | permissions.bits())
    }

    /// Lets the guest store in a mapped range, or not, and leaves its other permissions as they are.
    /// When it fails part of the range may have changed.
    ///
    /// Nothing is invalidated but what had to be split, so that many pages can change at once. Whoever
    /// withholds stores calls [`TableMemory::invalidate`] after that. Where they are permitted, a TLB may
    /// go on to refuse them until it is: that shows as a fault of what is permitted.
    ///
    /// # Errors
    ///
    /// Every [`Stage2Error`] but [`Stage2Error::AlreadyMapped`].
    pub fn set_stores<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        bytes: u64,
        permitted: bool,
    ) -> Result<(), Stage2Error> {
        let bit = if permitted { S2AP_WRITE } else { 0 };
        self.rewrite(memory, ipa, bytes, |entry| entry & !S2AP_WRITE | bit)
    }

    /// Unmaps a mapped range, splitting blocks that reach beyond it. Tables that become empty stay.
    /// When it fails part of the range may be unmapped.
    ///
    /// # Errors
    ///
    /// Every [`Stage2Error`] but [`Stage2Error::AlreadyMapped`].
    pub fn unmap<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        bytes: u64,
    ) -> Result<(), Stage2Error> {
        self.change(memory, ipa, bytes, |_| 0)
    }

    /// Translates an address; none where the guest would take a translation fault.
    #[must_use]
    pub fn walk<M: TableMemory>(&self, memory: &M, ipa: Ipa) -> Option<Mapping> {
        if ipa.0 >> IPA_BITS != 0 {
            return None;
        }
        let Leaf { level, entry, .. } = self.leaf(memory, ipa);
        let size = level_bytes(level);
        let kind = if entry & MEM_ATTR_MASK == MEM_ATTR_NORMAL {
            MemoryKind::Normal
        } else {
            MemoryKind::Device
        };
        (entry & VALID != 0).then(|| Mapping {
            pa: Pa(entry & OUTPUT | ipa.0 & (size - 1)),
            permissions: Permissions::of(entry),
            kind,
            size,
        })
    }

    /// Frees all tables. No CPU may have them in VTTBR_EL2 or in its TLB any more.
    pub fn free<M: TableMemory>(self, memory: &mut M) {
        free_table(memory, self.root, FIRST_LEVEL);
    }

    /// Rewrites the leaf entries of a mapped range.
    fn change<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        bytes: u64,
        rewrite: impl Fn(u64) -> u64,
    ) -> Result<(), Stage2Error> {
        let result = self.rewrite(memory, ipa, bytes, rewrite);
        if bytes > 0 {
            memory.invalidate(ipa, bytes);
        }
        result
    }

    /// As [`Stage2::change`], without invalidating what changed.
    fn rewrite<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        bytes: u64,
        rewrite: impl Fn(u64) -> u64,
    ) -> Result<(), Stage2Error> {
        check(ipa.0, bytes, IPA_BITS)?;
        let mut done = 0;
        while done < bytes {
            done += self.change_one(memory, ipa.offset(done), bytes - done, &rewrite)?;
        }
        Ok(())
    }

    /// Rewrites one leaf at the start of a range; returns its size.
    fn change_one<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        bytes: u64,
        rewrite: impl Fn(u64) -> u64,
    ) -> Result<u64, Stage2Error> {
        let leaf = loop {
            let leaf = self.leaf(memory, ipa);
            if leaf.entry & VALID == 0 {
                return Err(Stage2Error::NotMapped(ipa));
            }
            if leaf.level >= largest_level(ipa.0, bytes) {
                break leaf;
            }
            split(memory, leaf, ipa)?;
        };
        memory.write(leaf.table, leaf.index, rewrite(leaf.entry));
        Ok(level_bytes(leaf.level))
    }

    /// Walks to the entry that ends the walk, valid or not.
    fn leaf<M: TableMemory>(&self, memory: &M, ipa: Ipa) -> Leaf {
        let mut table = self.root;
        let mut level = FIRST_LEVEL;
        loop {
            let index = level_index(ipa, level);
            let entry = memory.read(table, index);
            if !is_table(entry, level) {
                return Leaf { table, index, level, entry };
            }
            table = Pa(entry & OUTPUT);
            level += 1;
        }
    }

    /// Walks to the entry of a level, making the tables on the way.
    fn table_for<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        level: u32,
    ) -> Result<Leaf, Stage2Error> {
        loop {
            let leaf = self.leaf(memory, ipa);
            if leaf.level > level || leaf.level < level && leaf.entry & VALID != 0 {
                // A smaller or a larger mapping has the place, or there are tables for one.
                return self.reuse_empty(memory, ipa, leaf, level);
            }
            if leaf.level == level {
                return Ok(leaf);
            }
            let table = memory.allocate(PageUse::Table(leaf.level + 1));
            let table = table.ok_or(Stage2Error::OutOfTables)?;
            memory.write(leaf.table, leaf.index, table.0 | TABLE_OR_PAGE | VALID);
        }
    }

    /// Where a table is in the way of a block: takes it out if nothing is mapped by it.
    fn reuse_empty<M: TableMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        leaf: Leaf,
        level: u32,
    ) -> Result<Leaf, Stage2Error> {
        let taken = Err(Stage2Error::AlreadyMapped(ipa));
        if leaf.level < level {
            return taken;
        }
        let mut table = self.root;
        for above in FIRST_LEVEL..level {
            table = Pa(memory.read(table, level_index(ipa, above)) & OUTPUT);
        }
        let index = level_index(ipa, level);
        let below = Pa(memory.read(table, index) & OUTPUT);
        if !is_empty(memory, below, level + 1) {
            return taken;
        }
        memory.write(table, index, 0);
        memory.invalidate(ipa, level_bytes(level));
        free_table(memory, below, level + 1);
        Ok(Leaf { table, index, level, entry: 0 })
    }
}

/// VTCR_EL2 for these tables, given ID_AA64MMFR0_EL1.PARange.
#[must_use]
pub const fn vtcr(pa_range: u64) -> u64 {
    const RES1: u64 = 1 << 31;
    const T0SZ: u64 = (64 - IPA_BITS) as u64; // 39 bits of IPA
    const SL0_LEVEL_1: u64 = 1 << 6; // walks start at level 1
    const IRGN0_WB: u64 = 1 << 8; // walks are Normal, inner Write-Back
    const ORGN0_WB: u64 = 1 << 10; // and outer Write-Back
    const SH0_INNER: u64 = 3 << 12; // and Inner Shareable; TG0 = 0 is 4 KiB
    const PS_SHIFT: u32 = 16; // size of output addresses
    // 52 bits need another format of entries: 48 are what these have.
    let ps = if pa_range & 0xf > 5 { 5 } else { pa_range & 0xf };
    RES1 | T0SZ | SL0_LEVEL_1 | IRGN0_WB | ORGN0_WB | SH0_INNER | ps << PS_SHIFT
}

/// Replaces a block by a table of the next smaller size that maps the same.
fn split<M: TableMemory>(memory: &mut M, leaf: Leaf, ipa: Ipa) -> Result<(), Stage2Error> {
    let Leaf { table, index, level, entry } = leaf;
    let new = memory.allocate(PageUse::Table(level + 1)).ok_or(Stage2Error::OutOfTables)?;
    let page = if level + 1 == LAST_LEVEL { TABLE_OR_PAGE } else { 0 };
    let mut part = entry | page;
    for n in 0..ENTRIES {
        memory.write(new, n, part);
        part += level_bytes(level + 1);
    }
    memory.write(table, index, 0);
    memory.invalidate(ipa.align_down(level_bytes(level)), level_bytes(level));
    memory.write(table, index, new.0 | TABLE_OR_PAGE | VALID);
    Ok(())
}

fn is_empty<M: TableMemory>(memory: &M, table: Pa, level: u32) -> bool {
    (0..ENTRIES).all(|index| {
        let entry = memory.read(table, index);
        entry & VALID == 0
            || is_table(entry, level) && is_empty(memory, Pa(entry & OUTPUT), level + 1)
    })
}

fn free_table<M: TableMemory>(memory: &mut M, table: Pa, level: u32) {
    for index in 0..ENTRIES {
        let entry = memory.read(table, index);
        if is_table(entry, level) {
            free_table(memory, Pa(entry & OUTPUT), level + 1);
        }
    }
    memory.free(table);
}

/// What an entry leads a walk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A fault.
    Nothing,
    /// The table of the next level.
    Table(Pa),
    /// Memory.
    Memory {
        /// First byte.
        pa: Pa,
        /// How many.
        bytes: u64,
    },
}

/// What an entry of a level, 1 to 3, leads a walk to. Of any other level, a fault.
///
/// Source: Arm ARM, DDI 0487 L.b, "VMSAv8-64 translation table format descriptors".
#[must_use]
pub const fn target(level: u32, entry: u64) -> Target {
    let output = Pa(entry & OUTPUT);
    match (level, entry & (VALID | TABLE_OR_PAGE)) {
        (FIRST_LEVEL..LAST_LEVEL, 0b11) => Target::Table(output),
        (FIRST_LEVEL..LAST_LEVEL, VALID) | (LAST_LEVEL, 0b11) => {
            let bytes = level_bytes(level);
            Target::Memory { pa: Pa(output.0 & !(bytes - 1)), bytes }
        }
        _ => Target::Nothing,
    }
}

const fn is_table(entry: u64, level: u32) -> bool {
    level < LAST_LEVEL && entry & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE
}

/// Bytes that an entry of a level maps.
const fn level_bytes(level: u32) -> u64 {
    PAGE_BYTES << (9 * (LAST_LEVEL - level))
}

/// Which entry of a level an address uses.
fn level_index(ipa: Ipa, level: u32) -> usize {
    let index = ipa.0 / level_bytes(level) % ENTRIES as u64;
    // Below 512, so nothing is lost on any machine.
    index as usize
}

/// The level of the largest block or page with which a range can begin.
const fn largest_level(addresses: u64, bytes: u64) -> u32 {
    let mut level = FIRST_LEVEL;
    while level < LAST_LEVEL
        && (bytes < level_bytes(level) || addresses & (level_bytes(level) - 1) != 0)
    {
        level += 1;
    }
    level
}

/// Checks that a range is made of pages within an address space.
fn check(base: u64, bytes: u64, bits: u32) -> Result<(), Stage2Error> {
    for value in [base, bytes] {
        if value & (PAGE_BYTES - 1) != 0 {
            return Err(Stage2Error::Unaligned(value));
        }
    }
    match base.checked_add(bytes) {
        Some(end) if end <= 1 << bits => Ok(()),
        _ => Err(Stage2Error::OutOfRange(base)),
    }
}

#[cfg(test)]
mod tests;
