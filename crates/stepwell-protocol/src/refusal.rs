//! Why a command was not carried out.

use serde::{Deserialize, Serialize};

/// Why a command was not carried out. Nothing has changed where this is returned, and the
/// conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The two sides speak different versions.
    #[error("the hypervisor speaks version {0} of the link's language: use one build for both")]
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
    #[error("no breakpoint of that kind is left: there are {0}; delete one first")]
    NoBreakpointLeft(u8),
    /// No breakpoint was set there, or one is set there already.
    #[error("there is no breakpoint there, or one is there already")]
    Breakpoint,
    /// Not now: the same command may succeed later.
    #[error("busy: try again")]
    Busy,
    /// The vCPU is in AArch32 state above EL0.
    #[error("the vCPU is in AArch32 state, which cannot be stepped yet")]
    AArch32,
    /// Another domain is writing into the trace ring.
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
    /// No steps were asked for.
    #[error("no steps are asked for: ask for at least 1")]
    NoSteps,
    /// A turn of no instructions was asked for.
    #[error("a turn has no instructions: give it at least 1")]
    EmptyTurn,
    /// A breakpoint has to be where an instruction can be.
    #[error("{0:#x} is no multiple of 4, where an instruction can be")]
    Misaligned(u64),
    /// A watchpoint has no bytes, wraps around, or is in more pages than can be withheld.
    #[error("such a range cannot be watched: it has no bytes, wraps around, or is too long")]
    WatchedRange,
    /// More bytes than one command can carry, or than the register has.
    #[error("more bytes than {0}, which is the most here")]
    TooLong(u16),
    /// A value that this register cannot have.
    #[error("the register cannot have this value")]
    BadValue,
    /// This debuggee cannot do it at all.
    #[error("not supported here")]
    Unsupported,
    /// As many as can be kept are there.
    #[error("one more is too many: there can be {0}")]
    TooMany(u32),
    /// Words that make no sense where they are.
    #[error("neither a number nor a symbol that is known")]
    NotANumber,
    /// The machine does not count instructions.
    #[error(
        "the machine does not count instructions: `stepwell record` and `replay` make one that does"
    )]
    NotCounted,
    /// A moment that is not kept.
    #[error("there is no such checkpoint")]
    NoSuchCheckpoint,
    /// It would make another run of one that is counted.
    #[error("that would make another run of this one: begin that by `fork`")]
    WouldDiverge,
}
