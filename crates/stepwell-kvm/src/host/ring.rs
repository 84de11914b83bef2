//! The trace ring, the machine's side: see [`stepwell_wire::ring`] for the layout.

#![expect(unsafe_code, reason = "atomics in memory that the tool maps as well")]

use super::ram::unnamed;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use stepwell_vm::ring::{Lease, Ring};
use stepwell_wire::ring::{
    HEADER_BYTES, MAGIC, OFFSET_CAPACITY, OFFSET_HEAD, OFFSET_MAGIC, OFFSET_TAIL, OFFSET_VERSION,
};

/// Bytes of it, header included.
const BYTES: u64 = 16 << 20;
const WORD: u64 = 8;
/// Most words of a lease.
const LEASE_MAX: u64 = 4096;

/// The ring.
pub struct TraceRing {
    map: MmapRaw,
    head: u64,
}

impl TraceRing {
    /// Words that fit.
    const CAPACITY: u64 = (BYTES - HEADER_BYTES) / WORD;

    /// Makes an empty ring, in a file without a name.
    ///
    /// # Errors
    ///
    /// Where the host has no memory for it.
    pub fn new() -> io::Result<(Self, File, u64)> {
        let file = unnamed(c"stepwell-ring", BYTES)?;
        let map = MmapOptions::new().len(BYTES as usize).map_raw(&file)?;
        let ring = Self { map, head: 0 };
        ring.word(OFFSET_CAPACITY).store(Self::CAPACITY, Ordering::Relaxed);
        ring.word(OFFSET_VERSION).store(u64::from(stepwell_wire::VERSION), Ordering::Relaxed);
        ring.word(OFFSET_MAGIC).store(MAGIC, Ordering::Release);
        Ok((ring, file, BYTES))
    }

    /// The word at a byte offset, which is a constant of the layout or below the capacity.
    fn word(&self, offset: u64) -> &AtomicU64 {
        let offset = offset.min(BYTES - WORD) & !(WORD - 1);
        // SAFETY: 8 bytes from there on lie in the mapping, aligned; it lives as long as `self`, and
        // all accesses to it are atomic, the tool's too.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset as usize).cast()) }
    }
}

impl Ring for TraceRing {
    type Lease = RingLease;

    fn bytes(&self) -> u64 {
        HEADER_BYTES + Self::CAPACITY * WORD
    }

    /// A `tail` ahead of `head` counts as a full ring.
    fn room(&self) -> u64 {
        let tail = self.word(OFFSET_TAIL).load(Ordering::Acquire);
        let used = self.head.checked_sub(tail).unwrap_or(Self::CAPACITY);
        Self::CAPACITY.saturating_sub(used)
    }

    fn push(&mut self, words: &[u64]) {
        for &word in words {
            let place = self.head % Self::CAPACITY;
            self.word(HEADER_BYTES + place * WORD).store(word, Ordering::Relaxed);
            self.head = self.head.wrapping_add(1);
        }
        self.word(OFFSET_HEAD).store(self.head, Ordering::Release);
    }

    fn lease(&mut self, words: u64) -> RingLease {
        let most = words.min(self.room()).min(LEASE_MAX);
        RingLease { words: Vec::new(), most: most as usize }
    }

    fn settle(&mut self, lease: RingLease) {
        self.push(&lease.words);
    }
}

/// Words that the fast path has written, and are published together: a step costs so much more than to
/// copy one.
pub struct RingLease {
    words: Vec<u64>,
    most: usize,
}

impl RingLease {
    /// Appends a word, if there is room.
    pub fn push(&mut self, word: u64) -> bool {
        let has_room = self.words.len() < self.most;
        if has_room {
            self.words.push(word);
        }
        has_room
    }
}

impl Lease for RingLease {
    fn words(&self) -> u64 {
        self.words.len() as u64
    }
}
