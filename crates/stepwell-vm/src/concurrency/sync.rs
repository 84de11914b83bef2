//! The locks and atomics that protocols are made of. `tests/concurrency.rs` has loom's in their place.

pub use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
pub use spin::{Mutex, MutexGuard};
