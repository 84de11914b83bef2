//! Who and where: vCPUs and addresses.

use core::fmt;

use serde::{Deserialize, Serialize};
use stepwell_arch::debug::WatchAccess;
use stepwell_arch::{Ipa, Va};

/// Which vCPU, of which domain. Both are numbered from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct VcpuId {
    /// The domain.
    pub domain: u8,
    /// The vCPU within it.
    pub vcpu: u8,
}

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.domain {
            0 => write!(f, "vcpu{}", self.vcpu),
            domain => write!(f, "d{domain}.vcpu{}", self.vcpu),
        }
    }
}

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VcpuState {
    /// Not started, or switched off by PSCI.
    Off,
    /// In the guest, or about to be.
    Running,
    /// Held for the debugger.
    Stopped,
    /// Its domain has ended.
    Ended,
}

/// A guest address, and of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// Virtual, in the translation that is current.
    Va(Va),
    /// What the guest takes for physical.
    Ipa(Ipa),
}

impl Place {
    /// Returns the place `bytes` further on, in the same address space.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        match self {
            Self::Va(va) => Self::Va(va.offset(bytes)),
            Self::Ipa(ipa) => Self::Ipa(ipa.offset(bytes)),
        }
    }
}

/// A range of memory, and which accesses to it are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watchpoint {
    /// The first byte.
    pub address: Va,
    /// Bytes; at least 1.
    pub length: u64,
    /// Which accesses.
    pub access: WatchAccess,
}
