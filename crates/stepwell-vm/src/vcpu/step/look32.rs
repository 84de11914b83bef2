//! The next instruction of AArch32 code at EL0: fetched by halfwords, decoded and planned.
//!
//! Nothing of AArch32 takes the fast path: its table is of A64. That holds without a check, since
//! exits from AArch32 have vectors of their own, which have no fast path, and what is looked at
//! here is never `plain`, so that one instruction is entered for at a time.

use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::memory::GuestMemory;
use crate::vcpu::advance::VcpuLoop;
use crate::vcpu::hand::Next;
use stepwell_arch::aarch32::{Found, Instruction, t32};
use stepwell_arch::{InstructionSet, Pstate, Va};
use stepwell_engine::{Plan, plan32};

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Fills in what is known of an instruction that is about to execute in AArch32 state.
    #[inline(never)]
    pub(super) fn look32(&mut self, pc: Va, pstate: Pstate) {
        self.flow.hand.next = Next::unknown(pc, pstate);
        let Some(found) = self.fetch32(pc, pstate) else { return };
        let plan = plan32(found, pstate);
        let base = match plan {
            Plan::LoadExclusive(_) | Plan::StoreExclusive(_) => {
                self.exclusive_address(found.instruction)
            }
            _ => 0,
        };
        let next = &mut self.flow.hand.next;
        (next.plan, next.base) = (plan, base);
        (next.is_known, next.bytes) = (true, found.bytes.into());
        next.svc = found.instruction == Instruction::Svc && found.executes(pstate);
        next.esb32 = found.instruction == Instruction::Esb && found.executes(pstate);
    }

    fn exclusive_address(&self, instruction: Instruction) -> u64 {
        match instruction {
            Instruction::LoadExclusive { rn, offset, .. }
            | Instruction::StoreExclusive { rn, offset, .. } => {
                let base = self.running.core.context.register(rn) as u32;
                base.wrapping_add(offset.into()).into()
            }
            _ => 0,
        }
    }

    /// The instruction at the PC. Nothing where it is not mapped, or is misaligned: then
    /// it executes, or faults, by itself.
    fn fetch32(&mut self, pc: Va, pstate: Pstate) -> Option<Found> {
        let set = InstructionSet::of(pstate);
        if set == InstructionSet::A32 && !pc.is_aligned(4) {
            return None;
        }
        let first = self.halfword(pc)?;
        let has_second = set == InstructionSet::A32 || t32::is_wide(first);
        // The second one may lie in the next page.
        let second = if has_second { self.halfword(pc.offset(2))? } else { 0 };
        Found::decode(set, u32::from(first) | u32::from(second) << 16)
    }

    fn halfword(&mut self, va: Va) -> Option<u16> {
        let (page, _) = self.code_page_of(va)?;
        self.running.domain.ram.halfword(page, va)
    }
}
