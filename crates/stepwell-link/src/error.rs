//! What can end a conversation with a hypervisor.

use std::sync::Arc;
use std::time::Duration;

/// Why the hypervisor is out of reach. All of these are for good.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end closed the link: the machine is gone.
    #[error("the machine closed the link")]
    MachineGone,
    /// The link itself failed.
    #[error("the link failed: {0}")]
    Io(#[source] Arc<std::io::Error>),
    /// No answer came in time.
    #[error("the hypervisor did not answer {command} within {} s", .waited.as_secs())]
    NoAnswer {
        /// What was asked.
        command: &'static str,
        /// For how long it was waited for.
        waited: Duration,
    },
    /// What arrives makes no sense.
    #[error(
        "the link sends garbage ({frames} bad frames, {bytes} bytes, the last time: {last}); \
         is the hypervisor of another version?"
    )]
    Garbage {
        /// Bad frames since the last good one.
        frames: u32,
        /// Bytes since the last good frame.
        bytes: usize,
        /// What was wrong the last time.
        last: stepwell_wire::FrameError,
    },
    /// The hypervisor speaks another version.
    #[error(
        "the hypervisor speaks version {theirs} of the link's language and this tool version \
         {ours}: build both from one source"
    )]
    Version {
        /// The hypervisor's.
        theirs: u16,
        /// The tool's.
        ours: u16,
    },
    /// An answer of the wrong kind.
    #[error("the hypervisor answered {command} with something else")]
    WrongAnswer {
        /// What was asked.
        command: &'static str,
    },
    /// The guest's RAM could not be read.
    #[error("cannot read the guest's RAM: {0}")]
    Ram(#[source] Arc<std::io::Error>),
    /// The mailbox could not be mapped.
    #[error("cannot map the link's mailbox: {0}")]
    Mailbox(#[source] Arc<std::io::Error>),
    /// The mailbox's header contradicts itself.
    #[error(transparent)]
    MailboxHeader(#[from] stepwell_wire::mailbox::BadHeader),
    /// The trace ring is broken.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl From<LinkError> for stepwell_debuggee::Error {
    fn from(error: LinkError) -> Self {
        Self::Lost(Box::new(error))
    }
}

impl From<std::io::Error> for LinkError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// What can be wrong with the trace ring.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RingError {
    /// It could not be mapped.
    #[error("cannot map the trace ring: {0}")]
    Map(#[source] Arc<std::io::Error>),
    /// The hypervisor has not made it, or made another version's.
    #[error("there is no trace ring of this version (magic {magic:#x}, version {version})")]
    Absent {
        /// What there is in place of the magic.
        magic: u64,
        /// What there is in place of the version.
        version: u64,
    },
    /// Its header contradicts itself or the memory it lies in.
    #[error("the trace ring's header is damaged: head {head}, tail {tail}, capacity {capacity}")]
    Header {
        /// Words ever written.
        head: u64,
        /// Words ever drained.
        tail: u64,
        /// Words that fit.
        capacity: u64,
    },
    /// A record makes no sense.
    #[error(transparent)]
    Record(#[from] stepwell_wire::ring::BadRecord),
}
