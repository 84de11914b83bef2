//! The step engine: what to load before the hypervisor's ERET, what an exit means, and what to
//! report.
//!
//! The state machine of Software Step is where every known implementation went wrong, so it is a
//! plain value here: no register, clock or memory is read by this crate. The hypervisor calls it
//! at EL2, the tests and the model call it on a host, and both run the same code.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`step`] | the state machine: SS on entry, what an exit tells |
//! | [`exclusive`] | the local exclusive monitor that a stepped guest would otherwise lose |
//! | [`own_step`] | the guest's own single-step of its EL0, while we step it too |
//! | [`plan`] | what the next instruction needs before it may execute |
//! | [`plan32`] | the same of AArch32 code at EL0 |
//! | [`precedence`] | which exceptions come before what EL2 carries out |
//! | [`retrace`] | whether registers still tell of what lies in memory as a load-exclusive's |
//! | [`attention`] | the same question as a table, for the assembly fast path |
//! | [`handler`] | where an interrupt handler has returned to what it interrupted |
//! | [`completion`] | what is left to do when an instruction is done with |
//! | [`clock`] | the guest's virtual time |
//! | [`turns`] | which of several stepped vCPUs moves |
//! | [`spin`] | where a vCPU goes round and gets nowhere |
//! | [`mutation`] | mistakes on purpose, for those who must be able to find them |
//!
//! What is deliberately absent: any notion of a debugger, a breakpoint or a trace. A *boundary*
//! between two instructions is all that the engine knows; what happens there is its caller's.

#![cfg_attr(not(test), no_std)]
#![forbid(missing_docs, unsafe_code)]
// Outside of tests, which may fail loudly: nobody can allow these again.
#![cfg_attr(
    not(test),
    forbid(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod attention;
pub mod clock;
pub mod completion;
pub mod exclusive;
pub mod handler;
pub mod mutation;
pub mod natural;
pub mod own_step;
pub mod plan;
pub mod plan32;
pub mod precedence;
pub mod retrace;
pub mod spin;
pub mod step;
pub mod turns;

pub use attention::Attention;
pub use clock::VirtualClock;
pub use completion::{After, Before, Completion, MdscrAround, MonitorChange, Saved};
pub use exclusive::{Armed, ExclusiveMonitor, Image, LoadExclusive, StoreDecision, StoreExclusive};
pub use handler::InterruptedContext;
pub use plan::{Plan, is_data_processing, plan};
pub use plan32::plan32;
pub use spin::SpinDetector;
pub use step::{Boundary, DebugControls, Disabled, EnableError, Engine, Exit, Outcome, StepState};
pub use stepwell_protocol::{OthersPolicy, TimePolicy};
pub use turns::{NextTurn, Scope, TurnPlan, Turns, Yield};
