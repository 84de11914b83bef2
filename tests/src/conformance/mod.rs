//! Conformance: what the guest `conform` declares of its cases, held against what is reported.
//!
//! The declarations are `stepwell_guests::conform`, compiled into these tests without their code;
//! where the code is, the guest's symbols tell. Five *views* of each case are compared with its
//! declared path: plain QEMU, and Stepwell under each interrupt policy, recorded and stop by stop.
//! Besides, in each view and unstepped, the guest's own checks must pass, and it must have taken the
//! interrupts that the path has.

pub mod document;
pub mod mutants;
pub mod observe;
mod path;
mod table;

pub use path::{Places, cut, declared, expected, is_interrupted};
pub use table::Table;

use stepwell_debuggee::InterruptPolicy;
use stepwell_guests::conform::{Case, Needs, Run, cases};

/// Whose stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// QEMU's, without Stepwell.
    Plain,
    /// Nobody's: the guest runs under Stepwell, and only its own checks tell.
    Unstepped,
    /// A recording's.
    Recorded(InterruptPolicy),
    /// The stops of single steps over the link, with `into`.
    Stops,
}

impl View {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::Unstepped,
        Self::Recorded(InterruptPolicy::Hold),
        Self::Recorded(InterruptPolicy::Into),
        Self::Recorded(InterruptPolicy::Over),
        Self::Stops,
    ];

    /// The column's head.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain QEMU",
            Self::Unstepped => "unstepped",
            Self::Recorded(InterruptPolicy::Hold) => "hold",
            Self::Recorded(InterruptPolicy::Into) => "into",
            Self::Recorded(InterruptPolicy::Over) => "over",
            Self::Stops => "stop by stop",
        }
    }

    /// Whether a pending interrupt is taken.
    #[must_use]
    pub fn delivers(self) -> bool {
        self != Self::Recorded(InterruptPolicy::Hold)
    }

    /// Whether the instructions of an interrupt's handler are reported.
    #[must_use]
    pub fn reports_handlers(self) -> bool {
        matches!(self, Self::Plain | Self::Recorded(InterruptPolicy::Into) | Self::Stops)
    }
}

/// The runs that a CPU can do, in order.
pub fn runs(cpu: &str) -> impl Iterator<Item = (&'static Case, Run)> {
    let has_atomics = cpu.starts_with("max");
    cases::runs().filter(move |(case, _)| case.needs == Needs::Nothing || has_atomics)
}
