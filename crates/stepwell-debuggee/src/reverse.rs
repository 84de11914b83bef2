//! The ability to go back in a run.
//!
//! It is that of somebody who has a whole run before him, and a debuggee that can be taken to any moment
//! of it: see the crate `stepwell-replay`. As with [`crate::Debuggee::resume`], each of these sets the
//! domain going and returns at once; that it has come there is a stop, an event of
//! [`crate::Debuggee::wait`].

use crate::{Error, Moment, VcpuId, Watchpoint};

/// Where a run has no more to be visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edge {
    /// Its first moment.
    Begin,
    /// Its last one.
    End,
}

/// The ability to go back in a run, and to any moment of it.
pub trait Reverse {
    /// Returns the last moment that can be visited. The first one is position 0.
    fn end(&self) -> Moment;

    /// Returns the edge of the run that a stopped domain is at, if it is at one.
    ///
    /// # Errors
    ///
    /// As [`crate::TimeTravel::moment`].
    fn edge(&mut self, domain: u8) -> Result<Option<Edge>, Error>;

    /// Takes a stopped domain to a moment, or to the edge that is before it.
    /// [`crate::StopReason::Reached`].
    ///
    /// # Errors
    ///
    /// As [`crate::TimeTravel::moment`].
    fn go_to(&mut self, domain: u8, moment: Moment) -> Result<(), Error>;

    /// Takes a stopped domain back by `count` instructions of one vCPU: to where that is about to
    /// execute the first of them again. [`crate::StopReason::Stepped`]; or
    /// [`crate::StopReason::Reached`] at the beginning, where there are fewer.
    ///
    /// # Errors
    ///
    /// As [`crate::TimeTravel::moment`], and [`crate::Refusal::NoSteps`], [`crate::Refusal::Off`].
    fn step_back(&mut self, vcpu: VcpuId, count: u64) -> Result<(), Error>;

    /// Takes a stopped domain to the last moment before this one at which it would have stopped at a
    /// breakpoint or a watchpoint that is set now, with that reason; or to the beginning, with
    /// [`crate::StopReason::Reached`]. An access that is watched has not happened there yet, as in a run
    /// forwards.
    ///
    /// # Errors
    ///
    /// As [`crate::TimeTravel::moment`].
    fn continue_back(&mut self, domain: u8) -> Result<(), Error>;

    /// As [`Reverse::continue_back`], to the last such access, whatever else is set.
    ///
    /// # Errors
    ///
    /// As [`crate::Watchpoints::set_watchpoint`].
    fn last_access(&mut self, vcpu: VcpuId, watchpoint: Watchpoint) -> Result<(), Error>;
}
