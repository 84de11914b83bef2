//! Stepping the handler of an interrupt that has broken an exclusive sequence, where instructions are
//! counted.
//!
//! A stop makes up the monitor of the sequence that it falls into, as its load has armed it: see
//! [`mod@super::rearm`]. But the return of a handler opens the monitor, and whether one has returned
//! into this turn of the sequence, or into an earlier one, nothing tells afterwards. So from where an
//! interrupt is entered within a sequence, the guest is stepped until its handler has returned there.
//! From there on it runs, and a stop before the store finds that the load has not executed since.
//!
//! That is seldom: interrupts come between a load-exclusive and its store as rarely as the few
//! instructions there are executed.
//!
//! Not seen by this: an interrupt that was pending and that the sequence itself unmasks, and a store that
//! has faulted and is tried again.

use super::Event;
use super::rearm::load_of_sequence;
use crate::cpu::Cpu;
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::debug;
use crate::vcpu::flow::Detour;
use crate::vcpu::running::{End, Running};
use stepwell_engine::Plan;
use stepwell_protocol::{InterruptPolicy, StopReason};

/// Steps that a handler may take: it may not return at all.
const HANDLER_MAX: u64 = 20_000;

/// An interrupt is entered at the PC. The one that broke a sequence first is the last to return there.
pub fn note<C: Cpu>(running: &mut Running<'_, C>) {
    if running.domain.timeline.is_some()
        && running.core.broken_at.is_none()
        && load_of_sequence(running).is_some()
    {
        running.core.broken_at = Some(running.core.context.elr);
    }
}

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Begins to step until the handler has returned.
    pub(in crate::vcpu) fn begin_handler_in_sequence(&mut self) -> Onward {
        if self.begin_detour(InterruptPolicy::Into) {
            self.flow.detour = Some(Detour::Handler { left: HANDLER_MAX });
        } else {
            self.running.core.broken_at = None;
        }
        Onward::GoOn
    }

    /// At a boundary of that.
    pub(super) fn in_handler(&mut self, left: u64) -> Onward {
        let core = &mut *self.running.core;
        let has_returned = core.broken_at == Some(core.context.elr)
            && matches!(self.flow.hand.next.plan, Plan::ExceptionReturn);
        // The monitor is kept here, within a sequence.
        if has_returned || left == 0 && core.monitor.armed().is_none() {
            core.broken_at = None;
            return self.finish(None);
        }
        if self.take_event() == Event::Entered {
            return self.after(Detour::Handler { left });
        }
        if debug::breakpoint_at_pc(self.running).is_some() {
            return self.finish(Some(End::Stop(StopReason::Breakpoint)));
        }
        self.one(1)
    }
}
