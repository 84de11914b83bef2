//! The mailbox's memory, hypervisor's side: see [`stepwell_wire::mailbox`] for the layout.

use core::sync::atomic::{AtomicU64, Ordering};
use stepwell_wire::mailbox::{BYTES, Memory};

/// RAM that the tool maps.
#[derive(Clone, Copy, Debug)]
pub struct MailboxMemory {
    base: u64,
}

impl MailboxMemory {
    /// Makes an empty mailbox of `bytes` bytes at `base`. Returns nothing where that is too small.
    ///
    /// # Safety
    ///
    /// The range must be RAM, mapped at EL2, and used by nothing else but the tool.
    #[must_use]
    pub unsafe fn new(base: u64, bytes: u64) -> Option<Self> {
        if base == 0 || !base.is_multiple_of(4096) || bytes < BYTES {
            return None;
        }
        let memory = Self { base };
        for offset in (0..BYTES).step_by(8) {
            memory.word(offset).store(0, Ordering::Relaxed);
        }
        Some(memory)
    }
}

impl Memory for MailboxMemory {
    fn word(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: `new`'s contract, and what comes out of the remainder is a multiple of 8 below
        // `BYTES`, whatever was asked for.
        unsafe { &*((self.base + offset % BYTES / 8 * 8) as *const AtomicU64) }
    }
}
