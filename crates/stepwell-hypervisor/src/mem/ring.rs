//! The trace ring, hypervisor's side: see [`stepwell_wire::ring`] for the layout.

use core::sync::atomic::{AtomicU64, Ordering};
use stepwell_vm::ring::{Lease, Ring};
use stepwell_wire::ring::{
    HEADER_BYTES, MAGIC, OFFSET_CAPACITY, OFFSET_HEAD, OFFSET_MAGIC, OFFSET_TAIL, OFFSET_VERSION,
};

/// The ring in RAM that the tool maps.
#[derive(Debug)]
pub struct TraceRing {
    base: u64,
    capacity: u64,
    head: u64,
}

impl TraceRing {
    /// Makes an empty ring of `bytes` bytes at `base`. Returns nothing where that is no ring.
    ///
    /// # Safety
    ///
    /// The range must be RAM, mapped at EL2, and used by nothing else but the tool.
    #[must_use]
    pub unsafe fn new(base: u64, bytes: u64) -> Option<Self> {
        let capacity = bytes.checked_sub(HEADER_BYTES)? / 8;
        if base == 0 || !base.is_multiple_of(4096) || capacity < 512 {
            return None;
        }
        let ring = Self { base, capacity, head: 0 };
        ring.word(OFFSET_HEAD).store(0, Ordering::Relaxed);
        ring.word(OFFSET_TAIL).store(0, Ordering::Relaxed);
        ring.word(OFFSET_CAPACITY).store(capacity, Ordering::Relaxed);
        ring.word(OFFSET_VERSION).store(u64::from(stepwell_wire::VERSION), Ordering::Relaxed);
        ring.word(OFFSET_MAGIC).store(MAGIC, Ordering::Release);
        Some(ring)
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: `new`'s contract, and offsets here are below `bytes` and multiples of 8.
        unsafe { &*((self.base + offset) as *const AtomicU64) }
    }
}

impl Ring for TraceRing {
    type Lease = RingLease;

    fn bytes(&self) -> u64 {
        HEADER_BYTES + self.capacity * 8
    }

    /// `tail` is the tool's and not to be trusted: a value ahead of `head` counts as a full ring.
    #[inline(always)]
    fn room(&self) -> u64 {
        let tail = self.word(OFFSET_TAIL).load(Ordering::Acquire);
        let used = self.head.checked_sub(tail).unwrap_or(self.capacity);
        self.capacity.saturating_sub(used)
    }

    #[inline(always)]
    fn push(&mut self, words: &[u64]) {
        let mut place = self.head % self.capacity;
        for &word in words {
            self.word(HEADER_BYTES + place * 8).store(word, Ordering::Relaxed);
            place = if place + 1 == self.capacity { 0 } else { place + 1 };
        }
        self.head = self.head.wrapping_add(words.len() as u64);
        self.word(OFFSET_HEAD).store(self.head, Ordering::Release);
    }

    #[inline(always)]
    fn lease(&mut self, words: u64) -> RingLease {
        let place = self.head % self.capacity;
        let count = words.min(self.room()).min(self.capacity - place);
        let first = self.base + HEADER_BYTES + place * 8;
        RingLease { first, at: first, end: first + count * 8 }
    }

    fn settle(&mut self, lease: RingLease) {
        self.head = self.head.wrapping_add(lease.words());
        self.word(OFFSET_HEAD).store(self.head, Ordering::Release);
    }
}

/// A part of the ring that the fast path may write: only the ring makes one.
#[derive(Debug)]
pub struct RingLease {
    first: u64,
    at: u64,
    end: u64,
}

impl RingLease {
    /// Puts a lease together again whose parts the fast path had.
    ///
    /// # Safety
    ///
    /// `first` and `end` must be of a lease that the ring made and that is not used any more, and
    /// all words before `at`, which is not beyond `end`, must have been written.
    #[inline(always)]
    pub(crate) const unsafe fn new(first: u64, at: u64, end: u64) -> Self {
        Self { first, at, end }
    }

    /// Where the next word goes, and where none may go.
    #[inline(always)]
    pub(crate) const fn range(&self) -> (u64, u64) {
        (self.at, self.end)
    }
}

impl Lease for RingLease {
    #[inline(always)]
    fn words(&self) -> u64 {
        (self.at - self.first) / 8
    }
}
