//! What the whole-machine tests share: programs with a time limit, and an independent witness.
//!
//! The witness is QEMU itself. Asked to, it reports each instruction it executes; a guest run so
//! without Stepwell gives the stream that Stepwell's recording of the same guest has to equal.
//!
//! Invariants: every program started here dies by SIGKILL at its time limit (some QEMU versions
//! hang ignoring SIGTERM) and takes its whole process group with it; [`process::Finished`] knows
//! which of its descendants outlived it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod board;
pub mod browser;
pub mod conformance;
pub mod console;
pub mod cost;
pub mod cross_calls;
pub mod debian;
pub mod debugger;
pub mod detector;
pub mod distribution;
pub mod emulated_host;
pub mod encodings;
pub mod guest;
pub mod http;
pub mod kernel_module;
pub mod kexec;
pub mod machine;
pub mod own_debug;
pub mod plain;
pub mod positions;
pub mod proc;
pub mod process;
pub mod program;
pub mod prompt;
pub mod random;
pub mod stepwell;
pub mod stream;
pub mod swapped;
pub mod wanderer;
pub mod ways;
