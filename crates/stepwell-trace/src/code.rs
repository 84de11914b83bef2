//! Snapshots of executed code, by page.
//!
//! A trace holds no instructions, only where they were. Whoever records fetches each page once,
//! so that the recording can be disassembled on another machine, long after. If a page was taken
//! twice, the later snapshot counts: kernels patch themselves early and then hold still.

use std::collections::HashMap;
use stepwell_arch::InstructionSet;
use stepwell_arch::aarch32::t32::is_wide;
use stepwell_arch::address::Va;

/// Bytes of a snapshot.
pub const PAGE_SIZE: u64 = 4096;

/// Most pages that are kept: 128 MiB, more code than any kernel has.
const PAGES_MAX: usize = 32768;

/// Executed code by address.
#[derive(Clone, Debug, Default)]
pub struct CodePages {
    pages: HashMap<u64, Box<[u8]>>,
}

impl CodePages {
    /// Adds `bytes` at `va`, split into pages; what lies beyond the limit of 128 MiB is dropped.
    pub fn insert(&mut self, va: Va, bytes: &[u8]) {
        let mut at = va.0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let start = (at % PAGE_SIZE) as usize;
            let here = rest.len().min(PAGE_SIZE as usize - start);
            let (now, later) = rest.split_at(here);
            let number = at / PAGE_SIZE;
            if self.pages.len() >= PAGES_MAX && !self.pages.contains_key(&number) {
                return;
            }
            let page = self
                .pages
                .entry(number)
                .or_insert_with(|| vec![0; PAGE_SIZE as usize].into_boxed_slice());
            page[start..start + here].copy_from_slice(now);
            at = at.wrapping_add(here as u64);
            rest = later;
        }
    }

    /// Tells whether the page of `va` is there.
    #[must_use]
    pub fn contains(&self, va: Va) -> bool {
        self.pages.contains_key(&(va.0 / PAGE_SIZE))
    }

    /// Returns the instruction at `va`, if its page was taken.
    #[must_use]
    pub fn word(&self, va: Va) -> Option<u32> {
        let page = self.pages.get(&(va.0 / PAGE_SIZE))?;
        let at = (va.0 % PAGE_SIZE) as usize;
        Some(u32::from_le_bytes(page.get(at..at + 4)?.try_into().ok()?))
    }

    /// Returns the four bytes at the address of an instruction of `set`, if their pages were taken.
    /// Of a T32 instruction of 2 bytes the upper half may be missing, and is 0 then.
    #[must_use]
    pub fn instruction(&self, set: InstructionSet, va: Va) -> Option<u32> {
        if set != InstructionSet::T32 {
            return self.word(va);
        }
        let first = self.halfword(va)?;
        let second = self.halfword(va.offset(2));
        let second = if is_wide(first) { second? } else { second.unwrap_or(0) };
        Some(u32::from(first) | u32::from(second) << 16)
    }

    fn halfword(&self, va: Va) -> Option<u16> {
        let page = self.pages.get(&(va.0 / PAGE_SIZE))?;
        let at = (va.0 % PAGE_SIZE) as usize;
        Some(u16::from_le_bytes(page.get(at..at + 2)?.try_into().ok()?))
    }

    /// Returns all instructions with their addresses, page by page in no order.
    pub fn words(&self) -> impl Iterator<Item = (Va, u32)> {
        self.pages.iter().flat_map(|(number, page)| {
            let words = page.chunks_exact(4).zip((0u64..).step_by(4));
            words.filter_map(move |(bytes, at)| {
                let word = u32::from_le_bytes(bytes.try_into().ok()?);
                Some((Va((number * PAGE_SIZE).wrapping_add(at)), word))
            })
        })
    }

    /// Returns how many pages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Tells whether there are no pages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_across_pages_reads_back() {
        let mut code = CodePages::default();
        code.insert(Va(0x1ff8), &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(code.len(), 2);
        assert_eq!(code.word(Va(0x1ffc)), Some(2));
        assert_eq!(code.word(Va(0x2000)), Some(3));
        assert_eq!(code.word(Va(0x3000)), None);
        assert_eq!(code.word(Va(0x1ffd)), None);
        assert_eq!(code.instruction(InstructionSet::A32, Va(0x1ffc)), Some(2));
        assert_eq!(code.instruction(InstructionSet::T32, Va(0x1ffa)), Some(2 << 16));
        assert_eq!(code.instruction(InstructionSet::T32, Va(0x2ffe)), Some(0));
        let words: Vec<_> = code.words().filter(|(_, word)| *word != 0).collect();
        assert_eq!((words.len(), words.contains(&(Va(0x2000), 3))), (3, true));
    }
}
