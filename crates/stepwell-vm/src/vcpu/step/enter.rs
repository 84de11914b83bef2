//! Entering the guest for the instruction in hand: what an entry loads, and what is taken back when
//! the guest has left.

use crate::cpu::Context as _;
use crate::cpu::{Cpu, Vector};
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::flow::At;
use crate::vcpu::hand::{Entry, MASKS, Shown};
use crate::vcpu::interrupt::Asynchronous;
use crate::vcpu::{debug, interrupt, pages, time};
use stepwell_arch::esr::{EsrEl2, ec};
use stepwell_arch::{SystemRegister, Va};
use stepwell_engine::{Exit, Outcome, Plan};
use stepwell_protocol::InterruptPolicy;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Enters for the instruction in hand, which nothing is known to have come of yet.
    #[inline(always)]
    pub(super) fn enter_anew(&mut self) -> Onward {
        let next = &self.flow.hand.next;
        let needs_interface =
            !next.is_known || matches!(next.plan, Plan::CpuInterface | Plan::PendingInterrupts);
        let shown = self.shown();
        let hand = &mut self.flow.hand;
        (hand.in_run, hand.is_let_past) = (false, false);
        (hand.shown, hand.needs_interface) = (shown, needs_interface);
        self.enter_now()
    }

    /// As [`Self::enter_now`], for those who are seldom here.
    #[inline(never)]
    pub(super) fn enter(&mut self) -> Onward {
        self.enter_now()
    }

    /// Enters for the instruction in hand.
    #[inline(always)]
    fn enter_now(&mut self) -> Onward {
        self.load_entry();
        self.flow.at = At::Step;
        Onward::Enter
    }

    /// What an entry for the instruction in hand is to find of what is pending, if anything.
    ///
    /// Nothing is delivered by the CPU under a step: it is entered at a boundary ([`Self::step`]), so
    /// that no instruction that was begun is overtaken. So what is pending is in the machine only for
    /// what looks at it, with everything masked while that executes. The instruction cannot tell, as
    /// none of these reads PSTATE. At EL0 they are undefined, and see nothing.
    #[inline(always)]
    fn shown(&self) -> Shown {
        let next = &self.flow.hand.next;
        let is_masked = interrupt::all_masked(next.pstate);
        match next.plan {
            Plan::PendingInterrupts if next.pstate.el() > 0 => Shown::Masked,
            // Not known, it may be one of those.
            _ if !next.is_known && is_masked => Shown::AsIs,
            // ESB defers an SError that the guest has masked; what unmasks it leaves the fast path.
            Plan::Execute if self.running.core.serror.is_some() && is_masked => Shown::AsIs,
            // So it does where interrupts are not masked, which it is not to meet. It reads no PSTATE.
            Plan::Execute
                if self.running.core.serror.is_some()
                    && next.pstate.serror_masked()
                    && next.is_esb() =>
            {
                Shown::Masked
            }
            _ => Shown::Nothing,
        }
    }

    #[inline(always)]
    fn load_entry(&mut self) {
        let running = &mut *self.running;
        let hand = &mut self.flow.hand;
        pages::select(running, hand.root);
        // The virtual CPU interface costs more than the step: left empty where the instruction does
        // not look at it. Nothing that could be signalled would be taken from it.
        let interface = hand.needs_interface || hand.shown != Shown::Nothing;
        if interface {
            interrupt::load(running, hand.shown == Shown::Nothing);
        }
        debug::load_for_step(running, hand.is_let_past);
        let masks = (hand.shown == Shown::Masked).then_some(running.core.context.spsr & MASKS);
        if masks.is_some() {
            running.core.context.spsr |= MASKS;
        }
        hand.entry = Entry { begun: running.core.pc(), masks, interface };
        running.core.context.set_fast_budget(hand.limit - 1);
        if self.lends_run() {
            self.lend_run();
        }
    }

    /// Whether the fast path may execute more than the instruction in hand, and is to record that.
    #[inline(always)]
    const fn lends_run(&self) -> bool {
        self.flow.hand.limit > 1 && self.flow.rules.record
    }

    /// The guest has left: what the engine makes of that.
    #[inline(always)]
    pub(super) fn unload_entry(&mut self, vector: Vector) -> Outcome {
        let Entry { begun, masks, interface } = self.flow.hand.entry;
        if let Some(own) = masks {
            self.give_masks_back(begun, own);
        }
        let used = (self.flow.hand.limit - 1) - self.running.core.context.fast_budget();
        if self.lends_run() {
            self.take_run_back();
        }
        let core = &mut *self.running.core;
        let mut pstate = core.pstate();
        let outcome = core.engine.on_exit(exit_of(vector, core.context.esr), &mut pstate);
        core.context.spsr = pstate.0;
        if used > 0 {
            self.passed(used);
            self.flow.hand.in_run = true;
        }
        self.flow.hand.limit = 1;
        if interface {
            interrupt::sync(self.running, self.flow.hand.shown == Shown::Nothing);
        }
        if self.running.domain.timeline.is_some() && matches!(outcome, Outcome::Boundary(_)) {
            self.flow.hand.taken_behind = self.taken_behind(interface);
        }
        if !self.running.core.virtual_clock {
            time::update_lines(self.running);
        }
        outcome
    }

    /// What the CPU of a guest that runs would have taken right behind the instruction that has
    /// executed: an interrupt that was pending before it, and that it has unmasked. At the end of a turn,
    /// or where a run is to stop, the CPU takes that first, and so has a step to. What becomes pending
    /// with it (a timer, what EL2 is told of by a maintenance interrupt) comes to EL2 instead.
    fn taken_behind(&mut self, has_interface: bool) -> Option<Asynchronous> {
        let rules = &self.flow.rules;
        let is_offered = rules.interrupts == InterruptPolicy::Into;
        let is_maintained = has_interface && self.running.core.interface.has_ended_for_el2();
        if !is_offered || is_maintained { None } else { interrupt::to_be_taken(self.running) }
    }

    /// PSTATE has the guest's own masks again after an instruction at `begun` for which all were set.
    fn give_masks_back(&mut self, begun: Va, own: u64) {
        let core = &mut *self.running.core;
        let moved = core.pc().0.wrapping_sub(begun.0);
        if moved == 0 || moved == 4 {
            core.context.spsr = core.context.spsr & !MASKS | own;
        } else {
            // It was taken to EL1, where what was in PSTATE is in SPSR_EL1.
            self.running.cpu.write(
                SystemRegister::SPSR_EL1,
                self.running.cpu.read(SystemRegister::SPSR_EL1) & !MASKS | own,
            );
        }
    }
}

fn exit_of(vector: Vector, esr: u64) -> Exit {
    let esr = EsrEl2(esr);
    match (vector, esr.ec()) {
        (Vector::Synchronous, ec::SOFTWARE_STEP_LOWER) => Exit::SoftwareStep(esr.step()),
        // QEMU fetches, and finds that stage 2 forbids it, before it looks at the pending step.
        (Vector::Synchronous, ec::BREAKPOINT_LOWER | ec::IABT_LOWER) => Exit::Breakpoint,
        (Vector::Synchronous, _) => Exit::Synchronous,
        _ => Exit::Asynchronous,
    }
}
