//! Software Step as Arm specifies it, as a small machine that can be executed.
//!
//! It exists to be the judge of `stepwell-engine`, so it imports nothing of ours: a mistake in our
//! register layouts or in our reading of the rules cannot be on both sides. Functions bear the
//! names of the manual's shared pseudocode.
//!
//! | module | what of the manual is in it |
//! | --- | --- |
//! | [`state`] | PSTATE, the debug registers, the exception registers, the local monitor |
//! | [`debug`] | whether debug exceptions are generated, and the rules of PSTATE.SS |
//! | [`exception`] | exception entry and return |
//! | [`exclusive`] | the local exclusive monitor |
//! | [`instruction`] | each class of instruction that matters, and what it does |
//! | [`implementation`] | what a PE may do in more than one way, and where QEMU departs |
//!
//! Source of all rules: Arm ARM, DDI 0487, issue L.b; each function names its section's title.
//!
//! What the manual leaves open is up to whoever drives the machine. A [`Choice`] at each event:
//! whether an asynchronous exception or a pending step is taken first, whether a store-exclusive
//! fails for no reason. [`SpecMachine::synchronize_context`] at any time: whether a direct write of
//! MDSCR_EL1 is seen before the event that synchronizes it. An [`Implementation`] for all of a run:
//! what ISS.ISV says after an ISB, an ERET, or an exception that came in between.
//!
//! Deliberately absent: AArch32, EL3, FEAT_STEP2, Debug state, watchpoints, breakpoints beyond the
//! one that a hypervisor hides where a handler returns to, and values of registers other than the
//! few that a store-exclusive's fate depends on.

#![forbid(unsafe_code)]

pub mod debug;
pub mod exception;
pub mod exclusive;
pub mod implementation;
pub mod instruction;
pub mod state;

pub use exception::{Class, Syndrome};
pub use implementation::Implementation;
pub use instruction::{Choice, Event, Op, Program};
pub use state::{Daif, El, Mdcr, Mdscr, ProcState, SpecMachine};
