//! The words of a device channel whose two ends are in one process.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use stepwell_wire::devices::{BYTES, Words};
use stepwell_wire::mailbox::Memory;

const WORD: u64 = 8;
/// What lies outside.
static NOWHERE: AtomicU64 = AtomicU64::new(0);

/// The words. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct ChannelWords(Arc<[AtomicU64]>);

impl ChannelWords {
    /// Makes them, all zero.
    #[must_use]
    pub fn new() -> Self {
        Self((0..BYTES / WORD).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Default for ChannelWords {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory for ChannelWords {
    fn word(&self, offset: u64) -> &AtomicU64 {
        self.0.get((offset / WORD) as usize).unwrap_or(&NOWHERE)
    }
}

impl Words for ChannelWords {
    fn words(&self, offset: u64, count: u64) -> &[AtomicU64] {
        let from = self.0.get((offset / WORD) as usize..).unwrap_or_default();
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(from.len());
        from.get(..count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn both_ends_have_the_same_words_and_none_outside() {
        let words = ChannelWords::new();
        let other = words.clone();
        words.word(64).store(7, Ordering::Relaxed);
        assert_eq!(other.words(64, 1)[0].load(Ordering::Relaxed), 7);
        assert_eq!(other.words(BYTES - 8, 5).len(), 1);
        assert!(other.words(BYTES, 1).is_empty());
        assert_eq!(words.word(BYTES).load(Ordering::Relaxed), 0);
    }
}
