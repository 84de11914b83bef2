//! What the next instruction of AArch32 code at EL0 needs before it may execute.
//!
//! The counterpart of [`plan`](crate::plan): there is much less that EL0 can do, and all of it may
//! be conditional. An instruction whose condition fails executes as a plain step, and does nothing.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Conditional execution" and "The AArch32 Application Level
//! Programmers' Model".

use crate::exclusive::{LoadExclusive, StoreExclusive};
use crate::plan::Plan;
use stepwell_arch::Pstate;
use stepwell_arch::aarch32::{Found, Instruction};

/// Tells what an A32 or T32 instruction needs that is about to execute in `pstate`.
#[must_use]
pub fn plan32(found: Found, pstate: Pstate) -> Plan {
    if !found.executes(pstate) {
        return match found.instruction {
            Instruction::LoadExclusive { .. } => Plan::SkippedLoadExclusive,
            _ => Plan::Execute,
        };
    }
    match found.instruction {
        Instruction::LoadExclusive { bytes, pair, rn, rt, rt2, .. } => {
            Plan::LoadExclusive(LoadExclusive { bytes, pair, rn, rt, rt2 })
        }
        Instruction::StoreExclusive { bytes, pair, rn, rd, rt, rt2, .. } => {
            Plan::StoreExclusive(StoreExclusive { bytes, pair, rn, rs: rd, rt, rt2 })
        }
        Instruction::ClearExclusive => Plan::ClearExclusive,
        Instruction::Wfi => Plan::WaitForInterrupt { until: None },
        Instruction::Wfe => Plan::WaitForEvent,
        Instruction::ReadTimer { register, rt, rt2 } => match rt2 {
            None => Plan::ReadTimer { register, rt },
            Some(rt2) => Plan::ReadTimerPair { register, rt, rt2 },
        },
        Instruction::WriteTimer { register, rt, rt2 } => match rt2 {
            None => Plan::WriteTimer { register, rt },
            Some(rt2) => Plan::WriteTimerPair { register, rt, rt2 },
        },
        Instruction::Esb | Instruction::Svc | Instruction::Other => Plan::Execute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stepwell_arch::aarch32::{a32, t32, with_it_state};
    use stepwell_arch::{InstructionSet, SystemRegister};

    /// User mode with Z set, so that EQ holds and NE does not.
    const USER: Pstate = Pstate(Pstate::M_USER | Pstate::Z);

    fn plan_of(word: u32) -> Plan {
        plan32(a32::decode(word), USER)
    }

    #[test]
    fn exclusives_of_both_sets() {
        let load = |bytes, pair, rn, rt, rt2| {
            Plan::LoadExclusive(LoadExclusive { bytes, pair, rn, rt, rt2 })
        };
        let store = |bytes, pair, rs, rt, rt2| {
            Plan::StoreExclusive(StoreExclusive { bytes, pair, rn: 0, rs, rt, rt2 })
        };
        assert_eq!(plan_of(0xe1d0_1f9f), load(1, false, 0, 1, 31), "ldrexb r1, [r0]");
        assert_eq!(plan_of(0xe1b0_2f9f), load(4, true, 0, 2, 3), "ldrexd r2, r3, [r0]");
        assert_eq!(plan_of(0xe180_3f92), store(4, false, 3, 2, 31), "strex r3, r2, [r0]");
        assert_eq!(plan_of(0xe1a0_1f92), store(4, true, 1, 2, 3), "strexd r1, r2, r3, [r0]");
        assert_eq!(plan_of(0xf57f_f01f), Plan::ClearExclusive, "clrex");
        let wide = |first, second| plan32(t32::decode(first, second), USER);
        assert_eq!(wide(0xe850, 0x3f01), load(4, false, 0, 3, 31), "ldrex r3, [r0, #4]");
        assert_eq!(wide(0xe8c0, 0x1f52), store(2, false, 2, 1, 31), "strexh r2, r1, [r0]");
    }

    #[test]
    fn a_failed_condition_is_a_plain_step() {
        assert_eq!(plan_of(0x1190_1f9f), Plan::SkippedLoadExclusive, "ldrexne r1, [r0]");
        assert!(matches!(plan_of(0x0190_1f9f), Plan::LoadExclusive(_)), "ldrexeq r1, [r0]");
        assert_eq!(plan_of(0x1180_3f92), Plan::Execute, "strexne r3, r2, [r0]");
        assert_eq!(plan_of(0x1320_f003), Plan::Execute, "wfine");
        let wfi = t32::decode(0xbf30, 0);
        let waits = Plan::WaitForInterrupt { until: None };
        for (it, plan) in [(0x18, Plan::Execute), (0x08, waits)] {
            let in_block = with_it_state(Pstate(USER.0 | Pstate::T), it);
            assert_eq!(plan32(wfi, in_block), plan, "{it:#x}");
        }
    }

    #[test]
    fn waits_calls_and_all_else() {
        assert_eq!(plan_of(0xe320_f003), Plan::WaitForInterrupt { until: None }, "wfi");
        assert_eq!(plan_of(0xe320_f002), Plan::WaitForEvent, "wfe");
        assert_eq!(plan_of(0xef00_0001), Plan::Execute, "svc");
        assert_eq!(plan_of(0xe320_f010), Plan::Execute, "esb");
        assert_eq!(plan_of(0xe1a0_0000), Plan::Execute, "nop");
    }

    #[test]
    fn timers_go_by_the_virtual_clock() {
        let register = SystemRegister::CNTVCT_EL0;
        let pair = Plan::ReadTimerPair { register, rt: 2, rt2: 3 };
        assert_eq!(plan_of(0xec53_2f1e), pair, "mrrc p15, #1, r2, r3, c14");
        let register = SystemRegister::CNTV_CVAL_EL0;
        let pair = Plan::WriteTimerPair { register, rt: 2, rt2: 3 };
        assert_eq!(plan_of(0xec43_2f3e), pair, "mcrr p15, #3, r2, r3, c14");
        let register = SystemRegister::CNTV_CTL_EL0;
        assert_eq!(plan_of(0xee1e_3f33), Plan::ReadTimer { register, rt: 3 }, "mrc");
        assert_eq!(plan_of(0xee0e_2f33), Plan::WriteTimer { register, rt: 2 }, "mcr");
    }

    proptest! {
        #[test]
        fn an_exclusive_that_executes_is_never_left_to_chance(word: u32, pstate: u64) {
            let pstate = Pstate(pstate & !0xf | Pstate::M_USER);
            let found = Found::decode(InstructionSet::of(pstate), word).expect("it is AArch32");
            let is_exclusive = matches!(
                found.instruction,
                Instruction::LoadExclusive { .. }
                    | Instruction::StoreExclusive { .. }
                    | Instruction::ClearExclusive
            );
            let planned = matches!(
                plan32(found, pstate),
                Plan::LoadExclusive(_) | Plan::StoreExclusive(_) | Plan::ClearExclusive
            );
            prop_assert_eq!(planned, is_exclusive && found.executes(pstate));
        }
    }
}
