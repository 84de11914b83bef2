//! The values of the trait that are not the protocol's: what a status and a step command hold.

use stepwell_arch::Va;
use stepwell_protocol::VcpuState;

/// A vCPU's state, and its PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuStatus {
    /// What it is doing.
    pub state: VcpuState,
    /// The next instruction; 0 unless it is stopped.
    pub pc: Va,
}

/// What a step command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRequest {
    /// How many steps at most. 0 is refused.
    pub count: u64,
    /// Stop early where this address is about to execute.
    pub until: Option<Va>,
    /// Put the steps into the trace, where there is one.
    pub record: bool,
    /// Count the steps of all vCPUs that move, and not only those of the one that is stepped.
    pub all: bool,
    /// Stop early where the instruction that is about to execute is not in this range: a line of
    /// source, stepped in one go.
    pub within: Option<CodeRange>,
}

/// Instructions from one address up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// The first.
    pub start: Va,
    /// Behind the last.
    pub end: Va,
}

impl CodeRange {
    /// Tells whether the instruction at `pc` is one of them.
    #[must_use]
    pub const fn contains(self, pc: Va) -> bool {
        self.start.0 <= pc.0 && pc.0 < self.end.0
    }
}

impl StepRequest {
    /// Asks for `count` steps, unrecorded.
    #[must_use]
    pub const fn steps(count: u64) -> Self {
        Self { count, until: None, record: false, all: false, within: None }
    }
}
