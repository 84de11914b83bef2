//! Going back in a replay: GDB's `bc` and `bs`.
//!
//! GDB does `reverse-step`, `reverse-next` and `reverse-finish` itself, by these two and breakpoints.

use crate::Error;
use crate::going::Going;
use crate::guest::Guest;
use gdbstub::common::Tid;
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::reverse_exec::{ReplayLogPosition, ReverseCont, ReverseStep};
use stepwell_debuggee::{Debuggee, Edge, Moment, Refusal, Stop, StopReason};

impl Guest<'_> {
    /// Tells whether the debuggee can go back.
    pub(crate) fn goes_back(&mut self) -> bool {
        self.debuggee.support_reverse().is_some()
    }

    /// Gives the debuggee the command for what goes back.
    pub(crate) fn set_going_back(&mut self) -> Result<(), stepwell_debuggee::Error> {
        let domain = self.domain;
        if let Going::BehindAccess(_) = self.going {
            let travel = self.debuggee.support_time_travel().ok_or(Refusal::NotCounted)?;
            let position = travel.moment(domain)?.position;
            return travel.run_until(domain, Moment::at(position.saturating_add(1)));
        }
        let reverse = self.debuggee.support_reverse().ok_or(Refusal::Unsupported)?;
        match self.going {
            Going::StepBack(vcpu) => reverse.step_back(vcpu, 1),
            _ => reverse.continue_back(domain),
        }
    }

    fn go_back(&mut self, going: Going) -> Result<(), Error> {
        if self.going != Going::Stopped {
            return Ok(());
        }
        self.is_interrupted = false;
        self.forget_events()?;
        self.going = going;
        self.set_going()
    }

    /// Goes on to behind an access that was come to from behind. Tells whether it does.
    pub(crate) fn goes_behind(&mut self, stop: Stop) -> Result<bool, Error> {
        let is_access = matches!(stop.reason, StopReason::Watchpoint { .. });
        if self.going != Going::Back || !is_access || self.is_interrupted {
            return Ok(false);
        }
        self.going = Going::BehindAccess(stop);
        self.set_going()?;
        Ok(self.going != Going::Stopped)
    }

    /// What to tell of a moment that was come to, where the run has no more.
    pub(crate) fn edge(&mut self, tid: Tid) -> Result<Option<MultiThreadStopReason<u64>>, Error> {
        let domain = self.domain;
        let Some(reverse) = self.debuggee.support_reverse() else { return Ok(None) };
        let pos = match reverse.edge(domain)? {
            Some(Edge::Begin) => ReplayLogPosition::Begin,
            Some(Edge::End) => ReplayLogPosition::End,
            None => return Ok(None),
        };
        Ok(Some(MultiThreadStopReason::ReplayLog { tid: Some(tid), pos }))
    }
}

impl ReverseCont<Tid> for Guest<'_> {
    fn reverse_cont(&mut self) -> Result<(), Error> {
        self.go_back(Going::Back)
    }
}

impl ReverseStep<Tid> for Guest<'_> {
    fn reverse_step(&mut self, tid: Tid) -> Result<(), Error> {
        self.go_back(Going::StepBack(self.vcpu_of(tid)?))
    }
}
