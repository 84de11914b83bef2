//! Stepping a vCPU that otherwise runs freely, while its virtual timer's interrupt is pending.
//!
//! The guest may switch its virtual timer off, mask or move it, and no CPU without FEAT_ECV traps
//! that. Hardware's interrupt would be gone at once; the one in a list register stays pending until
//! the next exit, in ISR_EL1, ICC_HPPIR and ICC_IAR, keeps WFI from waiting, and is taken once it is
//! unmasked, by a handler that finds nothing. So from when the timer goes off until its interrupt is
//! acknowledged, the guest is stepped: each of its instructions may be the one that changes it. That
//! is a hundred or so of them for a handler, more where interrupts are masked. Nothing is reported.
//!
//! No other vCPU being there, the clock goes by these steps, as if they were not ([`time::go_by_steps`]).
//! But a guest that waits for the time with interrupts masked would wait long: after [`HIDDEN_MAX`] of
//! them the clock is the machine's again.
//!
//! Exclusive sequences are the exception beside other vCPUs, which would have to be quiesced for
//! each: such a sequence runs freely, for a moment, and may find an interrupt that it has just
//! withdrawn.

use super::debug;
use super::stepper::Stepper;
use super::switch::{disable, enable};
use crate::cpu::Cpu;
use crate::vcpu::quiesce::SEQUENCE_MAX;
use crate::vcpu::running::{End, Running};
use crate::vcpu::{interrupt, time};
use core::sync::atomic::Ordering;
use stepwell_engine::{Plan, TimePolicy};
use stepwell_protocol::{InterruptPolicy, StopReason};

/// Steps after which it looks whether others want it to quiesce.
const STEPS_AT_ONCE: u64 = 1_000;

/// Steps that the guest's clock takes for instructions at full speed.
const HIDDEN_MAX: u64 = 2_000;

/// How the steps came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerSteps {
    /// For a reason that ends the run, too.
    Ended(End),
    /// The interrupt is pending no more, or others want this vCPU to quiesce.
    Settled,
    /// What is next is to run freely: an exclusive sequence, which others would have to quiesce
    /// for, or a WFI that waits.
    Freely,
}

/// Steps until the virtual timer's interrupt is acknowledged or withdrawn.
pub fn while_timer_is_pending<C: Cpu>(running: &mut Running<'_, C>) -> TimerSteps {
    if let Err(end) = enable(running) {
        return TimerSteps::Ended(end);
    }
    let time = time::go_by_steps(running);
    let mut stepper = Stepper::new(running, InterruptPolicy::Into, time);
    stepper.past_first = false;
    let ended = stepper.until_timer_is_settled();
    if !matches!(ended, TimerSteps::Ended(_)) {
        // Where it stops within a sequence, that goes on when the guest does.
        running.core.monitor.clear();
    }
    disable(running);
    time::go_on(running);
    ended
}

impl<C: Cpu> Stepper<'_, '_, C> {
    fn until_timer_is_settled(&mut self) -> TimerSteps {
        // As long as it is in here, nobody switches another vCPU on.
        let is_alone = self.running.domain.runs_alone.load(Ordering::Acquire);
        let mut in_sequence = 0;
        loop {
            if self.running.is_called() {
                return TimerSteps::Ended(End::Asked);
            }
            let is_over = self.running.core.is_suspended
                || !time::is_virtual_timer_offered(self.running)
                || self.running.domain.quiescence.must_quiesce(self.running.index);
            if is_over {
                in_sequence += 1;
                let is_armed = self.running.core.monitor.armed().is_some();
                if !is_armed || in_sequence > SEQUENCE_MAX {
                    return TimerSteps::Settled;
                }
            }
            if self.steps >= HIDDEN_MAX {
                time::go_on(self.running);
                self.time = TimePolicy::Real;
                self.find_deadline();
            }
            if self.has_breakpoints && debug::breakpoint_at_pc(self.running).is_some() {
                return TimerSteps::Ended(End::Stop(StopReason::Breakpoint));
            }
            match self.boundary_events() {
                Some(Some(end)) => return TimerSteps::Ended(end),
                Some(None) => continue,
                None => {}
            }
            match self.look().plan {
                Plan::LoadExclusive(_) if !is_alone => return TimerSteps::Freely,
                Plan::WaitForInterrupt if !interrupt::has_pending(self.running) => {
                    return TimerSteps::Freely;
                }
                _ => {}
            }
            if let Some(end) = self.one(if is_over { 1 } else { STEPS_AT_ONCE }) {
                return TimerSteps::Ended(end);
            }
        }
    }
}
