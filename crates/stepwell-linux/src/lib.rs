//! What a Linux guest tells about itself: its types, its tasks, its modules.
//!
//! A distribution's stripped kernel carries all that is needed, without debug packages: the names
//! of its functions (kallsyms), its types (BTF), and its own lists in memory. Here they are put
//! together, over any stopped [`Debuggee`](stepwell_debuggee::Debuggee):
//!
//! - [`btf`]: types, their members and where they are.
//! - [`Kernel`]: what the image says: version, types, and where the variables are that lists begin
//!   with. Many kernels leave the names of variables out; then the code of functions that are named
//!   tells ([`references`]).
//! - [`Memory`], [`Guest`]: the guest's memory as its kernel sees it, from wherever it is.
//! - [`task`], [`module`], [`mapping`]: the lists.
//! - [`stack`]: how a task came to where it is.
//! - [`expression`]: what somebody wants to see of a structure.
//!
//! Invariants: whatever the guest wrote there, each question takes bounded time and memory, and is
//! answered or refused with a sentence. Nothing is ever written to the guest. Offsets come from the
//! guest's own BTF; the few facts that are not in it are named where they are used.
//!
//! Deliberately not here: kernels without BTF, big-endian ones, and other systems.
#![forbid(unsafe_code)]

pub mod btf;
mod error;
pub mod expression;
mod guest;
mod kernel;
mod list;
pub mod mapping;
mod memory;
pub mod module;
pub mod module_types;
pub mod references;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod stack;
pub mod task;

#[cfg(test)]
mod tests;

pub use btf::Btf;
pub use error::Error;
pub use guest::Guest;
pub use kernel::Kernel;
pub use mapping::Mapping;
pub use memory::{Cached, Memory};
pub use module::Module;
pub use task::Task;
