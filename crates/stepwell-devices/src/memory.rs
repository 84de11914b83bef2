//! The guest's RAM, mapped to be read.

use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::io;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// Where a guest finds its RAM.
const GUEST_BASE: u64 = 0x4000_0000;

/// The machine's RAM file, and what of it was mapped last.
pub struct GuestRam {
    file: File,
    base: u64,
    mapped: Option<(u64, u64, GuestMemoryMmap)>,
}

impl GuestRam {
    /// Takes a file whose first byte the machine has at `base`.
    ///
    /// # Errors
    ///
    /// Where its descriptor cannot be duplicated.
    pub fn new(file: &File, base: u64) -> io::Result<Self> {
        Ok(Self { file: file.try_clone()?, base, mapped: None })
    }

    /// The RAM of a guest that has `bytes` bytes from `address` on; none where the file has not as
    /// much.
    pub fn of_guest(&mut self, address: u64, bytes: u64) -> Option<&GuestMemoryMmap> {
        if !matches!(&self.mapped, Some((at, length, _)) if (*at, *length) == (address, bytes)) {
            self.mapped = Some((address, bytes, self.map(address, bytes)?));
        }
        self.mapped.as_ref().map(|(_, _, memory)| memory)
    }

    fn map(&self, address: u64, bytes: u64) -> Option<GuestMemoryMmap> {
        let offset = address.checked_sub(self.base)?;
        let end = offset.checked_add(bytes)?;
        // Beyond its end, a mapping is a signal.
        if end > self.file.metadata().ok()?.len() {
            return None;
        }
        let file = FileOffset::new(self.file.try_clone().ok()?, offset);
        let region = MmapRegionBuilder::new(usize::try_from(bytes).ok()?)
            .with_mmap_prot(ProtFlags::READ.bits() as i32)
            .with_mmap_flags((MapFlags::SHARED | MapFlags::NORESERVE).bits() as i32)
            .with_file_offset(file)
            .build()
            .ok()?;
        let region = GuestRegionMmap::new(region, GuestAddress(GUEST_BASE))?;
        GuestMemoryMmap::from_regions(vec![region]).ok()
    }
}
