//! Why a vCPU stopped, and how a domain ends.

use serde::{Deserialize, Serialize};
use stepwell_arch::Va;
use stepwell_arch::debug::WatchAccess;

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[repr(u64)] // copied by words where unaligned accesses are not to be had
pub enum StopReason {
    /// The domain was made and has not run yet.
    #[error("reset")]
    Reset,
    /// The debugger asked for it.
    #[error("paused")]
    Paused,
    /// The steps asked for are done.
    #[error("stepped")]
    Stepped,
    /// The address asked for is next.
    #[error("arrived")]
    Until,
    /// A breakpoint is at the next instruction.
    #[error("breakpoint")]
    Breakpoint,
    /// An SMC with this immediate is the next instruction, and privileged calls are monitored.
    #[error("privileged call smc #{immediate:#x}")]
    PrivilegedCall {
        /// The SMC's 16-bit immediate.
        immediate: u16,
    },
    /// The trace ring is full: drain it and step on, nothing is lost.
    #[error("trace ring full")]
    RingFull,
    /// The vCPU went into AArch32 state, which cannot be stepped yet.
    #[error("went into AArch32 state, which cannot be stepped yet")]
    AArch32,
    /// The guest switched this vCPU off.
    #[error("switched off by the guest")]
    SwitchedOff,
    /// The next instruction accesses memory that is watched.
    #[error("watchpoint at {address}")]
    Watchpoint {
        /// The first watched byte that it accesses, as far as the CPU tells.
        address: Va,
        /// What it does there: loads or stores, or both at once.
        access: WatchAccess,
    },
    /// The next instruction is outside of the range that was to be stepped.
    #[error("left the range")]
    LeftRange,
    /// The guest has changed where an address with a breakpoint leads, and the breakpoint could not
    /// be kept there.
    #[error("a breakpoint is lost: no memory is left to follow its address; delete some of them")]
    BreakpointLost,
    /// The moment that was asked for has come.
    #[error("reached")]
    Reached,
}

/// How a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DomainEnding {
    /// It powered itself off (PSCI SYSTEM_OFF).
    PoweredOff,
    /// It asked to be reset (PSCI SYSTEM_RESET).
    Reset,
    /// It did something that no machine could let it do.
    Fault(GuestFault),
}

/// What a guest did to end its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GuestFault {
    /// The vCPU that did it.
    pub vcpu: u8,
    /// The instruction that did it.
    pub pc: Va,
    /// ESR_EL2 of the exit.
    pub esr: u64,
    /// The guest-physical address it reached for, or 0.
    pub address: u64,
    /// What it was.
    pub kind: FaultKind,
}

/// Kinds of [`GuestFault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum FaultKind {
    /// A load or store where the guest has neither memory nor a device.
    #[error("accessed an address where there is nothing")]
    UnmappedAccess,
    /// An instruction fetch from outside its memory.
    #[error("executed from an address where there is no memory")]
    UnmappedFetch,
    /// A system error (SError) that the guest caused.
    #[error("caused a system error")]
    SystemError,
    /// An exception that nobody knows how to handle.
    #[error("raised an exception that has no handling")]
    UnknownException,
    /// The domain could not be started: its kernel or device tree does not fit its memory.
    #[error("cannot be loaded into its memory")]
    DoesNotFit,
}
