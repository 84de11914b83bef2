//! Why something could not be done, and whether anything can be done after it.

/// Why a debuggee did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refused, and nothing has changed. The next command may well succeed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The debuggee is out of reach for good: every further command fails.
    #[error(transparent)]
    Lost(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Tells whether every further command is bound to fail too.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Returns the refusal, where it is one.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            Self::Lost(_) => None,
        }
    }
}

/// Why a command was not carried out. Nothing has changed where this is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The two sides speak different versions.
    #[error("the debuggee speaks version {0} of the link's language: use one build for both")]
    Version(u16),
    /// No domain or vCPU of that number.
    #[error("there is no such domain or vCPU")]
    NoSuchVcpu,
    /// The vCPU must be stopped for this.
    #[error("the vCPU is running: pause it first")]
    NotStopped,
    /// The vCPU was never started, or has been switched off by the guest.
    #[error("the vCPU is switched off")]
    Off,
    /// The domain has ended.
    #[error("the guest has ended")]
    Ended,
    /// The monitor has that state already.
    #[error("already {}", if *.0 { "enabled" } else { "disabled" })]
    AlreadySet(bool),
    /// Not a register that can be reached this way.
    #[error("there is no such register, or it is not accessible")]
    NoSuchRegister,
    /// The guest's translation has no such address.
    #[error("address {0:#x} is not mapped")]
    NotMapped(u64),
    /// Every breakpoint of that kind is in use.
    #[error("no breakpoint of that kind is left: there are {0}")]
    NoBreakpointLeft(u8),
    /// No breakpoint was set there, or one is set there already.
    #[error("there is no breakpoint there, or one is there already")]
    Breakpoint,
    /// The argument is out of its range.
    #[error("argument out of range")]
    Range,
    /// Not now: the same command may succeed later.
    #[error("busy: try again")]
    Busy,
    /// The vCPU is in AArch32 state.
    #[error("the vCPU is in AArch32 state, which cannot be stepped yet")]
    AArch32,
    /// Another domain is being recorded.
    #[error("domain {0} is being recorded, and only one can be at a time")]
    RingInUse(u8),
    /// No such watchpoint was set, or it is set already.
    #[error("there is no such watchpoint, or it is there already")]
    Watchpoint,
    /// There is no memory left to keep it in.
    #[error("the hypervisor has no memory left for another")]
    NoMemory,
    /// No clock can go by the steps of one vCPU while others run.
    #[error("the clock cannot go by steps while the other vCPUs run: time stopped, or others step")]
    PerStepWhileOthersRun,
}
