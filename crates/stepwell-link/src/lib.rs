//! A [`stepwell_debuggee::Debuggee`] over the wire: the hypervisor's tool side.
//!
//! Commands and events travel as frames: over a byte stream, or where the machine's RAM can be
//! mapped through a [`Mailbox`] there, of which the stream is but the doorbell. Recorded steps lie
//! in such RAM as well ([`Ring`]). A thread reads the stream; everything else happens in the
//! caller's thread.
//!
//! Nothing that arrives is trusted: a damaged frame is counted and skipped, a stream of them ends
//! the conversation with an error that says so, and no answer within the allotted time is an
//! error too, never a hang.

mod devices;
mod error;
mod guest_ram;
mod link;
mod mailbox;
mod receiver;
mod ring;
mod shared;
mod vectors;
mod wait;

pub use devices::{KeptDevices, device_channel};
pub use error::{LinkError, RingError};
pub use guest_ram::GuestRam;
pub use link::{FlashKeeper, Hello, Link, Patience};
pub use mailbox::Mailbox;
pub use ring::Ring;
pub use stepwell_wire::devices::BYTES as DEVICE_CHANNEL_BYTES;
pub use stepwell_wire::mailbox::BYTES as MAILBOX_BYTES;
