//! Which stage-2 tables a vCPU is run with: see [`crate::views`].

use crate::stage2::{SharedVttbr, Vttbr};
use heapless::Vec;
use stepwell_arch::Ipa;

/// Which of a domain's stage-2 tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// Where a vCPU runs freely.
    Running,
    /// Where a vCPU is stepped.
    Guarded,
    /// For one instruction that may access everything.
    Unrestricted,
}

/// The tables that are in use: all the same where no page is of interest.
#[derive(Debug)]
pub struct Roots {
    pub(super) running: SharedVttbr,
    pub(super) guarded: SharedVttbr,
}

impl Roots {
    /// Makes those of a domain whose own tables these are.
    #[must_use]
    pub const fn new(vttbr: Vttbr) -> Self {
        Self { running: SharedVttbr::new(vttbr), guarded: SharedVttbr::new(vttbr) }
    }

    /// VTTBR_EL2 of a vCPU that runs freely.
    #[must_use]
    pub fn of_running(&self) -> Vttbr {
        self.running.load()
    }
}

/// What an instruction that executes with nothing withheld may write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum WriteSet {
    /// Nothing.
    #[default]
    Empty,
    /// These bytes.
    Pieces(Vec<(Ipa, u64), 2>),
    /// It is not known.
    Unknown,
}
