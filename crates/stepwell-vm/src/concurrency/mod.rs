//! What the CPUs that run a domain's vCPUs tell each other without a message: counts and marks that
//! one writes and another reads while it holds no lock.
//!
//! One rule makes these sound: **what tells of a change is published after the change**, so that
//! whoever has seen the one finds the other. Each protocol is a type of its own here, over the
//! locks and atomics of [`sync`], and `tests/concurrency.rs` runs the very same files over loom's,
//! which tries every interleaving and what the memory model lets each read see.

pub mod alone;
pub mod counted;
pub mod quiescence;
pub mod sync;
