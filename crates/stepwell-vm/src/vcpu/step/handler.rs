//! Stepping over an interrupt or an SError: nothing is told of its handler, and steps go on where it
//! returns to.
//!
//! Where the clock is a number of steps, the handler is stepped as well, *unseen*: neither recorded nor
//! counted, and no range ends there. So it goes by the clock of what it interrupted, and two runs are
//! one. Turns go on meanwhile. Where the clock is the machine's, the handler runs freely.
//!
//! Where a step is said to take long, so that ticks come often, those of a handler take no longer than
//! [`UNSEEN_STEP_MAX_NS`]: some thousand of them have to be over before the next tick.
//!
//! A handler that takes longer than its timer's period would be entered again as soon as it returns,
//! for ever. On any board it gets somewhere in the end, as an interrupt is recognised some time after it
//! became pending; here what was interrupted executes one instruction at least.

use super::switch::{disable, enable};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Run};
use crate::mutation::{self, LoopMutant};
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::flow::{At, BeforeHandler, Handler, Mode, Then};
use crate::vcpu::interrupt::Asynchronous;
use crate::vcpu::roots::Root;
use crate::vcpu::running::End;
use crate::vcpu::{debug, inject, interrupt, quiesce, time};
use stepwell_arch::SystemRegister;
use stepwell_engine::{InterruptedContext, TimePolicy, Yield};
use stepwell_protocol::StopReason;

/// How long a handler runs before the other vCPUs get a turn: a hundred times what one takes.
const SLICE_NS: u64 = 2_000_000;

/// What an instruction of a handler takes at most, where time is a number of steps.
const UNSEEN_STEP_MAX_NS: u32 = 100;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Enters what is pending and has its handler executed, until it returns to here.
    pub(super) fn begin_handler(&mut self, what: Asynchronous) {
        let interrupted = self.context();
        // The sequence is over, and the handler may wait for those that were quiesced for it.
        quiesce::resume_others(self.running);
        self.flow.turn.has_quiesced_others = false;
        self.note_interrupt();
        if self.running.core.virtual_clock {
            self.hide(interrupted);
            return self.enter_handler(what);
        }
        let acknowledged = self.running.core.acknowledged.take();
        inject::asynchronous(self.running, what);
        disable(self.running);
        self.running.domain.translation.ignore();
        let full = self.running.core.debug.wanted.push(interrupted.pc.0);
        debug_assert!(full.is_ok(), "one place for `until`, one for this");
        let since = self.running.cpu.counter();
        self.flow.mode = Mode::Over(Handler { interrupted, acknowledged, since });
    }

    fn context(&self) -> InterruptedContext {
        let core = &*self.running.core;
        let table = self.running.cpu.read(SystemRegister::TTBR0_EL1);
        InterruptedContext::new(core.pc(), core.pstate(), self.base(31, core.pstate()), table)
    }

    /// From here on nothing is told, until [`Self::take_return`] finds this context again.
    pub(super) fn hide(&mut self, interrupted: InterruptedContext) {
        if self.flow.turn.has_turns() && self.running.core.handler_of.is_none() {
            self.emit_steps();
        }
        let left = self.flow.tally.count.saturating_sub(self.flow.tally.steps);
        let acknowledged = self.running.core.acknowledged;
        let rules = &mut self.flow.rules;
        self.flow.before =
            BeforeHandler { left, acknowledged, record: rules.record, time: rules.time };
        rules.record &= mutation::is(LoopMutant::HandlerRecorded);
        if let TimePolicy::PerStep { ns } = &mut rules.time {
            *ns = (*ns).min(UNSEEN_STEP_MAX_NS);
        }
        self.running.core.handler_of = Some(interrupted);
        self.running.core.context.lend_run(Run::default(), None);
        let turn = self.flow.turn.has_turns().then(|| self.left_of_turn().unwrap_or(0));
        self.flow.tally.count = self.flow.tally.steps.saturating_add(turn.unwrap_or(u64::MAX));
        let full = self.running.core.debug.wanted.push(interrupted.pc.0);
        debug_assert!(full.is_ok(), "one place for `until`, one for this");
        debug::program_for_step(self.running);
    }

    /// At a boundary: takes up telling again where an unseen handler has returned. A reason to stop
    /// there.
    pub(super) fn take_return(&mut self, interrupted: InterruptedContext) -> Option<StopReason> {
        let is_here = self.running.core.pc() == interrupted.pc && self.context() == interrupted;
        if is_here { self.show() } else { None }
    }

    /// Everything is told again.
    fn show(&mut self) -> Option<StopReason> {
        let BeforeHandler { mut left, acknowledged, record, time } = self.flow.before;
        self.flow.rules.time = time;
        if self.running.core.acknowledged.is_none() {
            self.running.core.acknowledged = acknowledged;
        }
        let has_turns = self.flow.turn.has_turns();
        if has_turns {
            self.emit_steps();
        }
        self.running.core.handler_of = None;
        if has_turns {
            left = self.left_of_turn().unwrap_or(0);
        }
        self.flow.tally.count = self.flow.tally.steps.saturating_add(left);
        if !mutation::is(LoopMutant::ReturnBreakpointKept) {
            self.running.core.debug.wanted.pop();
        }
        debug::program_for_step(self.running);
        self.flow.must_move = true;
        self.flow.rules.record = record;
        // Whoever had turns meanwhile may have written into it.
        self.flow.tally.ring_room = 0;
        if record && !self.has_ring_room() {
            return Some(StopReason::RingFull);
        }
        self.emit_state();
        None
    }

    /// The range that steps are to stay in, which a handler that is stepped over does not leave.
    #[inline]
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        let core = &*self.running.core;
        if core.handler_of.is_some() { None } else { core.within }
    }

    /// At a boundary of the handler.
    pub(in crate::vcpu) fn over(&mut self) -> Onward {
        if self.running.is_called() {
            return self.ends(End::Asked);
        }
        if self.flow.turn.has_turns() && self.must_share() {
            self.yield_turn(Yield::NoProgress, None, Then::Handler);
            return Onward::GoOn;
        }
        self.run()
    }

    /// The guest stops within the handler: for its return, which is no reason to tell? Nothing where
    /// it is another one.
    pub(in crate::vcpu) fn has_returned(&mut self, handler: &Handler, end: End) -> Option<Onward> {
        let pc = self.running.core.pc();
        if end != End::Stop(StopReason::Breakpoint) || pc != handler.interrupted.pc {
            return None;
        }
        if self.context() != handler.interrupted {
            // Somebody else's turn at the same code, which the debugger may want to know of.
            let is_wanted = debug::breakpoint_at_pc(self.running).is_some();
            return (!is_wanted).then(|| self.begin_past(Root::Guarded, false));
        }
        self.end_handler();
        self.running.core.acknowledged = handler.acknowledged;
        if let Err(end) = enable(self.running) {
            return Some(self.ends(end));
        }
        self.emit_state();
        Some(Onward::GoOn)
    }

    /// The handler has returned, or is given up: nothing of it is left.
    pub(in crate::vcpu) fn end_handler(&mut self) {
        self.flow.mode = Mode::Step;
        // From here on the clock goes, whatever EL2 does.
        self.running.core.is_hidden = false;
        self.running.core.debug.wanted.pop();
        debug::program_for_step(self.running);
        interrupt::forget_signalled(self.running);
        self.find_deadline();
        self.running.core.forget_pages();
    }

    /// A handler may wait for another vCPU: each gets a turn now and then.
    fn must_share(&mut self) -> bool {
        let Mode::Over(Handler { since, .. }) = self.flow.mode else { return false };
        self.running.cpu.interrupt_in(SLICE_NS);
        let ticks = self.running.cpu.counter().wrapping_sub(since);
        time::ticks_to_ns(self.running.cpu, ticks) >= SLICE_NS
    }

    /// The others have had their turn, and the handler runs on.
    pub(super) fn shared(&mut self) {
        if let Mode::Over(handler) = &mut self.flow.mode {
            handler.since = self.running.cpu.counter();
        }
        // The one from above went off while others had the turn: without another, a handler that
        // waits with all interrupts masked would never come back here.
        self.running.cpu.interrupt_in(SLICE_NS);
        self.flow.at = At::Boundary;
    }
}
