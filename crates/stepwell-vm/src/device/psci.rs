//! PSCI calls, decoded: what an HVC of the guest asks its firmware for.
//!
//! QEMU's `virt` board plays PSCI 1.1 itself, and a guest is to get the same answers here: every
//! HVC #n is a call whatever n is, calls it does not know are NOT_SUPPORTED (SMCCC_VERSION is one
//! of them), CPU_SUSPEND is a WFI, and every affinity level above 0 is on. Answers are
//! sign-extended to X0. Which calls exist is of Arm DEN 0022 ("Power State Coordination
//! Interface"). PSCI 0.1 had no ids of its own, and the board gives its calls those that KVM chose;
//! they are the same calls.
//!
//! This is pure decoding. Turning vCPUs on and off is the vCPU loop's.

/// 32-bit calls from here, 64-bit ones with bit 30 set.
const BASE: u64 = 0x8400_0000;
const SMC64: u64 = 1 << 30;

/// The calls of PSCI 0.1.
mod v0_1 {
    pub(super) const CPU_SUSPEND: u64 = 0x95c1_ba5e;
    pub(super) const CPU_OFF: u64 = 0x95c1_ba5f;
    pub(super) const CPU_ON: u64 = 0x95c1_ba60;
}

/// What an HVC asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciCall {
    /// PSCI_VERSION.
    Version,
    /// CPU_SUSPEND: waits like WFI, then returns SUCCESS. Powering down is not offered, so an
    /// affinity level in `power_state` is refused: see [`PsciCall::answer`].
    CpuSuspend {
        /// How deep.
        power_state: u64,
    },
    /// CPU_OFF: does not return.
    CpuOff,
    /// CPU_ON.
    CpuOn {
        /// MPIDR_EL1 affinity of the vCPU.
        target: u64,
        /// Where it starts.
        entry: u64,
        /// What it starts with in X0.
        context: u64,
    },
    /// AFFINITY_INFO of one vCPU.
    AffinityInfo {
        /// MPIDR_EL1 affinity of the vCPU.
        target: u64,
    },
    /// AFFINITY_INFO of a group of vCPUs: all on.
    AffinityGroupInfo,
    /// MIGRATE_INFO_TYPE.
    MigrateInfoType,
    /// SYSTEM_OFF: does not return.
    SystemOff,
    /// SYSTEM_RESET: does not return.
    SystemReset,
    /// PSCI_FEATURES.
    Features {
        /// The function asked about.
        function: u64,
    },
    /// A function id that means nothing here.
    Unknown {
        /// X0.
        function: u64,
    },
}

/// Return values, before they are put into X0 by [`ReturnCode::x0`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnCode {
    /// SUCCESS, and for AFFINITY_INFO: ON.
    Success = 0,
    /// AFFINITY_INFO: OFF.
    Off = 1,
    /// NOT_SUPPORTED.
    NotSupported = -1,
    /// INVALID_PARAMETERS.
    InvalidParameters = -2,
    /// ALREADY_ON.
    AlreadyOn = -4,
}

impl ReturnCode {
    /// Returns the value of X0 that says so.
    #[must_use]
    pub const fn x0(self) -> u64 {
        self as i64 as u64
    }
}

/// PSCI 1.1.
const VERSION: u64 = 0x1_0001;
/// MIGRATE_INFO_TYPE: no Trusted OS that would have to move.
const NO_TRUSTED_OS: u64 = 2;
/// power_state bits that ask for an affinity level or for powering down.
const POWER_STATE_REFUSED: u64 = 0xfffe_0000;

impl PsciCall {
    /// Decodes X0 to X3 at an HVC from AArch64.
    #[must_use]
    pub const fn decode(x: [u64; 4]) -> Self {
        let [function, x1, x2, x3] = x;
        match function {
            0x8400_0000 => Self::Version,
            0x8400_0001 | 0xc400_0001 | v0_1::CPU_SUSPEND => Self::CpuSuspend { power_state: x1 },
            0x8400_0002 | v0_1::CPU_OFF => Self::CpuOff,
            0x8400_0003 | 0xc400_0003 | v0_1::CPU_ON => {
                Self::CpuOn { target: x1, entry: x2, context: x3 }
            }
            0x8400_0004 | 0xc400_0004 if x2 == 0 => Self::AffinityInfo { target: x1 },
            0x8400_0004 | 0xc400_0004 => Self::AffinityGroupInfo,
            0x8400_0006 => Self::MigrateInfoType,
            0x8400_0008 => Self::SystemOff,
            0x8400_0009 => Self::SystemReset,
            0x8400_000a => Self::Features { function: x1 },
            _ => Self::Unknown { function },
        }
    }

    /// Returns X0 for the calls whose answer depends on nothing but themselves; none for those
    /// that do something.
    #[must_use]
    pub const fn answer(&self) -> Option<u64> {
        let code = match *self {
            Self::Version => return Some(VERSION),
            Self::MigrateInfoType => return Some(NO_TRUSTED_OS),
            Self::AffinityGroupInfo => ReturnCode::Success,
            Self::Features { function } => features(function),
            Self::Unknown { .. } => ReturnCode::NotSupported,
            Self::CpuSuspend { power_state } if power_state & POWER_STATE_REFUSED != 0 => {
                ReturnCode::InvalidParameters
            }
            // A64 code is where the address says, or nowhere. Looked at before who is to start there.
            Self::CpuOn { entry, .. } if entry & 3 != 0 => ReturnCode::InvalidParameters,
            Self::CpuOn { .. }
            | Self::CpuSuspend { .. }
            | Self::CpuOff
            | Self::AffinityInfo { .. }
            | Self::SystemOff
            | Self::SystemReset => return None,
        };
        Some(code.x0())
    }
}

/// PSCI_FEATURES: SUCCESS for a function that is there, and no feature flags.
const fn features(function: u64) -> ReturnCode {
    if matches!(function, v0_1::CPU_SUSPEND | v0_1::CPU_OFF | v0_1::CPU_ON) {
        return ReturnCode::Success;
    }
    let has_64_bit_form = matches!(function & !SMC64, 0x8400_0001 | 0x8400_0003 | 0x8400_0004);
    if function & SMC64 != 0 && !has_64_bit_form {
        return ReturnCode::NotSupported;
    }
    match (function & !SMC64).wrapping_sub(BASE) {
        0..=4 | 6 | 8..=10 => ReturnCode::Success,
        _ => ReturnCode::NotSupported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_SUPPORTED: Option<u64> = Some(u64::MAX);

    fn answer(function: u64, argument: u64) -> Option<u64> {
        PsciCall::decode([function, argument, 0, 0]).answer()
    }

    #[test]
    fn version_and_migration_answer_as_qemu_does() {
        assert_eq!(answer(0x8400_0000, 0), Some(0x1_0001));
        assert_eq!(answer(0x8400_0006, 0), Some(2));
    }

    #[test]
    fn both_widths_of_cpu_on_are_one_call() {
        let call = PsciCall::CpuOn { target: 1, entry: 2, context: 3 };
        assert_eq!(PsciCall::decode([0x8400_0003, 1, 2, 3]), call);
        assert_eq!(PsciCall::decode([0xc400_0003, 1, 2, 3]), call);
        let call = PsciCall::CpuOn { target: 1, entry: 4, context: 3 };
        assert_eq!(call.answer(), None);
    }

    #[test]
    fn an_entry_between_instructions_is_refused_before_anything_else() {
        for entry in 1..4 {
            assert_eq!(PsciCall::decode([0xc400_0003, 1, entry, 0]).answer(), Some(-2i64 as u64));
        }
    }

    #[test]
    fn the_calls_of_psci_0_1_are_those_of_today() {
        assert_eq!(answer(0x95c1_ba5e, 0x0100_0000), Some(-2i64 as u64));
        assert_eq!(answer(0x95c1_ba5e, 0), None);
        assert_eq!(PsciCall::decode([0x95c1_ba5f, 0, 0, 0]), PsciCall::CpuOff);
        let on = PsciCall::CpuOn { target: 9, entry: 4, context: 1 };
        assert_eq!(PsciCall::decode([0x95c1_ba60, 9, 4, 1]), on);
        assert_eq!(answer(0x95c1_ba61, 0), NOT_SUPPORTED, "MIGRATE");
        assert_eq!(answer(0x95c1_ba5d, 0), NOT_SUPPORTED);
        for function in 0x95c1_ba5e..=0x95c1_ba60 {
            assert_eq!(answer(0x8400_000a, function), Some(0), "{function:#x}");
        }
        assert_eq!(answer(0x8400_000a, 0x95c1_ba61), NOT_SUPPORTED);
    }

    #[test]
    fn affinity_levels_above_a_vcpu_are_on() {
        assert_eq!(PsciCall::decode([0xc400_0004, 1, 0, 0]).answer(), None);
        assert_eq!(PsciCall::decode([0xc400_0004, 1, 1, 0]).answer(), Some(0));
    }

    #[test]
    fn features_are_those_of_the_calls_above() {
        let present = [0, 1, 2, 3, 4, 6, 8, 9, 10];
        for n in 0..0x40 {
            let expected = if present.contains(&n) { Some(0) } else { NOT_SUPPORTED };
            assert_eq!(answer(0x8400_000a, 0x8400_0000 + n), expected, "{n:#x}");
            let wide = if [1, 3, 4].contains(&n) { Some(0) } else { NOT_SUPPORTED };
            assert_eq!(answer(0x8400_000a, 0xc400_0000 + n), wide, "{n:#x}");
        }
        assert_eq!(answer(0x8400_000a, 0x8000_0000), NOT_SUPPORTED);
    }

    #[test]
    fn unknown_functions_are_not_supported() {
        for function in [0, 0x8000_0000, 0x8400_0005, 0x8400_0012, 0xc400_0000, u64::MAX] {
            assert_eq!(answer(function, 0), NOT_SUPPORTED, "{function:#x}");
        }
    }

    #[test]
    fn suspending_deeper_than_wfi_is_refused() {
        assert_eq!(answer(0xc400_0001, 0), None);
        assert_eq!(answer(0xc400_0001, 0x0100_0000), Some(-2i64 as u64));
    }
}
