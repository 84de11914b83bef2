//! How often each instruction was executed.
//!
//! Runs are added as the difference between neighbours, two additions however long they are, and
//! summed up at the end. Memory is bounded by pages: a kernel that boots executes some 2500.

use crate::code::PAGE_SIZE;
use std::collections::HashMap;
use stepwell_arch::address::Va;

const WORDS: usize = PAGE_SIZE as usize / 4;
/// Most pages that are counted: 48 MiB.
const PAGES_MAX: usize = 6000;

/// Counts by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    by_page: HashMap<u64, u32>,
    pages: Vec<Page>,
    /// The page that was counted last: most runs stay on it.
    last: Option<(u64, u32)>,
    /// Instructions on pages beyond the limit.
    uncounted: u64,
}

#[derive(Clone, Debug)]
struct Page {
    number: u64,
    /// How much more often than the one before each was executed, and one for the end.
    differences: Box<[i64; WORDS + 1]>,
}

impl Counts {
    /// Adds `length` instructions from `pc` on.
    pub(super) fn run(&mut self, pc: Va, length: u32) {
        let (mut at, mut left) = (pc.0, u64::from(length));
        while left > 0 {
            let first = (at % PAGE_SIZE) as usize / 4;
            let here = left.min((WORDS - first) as u64);
            match self.page(at / PAGE_SIZE) {
                Some(page) => {
                    page.differences[first] += 1;
                    page.differences[first + here as usize] -= 1;
                }
                None => self.uncounted += here,
            }
            at = at.wrapping_add(here * 4);
            left -= here;
        }
    }

    /// Returns how many instructions could not be counted by address.
    pub(super) const fn uncounted(&self) -> u64 {
        self.uncounted
    }

    /// Calls `take` for each address that was executed, in order, with how often.
    pub(super) fn each(&self, mut take: impl FnMut(Va, u64)) {
        let mut pages: Vec<&Page> = self.pages.iter().collect();
        pages.sort_by_key(|page| page.number);
        for page in pages {
            let mut count = 0;
            for (word, difference) in page.differences[..WORDS].iter().enumerate() {
                count += difference;
                if count > 0 {
                    let pc = Va((page.number * PAGE_SIZE).wrapping_add(word as u64 * 4));
                    take(pc, count.unsigned_abs());
                }
            }
        }
    }

    fn page(&mut self, number: u64) -> Option<&mut Page> {
        let index = match self.last {
            Some((last, index)) if last == number => index,
            _ => self.find(number)?,
        };
        self.last = Some((number, index));
        self.pages.get_mut(index as usize)
    }

    fn find(&mut self, number: u64) -> Option<u32> {
        if let Some(&index) = self.by_page.get(&number) {
            return Some(index);
        }
        if self.pages.len() >= PAGES_MAX {
            return None;
        }
        let index = self.pages.len() as u32;
        self.pages.push(Page { number, differences: Box::new([0; WORDS + 1]) });
        self.by_page.insert(number, index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(counts: &Counts) -> Vec<(u64, u64)> {
        let mut list = Vec::new();
        counts.each(|pc, count| list.push((pc.0, count)));
        list
    }

    #[test]
    fn runs_overlap_and_cross_pages() {
        let mut counts = Counts::default();
        counts.run(Va(0x1ff8), 3);
        counts.run(Va(0x1ffc), 1);
        counts.run(Va(0x1000), 1);
        let expected = [(0x1000, 1), (0x1ff8, 1), (0x1ffc, 2), (0x2000, 1)];
        assert_eq!(list(&counts), expected);
    }

    #[test]
    fn the_last_page_of_all_has_an_end() {
        let mut counts = Counts::default();
        counts.run(Va(0xffff_ffff_ffff_fff8), 4);
        let expected = [(0, 1), (4, 1), (0xffff_ffff_ffff_fff8, 1), (0xffff_ffff_ffff_fffc, 1)];
        assert_eq!(list(&counts), expected);
    }

    #[test]
    fn pages_are_bounded() {
        let mut counts = Counts::default();
        for page in 0..PAGES_MAX as u64 + 5 {
            counts.run(Va(page * PAGE_SIZE), 2);
        }
        assert_eq!(counts.uncounted(), 10);
        assert_eq!(list(&counts).len(), 2 * PAGES_MAX);
    }
}
