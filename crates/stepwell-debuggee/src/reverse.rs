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

/// A way through a run that is being gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where it is.
    pub now: Moment,
    /// Where it leads to; nothing where something is looked for.
    pub to: Option<Moment>,
}

/// A moment that its user has given a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The name.
    pub name: String,
    /// The moment.
    pub moment: Moment,
    /// It is none of the recorded run's, but of one that has left that.
    pub is_of_fork: bool,
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

    /// Returns the way that is being gone, for who waits for its end.
    fn way(&self) -> Option<Way>;

    /// Gives the moment at which a domain is stopped a name, to come back to it. One that has this name
    /// already loses it.
    ///
    /// # Errors
    ///
    /// As [`crate::TimeTravel::moment`]; and, where the recorded run was left, as
    /// [`crate::Checkpoints::keep`].
    fn take_snapshot(&mut self, domain: u8, name: &str) -> Result<(), Error>;

    /// Takes a stopped domain to a moment that has a name. [`crate::StopReason::Reached`].
    ///
    /// # Errors
    ///
    /// As [`Reverse::go_to`], and [`crate::Refusal::NoSuchCheckpoint`].
    fn go_to_snapshot(&mut self, domain: u8, name: &str) -> Result<(), Error>;

    /// Returns the moments that have names, in the order in which they got them.
    fn snapshots(&self) -> Vec<Snapshot>;

    /// As [`Reverse::continue_back`], to the last such access, whatever else is set.
    ///
    /// # Errors
    ///
    /// As [`crate::Watchpoints::set_watchpoint`].
    fn last_access(&mut self, vcpu: VcpuId, watchpoint: Watchpoint) -> Result<(), Error>;
}
