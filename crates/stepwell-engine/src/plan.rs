//! What the next instruction needs before it may execute.
//!
//! At a boundary on the slow path the hypervisor fetches the instruction that is about to execute
//! and asks here. Most just execute. A few would tell the guest that it is being stepped, or would
//! not work under a step, and are done at EL2 instead.

use crate::exclusive::{LoadExclusive, StoreExclusive};
use stepwell_arch::instruction::Instruction;
use stepwell_arch::system_register::SystemRegister;

/// What to do with the next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Let it execute under the step.
    Execute,
    /// Let it execute, then arm the monitor with what it read.
    LoadExclusive(LoadExclusive),
    /// Ask the monitor.
    StoreExclusive(StoreExclusive),
    /// Let it execute and clear the monitor.
    ClearExclusive,
    /// Wait for an interrupt as the policy says, then advance: a WFI executed under a step may
    /// keep the CPU until something that EL2 is holding back arrives.
    WaitForInterrupt,
    /// Let it execute; an exception return clears the monitor and may end a handler.
    ExceptionReturn,
    /// Let it execute; the guest may then see other code at the same address.
    TranslationChange,
    /// Read a counter or timer register by the virtual clock.
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
    /// Let it execute; afterwards an interrupt that was not deliverable may be.
    InterruptMask,
}

/// Tells what an instruction needs.
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
        Instruction::Wfi | Instruction::Wfit { .. } | Instruction::Wfet { .. } => {
            Plan::WaitForInterrupt
        }
        Instruction::Eret => Plan::ExceptionReturn,
        Instruction::Mrs { register, rt } if is_timer(register) => Plan::ReadTimer { register, rt },
        Instruction::Msr { register, rt } if is_timer(register) => {
            Plan::WriteTimer { register, rt }
        }
        Instruction::Mrs { register, .. } | Instruction::Msr { register, .. }
            if is_interrupt_control(register) =>
        {
            Plan::InterruptMask
        }
        Instruction::Msr { register, .. } if changes_translation(register) => {
            Plan::TranslationChange
        }
        Instruction::MsrImmediate { op1: 3, op2: 6 | 7, .. } => Plan::InterruptMask,
        Instruction::System { crn: 8 | 9, .. } => Plan::TranslationChange,
        _ => Plan::Execute,
    }
}

/// Counters and timers of EL0 and EL1: op0 3, op1 3, CRn 14, CRm 0 (counters), 2 (physical timer)
/// and 3 (virtual timer). CNTFRQ_EL0 is a constant and needs nothing.
fn is_timer(register: SystemRegister) -> bool {
    register.op0() == 3
        && register.op1() == 3
        && register.crn() == 14
        && matches!(register.crm(), 0 | 2 | 3)
        && register != SystemRegister::CNTFRQ_EL0
}

/// DAIF, ICC_PMR_EL1 and the rest of the CPU interface.
fn is_interrupt_control(register: SystemRegister) -> bool {
    register == SystemRegister::DAIF
        || register == SystemRegister::ICC_PMR_EL1
        || (register.op0() == 3
            && register.op1() == 0
            && register.crn() == 12
            && (8..=12).contains(&register.crm()))
}

/// SCTLR, TTBR0, TTBR1, TCR and VBAR: op0 3, op1 0, CRn 1, 2 or 12, CRm 0.
fn changes_translation(register: SystemRegister) -> bool {
    register.op0() == 3
        && register.op1() == 0
        && matches!(register.crn(), 1 | 2 | 12)
        && register.crm() == 0
}
