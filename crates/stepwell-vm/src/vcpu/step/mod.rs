//! Stepping a vCPU: the engine, between the guest and whoever wants its steps.
//!
//! The loop goes from boundary to boundary. At each it may stop, deliver an interrupt, or look at
//! the next instruction and let it execute; whatever exit comes then is given to the engine, which
//! says whether it is a boundary. Runs of plain instructions never get here: they stay in the fast
//! path of `world.S`, which counts them, and their boundaries are taken from its count.

mod detail;
mod emulate;
mod execute;
mod handler;
mod look;
mod look32;
mod natural;
mod pending_timer;
mod recording;
mod step_past;
mod stepper;
mod switch;
mod turn;

use super::debug::{self, origin};
use super::interrupt::Asynchronous;
use super::quiesce::{self, SEQUENCE_MAX};
use super::{inject, interrupt, time};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Run};
use crate::domain::{PendingStop, Role, StepOrder};
use crate::vcpu::roots::Root;
use crate::vcpu::running::{End, Running};
use crate::vcpu::state::VcpuCore;
use core::sync::atomic::Ordering;
pub use emulate::is_big_endian;
pub use pending_timer::{TimerSteps, while_timer_is_pending};
pub use step_past::{past_breakpoint, repeat_sequence, with_nothing_withheld};
use stepper::{Answer, BeforeHandler, Carried, Next, Stepper, Turn};
use stepwell_arch::debug::mdscr_el1;
use stepwell_arch::esr::EsrEl1;
use stepwell_engine::{OthersPolicy, Plan, Scope, TimePolicy, Yield, own_step};
use stepwell_protocol::{InterruptPolicy, StopReason, TraceDetail};
use switch::{disable, enable};

/// Steps as ordered, until something stops the vCPU. Returns how many steps it came to.
pub fn step<C: Cpu>(running: &mut Running<'_, C>, order: StepOrder) -> (End, u64) {
    let StepOrder { until, record, within, role } = order;
    if let Err(end) = enable(running) {
        return (end, 0);
    }
    let control = running.domain.control.lock();
    let detail = control.detail;
    let (interrupts, time, others) = match (role, control.others) {
        // Its clock is theirs, and theirs is the machine's.
        (Role::Focus, OthersPolicy::Run) => {
            (control.interrupts, TimePolicy::Real, OthersPolicy::Run)
        }
        // It moves so that the stepped one makes progress, and that may take interrupts.
        (Role::Other, OthersPolicy::Stop) => {
            (InterruptPolicy::Into, control.time, OthersPolicy::Stop)
        }
        (_, others) => (control.interrupts, control.time, others),
    };
    drop(control);
    (running.core.left_at, running.core.is_hidden) = (None, false);
    running.core.virtual_clock = time != TimePolicy::Real;
    if running.core.virtual_clock {
        time::hold(running);
        // A timer may have gone off since the last exit, and its interrupt is off now.
        time::update_lines(running);
    } else {
        time::release(running);
    }
    running.core.debug.wanted.extend(until);
    let core = &mut *running.core;
    core.within = within;
    let past_first = role == Role::Focus || core.reported_pc == Some(core.context.elr);
    let mut stepper = Stepper::new(running, interrupts, time);
    (stepper.record, stepper.is_recorded) = (record, record);
    (stepper.detail, stepper.past_first) = (detail, past_first);
    stepper.turn = Turn::new(role, others);
    // Steps that are asked for in many commands are recognised as those of one.
    core::mem::swap(&mut stepper.turn.spin, &mut stepper.running.core.spin);
    stepper.quiesces_others = role == Role::Focus && others == OthersPolicy::Run;
    stepper.is_beside_others = stepper.quiesces_others;
    let end = stepper.go(role, until);
    stepper.running.domain.translation.ignore();
    stepper.finish_recording();
    let steps = stepper.leave(end);
    core::mem::swap(&mut stepper.turn.spin, &mut stepper.running.core.spin);
    quiesce::resume_others(running);
    disable(running);
    running.core.debug.wanted.clear();
    if time == TimePolicy::Real {
        running.core.left_at = None;
        time::ran(running);
        let offset = running.domain.clock_offset.load(Ordering::Acquire);
        running.domain.clock.lock().hold(running.cpu.counter(), offset);
    }
    running.core.virtual_clock = false;
    (end, steps)
}

/// Lets a guest that steps itself, and otherwise runs freely, come to its next boundary; an
/// exclusive sequence to its end, because an exit in the middle would break it.
pub fn guests_own_step<C: Cpu>(running: &mut Running<'_, C>) -> Option<End> {
    if let Err(end) = enable(running) {
        return Some(end);
    }
    let time = time::go_by_steps(running);
    let mut stepper = Stepper::new(running, InterruptPolicy::Into, time);
    stepper.past_first = false;
    let control = stepper.running.domain.control.lock();
    stepper.quiesces_others = control.free && !control.by_turns;
    drop(control);
    let mut end = None;
    for _ in 0..SEQUENCE_MAX {
        end = match stepper.boundary_events() {
            Some(end) => end,
            // Nothing of it is executed from the copy with the BRKs.
            None if debug::breakpoint_at_pc(stepper.running).is_some() => {
                Some(End::Stop(StopReason::Breakpoint))
            }
            None => stepper.one(1),
        };
        if end.is_some() || stepper.running.core.monitor.armed().is_none() {
            break;
        }
    }
    disable(running);
    time::go_on(running);
    if end.is_none() {
        quiesce::resume_others(running);
        running.core.monitor.clear();
    }
    end
}

impl<'a, 'b, C: Cpu> Stepper<'a, 'b, C> {
    fn new(running: &'a mut Running<'b, C>, interrupts: InterruptPolicy, time: TimePolicy) -> Self {
        debug::program_for_step(running);
        let debug = &mut running.core.debug;
        debug.is_past_watch = debug.reported_watch.take() == Some(running.core.context.elr);
        interrupt::invalidate_interface(running);
        // Whoever ran since may have changed what is where.
        running.core.context.forget_pages();
        let control = running.domain.control.lock();
        let has_breakpoints = !control.breakpoints.is_empty() || running.domain.has_views();
        let has_watchpoints = !control.watchpoints.is_empty();
        drop(control);
        running.core.context.lend_run(Run::default(), None);
        let mut stepper = Self {
            running,
            interrupts,
            time,
            count: u64::MAX,
            steps: 0,
            unseen: 0,
            before: BeforeHandler::default(),
            must_move: false,
            record: false,
            is_recorded: false,
            detail: TraceDetail::default(),
            time_due: 0,
            intid: None,
            executed_page: None,
            has_entered: false,
            is_device: false,
            has_stored: false,
            turn: Turn::new(Role::Alone(u64::MAX), OthersPolicy::Stop),
            past_first: true,
            root: Root::Guarded,
            is_stepping_past: false,
            quiesces_others: false,
            is_beside_others: false,
            has_quiesced_others: false,
            has_breakpoints,
            has_watchpoints,
            deadline: u64::MAX,
            ring_room: 0,
        };
        stepper.find_deadline();
        stepper
    }

    /// Finds out anew when a timer goes off. With interrupts held it becomes pending all the same.
    fn find_deadline(&mut self) {
        let deadline = self.running.core.virtual_clock.then(|| time::next_deadline(self.running));
        self.deadline = deadline.flatten().unwrap_or(u64::MAX);
    }

    fn go(&mut self, role: Role, until: Option<u64>) -> End {
        match role {
            Role::Alone(count) => {
                self.count = count;
                self.emit_state();
            }
            Role::Focus | Role::Other => {
                if let Some(end) = self.take_turn(false) {
                    return end;
                }
            }
        }
        if let Some(interrupted) = self.running.core.handler_of {
            self.hide(interrupted);
        }
        loop {
            if self.running.is_called() {
                return End::Asked;
            }
            if let Some(reason) = self.take_return() {
                return End::Stop(reason);
            }
            if let Some(reason) = self.stop_at_boundary(until) {
                return End::Stop(reason);
            }
            if let Some(end) = self.yield_if_due() {
                return end;
            }
            if self.running.core.is_suspended
                && let Some(end) = self.wait_suspended()
            {
                return end;
            }
            if let Some(end) = self.boundary_events() {
                match end {
                    Some(end) => return end,
                    None => continue,
                }
            }
            if self.record && !self.has_ring_room() {
                return End::Stop(StopReason::RingFull);
            }
            self.emit_time_if_due();
            if let Some(end) = self.one(self.count.saturating_sub(self.steps)) {
                return match end {
                    End::Stop(StopReason::Breakpoint)
                        if Some(self.running.core.pc().0) == until =>
                    {
                        End::Stop(StopReason::Until)
                    }
                    other => other,
                };
            }
        }
    }

    fn stop_at_boundary(&mut self, until: Option<u64>) -> Option<StopReason> {
        let pc = self.running.core.pc().0;
        if !self.past_first {
            if Some(pc) == until {
                return Some(StopReason::Until);
            }
            if self.has_breakpoints && debug::breakpoint_at_pc(self.running).is_some() {
                return Some(StopReason::Breakpoint);
            }
            let is_outside = |(start, end): (u64, u64)| !(start..end).contains(&pc);
            if self.range().is_some_and(is_outside) {
                return Some(StopReason::LeftRange);
            }
        }
        if let Some(interrupted) = self.running.core.handler_of {
            // Others that execute the same code are to get past the breakpoint there.
            self.past_first |= interrupted.pc.0 == pc;
            return None;
        }
        let is_due = self.steps >= self.count;
        let is_done = is_due && (!self.turn.has_turns() || self.emit_steps());
        is_done.then_some(StopReason::Stepped)
    }

    /// Leaves the others to themselves. Returns the steps that the tool is told.
    fn leave(&mut self, end: End) -> u64 {
        if !self.turn.has_turns() {
            return self.steps - self.unseen;
        }
        self.emit_steps();
        let Running { domain, index, .. } = *self.running;
        if end == End::SwitchedOff {
            turn::yield_turn(self.running, Yield::SwitchedOff);
        }
        let turns = domain.turns.lock();
        let (steps, is_wanted) = (turns.counted(), turns.scope() == Scope::Focus);
        drop(turns);
        if end == End::SwitchedOff && is_wanted && index == domain.turns.lock().focus() {
            let reason = StopReason::SwitchedOff;
            domain.request_stop(self.running.cpu, PendingStop { vcpu: index, reason, steps });
        }
        steps
    }

    /// What comes at a boundary instead of the next instruction: the guest's own step exception,
    /// or an interrupt. `Some(None)`: something came, look at the boundary anew.
    #[inline]
    fn boundary_events(&mut self) -> Option<Option<End>> {
        let pstate = self.running.core.pstate();
        let own_step = self.is_own_step_pending();
        let is_held = self.interrupts == InterruptPolicy::Hold
            || self.must_move
            || interrupt::all_masked(pstate)
            || interrupt::is_idle(self.running);
        if !own_step && is_held { None } else { self.take_boundary_event(own_step) }
    }

    /// Whether the guest's own step exception comes before the next instruction.
    #[inline]
    fn is_own_step_pending(&self) -> bool {
        let core = &*self.running.core;
        own_step::check_software_step(core.debug.guest(), core.pstate())
    }

    #[inline(never)]
    fn take_boundary_event(&mut self, own_step: bool) -> Option<Option<End>> {
        let core = &mut *self.running.core;
        if own_step {
            // ISV and EX tell of the instruction that was stepped. There is none where the guest
            // returned to EL0 with the step pending.
            let stepped = core.debug.own_stepped.take();
            let (isv, ex) = (stepped.is_some(), stepped.unwrap_or(false));
            let syndrome = EsrEl1::software_step(origin(self.running), isv, ex);
            inject::synchronous(self.running, syndrome, None);
            self.entered_exception();
            return Some(None);
        }
        let what = interrupt::to_be_taken(self.running)?;
        if self.interrupts == InterruptPolicy::Over && self.running.core.handler_of.is_none() {
            return Some(self.over_handler(what));
        }
        self.enter_handler(what);
        Some(None)
    }

    /// Enters what is pending: one step.
    pub(super) fn enter_handler(&mut self, what: Asynchronous) {
        self.intid = match what {
            Asynchronous::Interrupt(_, intid) => Some(intid),
            Asynchronous::SError => None,
        };
        self.note_interrupt();
        inject::asynchronous(self.running, what);
        self.entered_exception();
    }

    /// An exception was entered at EL2: one step.
    fn entered_exception(&mut self) {
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

    #[inline(always)]
    fn passed(&mut self, steps: u64) {
        self.steps = self.steps.saturating_add(steps);
        self.turn.passed(steps);
        if self.running.core.handler_of.is_some() {
            self.unseen = self.unseen.saturating_add(steps);
        }
        if self.running.core.virtual_clock {
            self.advance_clock(steps);
        }
        if steps > 0 {
            self.must_move = false;
            self.past_first = false;
            let core = &mut *self.running.core;
            core.debug.is_past_watch = false;
            core.reported_pc = None;
        }
    }

    fn advance_clock(&mut self, steps: u64) {
        let mut clock = self.running.domain.clock.lock();
        clock.advance(self.time, steps);
        let due = clock.now() >= self.deadline;
        drop(clock);
        if due {
            time::update_lines(self.running);
            self.find_deadline();
        }
    }

    /// Lets the next instruction execute, and as many plain ones after it as the fast path can
    /// take, up to `limit`.
    fn one(&mut self, limit: u64) -> Option<End> {
        let next = &self.look();
        self.begin(next.pc);
        let before = if self.has_detail() { Some(self.look_in_detail(next)) } else { None };
        let begun = self.steps;
        let end = self.carry_on(next, if before.is_some() { 1 } else { limit });
        if self.is_natural() {
            self.take_time(next, self.steps - begun);
        }
        if let Some(before) = before {
            self.emit_in_detail(next, before);
        }
        end
    }

    fn carry_on(&mut self, next: &Next, limit: u64) -> Option<End> {
        if !self.quiesce_others(next.plan) {
            self.take_back();
            return Some(End::Asked);
        }
        if matches!(next.plan, Plan::WaitForEvent) {
            self.turn.waits_for_event = true;
        }
        if self.is_for_el2(next) {
            if self.must_ask(next)
                && let Answer::Taken(end) = self.ask_cpu(next)
            {
                return end;
            }
            match self.carry_out(next) {
                Carried::Done(end) => return end,
                Carried::LeftToCpu => {}
            }
        }
        let limit = if next.plain { limit.min(self.fast_limit()) } else { 1 };
        let before = self.steps;
        let end = self.execute(next, limit);
        self.resume_others(self.steps - before);
        end
    }

    fn fast_limit(&mut self) -> u64 {
        let range = self.range();
        let leaves_at_jumps = self.is_natural() && !self.record;
        let core = &mut *self.running.core;
        if core.debug.guest().mdscr & mdscr_el1::SS != 0 || self.past_first || self.must_move {
            return 1;
        }
        let straight = match range {
            None if leaves_at_jumps => straight_on(core, (0, u64::MAX)),
            None => u64::MAX,
            Some(within) => straight_on(core, within),
        };
        let room = if self.record { core.recorder.room() } else { u64::MAX };
        let due = match self.deadline {
            u64::MAX => u64::MAX,
            deadline => self.running.domain.clock.lock().steps_until(self.time, deadline),
        };
        // The others are quiesced for no longer than they have to be.
        let sequence = if self.has_quiesced_others { SEQUENCE_MAX } else { u64::MAX };
        room.min(due).min(straight).min(self.turn.watch_limit()).min(sequence).max(1)
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
