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
//! | [`instruction`] | the alphabet: each kind of instruction that matters, as one letter |
//!
//! Source of all rules: Arm ARM, DDI 0487, issue L.b; each function names its section's title.
//!
//! What the manual leaves open is a [`Choice`] of whoever drives the machine: whether an
//! asynchronous exception or a pending step is taken first, and whether a store-exclusive fails
//! for no reason. What ISS.ISV says after an exception came in between is [`Machine::isv_kept`].
//!
//! Deliberately absent: AArch32, EL3, FEAT_STEP2, Debug state, breakpoints and watchpoints,
//! values of registers other than the few that a store-exclusive's fate depends on, and the
//! CONSTRAINED UNPREDICTABLE window between a write of MDSCR_EL1 and its synchronisation (writes
//! act at once here).

#![forbid(unsafe_code)]

pub mod debug;
pub mod exception;
pub mod instruction;
pub mod state;

pub use exception::{Class, Syndrome};
pub use instruction::{Choice, Event, Letter, Program};
pub use state::{El, Machine, Mdcr, Mdscr, ProcState};
