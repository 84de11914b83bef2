//! Memory that is shared with the hypervisor: a part of the machine's RAM file, as atomic words.
//!
//! This is the one place of the crate with unsafe code: it turns places of the mapping into
//! atomics. There are no references to plain memory, so whatever the machine does to the file is
//! at worst a wrong number.

#![expect(unsafe_code, reason = "atomics in memory that is shared with the hypervisor")]

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;
use stepwell_wire::{devices, mailbox};

const WORD: u64 = 8;

/// Mapped memory as atomic words.
pub(crate) struct SharedMemory {
    map: MmapRaw,
    bytes: u64,
}

impl SharedMemory {
    /// Maps the `bytes` bytes that lie `offset` bytes into `ram`.
    pub(crate) fn map(ram: &File, offset: u64, bytes: u64) -> io::Result<Self> {
        let length = ram.metadata()?.len();
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= length);
        if !fits || bytes < WORD || !offset.is_multiple_of(WORD) {
            let reason = format!("{bytes} bytes at {offset} of a file of {length}");
            return Err(io::Error::other(reason));
        }
        let size = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let map = MmapOptions::new().offset(offset).len(size).map_raw(ram)?;
        Ok(Self { map, bytes })
    }

    /// Returns the length of the mapping.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the word at a byte offset.
    ///
    /// # Panics
    ///
    /// Where it is misaligned or outside the mapping: offsets are constants of the layouts, and
    /// places below a capacity that was held against the mapping.
    pub(crate) fn at(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(WORD) && offset <= self.bytes - WORD, "word at {offset}");
        // SAFETY: the assertion leaves 8 bytes of the mapping from `offset` on, and the mapping
        // lives as long as `self`. It starts at a multiple of 8 (its file offset does, and the
        // kernel maps whole pages), so that the word is aligned. Nobody makes plain references
        // into the mapping, and the other process's stores are atomic 64-bit ones; a file that
        // shrinks under us ends this process by SIGBUS, which is no memory error.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset as usize).cast()) }
    }
}

impl mailbox::Memory for SharedMemory {
    fn word(&self, offset: u64) -> &AtomicU64 {
        self.at(offset)
    }
}

impl devices::Words for SharedMemory {
    fn words(&self, offset: u64, count: u64) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(WORD) && offset <= self.bytes, "words at {offset}");
        let count = count.min((self.bytes - offset) / WORD) as usize;
        // SAFETY: as in `at`, for `count` words of which the last ends within the mapping.
        unsafe {
            let first = self.map.as_mut_ptr().add(offset as usize).cast::<AtomicU64>();
            std::slice::from_raw_parts(first, count)
        }
    }
}
