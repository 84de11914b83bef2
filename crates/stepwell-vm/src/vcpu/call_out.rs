//! Calls that take a vCPU out of its order, and what is left of the order where nobody wants the
//! vCPU to stop.
//!
//! Who has a vCPU come out takes down why, in the domain's control, and then sets its
//! `stop_requested`. A call without a reason is none: the vCPU has come out, and all of it was saved,
//! but it goes on with the rest of its order as if nothing had been.

use super::debug;
use super::running::{End, Running};
use crate::cpu::Cpu;
use crate::domain::{Order, Role, StepOrder};
use core::sync::atomic::Ordering;
use stepwell_protocol::StopReason;

/// An order that a vCPU carries out, in as many pieces as calls without a reason make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    /// What is left of it.
    pub order: Order,
    /// Steps that earlier pieces came to, where each piece counts its own.
    before: u64,
}

impl Progress {
    /// None so far.
    #[must_use]
    pub const fn new(order: Order) -> Self {
        Self { order, before: 0 }
    }

    /// Takes what a piece came to, whose steps become those of all pieces. Returns the end; nothing
    /// where the vCPU is to go on.
    pub fn came_to<C: Cpu>(&mut self, running: &mut Running<'_, C>, end: End) -> Option<End> {
        let steps = running.core.steps;
        let all = self.before.saturating_add(steps);
        running.core.steps = all;
        if end != End::Asked || !takes_call_back(running) {
            return Some(end);
        }
        let Order::Step(order) = &mut self.order else { return None };
        let is_done = match &mut order.role {
            Role::Alone(left) => {
                *left = left.saturating_sub(steps);
                self.before = all;
                *left == 0
            }
            // Its steps are those of all pieces.
            Role::Focus => running.domain.turns.lock().is_done(),
            // It goes on for as long as the one that it moves for.
            Role::Other => false,
        };
        Some(End::Stop(reason(running, *order, steps, is_done)?))
    }
}

/// Takes a call back that has no reason; tells whether it had none.
fn takes_call_back<C: Cpu>(running: &Running<'_, C>) -> bool {
    let control = running.domain.control.lock();
    let has_none = control.stop.is_none() && control.ending.is_none();
    if has_none {
        // Whoever calls from now on has to get `control` first.
        running.vcpu.stop_requested.store(false, Ordering::Release);
    }
    has_none
}

/// What would have stopped the vCPU where steps have brought it: the next piece begins by going past
/// that.
fn reason<C: Cpu>(
    running: &Running<'_, C>,
    order: StepOrder,
    steps: u64,
    is_done: bool,
) -> Option<StopReason> {
    let pc = running.core.pc().0;
    let is_outside = |(start, end): (u64, u64)| !(start..end).contains(&pc);
    if steps > 0 && order.until == Some(pc) {
        return Some(StopReason::Until);
    }
    if steps > 0 && debug::breakpoint_at_pc(running).is_some() {
        return Some(StopReason::Breakpoint);
    }
    if steps > 0 && order.within.is_some_and(is_outside) {
        return Some(StopReason::LeftRange);
    }
    is_done.then_some(StopReason::Stepped)
}
