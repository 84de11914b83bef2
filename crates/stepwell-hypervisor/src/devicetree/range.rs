//! Ranges of physical memory, and the numbers that they are made of.

use stepwell_arch::Pa;

/// Base and length of something in physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub base: Pa,
    /// Bytes; the range ends within 64 bits.
    pub bytes: u64,
}

impl Range {
    /// The address after the last one.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.base.0.saturating_add(self.bytes)
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.base.0 < other.end() && other.base.0 < self.end()
    }

    /// Whether every byte of `other` is one of this range.
    #[must_use]
    pub const fn contains(&self, other: &Self) -> bool {
        self.base.0 <= other.base.0 && other.end() <= self.end()
    }
}

/// Makes a range of two numbers, unless it would end beyond 64 bits.
pub(super) fn of<E>(base: Result<u64, E>, bytes: Result<u64, E>) -> Option<Range> {
    let (base, bytes) = (base.ok()?, bytes.ok()?);
    base.checked_add(bytes).map(|_| Range { base: Pa(base), bytes })
}

/// Reads a number of one or two cells.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 => value.try_into().ok().map(u32::from_be_bytes).map(u64::from),
        8 => value.try_into().ok().map(u64::from_be_bytes),
        _ => None,
    }
}
