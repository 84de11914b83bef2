//! Words in RAM that the tool maps as well, hypervisor's side: see [`stepwell_wire::mailbox`] and
//! [`stepwell_wire::devices`] for what they are.

use crate::hw::timer;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use stepwell_wire::devices::Words;
use stepwell_wire::mailbox::Memory;
use stepwell_wire::{devices, mailbox};

/// The mailbox's memory.
pub type MailboxMemory = SharedWords<{ mailbox::BYTES }>;
/// The device channel's memory.
pub type DeviceChannelMemory = SharedWords<{ devices::BYTES }>;

/// RAM that the tool maps: so many bytes, a multiple of 8.
#[derive(Clone, Copy, Debug)]
pub struct SharedWords<const BYTES: u64> {
    base: u64,
}

impl<const BYTES: u64> SharedWords<BYTES> {
    /// Makes the `bytes` bytes at `base` all zero. Returns nothing where these are too few.
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

impl<const BYTES: u64> Memory for SharedWords<BYTES> {
    fn word(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: `new`'s contract, and what comes out of the remainder is a multiple of 8 below
        // `BYTES`, whatever was asked for.
        unsafe { &*((self.base + offset % BYTES / 8 * 8) as *const AtomicU64) }
    }

    /// QEMU before 8.1 makes nothing of a barrier on a machine with one CPU or one that counts
    /// instructions, though another process has this memory as well. It reads the counter under a
    /// lock, which is a barrier of the host's.
    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
        let _now = timer::counter();
    }
}

impl<const BYTES: u64> Words for SharedWords<BYTES> {
    fn words(&self, offset: u64, count: u64) -> &[AtomicU64] {
        let from = offset / 8 * 8;
        let there = BYTES.saturating_sub(from) / 8;
        let from = self.base + from.min(BYTES);
        // SAFETY: `new`'s contract: as many words are there, behind each other.
        unsafe { core::slice::from_raw_parts(from as *const AtomicU64, count.min(there) as usize) }
    }
}
