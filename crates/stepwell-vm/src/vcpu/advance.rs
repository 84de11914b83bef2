//! The vCPU loop: from one entry into the guest to the next.
//!
//! [`advance`] takes the exit that an entry came to, does what it leads to, and returns with what is
//! needed next: another entry, a wait, or nothing any more. What it is in the middle of is a
//! [`Flow`]. It never enters, and never waits, itself; [`drive`] does, for a vCPU that has a CPU to
//! itself.
//!
//! There is one loop. What is done at a boundary between two instructions depends on the mode, and
//! each way of it leads to an [`Onward`]: a mode does not call another one, it makes it the mode.

use super::flow::{At, Flow, Mode};
use super::running::{End, Running};
use super::time;
use crate::cpu::{Cpu, Vector};
use crate::domain::Order;

/// What a vCPU needs to make progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// To be let into its guest: [`Cpu::enter`] says how it left.
    Entry,
    /// An interrupt, or a call of another CPU's.
    Interrupt,
    /// That other CPUs do what they were asked for: they do not call back.
    Others,
    /// That others get the CPU which it shares with them.
    Turn,
    /// Nothing: the order is done with.
    Nothing(End),
}

/// What is next. Of one byte, which a register holds: how it all ended is in the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onward {
    /// Whatever the flow says.
    GoOn,
    /// [`Needs::Entry`].
    Enter,
    /// [`Needs::Interrupt`].
    Wait,
    /// [`Needs::Others`].
    WaitForOthers,
    /// [`Needs::Turn`].
    GiveWay,
}

/// A vCPU and what it is in the middle of.
pub(super) struct VcpuLoop<'a, 'b, C: Cpu> {
    pub(super) running: &'a mut Running<'b, C>,
    pub(super) flow: &'a mut Flow,
}

/// Goes on to where the vCPU needs something. `left`: how it left the guest, where it was let into
/// it.
pub fn advance<C: Cpu>(
    running: &mut Running<'_, C>,
    flow: &mut Flow,
    left: Option<Vector>,
) -> Needs {
    VcpuLoop { running, flow }.advance(left)
}

/// Does as ordered, on a CPU that has nothing else to do.
pub fn drive<C: Cpu>(running: &mut Running<'_, C>, flow: &mut Flow) -> End {
    let mut left = None;
    loop {
        // In here, and not called: for most steps that are not plain.
        match (VcpuLoop { running, flow }).advance(left.take()) {
            Needs::Entry => left = Some(running.cpu.enter(&mut running.core.context)),
            Needs::Interrupt => running.cpu.wait_for_interrupt(),
            Needs::Others | Needs::Turn => core::hint::spin_loop(),
            Needs::Nothing(end) => return end,
        }
    }
}

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    #[inline(always)]
    fn advance(&mut self, left: Option<Vector>) -> Needs {
        let mut onward = match (self.flow.at, left) {
            (At::Step, Some(vector)) => self.step_left(vector),
            (At::Free, Some(vector)) => self.free_left(vector),
            _ => Onward::GoOn,
        };
        loop {
            onward = match onward {
                Onward::GoOn => match self.flow.at {
                    At::End(end) => return Needs::Nothing(end),
                    _ => self.go_on(),
                },
                Onward::Enter => return Needs::Entry,
                Onward::Wait => return Needs::Interrupt,
                Onward::WaitForOthers => return Needs::Others,
                Onward::GiveWay => return Needs::Turn,
            };
        }
    }

    /// What is being done ends.
    pub(super) const fn ends(&mut self, end: End) -> Onward {
        self.flow.at = At::Ending(end);
        Onward::GoOn
    }

    #[inline(always)]
    fn go_on(&mut self) -> Onward {
        match self.flow.at {
            At::Boundary => self.at_boundary(),
            At::Free | At::Step => Onward::Enter,
            _ => self.go_on_elsewhere(),
        }
    }

    #[inline(always)]
    fn at_boundary(&mut self) -> Onward {
        if self.running.vcpu.shares_cpu
            && let Some(onward) = self.at_shared_boundary()
        {
            return onward;
        }
        match (self.flow.detour, &self.flow.mode) {
            (None, Mode::Step) => self.step(),
            (None, Mode::Free) => self.free(),
            (None, Mode::Over(_)) => self.over(),
            (Some(detour), _) => self.detour(detour),
        }
    }

    #[inline(never)]
    fn go_on_elsewhere(&mut self) -> Onward {
        match self.flow.at {
            At::Start => self.start(),
            At::Quiesced => self.quiesced(),
            At::Suspended => self.suspended(),
            At::Quiescing { has_taken } => self.quiesce(has_taken),
            At::Interrupt { is_begun } => self.waited_for_interrupt(is_begun),
            At::Turn(wait) => self.wait_for_turn(wait),
            At::Ending(end) => self.end(end),
            At::Boundary | At::Free | At::Step | At::End(_) => Onward::GoOn,
        }
    }

    /// What is being done ends: in a detour or a handler of a stepped guest, that may be what was
    /// waited for.
    fn end(&mut self, end: End) -> Onward {
        self.flow.at = At::Boundary;
        if self.flow.detour.is_some() {
            self.end_detour(Some(end));
        }
        if let Mode::Over(handler) = &self.flow.mode {
            let handler = handler.clone();
            if let Some(onward) = self.has_returned(&handler, end) {
                return onward;
            }
            self.end_handler();
        }
        if self.flow.mode == Mode::Step {
            self.end_steps(end);
        }
        // Of a guest that runs, those that it was stepped past something are nobody's.
        self.running.core.steps = match self.flow.order {
            Order::Run => 0,
            Order::Step(_) => self.flow.tally.steps - self.flow.tally.unseen,
        };
        if self.flow.order == Order::Run {
            self.running.core.entered_at = 0;
            self.flow.is_owed = false;
            time::ran(self.running);
        }
        self.flow.at = At::End(end);
        Onward::GoOn
    }
}
