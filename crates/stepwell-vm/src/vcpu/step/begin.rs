//! How steps begin and end: as ordered, or in a guest that otherwise runs.

use super::switch::{disable, enable};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Run};
use crate::domain::{PendingStop, Role, StepOrder};
use crate::mutation::{self, LoopMutant};
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::flow::{At, Flow, Mode, Rules, Tally, Then, Turn};
use crate::vcpu::hand::InHand;
use crate::vcpu::roots::Root;
use crate::vcpu::running::{End, Running};
use crate::vcpu::{debug, interrupt, quiesce, time};
use core::sync::atomic::Ordering;
use stepwell_engine::{OthersPolicy, Scope, TimePolicy, Yield};
use stepwell_protocol::{InterruptPolicy, StopReason};

impl Flow {
    /// Where the order says to stop.
    pub(in crate::vcpu) const fn until(&self) -> Option<u64> {
        match self.order {
            crate::domain::Order::Step(order) => order.until,
            crate::domain::Order::Run => None,
        }
    }
}

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Begins to step as ordered.
    pub(in crate::vcpu) fn start_steps(&mut self, order: StepOrder) -> Onward {
        let StepOrder { until, record, within, role } = order;
        self.flow.at = At::Boundary;
        if let Err(end) = enable(self.running) {
            return self.ends(end);
        }
        self.flow.mode = Mode::Step;
        (self.running.core.left_at, self.running.core.is_hidden) = (None, false);
        let (interrupts, time, others, detail) = self.policies(role);
        self.choose_clock(time);
        let core = &mut *self.running.core;
        core.debug.wanted.extend(until);
        core.within = within;
        if role == Role::Focus {
            // Whoever orders it knows where it is.
            core.acknowledge_pc();
        } else if core.acknowledged_here().is_none() {
            core.acknowledged = None;
        }
        self.begin_steps(interrupts, time);
        let quiesces_others = role == Role::Focus && others == OthersPolicy::Run;
        let rules = &mut self.flow.rules;
        (rules.record, rules.detail) = (record, detail);
        (rules.quiesces_others, rules.is_beside_others) = (quiesces_others, quiesces_others);
        self.flow.turn = Turn::new(role, others);
        self.flow.must_move = false;
        match role {
            Role::Alone(count) => {
                self.flow.tally.count = count;
                self.emit_state();
            }
            Role::Focus | Role::Other => self.await_turn(Then::Boundary),
        }
        if let Some(interrupted) = self.running.core.handler_of {
            self.hide(interrupted);
        }
        Onward::GoOn
    }

    fn policies(
        &self,
        role: Role,
    ) -> (InterruptPolicy, TimePolicy, OthersPolicy, stepwell_protocol::TraceDetail) {
        let control = self.running.domain.control.lock();
        if self.running.domain.timeline.is_some() {
            // As where it runs.
            return (InterruptPolicy::Into, TimePolicy::Real, OthersPolicy::Stop, control.detail);
        }
        let (interrupts, time) = match (role, control.others) {
            // Its clock is theirs, and theirs is the machine's.
            (Role::Focus, OthersPolicy::Run) => (control.interrupts, TimePolicy::Real),
            // It moves so that the stepped one makes progress, and that may take interrupts.
            (Role::Other, OthersPolicy::Stop) => (InterruptPolicy::Into, control.time),
            _ => (control.interrupts, control.time),
        };
        (interrupts, time, control.others, control.detail)
    }

    fn choose_clock(&mut self, time: TimePolicy) {
        self.running.core.virtual_clock = time != TimePolicy::Real;
        if self.running.core.virtual_clock {
            time::hold(self.running);
            // A timer may have gone off since the last exit, and its interrupt is off now.
            time::update_lines(self.running);
        } else {
            time::release(self.running);
        }
    }

    /// Before the first of some steps.
    pub(super) fn begin_steps(&mut self, interrupts: InterruptPolicy, time: TimePolicy) {
        debug::program_for_step(self.running);
        interrupt::forget_signalled(self.running);
        // Whoever ran since may have changed what is where.
        self.running.core.forget_pages();
        let control = self.running.domain.control.lock();
        let has_breakpoints = !control.breakpoints.is_empty() || self.running.domain.has_views();
        let has_watchpoints = !control.watchpoints.is_empty();
        drop(control);
        self.running.core.context.lend_run(Run::default(), None);
        self.flow.rules =
            Rules { interrupts, time, has_breakpoints, has_watchpoints, ..Rules::NONE };
        self.flow.tally = Tally::NONE;
        self.flow.turn.extra = 0;
        self.flow.turn.has_quiesced_others = false;
        let hand = &mut self.flow.hand;
        (hand.root, hand.executed_page, hand.detail) = (Root::Guarded, None, None);
        hand.is_device = false;
        self.find_deadline();
    }

    /// After the last one of those that were ordered.
    pub(in crate::vcpu) fn end_steps(&mut self, end: End) {
        self.running.domain.translation.ignore();
        if !mutation::is(LoopMutant::RunDroppedAtStop) {
            self.finish_recording();
        }
        self.leave_turns(end);
        quiesce::resume_others(self.running);
        disable(self.running);
        self.running.core.debug.wanted.clear();
        if self.flow.rules.time == TimePolicy::Real {
            self.running.core.left_at = None;
            time::ran(self.running);
            let offset = self.running.domain.clock_offset.load(Ordering::Acquire);
            self.running.domain.clock.lock().hold(self.running.cpu.counter(), offset);
        }
        self.running.core.virtual_clock = false;
        // What it was about is over.
        self.flow.hand = InHand::NONE;
    }

    /// Leaves the others to themselves.
    fn leave_turns(&mut self, end: End) {
        if !self.has_turns() {
            return;
        }
        self.emit_steps();
        let Running { domain, index, .. } = *self.running;
        if end != End::SwitchedOff {
            return;
        }
        super::turn::yield_turn(self.running, Yield::SwitchedOff);
        let turns = domain.turns.lock();
        let is_wanted = turns.scope() == Scope::Focus && turns.focus() == index;
        drop(turns);
        if is_wanted {
            let stop = PendingStop { vcpu: index, reason: StopReason::SwitchedOff };
            domain.request_stop(self.running.cpu, stop);
        }
    }
}
