//! Arm architecture facts that the rest of Stepwell shares: register layouts, the few
//! instructions the engine must recognise, address newtypes, and the stage-1 table walk.
//!
//! Nothing in here reads a register or memory by itself; everything is a value or a function of
//! values, so that it is the same at EL2, in the model and in the tool.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod address;

pub use address::{Ipa, Pa, Va};
