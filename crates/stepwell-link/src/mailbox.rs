//! The tool's side of the mailbox; layout and protocol are [`stepwell_wire::mailbox`]'s.
//!
//! An answer is waited for by looking, for as long as answers usually take, and only then by
//! sleeping on the stream: the hypervisor's CPU is another thread's, which has the answer ready in
//! less time than a sleeper takes to be woken.

use crate::LinkError;
use crate::shared::SharedMemory;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use stepwell_wire::FromHypervisor;
use stepwell_wire::mailbox::{AdaptiveSpin, BYTES, Direction, Memory, Receiver, Sender};

/// How long after a request it is looked for answers and events without sleeping: some times what a
/// step takes, also where the hypervisor was asleep and had to be woken.
const LOOKING: Duration = Duration::from_micros(200);
/// Looks between two at the clock.
const LOOKS: usize = 64;

#[derive(Clone)]
struct Words(Arc<dyn Memory + Send + Sync>);

impl Memory for Words {
    fn word(&self, offset: u64) -> &AtomicU64 {
        self.0.word(offset)
    }
}

/// A mailbox in the machine's RAM, to be [attached](crate::Link::attach_mailbox) to a link.
pub struct Mailbox {
    outgoing: Sender<Words>,
    incoming: Receiver<Words>,
    looking_until: Instant,
    spin: AdaptiveSpin,
}

impl Mailbox {
    /// Maps the mailbox that lies `offset` bytes into `ram`.
    ///
    /// # Errors
    ///
    /// [`LinkError::Mailbox`] where it cannot be mapped.
    pub fn map(ram: &File, offset: u64) -> Result<Self, LinkError> {
        let memory = SharedMemory::map(ram, offset, BYTES);
        Ok(Self::over(Arc::new(memory.map_err(|error| LinkError::Mailbox(Arc::new(error)))?)))
    }

    /// Makes a mailbox of any memory that the other side has as well.
    #[must_use]
    pub fn over(memory: Arc<dyn Memory + Send + Sync>) -> Self {
        let words = Words(memory);
        let incoming = Receiver::new(words.clone(), Direction::ToTool);
        incoming.set_attentive(true);
        let outgoing = Sender::new(words, Direction::ToHypervisor);
        Self { outgoing, incoming, looking_until: Instant::now(), spin: AdaptiveSpin::new() }
    }

    /// Sends a frame. Returns whether the doorbell has to be rung, or `None` where there was no room
    /// for as long as `patience`.
    pub(crate) fn send(&mut self, frame: &[u8], patience: Duration) -> Option<bool> {
        let deadline = Instant::now() + patience;
        while !self.outgoing.send(frame) {
            if Instant::now() > deadline {
                return None;
            }
            std::thread::yield_now();
        }
        let looking = if self.spin.is_worth_it() { LOOKING } else { Duration::ZERO };
        self.looking_until = Instant::now() + looking;
        Some(self.outgoing.must_ring())
    }

    /// Takes the next message, if there is one.
    pub(crate) fn take(&mut self) -> Result<Option<FromHypervisor>, LinkError> {
        match self.incoming.take() {
            Ok(None) => Ok(None),
            Ok(Some(Ok(message))) => Ok(Some(message)),
            // Nothing damages a frame in memory but who wrote it.
            Ok(Some(Err(last))) => Err(LinkError::Garbage { frames: 1, bytes: 0, last }),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks for a message until `deadline`, as long as one is to be expected soon. Where there is
    /// none, we are no longer attentive: the doorbell will be rung for the next.
    pub(crate) fn look(&mut self, deadline: Instant) -> Result<Option<FromHypervisor>, LinkError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if Instant::now() >= self.looking_until.min(deadline) {
                break;
            }
            for _ in 0..LOOKS {
                if let Some(message) = self.take()? {
                    self.spin.note(true);
                    return Ok(Some(message));
                }
                std::hint::spin_loop();
            }
            if Instant::now() >= self.looking_until {
                self.spin.note(false);
            }
        }
        self.incoming.set_attentive(false);
        let message = self.take()?;
        if message.is_some() {
            self.incoming.set_attentive(true);
        }
        Ok(message)
    }

    /// Is attentive again after having slept, and takes what has come.
    pub(crate) fn wake_up(&mut self) -> Result<Option<FromHypervisor>, LinkError> {
        self.incoming.set_attentive(true);
        self.take()
    }
}
