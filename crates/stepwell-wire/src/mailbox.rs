//! Layout and protocol of the mailbox: frames in RAM that both sides map, in place of the stream.
//!
//! A stream between two processes costs each message a system call, a turn of the emulator's main
//! loop, a virtqueue and an interrupt; where a debugger steps one instruction at a time, that is
//! all that its steps cost. A side that is *attentive* looks into the mailbox by itself, and then
//! a message costs two cache lines. A side that is not (it sleeps, or runs its guest) is told by
//! the *doorbell*: an empty frame, that is a zero byte, on the stream.
//!
//! | offset | word | written by |
//! | --- | --- | --- |
//! | 0, 256 | `head`: words ever sent | the sender |
//! | 64, 320 | `tail`: words ever taken | the receiver |
//! | 128, 384 | 1: the receiver is attentive, the doorbell need not be rung | the receiver |
//! | 4096, 4096 + 65536 | the words themselves, each at its number modulo the capacity | the sender |
//!
//! The first of each pair is of the direction to the hypervisor, the second of the one to the tool.
//! All zero is an empty mailbox to which nobody listens, so that nobody has to make one. Frames are
//! those of the stream, filled up to whole words with zeros, which are empty frames.
//!
//! The conversation begins on the stream. From the answer to the first `Hello` on, if that says so
//! ([`crate::Answer::Hello`]), all frames of both sides go through the mailbox.
//!
//! **No message is slept through.** A sender publishes its frame and then looks whether the receiver
//! is attentive; a receiver says that it no longer is and then looks whether a frame has come. Each
//! has a [full barrier](Memory::full_barrier) between the two, so at least one of them sees the
//! other.
//!
//! Neither side trusts the other's words: they are numbers that may be anything.

use crate::FrameError;
use crate::frame::FrameDecoder;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use serde::de::DeserializeOwned;

/// Words that fit into one direction: some 30 of the longest frames.
pub const CAPACITY: u64 = 8192;
/// Bytes of the whole mailbox.
pub const BYTES: u64 = WORDS_TO_TOOL + 8 * CAPACITY;

const WORDS_TO_HYPERVISOR: u64 = 4096;
const WORDS_TO_TOOL: u64 = WORDS_TO_HYPERVISOR + 8 * CAPACITY;

/// Memory that both sides map.
pub trait Memory {
    /// Returns the word at a byte offset: a multiple of 8 below [`BYTES`].
    fn word(&self, offset: u64) -> &AtomicU64;

    /// Has the other side see what this one has stored before this one loads anything more.
    ///
    /// Of one's own where a fence is not enough: what an emulator makes of it may be nothing.
    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }
}

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToHypervisor,
    /// Responses and events.
    ToTool,
}

impl Direction {
    const fn header(self) -> u64 {
        match self {
            Self::ToHypervisor => 0,
            Self::ToTool => 256,
        }
    }

    const fn words(self) -> u64 {
        match self {
            Self::ToHypervisor => WORDS_TO_HYPERVISOR,
            Self::ToTool => WORDS_TO_TOOL,
        }
    }

    fn head<M: Memory>(self, memory: &M) -> &AtomicU64 {
        memory.word(self.header())
    }

    fn tail<M: Memory>(self, memory: &M) -> &AtomicU64 {
        memory.word(self.header() | 64)
    }

    fn attentive<M: Memory>(self, memory: &M) -> &AtomicU64 {
        memory.word(self.header() | 128)
    }

    fn place<M: Memory>(self, memory: &M, count: u64) -> &AtomicU64 {
        let place = count % CAPACITY;
        memory.word(self.words().wrapping_add(place.wrapping_mul(8)))
    }
}

/// The sending end of one direction. There is one.
#[derive(Debug)]
pub struct Sender<M> {
    memory: M,
    direction: Direction,
    head: u64,
}

impl<M: Memory> Sender<M> {
    /// Makes the sending end of a mailbox that is all zero.
    #[must_use]
    pub const fn new(memory: M, direction: Direction) -> Self {
        Self { memory, direction, head: 0 }
    }

    /// Sends a frame, or returns `false` where it does not fit yet.
    #[must_use]
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let words = frame.len().div_ceil(8) as u64;
        // The receiver's word: one that is ahead of us makes a mailbox without room.
        let tail = self.direction.tail(&self.memory).load(Ordering::Acquire);
        let used = self.head.checked_sub(tail).unwrap_or(CAPACITY);
        if CAPACITY.saturating_sub(used) < words {
            return false;
        }
        for chunk in frame.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            let place = self.direction.place(&self.memory, self.head);
            place.store(u64::from_le_bytes(word), Ordering::Relaxed);
            self.head = self.head.wrapping_add(1);
        }
        self.direction.head(&self.memory).store(self.head, Ordering::Release);
        true
    }

    /// Tells whether the receiver has to be told of what was sent, by the doorbell.
    #[must_use]
    pub fn must_ring(&self) -> bool {
        self.memory.full_barrier();
        self.direction.attentive(&self.memory).load(Ordering::Relaxed) == 0
    }
}

/// The other side claims more words than there are places: it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox's header is damaged: {head} words sent, {tail} taken")]
pub struct BadHeader {
    /// Words ever sent, as the sender says.
    pub head: u64,
    /// Words ever taken.
    pub tail: u64,
}

/// The receiving end of one direction. There is one.
pub struct Receiver<M> {
    memory: M,
    direction: Direction,
    tail: u64,
    decoder: FrameDecoder,
    /// What the decoder has not seen of the last word, lowest byte first, and its length.
    rest: (u64, u8),
}

impl<M: Memory> Receiver<M> {
    /// Makes the receiving end of a mailbox that is all zero.
    #[must_use]
    pub const fn new(memory: M, direction: Direction) -> Self {
        Self { memory, direction, tail: 0, decoder: FrameDecoder::new(), rest: (0, 0) }
    }

    /// Takes the next message, or what was wrong with a frame. `Ok(None)`: there is none yet.
    ///
    /// # Errors
    ///
    /// [`BadHeader`], after which nothing good is to be expected.
    pub fn take<T: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Result<T, FrameError>>, BadHeader> {
        loop {
            while let (rest, left @ 1..) = self.rest {
                self.rest = (rest >> 8, left.saturating_sub(1));
                let [byte, ..] = rest.to_le_bytes();
                if let Some(message) = self.decoder.push(byte) {
                    return Ok(Some(message));
                }
            }
            let head = self.direction.head(&self.memory).load(Ordering::Acquire);
            match head.checked_sub(self.tail) {
                Some(0) => return Ok(None),
                Some(1..=CAPACITY) => {}
                _ => return Err(BadHeader { head, tail: self.tail }),
            }
            let word = self.direction.place(&self.memory, self.tail).load(Ordering::Relaxed);
            self.rest = (word, 8);
            self.tail = self.tail.wrapping_add(1);
            self.direction.tail(&self.memory).store(self.tail, Ordering::Release);
        }
    }

    /// Says whether this side looks by itself from here on. One that no longer does must
    /// [take](Self::take) once more before it sleeps.
    pub fn set_attentive(&self, is_attentive: bool) {
        self.direction.attentive(&self.memory).store(is_attentive.into(), Ordering::Relaxed);
        self.memory.full_barrier();
    }
}

/// Whether to look for a message for a while before sleeping: as long as that has been of use.
///
/// Where both sides have a CPU each, the next message is there in less time than a sleeper takes
/// to be woken. Where CPUs are scarce, who looks in vain takes the time of whom it waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdaptiveSpin {
    in_vain: u8,
    skipped: u8,
}

impl AdaptiveSpin {
    const IN_VAIN_MAX: u8 = 4;
    const SKIPPED_MAX: u8 = 15;

    /// Makes one that looks.
    #[must_use]
    pub const fn new() -> Self {
        Self { in_vain: 0, skipped: 0 }
    }

    /// Tells whether to look this time: always, or one time in 16 where it was in vain four times
    /// running.
    #[must_use]
    pub fn is_worth_it(&mut self) -> bool {
        let is_due = self.in_vain < Self::IN_VAIN_MAX || self.skipped >= Self::SKIPPED_MAX;
        self.skipped = if is_due { 0 } else { self.skipped.saturating_add(1) };
        is_due
    }

    /// Takes note of whether a message came while it was looked for.
    pub fn note(&mut self, came: bool) {
        self.in_vain = if came { 0 } else { self.in_vain.saturating_add(1) };
    }
}
