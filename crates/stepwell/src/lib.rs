//! The tool: launches machines, runs and steps their guests, records and shows what they execute.
//!
//! - [`command`]: one file a command, with its options and its help.
//! - [`machine`]: everything about QEMU, ending in a [`stepwell_link::Link`] to the hypervisor.
//! - [`names`]: symbols for a guest that moves itself about; [`relocation`]: where firmware puts it.
//! - [`linux`], [`questions`], [`listings`]: what is known of a Linux guest, asked of it, and shown.
//! - [`programs`]: symbols of what its processes execute.
//! - [`stepper`]: the interactive stepper.
//! - [`gdb`]: what the tool does for a debugger.
//! - [`run_report`]: a whole recorded run as a page.
//! - [`output`]: the files that the user has written; [`waits`]: where a guest waits for itself.
//! - [`console`], [`terminal`], [`interruption`], [`leftovers`]: this terminal, its signals, and how
//!   to leave.
//!
//! Architecture Invariant: nothing in here knows how the hypervisor works. What it wants from a
//! guest it asks of a [`stepwell_debuggee::Debuggee`], and the stepper works on any.

pub mod command;
pub mod console;
pub mod ending;
pub mod follow;
pub mod gdb;
pub mod interruption;
pub mod leftovers;
pub mod linux;
pub mod listings;
pub mod losses;
pub mod machine;
pub mod names;
pub mod output;
pub mod programs;
pub mod progress;
pub mod questions;
pub mod recorder;
pub mod relocation;
pub mod run_report;
pub mod stepper;
pub mod terminal;
pub mod travelled;
pub mod waits;
