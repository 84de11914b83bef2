//! The trace ring, as the loop writes it: see [`stepwell_wire::ring`] for what is in it.

/// Words for the tool. The ring is never lossy: whoever writes has asked for room.
pub trait Ring {
    /// A part of the ring that a fast path may write.
    type Lease: Lease;

    /// Bytes of the ring, header included.
    fn bytes(&self) -> u64;
    /// How many words fit at least.
    fn room(&self) -> u64;
    /// Appends the words of a record and publishes them. The caller has asked [`Ring::room`].
    fn push(&mut self, words: &[u64]);
    /// Hands out where the next words go, in one piece: at most so many.
    fn lease(&mut self, words: u64) -> Self::Lease;
    /// Publishes what was written into a lease.
    fn settle(&mut self, lease: Self::Lease);
}

/// A part of the ring that was handed out.
pub trait Lease {
    /// Words that were written into it.
    fn words(&self) -> u64;
}
