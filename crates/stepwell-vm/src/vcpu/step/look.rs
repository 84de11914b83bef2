//! The next instruction: fetched, decoded and planned before it executes.

use crate::cpu::Context as _;
use crate::cpu::{Cpu, Purpose};
use crate::memory::GuestMemory;
use crate::vcpu::advance::VcpuLoop;
use crate::vcpu::hand::Next;
use crate::vcpu::operand;
use stepwell_arch::SystemRegister;
use stepwell_arch::{Instruction, Pstate, Va};
use stepwell_engine::{LoadExclusive, Plan, StoreExclusive, is_data_processing, plan};

type PageOf<C> = <<C as Cpu>::Memory as GuestMemory>::Page;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Fetches the next instruction and plans it, as the one in hand.
    #[inline(always)]
    pub(super) fn look(&mut self) {
        self.acknowledge_translation();
        let core = &mut *self.running.core;
        let (pc, pstate) = (core.pc(), core.pstate());
        if pstate.is_aarch32() {
            return self.look32(pc, pstate);
        }
        let unknown = Next::unknown(pc, pstate);
        // Written where it is to be, and once: a copy costs as much as all of this.
        let Some((word, may_know)) = self.fetch(pc) else {
            self.flow.hand.next = unknown;
            return;
        };
        self.flow.hand.next = Next { word: Some(word), plain: may_know, is_known: true, ..unknown };
        // As most instructions that follow one that is slow.
        if is_data_processing(word) {
            return;
        }
        if Instruction::is_exclusive_class(word) {
            self.look_into_exclusive(word);
        } else {
            self.look_into(word);
        }
    }

    /// As [`Self::look`], for those who seldom do.
    #[inline(never)]
    pub(super) fn look_ahead(&mut self) -> Next {
        self.look();
        self.flow.hand.next
    }

    #[inline(never)]
    fn look_into(&mut self, word: u32) {
        self.plan(Instruction::decode(word));
    }

    /// As [`Self::look_into`]: of these there are many, and of their plans few.
    #[inline(never)]
    fn look_into_exclusive(&mut self, word: u32) {
        self.plan(Instruction::decode_exclusive(word));
    }

    #[inline(always)]
    fn plan(&mut self, instruction: Instruction) {
        let plan = plan(instruction);
        let pstate = self.flow.hand.next.pstate;
        let base = match plan {
            Plan::LoadExclusive(LoadExclusive { rn, .. })
            | Plan::StoreExclusive(StoreExclusive { rn, .. }) => self.base(rn, pstate),
            _ => 0,
        };
        let next = &mut self.flow.hand.next;
        (next.plan, next.base) = (plan, base);
        next.plain &= matches!(plan, Plan::Execute);
        next.svc = matches!(instruction, Instruction::Svc { .. });
        if matches!(plan, Plan::ExceptionReturn) {
            next.spsr_el1 = Pstate(self.running.cpu.read(SystemRegister::SPSR_EL1));
        }
    }

    /// Forgets the known pages where another vCPU has changed page tables. It is not let go on before.
    #[inline]
    pub(super) fn acknowledge_translation(&mut self) {
        // Where nothing tells of a change, there may always be one.
        if self.flow.rules.is_beside_others
            && (self.running.domain.translation.take() || !C::CAN.translation_traps)
        {
            self.running.core.forget_pages();
            self.flow.hand.executed_page = None;
        }
    }

    pub(super) fn base(&self, rn: u8, pstate: Pstate) -> u64 {
        let context = &self.running.core.context;
        match (rn, pstate.uses_sp_elx()) {
            // SP_usr is R13.
            (31, _) if pstate.is_aarch32() => context.register(13),
            (31, true) => self.running.cpu.read(SystemRegister::SP_EL1),
            (31, false) => context.sp_el0,
            _ => context.register(rn),
        }
    }

    /// The instruction at the PC, and whether its page is one for the fast path.
    ///
    /// Nothing where it is not mapped: then it executes, or faults, by itself.
    #[inline]
    fn fetch(&mut self, pc: Va) -> Option<(u32, bool)> {
        let ram = &self.running.domain.ram;
        let (page, may_know) = self.code_page_of(pc)?;
        Some((ram.instruction(page, pc)?, may_know))
    }

    /// The page of code at an address, and whether it is one for the fast path.
    #[inline]
    pub(super) fn code_page_of(&mut self, pc: Va) -> Option<(PageOf<C>, bool)> {
        match self.running.core.context.known_page(pc) {
            Some(page) => Some((page, true)),
            None => self.find_code_page(pc),
        }
    }

    #[inline(never)]
    fn find_code_page(&mut self, pc: Va) -> Option<(PageOf<C>, bool)> {
        if let Some((va, page)) = self.running.core.slow_page
            && va == pc.align_down(4096)
        {
            return Some((page, false));
        }
        // As EL1 may read: code that EL0 may execute it need not be able to read.
        let to_ipa = || self.running.cpu.to_ipa(pc, false, Purpose::Read);
        let ipa = operand::translated(self.running, to_ipa).ok()?;
        let ram = &self.running.domain.ram;
        let page = ram.code_page(ram.locate(ipa, 2).ok()?)?;
        // The vectors' page stays on the slow path: that is where exceptions show. So does one
        // with a hidden breakpoint, which only the slow path sees.
        let vectors = Va(self.running.cpu.read(SystemRegister::VBAR_EL1)).align_down(4096);
        let may_know = pc.align_down(4096) != vectors
            && !(self.flow.rules.has_breakpoints
                && (self.running.domain.follow.has_page(pc)
                    || self.running.domain.views.lock().has_breakpoints(ipa)));
        let core = &mut *self.running.core;
        if may_know {
            core.context.know_page(pc, page);
        } else {
            core.slow_page = Some((pc.align_down(4096), page));
        }
        Some((page, may_know))
    }
}
