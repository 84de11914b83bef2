//! Stepping a vCPU: the engine, between the guest and whoever wants its steps.
//!
//! The loop goes from boundary to boundary. At each it may stop, deliver an interrupt, or look at
//! the next instruction and let it execute; whatever exit comes then is given to the engine, which
//! says whether it is a boundary. Runs of plain instructions never get here: they stay in the fast
//! path of `world.S`, which counts them, and their boundaries are taken from its count.

mod begin;
mod broken_sequence;
mod detail;
mod detour;
mod emulate;
mod enter;
mod execute;
mod handler;
mod look;
mod look32;
mod natural;
mod pending_timer;
mod rearm;
mod recording;
mod switch;
mod turn;

use super::advance::{Onward, VcpuLoop};
use super::debug::{self, origin};
use super::interrupt::{self, Asynchronous};
use super::quiesce::SEQUENCE_MAX;
use super::{count, inject, time};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Run};
use crate::mutation::{self, LoopMutant};
use crate::vcpu::flow::At;
use crate::vcpu::running::End;
use crate::vcpu::state::VcpuCore;
pub use broken_sequence::note as note_broken_sequence;
pub use rearm::rearm;
use stepwell_arch::debug::mdscr_el1;
use stepwell_arch::esr::EsrEl1;
use stepwell_engine::{InterruptedContext, Plan, own_step};
use stepwell_protocol::{InterruptPolicy, StopReason};

/// What comes at a boundary instead of the next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Nothing.
    None,
    /// Something was entered: look at the boundary anew.
    Entered,
}

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// At a boundary of a guest that is stepped as ordered.
    #[inline(always)]
    pub(super) fn step(&mut self) -> Onward {
        if self.running.is_called() {
            return self.ends(End::Asked);
        }
        let reason = match self.running.core.handler_of {
            None => self.stop_at_boundary(),
            Some(interrupted) => self.stop_in_handler(interrupted),
        };
        if let Some(reason) = reason {
            return self.ends(End::Stop(reason));
        }
        if self.yield_if_due() {
            return Onward::GoOn;
        }
        if self.running.core.is_suspended {
            return self.wait_for_interrupt(false);
        }
        if self.take_event() == Event::Entered {
            return Onward::GoOn;
        }
        if self.flow.rules.record && !self.has_ring_room() {
            return self.ends(End::Stop(StopReason::RingFull));
        }
        self.emit_time_if_due();
        self.next_one(self.flow.tally.count.saturating_sub(self.flow.tally.steps))
    }

    /// A reason to stop within a handler that is stepped over, or where it has returned.
    #[inline(never)]
    fn stop_in_handler(&mut self, interrupted: InterruptedContext) -> Option<StopReason> {
        if let Some(reason) = self.take_return(interrupted) {
            return Some(reason);
        }
        if self.running.core.handler_of.is_none() {
            return self.stop_at_boundary();
        }
        if self.running.core.acknowledged.is_none()
            && let Some(reason) = self.stop_at_pc(None)
        {
            return Some(reason);
        }
        if interrupted.pc == self.running.core.pc() {
            // Others that execute the same code are to get past the breakpoint there.
            self.running.core.acknowledge_pc();
        }
        None
    }

    /// A reason to stop at what is next, by where it is. `range`: what steps are to stay in.
    #[inline(always)]
    fn stop_at_pc(&self, range: Option<(u64, u64)>) -> Option<StopReason> {
        let pc = self.running.core.pc().0;
        if self.flow.until() == Some(pc) {
            return Some(StopReason::Until);
        }
        if self.flow.rules.has_breakpoints && debug::breakpoint_at_pc(self.running).is_some() {
            return Some(StopReason::Breakpoint);
        }
        let is_outside = |(start, end): (u64, u64)| !(start..end).contains(&pc);
        range.is_some_and(is_outside).then_some(StopReason::LeftRange)
    }

    #[inline(always)]
    fn stop_at_boundary(&mut self) -> Option<StopReason> {
        if self.running.core.acknowledged.is_none()
            && let Some(reason) = self.stop_at_pc(self.running.core.within)
        {
            return Some(reason);
        }
        let is_due = self.flow.tally.steps >= self.flow.tally.count;
        let is_done = is_due && (!self.has_turns() || self.emit_steps());
        is_done.then_some(StopReason::Stepped)
    }

    /// What comes at a boundary instead of the next instruction: the guest's own step exception,
    /// or an interrupt.
    #[inline(always)]
    pub(super) fn take_event(&mut self) -> Event {
        let own_step = self.is_own_step_pending();
        let is_held = self.flow.rules.interrupts == InterruptPolicy::Hold
            && !mutation::is(LoopMutant::HeldInterruptEntered)
            || self.flow.must_move
            || !interrupt::may_be_taken(self.running);
        if !own_step && is_held { Event::None } else { self.take_boundary_event(own_step) }
    }

    /// Whether the guest's own step exception comes before the next instruction.
    #[inline]
    pub(super) fn is_own_step_pending(&self) -> bool {
        let core = &*self.running.core;
        own_step::check_software_step(core.debug.guest(), core.pstate())
    }

    #[inline(never)]
    fn take_boundary_event(&mut self, own_step: bool) -> Event {
        let is_overtaken = mutation::is(LoopMutant::InterruptBeforeOwnStep)
            && interrupt::to_be_taken(self.running).is_some();
        let core = &mut *self.running.core;
        if own_step && !is_overtaken {
            // ISV and EX tell of the instruction that was stepped. There is none where the guest
            // returned to EL0 with the step pending.
            let stepped = core.debug.own_stepped.take();
            let (isv, ex) = (stepped.is_some(), stepped.unwrap_or(false));
            let syndrome = EsrEl1::software_step(origin(self.running), isv, ex);
            inject::synchronous(self.running, syndrome, None);
            self.entered_exception();
            return Event::Entered;
        }
        let Some(what) = interrupt::to_be_taken(self.running) else { return Event::None };
        let is_in_handler = self.running.core.handler_of.is_some();
        if self.flow.rules.interrupts == InterruptPolicy::Over && !is_in_handler {
            self.begin_handler(what);
        } else {
            self.enter_handler(what);
        }
        Event::Entered
    }

    /// Enters what is pending: one step.
    pub(in crate::vcpu) fn enter_handler(&mut self, what: Asynchronous) {
        self.flow.hand.intid = match what {
            Asynchronous::Interrupt(_, intid) => Some(intid),
            Asynchronous::SError => None,
        };
        self.note_interrupt();
        broken_sequence::note(self.running);
        inject::asynchronous(self.running, what);
        self.entered_exception();
    }

    /// An exception was entered at EL2: one step.
    pub(super) fn entered_exception(&mut self) {
        let core = &mut *self.running.core;
        let mut pstate = core.pstate();
        let _boundary = core.engine.injected(&mut pstate);
        core.context.spsr = pstate.0;
        self.emit_entry();
        self.passed(1);
        if self.is_natural() {
            self.take_entry_time();
        }
    }

    /// Counts steps that have been made: this is where a step is counted.
    #[inline(always)]
    pub(super) fn passed(&mut self, steps: u64) {
        self.flow.tally.steps = self.flow.tally.steps.saturating_add(steps);
        // Where there are no turns nobody asks it.
        self.running.core.spin.passed(steps);
        if self.running.core.handler_of.is_some() {
            self.flow.tally.unseen = self.flow.tally.unseen.saturating_add(steps);
        }
        if self.running.core.virtual_clock {
            self.advance_clock(steps);
        }
        if steps > 0 {
            if !mutation::is(LoopMutant::AcknowledgedForGood) {
                self.running.core.acknowledged = None;
            }
            self.flow.must_move = false;
        }
    }

    #[inline(never)]
    fn advance_clock(&mut self, steps: u64) {
        let mut clock = self.running.domain.clock.lock();
        clock.advance(self.flow.rules.time, steps);
        let due = clock.now() >= self.flow.tally.deadline;
        drop(clock);
        if due {
            time::update_lines(self.running);
            self.find_deadline();
        }
    }

    /// Finds out anew when a timer goes off. With interrupts held it becomes pending all the same.
    pub(super) fn find_deadline(&mut self) {
        let deadline = self.running.core.virtual_clock.then(|| time::next_deadline(self.running));
        self.flow.tally.deadline = deadline.flatten().unwrap_or(u64::MAX);
    }

    /// As [`Self::next_one`], for those who are seldom here.
    #[inline(never)]
    pub(super) fn one(&mut self, limit: u64) -> Onward {
        self.next_one(limit)
    }

    /// Lets the next instruction execute, and as many plain ones after it as the fast path can
    /// take, up to `limit`.
    #[inline(always)]
    fn next_one(&mut self, limit: u64) -> Onward {
        self.look();
        self.begin(self.flow.hand.next.pc);
        self.flow.hand.steps_before = self.flow.tally.steps;
        self.flow.hand.limit = limit;
        if self.running.domain.timeline.is_some() {
            self.flow.hand.clock = count::clock(self.running);
        }
        if self.has_detail() {
            self.look_in_detail();
        }
        if self.flow.rules.quiesces_others {
            return self.in_the_way();
        }
        match self.flow.hand.next.plan {
            Plan::Execute | Plan::LoadExclusive(_) | Plan::ExceptionReturn => self.execute_now(),
            Plan::StoreExclusive(_) if self.running.core.monitor.armed().is_some() => {
                self.for_el2()
            }
            _ => self.in_hand(),
        }
    }

    /// Has those quiesced that are in the way of the instruction in hand.
    #[inline(never)]
    fn in_the_way(&mut self) -> Onward {
        let plan = self.flow.hand.next.plan;
        // The others are to go on at some time, and if it is not here, it may be before this one's store.
        let is_another =
            matches!(plan, Plan::LoadExclusive(_)) && self.flow.turn.has_quiesced_others;
        if is_another && self.flow.turn.extra >= SEQUENCE_MAX / 2 {
            self.let_others_go();
        }
        if !self.flow.turn.has_quiesced_others
            && self.running.core.monitor.needs_others_stopped(plan)
        {
            self.flow.turn.extra = 0;
            self.flow.at = At::Quiescing { has_taken: false };
            return Onward::GoOn;
        }
        self.in_hand()
    }

    /// Nobody is in the way of the instruction in hand.
    #[inline(never)]
    pub(super) fn in_hand(&mut self) -> Onward {
        if matches!(self.flow.hand.next.plan, Plan::WaitForEvent) {
            self.flow.turn.waits_for_event = true;
        }
        if self.is_for_el2() { self.for_el2() } else { self.execute() }
    }

    #[inline(never)]
    fn for_el2(&mut self) -> Onward {
        if self.must_ask() { self.ask_cpu() } else { self.carry_out() }
    }

    /// As [`Self::execute_now`], for those who are seldom here.
    #[inline(never)]
    pub(super) fn execute(&mut self) -> Onward {
        self.execute_now()
    }

    /// The CPU is to execute the instruction in hand.
    #[inline(always)]
    fn execute_now(&mut self) -> Onward {
        let wanted = self.flow.hand.limit;
        let limit = if self.flow.hand.next.plain { wanted.min(self.fast_limit()) } else { 1 };
        self.flow.hand.limit = limit;
        self.enter_anew()
    }

    /// The instruction in hand is done with, or given up.
    #[inline(always)]
    pub(super) fn done(&mut self, end: Option<End>) -> Onward {
        self.flow.at = At::Boundary;
        if self.flow.turn.has_quiesced_others {
            self.resume_others();
        }
        if self.is_natural() {
            self.take_time();
        }
        if self.flow.hand.detail.is_some() {
            self.emit_in_detail();
        }
        if let Some(end) = end {
            let end = self.ended_at(end);
            return self.ends(end);
        }
        match self.flow.detour {
            None => Onward::GoOn,
            Some(detour) => self.after(detour),
        }
    }

    /// A breakpoint at `until` is what was asked for.
    fn ended_at(&self, end: End) -> End {
        let is_until =
            self.flow.detour.is_none() && Some(self.running.core.pc().0) == self.flow.until();
        match end {
            End::Stop(StopReason::Breakpoint) if is_until => End::Stop(StopReason::Until),
            other => other,
        }
    }

    #[inline(always)]
    fn fast_limit(&mut self) -> u64 {
        let core = &*self.running.core;
        // The fast path does not say what it costs.
        if self.running.domain.timeline.is_some()
            || core.debug.guest().mdscr & mdscr_el1::SS != 0
            || core.acknowledged.is_some()
            // Each is looked at whether it is an ESB.
            || core.serror.is_some() && !interrupt::all_masked(core.pstate())
            || self.flow.must_move
            || self.flow.hand.detail.is_some()
        {
            return 1;
        }
        // Most of the time none of these is there to ask.
        let mut limit = self.watch_limit();
        if let Some(within) = self.range() {
            limit = limit.min(straight_on(self.running.core, within));
        } else if self.is_natural() && !self.flow.rules.record {
            limit = limit.min(straight_on(self.running.core, (0, u64::MAX)));
        }
        if self.flow.rules.record {
            limit = limit.min(self.running.core.recorder.room());
        }
        if self.flow.tally.deadline != u64::MAX {
            let clock = self.running.domain.clock.lock();
            limit = limit.min(clock.steps_until(self.flow.rules.time, self.flow.tally.deadline));
        }
        if self.flow.turn.has_quiesced_others {
            // For no longer than they have to.
            limit = limit.min(SEQUENCE_MAX);
        }
        limit.max(1)
    }
}

/// How many steps stay within a range if nothing jumps, at least one. What jumps leaves the fast
/// path: there is a run, recorded or not, and no room to write it.
fn straight_on<C: Cpu>(core: &mut VcpuCore<C>, within: (u64, u64)) -> u64 {
    let (start, end) = within;
    let pc = core.pc().0;
    core.context.lend_run(Run { next: pc.wrapping_add(4), ..Run::default() }, None);
    if (start..end).contains(&pc) { (end - pc) / 4 } else { 1 }
}
