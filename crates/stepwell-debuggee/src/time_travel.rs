//! The ability to have every moment of a run again.
//!
//! It rests on a machine that counts the instructions of its guest. What such a guest does is a function
//! of its position, apart from what comes to it from outside; so whoever takes down what came in, and at
//! which [`Moment`], can run it once more, and stop it wherever it has been.
//!
//! Forwards is [`TimeTravel`]: run to a moment, and compare states. Backwards is [`Checkpoints`] beside
//! it: go back to one, and run forwards from there. Which checkpoints to keep, and where to look for what
//! happened last, is not the debuggee's business.

use crate::{Error, VcpuId};
use std::fmt;
use stepwell_arch::Ipa;

/// A moment of a domain: how many instructions its vCPUs have executed since reset, all together, and
/// what time it is.
///
/// While every vCPU waits, the clock goes on and the position does not: so both are needed to say when
/// something came from outside. In a run both only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Instructions that were executed before it.
    pub position: u64,
    /// The guest's counter, in its ticks.
    pub clock: u64,
}

impl Moment {
    /// The first moment at a position, whatever time it is there.
    #[must_use]
    pub const fn at(position: u64) -> Self {
        Self { position, clock: 0 }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position {}, clock {}", self.position, self.clock)
    }
}

/// A hash of everything that a guest could tell one moment from another by: the registers of its vCPUs
/// and its RAM. Pages of zeros do not count, so that what was never touched needs no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateHash {
    /// Of the vCPUs' registers.
    pub registers: u64,
    /// Of the RAM.
    pub memory: u64,
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.registers, self.memory)
    }
}

/// The ability to go to any moment that lies ahead, and to say what is there.
pub trait TimeTravel {
    /// Returns the moment at which a domain is stopped, or at which it ended.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotStopped`], [`crate::Refusal::NotCounted`].
    fn moment(&mut self, domain: u8) -> Result<Moment, Error>;

    /// Lets a stopped domain run until it has come to `moment`; that it has is an event
    /// ([`crate::StopReason::Reached`]). One that lies behind has come already.
    ///
    /// It stops before the first instruction at that position; or, where every vCPU waits there, once
    /// the clock has come, too. Whether it stopped there, or anywhere else, makes no difference to what
    /// comes after it.
    ///
    /// # Errors
    ///
    /// As [`TimeTravel::moment`], and [`crate::Refusal::Ended`].
    fn run_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error>;

    /// As [`TimeTravel::run_until`], but stops before that where it is this vCPU's turn, and it has not
    /// executed anything more; where it has its turn now, that is here.
    ///
    /// # Errors
    ///
    /// As [`TimeTravel::run_until`].
    fn run_until_turn(&mut self, vcpu: VcpuId, moment: Moment) -> Result<(), Error>;

    /// Returns for each vCPU the position behind the last instruction that it has executed; 0 for none.
    /// Where that is the domain's own position, it was the last one to execute any.
    ///
    /// # Errors
    ///
    /// As [`TimeTravel::moment`].
    fn executed(&mut self, domain: u8) -> Result<Vec<u64>, Error>;

    /// As [`TimeTravel::run_until`], by steps, which are recorded ([`crate::Trace`]). It may stop
    /// before, where no more fits ([`crate::StopReason::RingFull`]): drain, and ask again.
    ///
    /// # Errors
    ///
    /// As [`TimeTravel::run_until`], and [`crate::Refusal::Unsupported`] where nothing is recorded.
    fn record_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error>;

    /// Returns a hash of the state of a stopped domain.
    ///
    /// # Errors
    ///
    /// As [`TimeTravel::moment`].
    fn state_hash(&mut self, domain: u8) -> Result<StateHash, Error>;

    /// Begins another run here: what comes from now on is not what the positions so far were those of.
    ///
    /// Until then, whatever would make it another one is refused as [`crate::Refusal::WouldDiverge`]:
    /// writes, steps of one vCPU, policies. Going to a moment that was kept before goes back to the run
    /// that it is of.
    ///
    /// # Errors
    ///
    /// As [`TimeTravel::moment`].
    fn fork(&mut self, domain: u8) -> Result<(), Error>;

    /// Keeps moments to go back to, where that is possible.
    fn support_checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        None
    }
}

/// The most moments that anybody keeps at a time.
pub const CHECKPOINTS_MAX: usize = 64;

/// A moment that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint(pub u64);

/// The ability to keep moments, and to go back to them.
///
/// What a debugger has set (breakpoints, watchpoints, monitors, policies) belongs to no checkpoint: it
/// stays as it is.
///
/// Memory for what differs between moments is bounded. Where it is full while the guest runs, a moment is
/// let go that has others close to it, but the earliest last of all; that it has been,
/// [`Checkpoints::go_to`] tells ([`crate::Refusal::NoSuchCheckpoint`]).
pub trait Checkpoints {
    /// Keeps the moment at which a domain is stopped.
    ///
    /// # Errors
    ///
    /// As [`TimeTravel::moment`], and [`crate::Refusal::NoMemory`] where as many are kept as can be:
    /// [`CHECKPOINTS_MAX`], or fewer.
    fn keep(&mut self, domain: u8) -> Result<Checkpoint, Error>;

    /// Takes a stopped domain to a moment that was kept, which lies before or after. It is stopped there
    /// as after [`TimeTravel::run_until`], and nothing is told of it.
    ///
    /// # Errors
    ///
    /// As [`TimeTravel::moment`], and [`crate::Refusal::NoSuchCheckpoint`].
    fn go_to(&mut self, domain: u8, checkpoint: Checkpoint) -> Result<(), Error>;

    /// Lets a kept moment go, and its memory.
    fn forget(&mut self, checkpoint: Checkpoint);

    /// Tells whether any of `bytes` bytes from `ipa` on may have been written on the way from one kept
    /// moment to a later one. It is cheap, and goes by pages: where it says no, nothing has stored there,
    /// not even what was there before.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoSuchCheckpoint`].
    fn wrote(
        &mut self,
        domain: u8,
        from: Checkpoint,
        to: Checkpoint,
        ipa: Ipa,
        bytes: u64,
    ) -> Result<bool, Error>;
}
