//! The feature ID registers as a guest reads them: what they offer works, and what does not work is
//! not offered.
//!
//! Each register is a mask of the fields that are handed on from the CPU. The list says what is
//! offered rather than what is hidden, so that a feature that nobody here has thought of, with
//! registers that EL2 neither traps nor resets, is not offered by a CPU that is newer than this page.
//! Fields that speak of EL2 alone are handed on: without an EL2 they mean nothing, and a board without
//! one has them as the CPU does.
//!
//! What is kept back, and why:
//!
//! | feature | because |
//! | --- | --- |
//! | EL2, EL3, Realms | the board has none |
//! | PMU, SPE, trace unit, TRBE, BRBE, AMU | they count and record what EL2 does, and their interrupts never come |
//! | MPAM | it partitions what all guests share |
//! | NMI | the virtual GIC has no superpriority |
//! | GCS, POE, PIE, TCR2, SCTLR2, THE, D128, AIE, FPMR, PFAR | EL2 does not switch their registers |
//! | TME | a step ends a transaction |
//! | LSUI | its exclusives are not known to the step engine |
//! | HAFT, HDBSS | with TCR2 and EL2 only |
//! | IMPLEMENTATION DEFINED features | their registers trap |
//!
//! Source: Arm ARM, DDI 0487 L.b, "AArch64 System Register Descriptions", the ID registers.

use stepwell_arch::SystemRegister;

/// A field of four bits, by its lowest bit.
const fn field(shift: u32) -> u64 {
    0xf << shift
}

/// The fields of a register that are handed on; 0 for one that has no meaning yet.
const fn offered(register: SystemRegister) -> u64 {
    const ALL: u64 = u64::MAX;
    match register {
        // Not: Security, Virtualization.
        SystemRegister::ID_PFR1_EL1 => !(field(4) | field(12)),
        // Not: CopSDbg, CopTrc, PerfMon, TraceFilt. (Of MMapTrc the board has no frame.)
        SystemRegister::ID_DFR0_EL1 => field(0) | field(8) | field(16) | field(20),
        SystemRegister::ID_PFR0_EL1
        | SystemRegister::ID_PFR2_EL1
        | SystemRegister::ID_MMFR0_EL1
        | SystemRegister::ID_MMFR1_EL1
        | SystemRegister::ID_MMFR2_EL1
        | SystemRegister::ID_MMFR3_EL1
        | SystemRegister::ID_MMFR4_EL1
        | SystemRegister::ID_MMFR5_EL1
        | SystemRegister::ID_ISAR0_EL1
        | SystemRegister::ID_ISAR1_EL1
        | SystemRegister::ID_ISAR2_EL1
        | SystemRegister::ID_ISAR3_EL1
        | SystemRegister::ID_ISAR4_EL1
        | SystemRegister::ID_ISAR5_EL1
        | SystemRegister::ID_ISAR6_EL1
        | SystemRegister::MVFR0_EL1
        | SystemRegister::MVFR1_EL1
        | SystemRegister::MVFR2_EL1
        | SystemRegister::ID_AA64ZFR0_EL1
        | SystemRegister::ID_AA64SMFR0_EL1
        | SystemRegister::ID_AA64ISAR1_EL1
        | SystemRegister::ID_AA64MMFR0_EL1
        | SystemRegister::ID_AA64MMFR1_EL1
        | SystemRegister::ID_AA64MMFR2_EL1 => ALL,
        // Not: EL2, EL3, MPAM, AMU, RME.
        SystemRegister::ID_AA64PFR0_EL1 => {
            !(field(8) | field(12) | field(40) | field(44) | field(52))
        }
        // BT, SSBS, MTE, RAS_frac, SME, CSV2_frac, MTE_frac, MTEX.
        SystemRegister::ID_AA64PFR1_EL1 => 0xffff | field(24) | field(32) | field(40) | field(52),
        // MTESTOREONLY, MTEFAR.
        SystemRegister::ID_AA64PFR2_EL1 => field(4) | field(8),
        // DebugVer, BRPs, WRPs, CTX_CMPs, DoubleLock; HPMN0 speaks of EL2.
        SystemRegister::ID_AA64DFR0_EL1 => {
            field(0) | field(12) | field(20) | field(28) | field(36) | field(60)
        }
        // HPMN0.
        SystemRegister::ID_DFR1_EL1 => field(4),
        // Not: TME.
        SystemRegister::ID_AA64ISAR0_EL1 => !field(24),
        // Not: SYSREG_128, SYSINSTR_128.
        SystemRegister::ID_AA64ISAR2_EL1 => !(field(32) | field(36)),
        // FAMINMAX, LSFE, OCCMO, FPRCVT.
        SystemRegister::ID_AA64ISAR3_EL1 => field(4) | field(16) | field(20) | field(28),
        // Spec_FPACC.
        SystemRegister::ID_AA64MMFR3_EL1 => field(60),
        _ => 0,
    }
}

/// A feature ID register as the guest reads it, where the CPU has `value`.
#[must_use]
pub fn guest_value(register: SystemRegister, value: u64) -> u64 {
    let value = value & offered(register);
    match register {
        SystemRegister::ID_AA64MMFR1_EL1 => at_most(value, 0, 2), // HAFDBS: not HAFT, HDBSS
        _ => value,
    }
}

/// As [`guest_value`], on a machine that counts instructions: without what QEMU of one version has on a
/// CPU model and of another has not, so that a run is the same on both. That is ID_DFR0_EL1.MMapTrc of
/// a Cortex-A57, a trace unit that no board has; kernels keep the register in memory.
#[must_use]
pub const fn counted_value(register: SystemRegister, value: u64) -> u64 {
    match register {
        SystemRegister::ID_DFR0_EL1 => value & !field(16),
        _ => value,
    }
}

/// Lowers the unsigned field at `shift` to `most`.
fn at_most(value: u64, shift: u32, most: u64) -> u64 {
    let has = value >> shift & 0xf;
    value & !field(shift) | has.min(most) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_everything(register: SystemRegister) -> u64 {
        guest_value(register, u64::MAX)
    }

    fn has(register: SystemRegister, shift: u32) -> bool {
        of_everything(register) & field(shift) == field(shift)
    }

    #[test]
    fn what_counts_or_records_is_not_offered() {
        use SystemRegister as R;
        let hidden: [(R, &[u32]); 6] = [
            (R::ID_AA64DFR0_EL1, &[4, 8, 16, 24, 32, 40, 44, 48, 52, 56]),
            (R::ID_DFR0_EL1, &[4, 12, 24, 28]),
            (R::ID_AA64PFR0_EL1, &[8, 12, 40, 44, 52]),
            (R::ID_AA64PFR1_EL1, &[16, 28, 36, 44, 48, 56, 60]),
            (R::ID_PFR1_EL1, &[4, 12]),
            (R::ID_DFR1_EL1, &[0]),
        ];
        for (register, shifts) in hidden {
            for &shift in shifts {
                let left = of_everything(register) >> shift & 0xf;
                assert_eq!(left, 0, "{register}, bits {} to {shift}", shift + 3);
            }
        }
        for register in [R::ID_AA64DFR1_EL1, R::ID_AA64DFR2_EL1] {
            assert_eq!(of_everything(register), 0, "{register}");
        }
    }

    #[test]
    fn what_works_is_offered() {
        use SystemRegister as R;
        let offered: [(R, &[u32]); 6] = [
            (R::ID_AA64PFR0_EL1, &[0, 4, 16, 20, 24, 28, 32, 48, 56, 60]),
            (R::ID_AA64PFR1_EL1, &[0, 4, 8, 24, 32]),
            (R::ID_AA64DFR0_EL1, &[0, 12, 20, 28, 36]),
            (R::ID_AA64ISAR0_EL1, &[4, 20, 60]),
            (R::ID_AA64ISAR1_EL1, &[4, 8, 60]),
            (R::ID_AA64MMFR0_EL1, &[0, 28, 60]),
        ];
        for (register, shifts) in offered {
            for &shift in shifts {
                assert!(has(register, shift), "{register}, bits {} to {shift}", shift + 3);
            }
        }
    }

    #[test]
    fn what_has_no_meaning_yet_reads_as_zero() {
        let named = |register: &SystemRegister| register.name().is_some();
        let space = (0..=u16::MAX).map(SystemRegister).filter(|register| register.is_feature_id());
        let unnamed: Vec<_> = space.filter(|register| !named(register)).collect();
        assert!(unnamed.len() > 10);
        for register in unnamed {
            assert_eq!(of_everything(register), 0, "{register}");
        }
    }

    #[test]
    fn what_versions_of_qemu_differ_in_is_hidden_where_a_run_is_to_be_the_same() {
        let of = |value| counted_value(SystemRegister::ID_DFR0_EL1, value);
        assert_eq!((of(0x0001_0006), of(6)), (6, 6));
        assert_eq!(counted_value(SystemRegister::ID_AA64PFR0_EL1, u64::MAX), u64::MAX);
    }

    #[test]
    fn hardware_update_of_table_descriptors_is_not_offered() {
        let of = |hafdbs: u64| guest_value(SystemRegister::ID_AA64MMFR1_EL1, 0x100 | hafdbs);
        assert_eq!([0, 1, 2, 3, 4].map(of), [0x100, 0x101, 0x102, 0x102, 0x102]);
    }
}
