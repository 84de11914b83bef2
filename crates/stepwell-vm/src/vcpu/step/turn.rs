//! Turns: a stepped vCPU beside others of its domain.

use super::stepper::Stepper;
use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::domain::{Order, Role, StepOrder, bit};
use crate::vcpu::quiesce::{self, SEQUENCE_MAX};
use crate::vcpu::running::{End, Running};
use crate::vcpu::{interrupt, time};
use stepwell_arch::Instruction;
use stepwell_arch::load_store::{Address, Direction, LoadStore};
use stepwell_engine::spin::{INTERVAL, Look, State};
use stepwell_engine::{Plan, TimePolicy, Yield};
use stepwell_protocol::TraceRecord;
use stepwell_protocol::{StopReason, Waiting};

impl<C: Cpu> Stepper<'_, '_, C> {
    /// At a boundary: hands the turn on where it is over, or where this vCPU gets nowhere.
    pub(super) fn yield_if_due(&mut self) -> Option<End> {
        if !self.turn.has_turns() {
            return None;
        }
        if self.steps >= self.count {
            let is_armed = self.running.core.monitor.armed().is_some();
            if is_armed && self.turn.extra < SEQUENCE_MAX {
                self.turn.extra += 1;
                self.count = self.count.saturating_add(1);
                return None;
            }
            return self.yield_turn(Yield::NoProgress);
        }
        if core::mem::take(&mut self.turn.waits_for_event) {
            return self.wait_for_others(Yield::NoProgress, Waiting::Event);
        }
        if self.makes_no_progress() {
            return self.wait_for_others(Yield::NoProgress, Waiting::Memory);
        }
        None
    }

    fn makes_no_progress(&mut self) -> bool {
        if !self.turn.is_focus_alone() || self.turn.spin.wait() > 0 {
            return false;
        }
        if self.running.domain.control.lock().stopped() == 0 && self.is_alone() {
            self.turn.spin.rest(INTERVAL);
            return false;
        }
        let state = self.state();
        let look =
            if self.turn.spin.wants_look() { self.what_it_looks_at() } else { Look::default() };
        self.turn.spin.observe(&state, look)
    }

    /// What the next instruction looks at: memory, by which registers, or the machine's state.
    fn what_it_looks_at(&mut self) -> Look {
        let next = self.look();
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
        let values = core.context.x.into_iter().chain(special);
        for (place, value) in state.iter_mut().zip(values) {
            *place = value;
        }
        state
    }

    /// Tells what has been executed of the turn; whether that is all that was wanted.
    pub(super) fn emit_steps(&mut self) -> bool {
        let steps = self.steps - self.turn.emitted_at;
        self.turn.emitted_at = self.steps;
        let mut turns = self.running.domain.turns.lock();
        if self.running.core.handler_of.is_some() {
            turns.spend_unseen(steps);
            return false;
        }
        turns.spend(steps);
        turns.is_done()
    }

    /// As [`Stepper::yield_turn`], and tells the recording what for where the others' steps are not in
    /// it.
    pub(super) fn wait_for_others(&mut self, why: Yield, waiting: Waiting) -> Option<End> {
        let before = self.running.domain.turns.lock().beside();
        let end = self.yield_turn(why);
        if self.record && self.turn.is_focus_alone() {
            let turns = self.running.domain.turns.lock();
            let steps = turns.beside() - before;
            drop(turns);
            let (vcpu, pc) = (self.running.index as u8, self.running.core.pc());
            if steps > 0 {
                self.write(TraceRecord::Turns { vcpu, pc, why: waiting, steps });
            }
        }
        end
    }

    /// Lets another vCPU move, and waits until it is this one's turn again.
    pub(super) fn yield_turn(&mut self, why: Yield) -> Option<End> {
        self.emit_steps();
        self.finish_recording();
        self.turn.extra = 0;
        if self.turn.is_focus_alone() {
            self.join_stopped();
        }
        let is_mine = yield_turn(self.running, why);
        if !is_mine {
            self.running.core.monitor.clear();
        }
        self.take_turn(!is_mine)
    }

    /// Has those that are stopped take part, so that this one makes progress.
    fn join_stopped(&self) {
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

    /// Waits until it is this vCPU's turn. `has_waited`: others had theirs since it was, which may
    /// be over before anybody looks.
    pub(super) fn take_turn(&mut self, mut has_waited: bool) -> Option<End> {
        loop {
            if self.running.is_called() {
                return Some(End::Asked);
            }
            if let Some(left) = self.left_of_turn() {
                self.count = self.steps.saturating_add(left);
                break;
            }
            has_waited = true;
            self.acknowledge_translation();
            self.running.cpu.wait_for_interrupt();
            interrupt::take_all(self.running);
            self.look_outside();
        }
        if has_waited {
            // What is where, what is pending and what time it is: others have moved.
            time::update_lines(self.running);
            self.find_deadline();
            interrupt::invalidate_interface(self.running);
            self.running.core.context.forget_pages();
            self.ring_room = 0;
        }
        // What is told here needs room, and whoever had the turn may have left none.
        if self.record && !self.has_ring_room() {
            return Some(End::Stop(StopReason::RingFull));
        }
        self.emit_state();
        None
    }

    /// Steps after which the turn is to be looked at again; `None` where it is not this vCPU's.
    pub(super) fn left_of_turn(&self) -> Option<u64> {
        let turns = self.running.domain.turns.lock();
        match self.running.core.handler_of {
            Some(_) => turns.left_unseen(self.running.index),
            None => turns.left(self.running.index),
        }
    }

    /// While it is not this vCPU's turn: has an interrupt come that nobody's steps brought about?
    fn look_outside(&mut self) {
        // Where time is a number of steps, who moves may depend on nothing else.
        let turns = &self.running.domain.turns;
        if self.time != TimePolicy::Real && !turns.lock().has_nobody() {
            return;
        }
        time::update_lines(self.running);
        if interrupt::has_pending(self.running) {
            let _has_turn = turns.lock().wake(bit(self.running.index));
        }
    }

    /// Where others run: quiesces them while an exclusive sequence is stepped. Tells whether
    /// the instruction may execute: else this vCPU is called out.
    #[inline]
    pub(super) fn quiesce_others(&mut self, next: Plan) -> bool {
        if self.quiesces_others
            && !self.has_quiesced_others
            && self.running.core.monitor.needs_others_stopped(next)
        {
            self.turn.extra = 0;
            self.has_quiesced_others = quiesce::quiesce_others(self.running);
            return self.has_quiesced_others;
        }
        true
    }

    /// Lets the others go on, once the sequence is over or too long to be one.
    pub(super) fn resume_others(&mut self, steps: u64) {
        if !self.has_quiesced_others || self.is_stepping_past {
            return;
        }
        self.turn.extra = self.turn.extra.saturating_add(steps);
        let is_armed = self.running.core.monitor.armed().is_some();
        if !is_armed || self.turn.extra > SEQUENCE_MAX {
            self.running.core.monitor.clear();
            self.has_quiesced_others = false;
            quiesce::resume_others(self.running);
        }
    }
}

/// Yields the turn of a vCPU. Tells whether it is its own again.
pub(super) fn yield_turn<C: Cpu>(running: &Running<'_, C>, why: Yield) -> bool {
    let domain = running.domain;
    let mut turns = domain.turns.lock();
    // Within `turns`, as is who wakes it: an interrupt that came since it found none pending would
    // find it awake, and it would sleep all the same.
    let is_late = matches!(why, Yield::Idle { .. }) && interrupt::has_pending(running);
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
