//! What travels between the hypervisor and the tool: commands, events, framing, and the layouts of
//! the mailbox, the device channel and the trace ring. Versioned as one thing, by [`VERSION`].
//!
//! The tool sends a [`Request`]; the hypervisor answers each with exactly one
//! [`FromHypervisor::Response`] bearing the same id, and sends [`Event`]s whenever it has
//! something to say. Responses come in the order of the requests; events fall anywhere between.
//!
//! What the messages speak of is `stepwell-protocol`'s: the same values at both ends, which this
//! crate turns into bytes.

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

mod commands;
pub mod devices;
pub mod frame;
pub mod mailbox;
pub mod message;
pub mod ring;

pub use frame::{FrameDecoder, FrameError, MAX_FRAME, encode};
pub use message::{Answer, Bytes, Command, Event, FromHypervisor, Request, Timeline};

/// Version of everything in this crate. Both sides refuse to talk to any other.
pub const VERSION: u16 = 11;
