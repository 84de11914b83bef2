//! An image that is never written: what would be goes into a file without a name, block by block.
//!
//! Where a block's contents are is a table in two levels, whose leaves are shared with the tables of the
//! moments that are kept, until one of them changes. So a moment costs little more than what is written
//! after it, and the disk can be taken from any to any other.

use super::Image;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const BLOCK: u64 = 4096;
/// Blocks of a leaf: 2 MiB of the disk.
const LEAF: usize = 512;
/// Slots of the file from which on it is looked for some that nobody needs any more.
const RECLAIM_LEAST: u32 = 4096;

/// For each block the slot that it is in, plus 1; 0 where it is as in the image.
type Table = Vec<Option<Arc<[u32; LEAF]>>>;

/// An image, and what was written.
pub(super) struct Snapshot {
    image: Box<dyn Image>,
    /// Slots of a block each, in the order in which they were needed.
    written: File,
    table: Table,
    /// Slots that no kept moment has: they are written over.
    own: HashSet<u32>,
    /// Those that nobody needs, and how many there are in all.
    free: Vec<u32>,
    slots: u32,
    reclaim_at: u32,
    reclaim_least: u32,
    kept: BTreeMap<u64, Table>,
}

impl Snapshot {
    pub(super) fn over(image: Box<dyn Image>) -> io::Result<Self> {
        let leaves = image.bytes().div_ceil(BLOCK).div_ceil(LEAF as u64);
        Ok(Self {
            image,
            written: tempfile::tempfile()?,
            table: vec![None; leaves as usize],
            own: HashSet::new(),
            free: Vec::new(),
            slots: 0,
            reclaim_at: RECLAIM_LEAST,
            reclaim_least: RECLAIM_LEAST,
            kept: BTreeMap::new(),
        })
    }

    /// Has it look for slots that nobody needs when there are so many.
    #[cfg(test)]
    pub(super) const fn reclaim_at(&mut self, slots: u32) {
        (self.reclaim_at, self.reclaim_least) = (slots, slots);
    }

    /// How many slots the file has.
    #[cfg(test)]
    pub(super) const fn slots(&self) -> u32 {
        self.slots
    }

    /// Where a block is in the file, if it is there.
    fn slot(&self, block: u64) -> Option<u32> {
        let leaf = self.table.get(block as usize / LEAF)?.as_ref()?;
        leaf.get(block as usize % LEAF)?.checked_sub(1)
    }

    fn set_slot(&mut self, block: u64, slot: u32) {
        let Some(leaf) = self.table.get_mut(block as usize / LEAF) else { return };
        let leaf = Arc::make_mut(leaf.get_or_insert_with(|| Arc::new([0; LEAF])));
        if let Some(entry) = leaf.get_mut(block as usize % LEAF) {
            *entry = slot + 1;
        }
    }

    /// Gives a block a slot that it may be written in. Where only a part of it will be, it has
    /// its contents there.
    fn make_own(&mut self, block: u64, is_whole: bool) -> io::Result<()> {
        let slot = self.slot(block);
        if slot.is_some_and(|slot| self.own.contains(&slot)) {
            return Ok(());
        }
        let mut bytes = [0; BLOCK as usize];
        if !is_whole {
            let length = (self.image.bytes() - block * BLOCK).min(BLOCK) as usize;
            self.read(block * BLOCK, &mut bytes[..length])?;
        }
        let slot = self.new_slot();
        if !is_whole {
            self.written.write_all_at(&bytes, u64::from(slot) * BLOCK)?;
        }
        self.set_slot(block, slot);
        self.own.insert(slot);
        Ok(())
    }

    fn new_slot(&mut self) -> u32 {
        if self.free.is_empty() && self.slots >= self.reclaim_at {
            self.reclaim();
        }
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Splits a range into pieces that lie together: where in the file, if there, and how many bytes.
    fn pieces(&self, offset: u64, bytes: u64) -> Vec<(Option<u64>, u64)> {
        let mut pieces: Vec<(Option<u64>, u64)> = Vec::new();
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let block = at / BLOCK;
            let next = ((block + 1) * BLOCK).min(end);
            let place = self.slot(block).map(|slot| u64::from(slot) * BLOCK + at % BLOCK);
            match pieces.last_mut() {
                Some((last, length)) if last.map(|last| last + *length) == place => {
                    *length += next - at;
                }
                _ => pieces.push((place, next - at)),
            }
            at = next;
        }
        pieces
    }

    /// Finds the slots that nobody needs any more: before there are twice as many as are needed.
    fn reclaim(&mut self) {
        let mut is_used = vec![false; self.slots as usize];
        let mut seen = HashSet::new();
        let tables = self.kept.values().chain([&self.table]);
        for leaf in tables.flatten().flatten() {
            if seen.insert(Arc::as_ptr(leaf)) {
                let slots = leaf.iter().filter_map(|entry| entry.checked_sub(1));
                slots.for_each(|slot| is_used[slot as usize] = true);
            }
        }
        self.free = (0..self.slots).filter(|&slot| !is_used[slot as usize]).rev().collect();
        let used = self.slots - self.free.len() as u32;
        self.reclaim_at = self.reclaim_least.max(used.saturating_mul(2));
    }
}

impl Image for Snapshot {
    fn bytes(&self) -> u64 {
        self.image.bytes()
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, into);
        for (place, bytes) in self.pieces(offset, rest.len() as u64) {
            let (now, later) = rest.split_at_mut(bytes as usize);
            match place {
                Some(place) => self.written.read_exact_at(now, place)?,
                None => self.image.read(at, now)?,
            }
            (at, rest) = (at + bytes, later);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        let end = offset + from.len() as u64;
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            let is_whole = offset <= block * BLOCK && (block + 1) * BLOCK <= end;
            self.make_own(block, is_whole)?;
        }
        let mut rest = from;
        for (place, bytes) in self.pieces(offset, from.len() as u64) {
            let (now, later) = rest.split_at(bytes as usize);
            // Each block has a slot now.
            self.written.write_all_at(now, place.unwrap_or_default())?;
            rest = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // It outlives nothing.
        Ok(())
    }

    fn keep(&mut self, moment: u64) {
        self.kept.insert(moment, self.table.clone());
        self.own.clear();
    }

    fn go_to(&mut self, moment: u64) {
        if let Some(table) = self.kept.get(&moment) {
            self.table.clone_from(table);
            self.own.clear();
        }
    }

    fn forget(&mut self, moment: u64) {
        self.kept.remove(&moment);
    }
}
