//! An image that is never written: what would be goes into a file without a name, block by block.

use super::Image;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 4096;

/// An image, and what was written.
pub(super) struct Snapshot {
    image: Box<dyn Image>,
    /// As long as the image, and with holes where nothing was written.
    written: File,
    /// The blocks that are in it.
    blocks: Vec<u64>,
}

impl Snapshot {
    pub(super) fn over(image: Box<dyn Image>) -> io::Result<Self> {
        let written = tempfile::tempfile()?;
        written.set_len(image.bytes().next_multiple_of(BLOCK))?;
        let blocks = vec![0; image.bytes().div_ceil(BLOCK).div_ceil(64) as usize];
        Ok(Self { image, written, blocks })
    }

    fn is_written(&self, block: u64) -> bool {
        let word = self.blocks.get((block / 64) as usize).copied().unwrap_or(0);
        word >> (block % 64) & 1 != 0
    }

    fn set_written(&mut self, block: u64) {
        if let Some(word) = self.blocks.get_mut((block / 64) as usize) {
            *word |= 1 << (block % 64);
        }
    }

    /// Copies a block that only a part of will be written.
    fn bring_in(&mut self, block: u64) -> io::Result<()> {
        let at = block * BLOCK;
        let mut bytes = [0; BLOCK as usize];
        let length = self.image.bytes().saturating_sub(at).min(BLOCK) as usize;
        self.image.read(at, &mut bytes[..length])?;
        self.written.write_all_at(&bytes, at)?;
        self.set_written(block);
        Ok(())
    }
}

/// Splits a range into those of blocks that are and are not `is_written`: how many bytes of each.
fn runs(offset: u64, bytes: u64, is_written: impl Fn(u64) -> bool) -> Vec<(bool, u64)> {
    let mut runs: Vec<(bool, u64)> = Vec::new();
    let (mut at, end) = (offset, offset + bytes);
    while at < end {
        let block = at / BLOCK;
        let next = ((block + 1) * BLOCK).min(end);
        let kind = is_written(block);
        match runs.last_mut() {
            Some((last, length)) if *last == kind => *length += next - at,
            _ => runs.push((kind, next - at)),
        }
        at = next;
    }
    runs
}

impl Image for Snapshot {
    fn bytes(&self) -> u64 {
        self.image.bytes()
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, into);
        for (is_written, bytes) in runs(offset, rest.len() as u64, |block| self.is_written(block)) {
            let (now, later) = rest.split_at_mut(bytes as usize);
            if is_written {
                self.written.read_exact_at(now, at)?;
            } else {
                self.image.read(at, now)?;
            }
            (at, rest) = (at + bytes, later);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        let end = offset + from.len() as u64;
        for block in [offset / BLOCK, end / BLOCK] {
            let (start, behind) = (block * BLOCK, (block + 1) * BLOCK);
            let is_touched = start < end && offset < behind;
            if is_touched && (offset > start || end < behind) && !self.is_written(block) {
                self.bring_in(block)?;
            }
        }
        self.written.write_all_at(from, offset)?;
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            self.set_written(block);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // It outlives nothing.
        Ok(())
    }
}
