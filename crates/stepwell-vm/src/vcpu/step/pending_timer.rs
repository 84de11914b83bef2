//! Stepping a vCPU that otherwise runs freely, while its virtual timer's interrupt is pending.
//!
//! The guest may switch its virtual timer off, mask or move it, and no CPU without FEAT_ECV traps
//! that. Hardware's interrupt would be gone at once; the one in a list register stays pending until
//! the next exit, in ISR_EL1, ICC_HPPIR and ICC_IAR, keeps WFI from waiting, and is taken once it is
//! unmasked, by a handler that finds nothing. So from when the timer goes off until its interrupt is
//! acknowledged, the guest is stepped: each of its instructions may be the one that changes it. That
//! is a hundred or so of them for a handler, more where interrupts are masked. Nothing is reported.
//!
//! **While it is masked** that may be hundreds of thousands: a large disk request is completed with
//! interrupts off, by a few hundred instructions a page. So after [`MASKED_MAX`] of them the guest runs
//! freely for [`MASKED_NS`], and is stepped again. One that withdraws the interrupt and unmasks it within
//! such a moment finds it all the same, as on hardware where the line takes its time to go down.
//!
//! No other vCPU being there, the clock goes by these steps, as if they were not
//! ([`time::go_by_steps`]). But a guest that waits for the time within an exclusive sequence would wait
//! long: after [`HIDDEN_MAX`] of them the clock is the machine's again.
//!
//! Exclusive sequences are the exception beside other vCPUs, which would have to be quiesced for
//! each: such a sequence runs freely, for a moment, and may find an interrupt that it has just
//! withdrawn.

use super::Event;
use crate::cpu::Cpu;
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::flow::Detour;
use crate::vcpu::quiesce::SEQUENCE_MAX;
use crate::vcpu::running::End;
use crate::vcpu::{debug, interrupt, time};
use stepwell_engine::{Plan, TimePolicy};
use stepwell_protocol::{InterruptPolicy, StopReason};

/// Steps that the guest's clock takes for instructions at full speed.
const HIDDEN_MAX: u64 = 2_000;
/// Steps at a time of a guest that does not take the interrupt: as many as a short section with interrupts
/// off has.
const MASKED_MAX: u64 = 200;
/// How long it runs freely between them.
const MASKED_NS: u64 = 300_000;
/// How long it runs freely at a time where it cannot be stepped.
const SEQUENCE_NS: u64 = 20_000;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Begins to step until the virtual timer's interrupt is acknowledged or withdrawn.
    pub(in crate::vcpu) fn begin_timer(&mut self) -> Onward {
        if self.begin_detour(InterruptPolicy::Into) {
            self.flow.rules.quiesces_others = false;
            self.flow.detour = Some(Detour::Timer { in_sequence: 0 });
        }
        Onward::GoOn
    }

    /// At a boundary while the interrupt is pending.
    pub(super) fn while_timer_is_pending(&mut self, mut in_sequence: u64) -> Onward {
        if self.running.is_called() {
            return self.ends(End::Asked);
        }
        // One that steps itself is stepped for that, and runs nowhere on its way.
        let is_over = self.running.core.is_suspended
            || debug::must_step_for_guest(self.running)
            || !time::is_virtual_timer_offered(self.running)
            || self.running.domain.quiescence.must_quiesce(self.running.index);
        if is_over {
            in_sequence += 1;
            self.flow.detour = Some(Detour::Timer { in_sequence });
            let is_armed = self.running.core.monitor.armed().is_some();
            if !is_armed || in_sequence > SEQUENCE_MAX || self.is_at_load_exclusive() {
                return self.finish(None);
            }
        }
        if self.flow.tally.steps >= HIDDEN_MAX {
            time::go_on(self.running);
            self.flow.rules.time = TimePolicy::Real;
            self.find_deadline();
        }
        if self.flow.rules.has_breakpoints && debug::breakpoint_at_pc(self.running).is_some() {
            return self.ends(End::Stop(StopReason::Breakpoint));
        }
        if self.take_event() == Event::Entered {
            return Onward::GoOn;
        }
        if self.is_masked_for_long() {
            return self.run_for(MASKED_NS);
        }
        // As long as it is in here, nobody switches another vCPU on.
        let is_alone = self.running.domain.alone.is_one();
        match self.look_ahead().plan {
            Plan::LoadExclusive(_) if !is_alone => self.run_for(SEQUENCE_NS),
            Plan::WaitForInterrupt { .. } if !interrupt::has_pending(self.running) => {
                self.run_for(SEQUENCE_NS)
            }
            _ => self.one(if is_over { 1 } else { MASKED_MAX }),
        }
    }

    /// What is pending is not to be taken, as it was not for many steps. (Within an exclusive sequence,
    /// running on would break that.)
    fn is_masked_for_long(&mut self) -> bool {
        self.flow.tally.steps >= MASKED_MAX
            && self.running.core.monitor.armed().is_none()
            && interrupt::to_be_taken(self.running).is_none()
    }

    /// What is next is to run freely: an exclusive sequence, which others would have to be quiesced
    /// for, a WFI that waits, or more of what is masked.
    fn run_for(&mut self, ns: u64) -> Onward {
        self.end_detour(None);
        self.running.cpu.interrupt_in(ns);
        self.enter_free()
    }
}
