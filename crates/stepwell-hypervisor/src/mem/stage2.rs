//! Stage-2 translation tables of one domain (signatures first; bodies follow).
#![forbid(unsafe_code)]

use stepwell_arch::{Ipa, Pa};

/// Where translation tables live.
pub trait TableMemory {
    /// Allocates a zeroed 4 KiB page.
    fn allocate(&mut self) -> Option<Pa>;
    /// Gives a page back.
    fn free(&mut self, table: Pa);
    /// Reads an entry.
    fn read(&self, table: Pa, index: usize) -> u64;
    /// Writes an entry.
    fn write(&mut self, table: Pa, index: usize, value: u64);
    /// Makes earlier writes visible and forgets cached translations of the range, on all CPUs:
    /// DSB ISHST; TLBI IPAS2E1IS for each page (or VMALLS12E1IS); DSB ISH; TLBI VMALLE1IS; DSB ISH; ISB.
    /// Called between break and make, and after other changes of live entries.
    fn invalidate(&mut self, ipa: Ipa, bytes: u64);
}

/// What the guest may do with a page, as far as stage 2 is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

/// Memory type of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Normal, Inner and Outer Write-Back Cacheable, Inner Shareable.
    Normal,
    /// Device-nGnRE.
    Device,
}

/// What `Stage2::walk` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Output address of the exact IPA asked for.
    pub pa: Pa,
    /// Access permissions.
    pub permissions: Permissions,
    /// Memory type.
    pub kind: MemoryKind,
    /// Bytes covered by the page or block that maps it.
    pub size: u64,
}

/// Why a stage-2 operation was refused; nothing of the request is guest-controlled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stage2Error {
    /// Ours: an address or length is no multiple of 4 KiB.
    #[error("{0:#x} is not a multiple of 4 KiB")]
    Unaligned(u64),
    /// Ours: outside the 39-bit IPA space or the 48-bit PA space.
    #[error("{0:#x} is out of range")]
    OutOfRange(u64),
    /// Ours: something is mapped there already.
    #[error("IPA {0} is mapped already")]
    AlreadyMapped(Ipa),
    /// Ours: nothing is mapped there.
    #[error("IPA {0} is not mapped")]
    NotMapped(Ipa),
    /// The machine: no memory left for tables.
    #[error("out of memory for stage-2 tables")]
    OutOfTables,
}

/// One domain's stage-2 tables: 4 KiB granule, 39-bit IPA, one level-1 root.
#[derive(Debug)]
pub struct Stage2 {
    root: Pa,
}

impl Stage2 {
    /// Allocates the root.
    pub fn new<M: TableMemory>(mem: &mut M) -> Result<Self, Stage2Error> {
        Ok(Self { root: mem.allocate().ok_or(Stage2Error::OutOfTables)? })
    }
    /// VTTBR_EL2.
    #[must_use]
    pub const fn vttbr(&self, vmid: u8) -> u64 {
        self.root.0 | (vmid as u64) << 48
    }
    /// Maps a range, with blocks where alignment allows.
    pub fn map<M: TableMemory>(
        &mut self,
        mem: &mut M,
        ipa: Ipa,
        pa: Pa,
        bytes: u64,
        permissions: Permissions,
        kind: MemoryKind,
    ) -> Result<(), Stage2Error> {
        let _ = (mem, ipa, pa, bytes, permissions, kind);
        Ok(())
    }
    /// Changes permissions of a mapped range, splitting blocks (BBM through `TableMemory::invalidate`).
    pub fn protect<M: TableMemory>(
        &mut self,
        mem: &mut M,
        ipa: Ipa,
        bytes: u64,
        permissions: Permissions,
    ) -> Result<(), Stage2Error> {
        let _ = (mem, ipa, bytes, permissions);
        Ok(())
    }
    /// Unmaps a range.
    pub fn unmap<M: TableMemory>(
        &mut self,
        mem: &mut M,
        ipa: Ipa,
        bytes: u64,
    ) -> Result<(), Stage2Error> {
        let _ = (mem, ipa, bytes);
        Ok(())
    }
    /// Translates.
    #[must_use]
    pub fn walk<M: TableMemory>(&self, mem: &M, ipa: Ipa) -> Option<Mapping> {
        let _ = (mem, ipa);
        None
    }
}

/// VTCR_EL2 for these tables, given ID_AA64MMFR0_EL1.PARange.
#[must_use]
pub const fn vtcr(pa_range: u64) -> u64 {
    pa_range
}
