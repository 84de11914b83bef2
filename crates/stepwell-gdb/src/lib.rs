//! GDB's and LLDB's remote protocol over any [`stepwell_debuggee::Debuggee`].
//!
//! The protocol itself is the crate `gdbstub`'s. What is here is what a guest needs of it:
//!
//! - [`Session`]: one conversation with one client, bytes in and bytes out. It knows no socket and
//!   no clock, so that transcripts, the fuzzer and the server drive the same code.
//! - [`Server`]: sockets around sessions: one client at a time, what happens when it leaves.
//! - [`RegisterSet`]: what registers there are, and their description for the client.
//! - [`Services`]: what the tool around it can do: names, recordings, the guest's console.
//!
//! Architecture Invariant: nothing here knows how a guest is run. A client, however broken, gets an
//! error or is hung up on; it reaches no panic, and what it can make us hold is bounded by
//! [`PACKET_MAX`] and [`REPLY_MAX`].

#![forbid(unsafe_code)]

mod agent;
mod arch;
mod back;
mod breakpoints;
mod cached;
mod conditions;
mod description;
mod error;
mod framing;
mod going;
mod guest;
mod monitor;
mod output;
mod pauth;
mod policies;
mod registers;
mod resume;
mod scope;
mod seats;
mod sequence;
mod server;
mod services;
mod session;
mod stops;

pub use description::RegisterSet;
pub use error::Error;
pub use framing::PACKET_MAX;
pub use output::REPLY_MAX;
pub use policies::Policies;
pub use scope::Process;
pub use server::{Address, Left, OnDisconnect, Server};
pub use services::{NoServices, Services};
pub use session::{Leaving, Session};

#[cfg(test)]
mod tests;
