//! What Stepwell debugs: the [`Debuggee`] trait, its vocabulary, an in-memory [`fake`] and the
//! [`contract`] that every implementation has to keep.
//!
//! The trait exists so that the stepper, the tracer and the GDB server know nothing of links,
//! frames or QEMU. What every debuggee can do is a plain method; what only some can is an
//! *ability*, asked for by a `support_…` method that returns it or `None`.
//!
//! Errors come in two kinds that must not be mixed up: a [`Refusal`] leaves everything as it was
//! and the conversation goes on; [`Error::Lost`] means that nobody is there any more.

#![forbid(unsafe_code)]

pub mod contract;
mod debuggee;
mod error;
pub mod fake;
mod reverse;
mod stop;
mod time_travel;
mod value;

pub use debuggee::{
    Console, Debuggee, Interrupts, Monitors, Others, Simd, Sve, SystemRegisters, Time, Trace,
    Watchpoints,
};
pub use error::Error;
// What the trait speaks of, so that who is built on it needs no second crate.
pub use reverse::{Edge, Reverse, Snapshot, Way};
pub use stepwell_protocol::{
    DomainEnding, ExceptionCause, FaultKind, GuestFault, InterruptPolicy, Monitor, OthersPolicy,
    Place, Refusal, Registers, Schedule, ScheduleError, SimdRegisters, StopReason, SveRegister,
    TimePolicy, TraceDetail, TraceRecord, VcpuId, VcpuState, VectorLength, Waiting, WatchAccess,
    Watchpoint,
};
pub use stop::{Event, Stop};
pub use time_travel::{CHECKPOINTS_MAX, Checkpoint, Checkpoints, Moment, StateHash, TimeTravel};
pub use value::{CodeRange, StepRequest, VcpuStatus};
