//! PSCI 1.1 calls, decoded.

/// A call, by its SMCCC function id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciCall {
    /// PSCI_VERSION.
    Version,
    /// CPU_SUSPEND: behaves as WFI.
    CpuSuspend {
        /// power_state argument.
        power_state: u64,
    },
    /// CPU_OFF.
    CpuOff,
    /// CPU_ON.
    CpuOn {
        /// MPIDR of the CPU.
        target: u64,
        /// Entry point.
        entry: u64,
        /// x0 at entry.
        context: u64,
    },
    /// AFFINITY_INFO.
    AffinityInfo {
        /// MPIDR.
        target: u64,
        /// Lowest level.
        level: u64,
    },
    /// MIGRATE_INFO_TYPE.
    MigrateInfoType,
    /// SYSTEM_OFF.
    SystemOff,
    /// SYSTEM_RESET.
    SystemReset,
    /// PSCI_FEATURES.
    Features(u64),
    /// Anything else: NOT_SUPPORTED.
    Unknown(u64),
}

impl PsciCall {
    /// Decodes x0..x3 of an HVC.
    #[must_use]
    pub const fn decode(x: [u64; 4]) -> Self {
        Self::Unknown(x[0])
    }
    /// The answer, if it needs nothing but the call itself.
    #[must_use]
    pub const fn answer(&self) -> Option<u64> {
        None
    }
}
