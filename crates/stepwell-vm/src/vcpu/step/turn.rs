//! Turns: a stepped vCPU beside others of its domain.

use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::domain::{Order, Role, StepOrder, bit};
use crate::mutation::{self, LoopMutant};
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::flow::{At, Then, TurnWait};
use crate::vcpu::quiesce::{self, SEQUENCE_MAX};
use crate::vcpu::running::{End, Running};
use crate::vcpu::{interrupt, time};
use stepwell_arch::Instruction;
use stepwell_arch::load_store::{Address, Direction, LoadStore};
use stepwell_engine::spin::{INTERVAL, Look, State};
use stepwell_engine::{Plan, TimePolicy, Yield};
use stepwell_protocol::TraceRecord;
use stepwell_protocol::{StopReason, Waiting};

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Whether others get to move while this one waits: not for the sake of a few steps in a guest
    /// that otherwise runs.
    #[inline]
    pub(super) fn has_turns(&self) -> bool {
        self.flow.turn.has_turns() && self.flow.detour.is_none()
    }

    /// Steps that may pass without a look.
    #[inline]
    pub(super) fn watch_limit(&self) -> u64 {
        let is_watched = self.has_turns() && self.flow.turn.leads();
        if is_watched { self.running.core.spin.wait().max(1) } else { u64::MAX }
    }

    /// At a boundary: hands the turn on where it is over, or where this vCPU gets nowhere. Tells
    /// whether it did.
    #[inline(always)]
    pub(super) fn yield_if_due(&mut self) -> bool {
        let turn = &self.flow.turn;
        if !turn.has_turns() {
            return false;
        }
        let may_be_due = self.flow.tally.steps >= self.flow.tally.count
            || turn.waits_for_event
            || turn.leads() && self.running.core.spin.wait() == 0;
        may_be_due && self.yield_where_due()
    }

    #[inline(never)]
    fn yield_where_due(&mut self) -> bool {
        if self.flow.tally.steps >= self.flow.tally.count {
            return self.end_turn();
        }
        if core::mem::take(&mut self.flow.turn.waits_for_event) {
            self.yield_turn(Yield::NoProgress, Some(Waiting::Event), Then::Boundary);
            return true;
        }
        if self.gets_nowhere() {
            self.yield_turn(Yield::NoProgress, Some(Waiting::Memory), Then::Boundary);
            return true;
        }
        false
    }

    /// Its turn is over, but for an exclusive sequence that it is in.
    fn end_turn(&mut self) -> bool {
        let is_armed = self.running.core.monitor.armed().is_some();
        if is_armed && self.flow.turn.extra < SEQUENCE_MAX && !self.is_at_load_exclusive() {
            self.flow.turn.extra += 1;
            self.flow.tally.count = self.flow.tally.count.saturating_add(1);
            return false;
        }
        self.yield_turn(Yield::NoProgress, None, Then::Boundary);
        true
    }

    fn gets_nowhere(&mut self) -> bool {
        if !self.flow.turn.leads() || self.running.core.spin.wait() > 0 {
            return false;
        }
        if self.running.domain.control.lock().stopped() == 0 && self.is_alone() {
            self.running.core.spin.rest(INTERVAL);
            return false;
        }
        let state = self.state();
        let look = if self.running.core.spin.wants_look() {
            self.what_it_looks_at()
        } else {
            Look::default()
        };
        self.running.core.spin.observe(&state, look)
    }

    /// What the next instruction looks at: memory, by which registers, or the machine's state.
    fn what_it_looks_at(&mut self) -> Look {
        let next = self.look_ahead();
        let asks = matches!(
            next.plan,
            Plan::ReadTimer { .. } | Plan::ReadTimerPair { .. } | Plan::PendingInterrupts
        );
        let Some(word) = next.word else { return Look { is_input: asks, address: 0 } };
        let is_call = matches!(Instruction::decode(word), Instruction::Hvc { .. });
        let Some(access) = LoadStore::decode(word) else {
            return Look { is_input: asks || is_call, address: 0 };
        };
        let bit = |register: u8| 1_u32.wrapping_shl(u32::from(register));
        let address = match access.address {
            Address::Base { rn, .. }
            | Address::Block { rn }
            | Address::Authenticated { rn, .. } => bit(rn),
            // As an index, 31 is XZR, which does not move.
            Address::Indexed { rn, rm, .. } => bit(rn) | bit(rm),
            Address::Literal { .. } => 0,
        };
        Look { is_input: access.direction != Direction::Store, address }
    }

    /// No other vCPU is on.
    fn is_alone(&self) -> bool {
        self.running.domain.control.lock().running & !bit(self.running.index) == 0
    }

    fn state(&self) -> State {
        let core = &*self.running.core;
        let mut state = [0; 34];
        let special = [self.base(31, core.pstate()), core.context.elr, core.context.spsr];
        let values = core.context.general().into_iter().chain(special);
        for (place, value) in state.iter_mut().zip(values) {
            *place = value;
        }
        state
    }

    /// Counts what has been executed of the turn; tells whether that is all that was wanted.
    pub(super) fn emit_steps(&mut self) -> bool {
        let tally = &mut self.flow.tally;
        let steps = tally.steps - tally.counted_at;
        tally.counted_at = tally.steps;
        let mut turns = self.running.domain.turns.lock();
        let is_unseen = self.running.core.handler_of.is_some();
        if is_unseen && !mutation::is(LoopMutant::HandlerCounted) {
            turns.spend_unseen(steps);
            return false;
        }
        turns.spend(steps);
        turns.is_done()
    }

    /// Lets another vCPU move, and waits until it is this one's turn again. `waiting`: what for.
    pub(super) fn yield_turn(&mut self, why: Yield, waiting: Option<Waiting>, then: Then) {
        let told = waiting.map(|waiting| (waiting, self.running.domain.turns.lock().beside()));
        self.emit_steps();
        self.finish_recording();
        self.flow.turn.extra = 0;
        if self.flow.turn.leads() {
            self.call_in();
        }
        let is_mine = yield_turn(self.running, why);
        if !is_mine {
            self.running.core.monitor.clear();
        }
        self.flow.at = At::Turn(TurnWait { has_waited: !is_mine, told, then });
    }

    /// It may be this vCPU's turn at once.
    pub(super) fn await_turn(&mut self, then: Then) {
        self.flow.at = At::Turn(TurnWait { has_waited: false, told: None, then });
    }

    /// Has those that are stopped take part, so that this one makes progress.
    fn call_in(&self) {
        let domain = self.running.domain;
        let mut control = domain.control.lock();
        let stopped = control.stopped();
        if stopped == 0 || control.stop.is_some() || control.ending.is_some() {
            return;
        }
        let mut turns = domain.turns.lock();
        for vcpu in (0..domain.vcpus.len()).filter(|&vcpu| stopped & bit(vcpu) != 0) {
            turns.join(vcpu);
        }
        drop(turns);
        let order = StepOrder { until: None, record: false, within: None, role: Role::Other };
        domain.give(self.running.cpu, &mut control.running, stopped, Order::Step(order));
    }

    /// Goes on where it is this vCPU's turn, or waits for that.
    pub(in crate::vcpu) fn wait_for_turn(&mut self, wait: TurnWait) -> Onward {
        if wait.has_waited {
            interrupt::take_all(self.running);
            self.look_outside();
        }
        let end = if self.running.is_called() {
            Some(End::Asked)
        } else {
            let Some(left) = self.left_of_turn() else {
                self.flow.at = At::Turn(TurnWait { has_waited: true, ..wait });
                self.acknowledge_translation();
                return Onward::Wait;
            };
            self.flow.tally.count = self.flow.tally.steps.saturating_add(left);
            self.take_turn(wait.has_waited)
        };
        if let Some((waiting, before)) = wait.told {
            let steps = self.running.domain.turns.lock().beside() - before;
            if waiting == Waiting::Memory {
                self.running.core.spin.others_moved(steps);
            }
            self.emit_turns(waiting, steps);
        }
        self.go_on_in_turn(wait.then, end)
    }

    /// It is its turn. `has_waited`: what is where, what is pending and what time it is may be other
    /// than before, since others have moved.
    fn take_turn(&mut self, has_waited: bool) -> Option<End> {
        if has_waited {
            time::update_lines(self.running);
            self.find_deadline();
            interrupt::forget_signalled(self.running);
            self.running.core.forget_pages();
            self.flow.tally.ring_room = 0;
        }
        // What is recorded here needs room, and whoever had the turn may have left none.
        if self.flow.rules.record && !self.has_ring_room() {
            return Some(End::Stop(StopReason::RingFull));
        }
        self.emit_state();
        None
    }

    /// Records what others have had turns for where their steps are not in the recording.
    fn emit_turns(&mut self, waiting: Waiting, steps: u64) {
        if !self.flow.rules.record || !self.flow.turn.leads() || !self.has_ring_room() {
            return;
        }
        let (vcpu, pc) = (self.running.index as u8, self.running.core.pc());
        if steps > 0 {
            self.write(TraceRecord::Turns { vcpu, pc, why: waiting, steps });
        }
    }

    fn go_on_in_turn(&mut self, then: Then, end: Option<End>) -> Onward {
        match then {
            Then::Boundary => self.flow.at = At::Boundary,
            Then::Handler => self.shared(),
            Then::Interrupt { is_begun } => self.flow.at = At::Interrupt { is_begun },
        }
        if let Some(end) = end {
            return self.ends(end);
        }
        if then == (Then::Interrupt { is_begun: true }) {
            self.begin(self.running.core.pc());
        }
        Onward::GoOn
    }

    /// Steps after which the turn is to be looked at again; `None` where it is not this vCPU's.
    pub(super) fn left_of_turn(&self) -> Option<u64> {
        let turns = self.running.domain.turns.lock();
        match self.running.core.handler_of {
            Some(_) => turns.left_unseen(self.running.index),
            None => {
                let more = u64::from(mutation::is(LoopMutant::OneStepTooMany));
                turns.left(self.running.index).map(|left| left.saturating_add(more))
            }
        }
    }

    /// While it is not this vCPU's turn: has an interrupt come that nobody's steps brought about?
    fn look_outside(&mut self) {
        // Where time is a number of steps, who moves may depend on nothing else.
        let turns = &self.running.domain.turns;
        if self.flow.rules.time != TimePolicy::Real && !turns.lock().has_nobody() {
            return;
        }
        time::update_lines(self.running);
        if interrupt::has_waited(self.running) {
            let _has_turn = turns.lock().wake(bit(self.running.index));
        }
    }

    /// Has the others quiesced, that run, while an exclusive sequence is stepped.
    pub(in crate::vcpu) fn quiesce(&mut self, has_taken: bool) -> Onward {
        let quiescence = &self.running.domain.quiescence;
        let index = self.running.index;
        if !has_taken && !quiescence.take(index) {
            interrupt::take_all(self.running);
            if self.running.is_called() {
                quiescence.leave(index);
                self.running.domain.control.lock().owed.add(index);
                self.take_back();
                return self.done(Some(End::Asked));
            }
            return if quiescence.must_wait(index) { Onward::Wait } else { Onward::GoOn };
        }
        if !has_taken {
            quiescence.leave(index);
            time::update_lines(self.running);
            quiesce::call_others(self.running);
            self.flow.at = At::Quiescing { has_taken: true };
        }
        if quiesce::are_others_quiesced(self.running) {
            self.flow.turn.has_quiesced_others = true;
            return self.in_hand();
        }
        Onward::WaitForOthers
    }

    /// Lets the others go on, once the sequence is over or too long to be one.
    #[inline(never)]
    pub(super) fn resume_others(&mut self) {
        if self.flow.rules.is_stepping_past {
            return;
        }
        let steps = self.flow.tally.steps - self.flow.hand.steps_before;
        self.flow.turn.extra = self.flow.turn.extra.saturating_add(steps);
        let is_armed = self.running.core.monitor.armed().is_some();
        if !is_armed || self.flow.turn.extra > SEQUENCE_MAX {
            self.let_others_go();
        }
    }

    pub(super) fn let_others_go(&mut self) {
        self.running.core.monitor.clear();
        self.flow.turn.has_quiesced_others = false;
        quiesce::resume_others(self.running);
    }
}

/// Hands the turn of a vCPU on. Tells whether it is its own again.
pub(super) fn yield_turn<C: Cpu>(running: &Running<'_, C>, why: Yield) -> bool {
    let domain = running.domain;
    let mut turns = domain.turns.lock();
    // Within `turns`, as is who wakes it: an interrupt that came since it found none pending would
    // find it awake, and it would sleep all the same.
    let is_late = matches!(why, Yield::Idle { .. }) && interrupt::has_waited(running);
    let why = if is_late { Yield::NoProgress } else { why };
    // Likewise: the next is not to begin before the clock is right.
    let mut clock = domain.clock.lock();
    let next = turns.yield_turn(running.index, why, clock.now());
    if let Some(deadline) = next.and_then(|next| next.skip_to) {
        clock.skip_to(deadline);
    }
    drop(clock);
    drop(turns);
    let Some(next) = next else { return false };
    if next.vcpu != running.index
        && let Some(vcpu) = domain.vcpus.get(next.vcpu)
    {
        running.cpu.kick(bit(vcpu.cpu));
    }
    next.vcpu == running.index
}
