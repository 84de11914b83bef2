//! What the next instruction needs before it may execute.
//!
//! At a boundary on the slow path the hypervisor fetches the instruction that is about to execute
//! and asks here. Most just execute. A few would tell the guest that it is being stepped, or would
//! not work under a step, and are done at EL2 instead.
//!
//! WFE and WFET execute: the ERET that enters a step sets the event register, so neither waits.
//! That a guest would wait there is worth knowing where another vCPU may bring the event. DAIFSet
//! needs nothing, nor does a read of DAIF: only what may *unmask* an interrupt, or looks at the
//! GIC's CPU interface, ends a run of plain instructions.
//!
//! Source: Arm ARM (DDI 0487, issue L.b), "Wait for Event" (what sets the Event Register) and
//! "A64 System instruction encoding".

use crate::exclusive::{LoadExclusive, StoreExclusive};
use stepwell_arch::generic_timer;
use stepwell_arch::instruction::Instruction;
use stepwell_arch::system_register::SystemRegister;

/// What to do with the next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)] // asked for often: a tag of its own is told in one comparison
pub enum Plan {
    /// Let it execute under the step.
    Execute,
    /// Let it execute, then arm the monitor with what it read.
    LoadExclusive(LoadExclusive),
    /// Ask the monitor.
    StoreExclusive(StoreExclusive),
    /// Let it execute: an AArch32 load-exclusive whose condition fails does nothing, and marks
    /// nothing, but the CPU may say of its step that it was one.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for a Software Step exception, EX.
    SkippedLoadExclusive,
    /// Let it execute and clear the monitor.
    ClearExclusive,
    /// Wait for an interrupt as the policy says, then advance: a WFI executed under a step may
    /// keep the CPU until something that EL2 is holding back arrives, and a WFIT goes by the CPU's
    /// counter, which is not the guest's while it is stepped.
    WaitForInterrupt {
        /// Register with the count of the guest's virtual counter at which WFIT ends.
        until: Option<u8>,
    },
    /// Let it execute. The guest would wait here for what another vCPU does.
    WaitForEvent,
    /// Let it execute; an exception return clears the monitor and may end a handler.
    ExceptionReturn,
    /// Let it execute; the guest may then see other code at the same address.
    TranslationChange,
    /// Read a counter or timer register by the virtual clock. Where the CPU would not let the guest
    /// have it (CNTKCTL_EL1), or does not have it (FEAT_ECV), let it execute.
    ReadTimer {
        /// The register.
        register: SystemRegister,
        /// Destination.
        rt: u8,
    },
    /// Write a timer register by the virtual clock.
    WriteTimer {
        /// The register.
        register: SystemRegister,
        /// Source.
        rt: u8,
    },
    /// Read a counter or timer register by the virtual clock, as AArch32 reads 64 bits.
    ReadTimerPair {
        /// The register.
        register: SystemRegister,
        /// Destination of the low half.
        rt: u8,
        /// Destination of the high half.
        rt2: u8,
    },
    /// Write a timer register by the virtual clock, as AArch32 writes 64 bits.
    WriteTimerPair {
        /// The register.
        register: SystemRegister,
        /// Source of the low half.
        rt: u8,
        /// Source of the high half.
        rt2: u8,
    },
    /// Let it execute; it writes PSTATE's masks, and afterwards an interrupt that was masked may not
    /// be.
    InterruptMask,
    /// Let it execute with the GIC's CPU interface in place, which it reads or writes; afterwards an
    /// interrupt that was not deliverable may be.
    CpuInterface,
    /// Let it execute with what is pending in the GIC's CPU interface: it reads what that is, or
    /// acknowledges it. Where the guest has interrupts unmasked and they are held back from it,
    /// they are masked for this one instruction, which cannot tell.
    PendingInterrupts,
}

/// Tells what an instruction needs.
#[inline(always)]
#[must_use]
pub fn plan(instruction: Instruction) -> Plan {
    match instruction {
        Instruction::LoadExclusive { bytes, pair, rn, rt, rt2, .. } => {
            Plan::LoadExclusive(LoadExclusive { bytes, pair, rn, rt, rt2 })
        }
        Instruction::StoreExclusive { bytes, pair, rn, rs, rt, rt2, .. } => {
            Plan::StoreExclusive(StoreExclusive { bytes, pair, rn, rs, rt, rt2 })
        }
        Instruction::ClearExclusive => Plan::ClearExclusive,
        Instruction::Wfi => Plan::WaitForInterrupt { until: None },
        Instruction::Wfit { rt } => Plan::WaitForInterrupt { until: Some(rt) },
        Instruction::Wfe | Instruction::Wfet { .. } => Plan::WaitForEvent,
        Instruction::Eret => Plan::ExceptionReturn,
        Instruction::Mrs { register, rt } if generic_timer::is_access(register, true) => {
            Plan::ReadTimer { register, rt }
        }
        Instruction::Msr { register, rt } if generic_timer::is_access(register, false) => {
            Plan::WriteTimer { register, rt }
        }
        Instruction::Mrs { register, .. } if shows_pending(register) => Plan::PendingInterrupts,
        Instruction::Mrs { register, .. } if is_cpu_interface(register) => Plan::CpuInterface,
        Instruction::Msr { register, .. } if is_cpu_interface(register) => Plan::CpuInterface,
        Instruction::Msr { register: SystemRegister::DAIF, .. } => Plan::InterruptMask,
        Instruction::Msr { register, .. } if changes_translation(register) => {
            Plan::TranslationChange
        }
        Instruction::MsrImmediate { op1: 3, op2: 7, .. } => Plan::InterruptMask,
        Instruction::System { crn: 8 | 9, .. } => Plan::TranslationChange,
        _ => Plan::Execute,
    }
}

/// Tells of most instructions that [`plan`] has [`Plan::Execute`] for them, without decoding them:
/// data processing, of immediates and registers, scalar, floating-point and vectors. None is an SVC.
///
/// Source: Arm ARM (DDI 0487, issue L.b), "A64 instruction set encoding", op0.
#[inline]
#[must_use]
pub const fn is_data_processing(word: u32) -> bool {
    matches!(word >> 25 & 0xf, 0b1000 | 0b1001 | 0b0101 | 0b1101 | 0b0111 | 0b1111)
}

/// ICC_PMR_EL1 and the rest of the GIC's CPU interface.
fn is_cpu_interface(register: SystemRegister) -> bool {
    register == SystemRegister::ICC_PMR_EL1
        || (register.op0() == 3
            && register.op1() == 0
            && register.crn() == 12
            && (8..=12).contains(&register.crm()))
}

/// What tells which interrupt is pending: reads of ICC_IAR and ICC_HPPIR, of either group and of
/// what cannot be masked, and of ISR_EL1.
fn shows_pending(register: SystemRegister) -> bool {
    matches!(
        register,
        SystemRegister::ISR_EL1
            | SystemRegister::ICC_IAR0_EL1
            | SystemRegister::ICC_IAR1_EL1
            | SystemRegister::ICC_NMIAR1_EL1
            | SystemRegister::ICC_HPPIR0_EL1
            | SystemRegister::ICC_HPPIR1_EL1
    )
}

/// SCTLR, TTBR0, TTBR1, TCR and VBAR: op0 3, op1 0, CRn 1, 2 or 12, CRm 0.
fn changes_translation(register: SystemRegister) -> bool {
    register.op0() == 3
        && register.op1() == 0
        && matches!(register.crn(), 1 | 2 | 12)
        && register.crm() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan_of(word: u32) -> Plan {
        plan(Instruction::decode(word))
    }

    #[test]
    fn plain_instructions_execute() {
        let words = [
            (0xd503_201f, "nop"),
            (0x9100_0421, "add x1, x1, #1"),
            (0xf940_0020, "ldr x0, [x1]"),
            (0xc8df_fc20, "ldar x0, [x1]"),
            (0xc89f_fc20, "stlr x0, [x1]"),
            (0xc8a0_7c41, "cas x0, x1, [x2]"),
            (0x4820_7c82, "casp x0, x1, x2, x3, [x4]"),
            (0xb8a0_0041, "ldadda w0, w1, [x2]"),
            (0xd400_0001, "svc #0"),
            (0xd400_0002, "hvc #0"),
            (0xd400_0003, "smc #0"),
            (0xd420_0000, "brk #0"),
            (0x9400_0001, "bl"),
            (0xd65f_03c0, "ret"),
            (0xd503_3fdf, "isb"),
            (0xd53b_e000, "mrs x0, cntfrq_el0"),
            (0xd51b_e000, "msr cntfrq_el0, x0"),
        ];
        for (word, text) in words {
            assert_eq!(plan_of(word), Plan::Execute, "{text}");
        }
    }

    #[test]
    fn data_processing_needs_nothing() {
        assert!(is_data_processing(0x9100_0421), "add x1, x1, #1");
        assert!(is_data_processing(0x1e60_4000), "fmov d0, d0");
        for (word, text) in [(0xd400_0001_u32, "svc"), (0xc85f_7c20, "ldxr"), (0xd503_207f, "wfi")]
        {
            assert!(!is_data_processing(word), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_data_processing_executes(word: u32) {
            let is_call = matches!(Instruction::decode(word), Instruction::Svc { .. });
            prop_assert!(!is_data_processing(word) || plan_of(word) == Plan::Execute && !is_call);
        }
    }

    #[test]
    fn a_wait_for_event_executes_and_is_told() {
        assert_eq!(plan_of(0xd503_205f), Plan::WaitForEvent, "wfe: it executes");
        assert_eq!(plan_of(0xd503_1000), Plan::WaitForEvent, "wfet x0");
    }

    #[test]
    fn a_wait_for_interrupt_is_done_at_el2() {
        assert_eq!(plan_of(0xd503_207f), Plan::WaitForInterrupt { until: None }, "wfi");
        assert_eq!(plan_of(0xd503_1023), Plan::WaitForInterrupt { until: Some(3) }, "wfit x3");
    }

    #[test]
    fn load_exclusives_of_all_forms() {
        let load = |bytes, pair, rt2| {
            Plan::LoadExclusive(LoadExclusive { bytes, pair, rn: 1, rt: 0, rt2 })
        };
        assert_eq!(plan_of(0x085f_7c20), load(1, false, 31), "ldxrb w0, [x1]");
        assert_eq!(plan_of(0x485f_7c20), load(2, false, 31), "ldxrh w0, [x1]");
        assert_eq!(plan_of(0x885f_7c20), load(4, false, 31), "ldxr w0, [x1]");
        assert_eq!(plan_of(0xc85f_7c20), load(8, false, 31), "ldxr x0, [x1]");
        assert_eq!(plan_of(0xc85f_fc20), load(8, false, 31), "ldaxr x0, [x1]");
        assert_eq!(plan_of(0x887f_0820), load(4, true, 2), "ldxp w0, w2, [x1]");
        assert_eq!(plan_of(0xc87f_8820), load(8, true, 2), "ldaxp x0, x2, [x1]");
    }

    #[test]
    fn store_exclusives_of_all_forms() {
        let store = |bytes, pair, rt2| {
            Plan::StoreExclusive(StoreExclusive { bytes, pair, rn: 31, rs: 3, rt: 0, rt2 })
        };
        assert_eq!(plan_of(0x0803_7fe0), store(1, false, 31), "stxrb w3, w0, [sp]");
        assert_eq!(plan_of(0x4803_7fe0), store(2, false, 31), "stxrh w3, w0, [sp]");
        assert_eq!(plan_of(0x8803_7fe0), store(4, false, 31), "stxr w3, w0, [sp]");
        assert_eq!(plan_of(0xc803_7fe0), store(8, false, 31), "stxr w3, x0, [sp]");
        assert_eq!(plan_of(0xc803_ffe0), store(8, false, 31), "stlxr w3, x0, [sp]");
        assert_eq!(plan_of(0x8823_0be0), store(4, true, 2), "stxp w3, w0, w2, [sp]");
        assert_eq!(plan_of(0xc823_8be0), store(8, true, 2), "stlxp w3, x0, x2, [sp]");
        assert_eq!(plan_of(0xd503_3f5f), Plan::ClearExclusive, "clrex");
    }

    #[test]
    fn exception_returns() {
        for word in [0xd69f_03e0, 0xd69f_0bff, 0xd69f_0fff] {
            assert_eq!(plan_of(word), Plan::ExceptionReturn, "{word:#x}");
        }
    }

    #[test]
    fn counters_and_timers_go_by_the_virtual_clock() {
        let counters = [
            SystemRegister::CNTPCT_EL0,
            SystemRegister::CNTVCT_EL0,
            SystemRegister::CNTPCTSS_EL0,
            SystemRegister::CNTVCTSS_EL0,
        ];
        let timers = [
            SystemRegister::CNTP_CTL_EL0,
            SystemRegister::CNTP_CVAL_EL0,
            SystemRegister::CNTP_TVAL_EL0,
            SystemRegister::CNTV_CTL_EL0,
            SystemRegister::CNTV_CVAL_EL0,
            SystemRegister::CNTV_TVAL_EL0,
        ];
        for register in counters.into_iter().chain(timers) {
            assert_eq!(plan_of(register.mrs(7)), Plan::ReadTimer { register, rt: 7 }, "{register}");
        }
        for register in timers {
            let plan = Plan::WriteTimer { register, rt: 7 };
            assert_eq!(plan_of(register.msr(7)), plan, "{register}");
        }
        assert_eq!(plan_of(SystemRegister::CNTKCTL_EL1.msr(0)), Plan::Execute);
    }

    #[test]
    fn what_is_no_timer_near_one_is_left_to_the_cpu_to_be_undefined() {
        for register in [SystemRegister::CNTPCT_EL0, SystemRegister::CNTVCTSS_EL0] {
            assert_eq!(plan_of(register.msr(7)), Plan::Execute, "{register} is read-only");
        }
        for (crm, op2) in [(0, 3), (0, 4), (0, 7), (1, 1), (2, 3), (2, 7), (3, 3), (3, 7)] {
            let register = SystemRegister::new(3, 3, 14, crm, op2);
            assert_eq!(plan_of(register.mrs(7)), Plan::Execute, "{register}");
            assert_eq!(plan_of(register.msr(7)), Plan::Execute, "{register}");
        }
    }

    #[test]
    fn what_may_unmask_an_interrupt_or_reads_the_cpu_interface_is_looked_at() {
        let unmasks =
            [(SystemRegister::DAIF.msr(0), "msr daif, x0"), (0xd503_42ff, "msr daifclr, #2")];
        for (word, text) in unmasks {
            assert_eq!(plan_of(word), Plan::InterruptMask, "{text}");
        }
        let interface = [
            (SystemRegister::ICC_PMR_EL1.msr(0), "msr icc_pmr_el1, x0"),
            (SystemRegister::ICC_EOIR1_EL1.msr(0), "msr icc_eoir1_el1, x0"),
            (SystemRegister::ICC_DIR_EL1.msr(0), "msr icc_dir_el1, x0"),
            (SystemRegister::ICC_IGRPEN1_EL1.msr(0), "msr icc_igrpen1_el1, x0"),
            (SystemRegister::ICC_CTLR_EL1.msr(0), "msr icc_ctlr_el1, x0"),
            (SystemRegister::ICC_SGI1R_EL1.msr(0), "msr icc_sgi1r_el1, x0"),
            (SystemRegister::ICC_PMR_EL1.mrs(0), "mrs x0, icc_pmr_el1"),
            (SystemRegister::ICC_RPR_EL1.mrs(0), "mrs x0, icc_rpr_el1"),
        ];
        for (word, text) in interface {
            assert_eq!(plan_of(word), Plan::CpuInterface, "{text}");
        }
        let others = [
            (SystemRegister::DAIF.mrs(0), "mrs x0, daif"),
            (0xd503_42df, "msr daifset, #2"),
            (0xd500_41bf, "msr spsel, #1"),
            (0xd500_419f, "msr pan, #1"),
        ];
        for (word, text) in others {
            assert_eq!(plan_of(word), Plan::Execute, "{text}");
        }
    }

    #[test]
    fn what_shows_a_pending_interrupt() {
        for register in [
            SystemRegister::ISR_EL1,
            SystemRegister::ICC_IAR0_EL1,
            SystemRegister::ICC_IAR1_EL1,
            SystemRegister::ICC_NMIAR1_EL1,
            SystemRegister::ICC_HPPIR0_EL1,
            SystemRegister::ICC_HPPIR1_EL1,
        ] {
            assert_eq!(plan_of(register.mrs(0)), Plan::PendingInterrupts, "{register}");
        }
    }

    #[test]
    fn what_changes_the_code_at_an_address() {
        let changes = [
            (SystemRegister::SCTLR_EL1.msr(0), "msr sctlr_el1, x0"),
            (SystemRegister::TTBR0_EL1.msr(0), "msr ttbr0_el1, x0"),
            (SystemRegister::TTBR1_EL1.msr(0), "msr ttbr1_el1, x0"),
            (SystemRegister::TCR_EL1.msr(0), "msr tcr_el1, x0"),
            (SystemRegister::VBAR_EL1.msr(0), "msr vbar_el1, x0"),
            (0xd508_871f, "tlbi vmalle1"),
            (0xd508_8320, "tlbi vae1is, x0"),
            (0xd508_9320, "tlbi vae1isnxs, x0"),
        ];
        for (word, text) in changes {
            assert_eq!(plan_of(word), Plan::TranslationChange, "{text}");
        }
        let others = [
            (SystemRegister::SCTLR_EL1.mrs(0), "mrs x0, sctlr_el1"),
            (SystemRegister::TTBR0_EL1.mrs(0), "mrs x0, ttbr0_el1"),
            (0xd50b_7520, "ic ivau, x0"),
            (0xd50b_7b20, "dc cvau, x0"),
            (0xd508_7800, "at s1e1r, x0"),
        ];
        for (word, text) in others {
            assert_eq!(plan_of(word), Plan::Execute, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_exclusive_is_never_left_to_chance(word: u32) {
            let instruction = Instruction::decode(word);
            let planned = matches!(
                plan(instruction),
                Plan::LoadExclusive(_) | Plan::StoreExclusive(_) | Plan::ClearExclusive
            );
            prop_assert_eq!(planned, instruction.is_exclusive());
        }
    }
}
