//! How a guest goes: what a `vCont` asks for, and what is known of it until it stops.

use stepwell_debuggee::{Refusal, Stop, VcpuId};

/// What the actions of one `vCont` came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The thread that is to step, and within which range.
    pub(crate) step: Option<(u8, Option<(u64, u64)>)>,
    /// Threads that are named to go on.
    pub(crate) free: Vec<u8>,
    /// Those that are not named are stopped.
    pub(crate) is_locked: bool,
}

/// What the guest was set going for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Going {
    /// It is stopped.
    Stopped,
    /// It could not be set going: the client has to be told of a stop that never was a run.
    Refused(Refusal, u8),
    /// All vCPUs run.
    Free,
    /// One vCPU goes, the others are stopped.
    Alone(VcpuId),
    /// Back, to what happened last.
    Back,
    /// Back by one instruction of a vCPU.
    StepBack(VcpuId),
    /// It was to go back to an access that is watched, has come there, and goes on to behind it:
    /// GDB takes what it hears of for done, and undoes it itself by a step back.
    BehindAccess(Stop),
    /// One vCPU steps once, and on while it is within a range.
    Step {
        /// The vCPU.
        vcpu: VcpuId,
        /// Where it goes on.
        range: Option<(u64, u64)>,
        /// Where it was.
        from: u64,
        /// And its stack pointer.
        sp: u64,
        /// It is stopped in the handler of an interrupt that the step is to go over: a breakpoint
        /// that does not count has stopped it there, and it has to get out first.
        is_in_handler: bool,
        /// The others are stopped, whatever their policy.
        is_locked: bool,
    },
}
