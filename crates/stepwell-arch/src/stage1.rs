//! Stage 1 of the EL1&0 translation regime, walked by software.
//!
//! The debugger reads guest memory by virtual address, the hypervisor fetches the instruction
//! that a guest is about to execute, and a `mmu` command shows how an address came about: all of
//! them need the guest's own tables, read from the guest's own memory, with the answer that
//! hardware would give, fault codes included.
//!
//! [`walk`] follows the tables and yields every descriptor; [`translate`] adds the checks that
//! depend on the access (access flag, permissions, PAN).
//!
//! Deliberately absent: permission indirection and overlays (TCR2_EL1.PIE, POE taken for 0), and
//! writing descriptors: where
//! TCR_EL1.HA and HD let hardware set the access flag and the dirty state, the walk acts as if it
//! had, and leaves memory alone. TLBs do not exist here: a guest that changed a table without
//! invalidating sees the new one.
//!
//! Source: Arm ARM, DDI 0487 L.b, The AArch64 Virtual Memory System Architecture, and shared
//! pseudocode `AArch64.S1Translate`.

use core::fmt;

use crate::Ipa;
use crate::esr::FaultStatus;

mod descriptor;
mod memory_type;
mod permission;
mod regime;
mod walk;

pub use memory_type::{MemoryType, Shareability};
pub use permission::Permissions;
pub use regime::{Granule, Regime};
pub use walk::{DescriptorKind, Mapping, Walk, WalkStep, walk};

/// Memory that the guest takes for physical: where its tables are.
pub trait PhysicalMemory {
    /// Why a read failed.
    type Error;

    /// Reads the aligned little-endian doubleword at `ipa`.
    ///
    /// # Errors
    ///
    /// Returns an error when nothing is there, or it cannot be reached.
    fn read_u64(&self, ipa: Ipa) -> Result<u64, Self::Error>;
}

impl<M: PhysicalMemory + ?Sized> PhysicalMemory for &M {
    type Error = M::Error;

    fn read_u64(&self, ipa: Ipa) -> Result<u64, Self::Error> {
        (**self).read_u64(ipa)
    }
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// An access to be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// What it does.
    pub kind: AccessKind,
    /// Whether it is made with EL0's rights (EL0 itself, LDTR, STTR).
    pub el0: bool,
    /// PSTATE.PAN.
    pub pan: bool,
}

impl Access {
    /// A read with EL1's rights and PAN = 0: how a debugger looks at memory.
    pub const PRIVILEGED_READ: Self = Self { kind: AccessKind::Read, el0: false, pan: false };
}

/// Where an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address.
    pub ipa: Ipa,
    /// Memory type and attributes.
    pub memory_type: MemoryType,
    /// Shareability field of the descriptor.
    pub shareability: Shareability,
    /// What may be done there, before PAN.
    pub permissions: Permissions,
    /// Size in bytes of the page or block; with the MMU off, of a 4 KiB page.
    pub page_bytes: u64,
}

impl Translation {
    /// PAR_EL1 behind an address translation instruction that has found it, with the shareability that the
    /// descriptor has, as QEMU 7.2 tells it of Device memory, too (newer ones: Outer Shareable).
    ///
    /// Source: Arm ARM, DDI 0487 L.b, PAR_EL1, Physical Address Register, when the translation succeeded.
    #[must_use]
    pub const fn in_par_el1(&self) -> u64 {
        const NS: u64 = 1 << 9;
        const RES1: u64 = 1 << 11;
        const PA: u64 = 0x000f_ffff_ffff_f000;
        let attributes = (self.memory_type.0 as u64) << 56;
        attributes | self.ipa.0 & PA | RES1 | NS | self.shareability.bits() << 7
    }
}

/// Kind of a translation fault, of those that stage 1 can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An address of a table, a page or the input lies outside the address size.
    AddressSize,
    /// No valid descriptor, or the address is outside both ranges.
    Translation,
    /// The access flag is clear.
    AccessFlag,
    /// The access is not permitted.
    Permission,
}

/// A fault of stage 1, as the guest would take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TranslationFault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Level of the walk, -1 to 3.
    pub level: i8,
}

impl TranslationFault {
    /// Fault status code for ESR_EL1 and PAR_EL1.
    #[must_use]
    pub const fn fsc(self) -> FaultStatus {
        match self.kind {
            FaultKind::AddressSize => FaultStatus::address_size(self.level),
            FaultKind::Translation => FaultStatus::translation(self.level),
            FaultKind::AccessFlag => FaultStatus::access_flag(self.level),
            FaultKind::Permission => FaultStatus::permission(self.level),
        }
    }
}

impl fmt::Display for TranslationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::AddressSize => "address size",
            FaultKind::Translation => "translation",
            FaultKind::AccessFlag => "access flag",
            FaultKind::Permission => "permission",
        };
        write!(f, "{kind} fault, level {}", self.level)
    }
}

impl core::error::Error for TranslationFault {}

/// Why an address has no translation: the guest's tables say so, or they cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError<E> {
    /// The guest's own tables do not map it.
    Fault(TranslationFault),
    /// A descriptor could not be read. Inside the machine that is a synchronous External abort
    /// on the walk; for the tool it may be a broken link, and no fault of the guest.
    Memory {
        /// Where the descriptor is.
        descriptor: Ipa,
        /// Level of the walk, -1 to 3.
        level: i8,
        /// What the memory said.
        error: E,
    },
}

impl<E> WalkError<E> {
    /// Fault status code for ESR_EL1 and PAR_EL1, taking unreadable memory for an External abort.
    pub const fn fsc(&self) -> FaultStatus {
        match self {
            Self::Fault(fault) => fault.fsc(),
            Self::Memory { level, .. } => FaultStatus::external_on_walk(*level),
        }
    }
}

impl<E> From<TranslationFault> for WalkError<E> {
    fn from(fault: TranslationFault) -> Self {
        Self::Fault(fault)
    }
}

impl<E: fmt::Display> fmt::Display for WalkError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fmt::Display::fmt(fault, f),
            Self::Memory { descriptor, level, error } => {
                write!(f, "the level {level} descriptor at IPA {descriptor} is unreadable: {error}")
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for WalkError<E> {}

/// Translates `va` for `access` as the guest's MMU would.
///
/// # Errors
///
/// Returns the fault that the guest would take, or that a descriptor could not be read.
pub fn translate<M: PhysicalMemory>(
    regime: &Regime,
    va: crate::Va,
    access: Access,
    memory: &M,
) -> Result<Translation, WalkError<M::Error>> {
    let mapping = walk(regime, va, access, memory).outcome?;
    let fault = |kind| WalkError::Fault(TranslationFault { kind, level: mapping.level });
    if !mapping.accessed {
        return Err(fault(FaultKind::AccessFlag));
    }
    if !mapping.permissions.allow(access, regime.epan()) {
        return Err(fault(FaultKind::Permission));
    }
    Ok(Translation {
        ipa: mapping.ipa,
        memory_type: mapping.memory_type,
        shareability: mapping.shareability,
        permissions: mapping.permissions,
        page_bytes: mapping.page_bytes,
    })
}

#[cfg(test)]
mod tests;
