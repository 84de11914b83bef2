//! A [`stepwell_debuggee::Debuggee`] over the wire: the hypervisor's tool side.
//!
//! Commands and events travel as frames over a byte stream; recorded steps do not, they lie in
//! RAM that both sides map ([`Ring`]). A thread reads the stream, so that an event never waits
//! for somebody to ask; everything else happens in the caller's thread.
//!
//! Nothing that arrives is trusted: a damaged frame is counted and skipped, a stream of them ends
//! the conversation with an error that says so, and no answer within the allotted time is an
//! error too, never a hang.

mod convert;
mod error;
mod link;
mod receiver;
mod ring;
mod vectors;

pub use error::{LinkError, RingError};
pub use link::{Hello, Link, Patience};
pub use ring::Ring;
