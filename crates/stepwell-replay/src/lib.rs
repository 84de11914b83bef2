//! Runs of a guest that can be had again.
//!
//! What a guest does on a machine that counts instructions is a function of its position, apart from
//! what comes to it from outside ([`stepwell_debuggee::TimeTravel`]). So a run is its beginning and its
//! inputs, each with the moment at which it came in. That is what a replay log holds ([`log`]), with
//! hashes of states in between, by which a replay notices that it is another run.
//!
//! [`record`] makes one while a guest runs, [`replay`] runs it again, and a [`navigator`] goes back and
//! forth in it; all over any debuggee. Who
//! launches machines and compares files is not to be found here.

#![forbid(unsafe_code)]

pub mod log;
pub mod navigator;
pub mod record;
pub mod replay;
pub mod script;

pub use log::{DiskIdentity, Entry, FileIdentity, Header, LogError, Reader, Writer};
pub use navigator::{Keeping, Machine, Navigator};
pub use script::Script;
