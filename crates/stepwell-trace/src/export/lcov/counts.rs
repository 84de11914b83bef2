//! How often each instruction was executed, by page.

use std::collections::BTreeMap;
use stepwell_arch::address::Va;

const PAGE: u64 = 4096;
const WORDS: usize = (PAGE / 4) as usize;
/// Most pages that are counted: 64 MiB of counts, far more code than any kernel executes.
const PAGES_MAX: usize = 1 << 14;

/// Counts of executed instructions. A count stops at `u32::MAX`.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Each has an instruction that was executed.
    pages: BTreeMap<u64, Box<[u32]>>,
    /// Instructions on pages beyond the limit.
    lost: u64,
}

impl Counts {
    /// Counts a run.
    pub(super) fn run(&mut self, pc: Va, length: u32) {
        let (mut pc, mut left) = (pc.0, u64::from(length));
        while left > 0 {
            let word = (pc % PAGE / 4) as usize;
            let here = left.min((WORDS - word) as u64);
            match self.page(pc / PAGE) {
                Some(page) => {
                    for count in &mut page[word..word + here as usize] {
                        *count = count.saturating_add(1);
                    }
                }
                None => self.lost += here,
            }
            pc = pc.wrapping_add(here * 4);
            left -= here;
        }
    }

    /// Returns how often the instruction at `address` was executed.
    pub(super) fn at(&self, address: u64) -> u64 {
        let page = self.pages.get(&(address / PAGE));
        page.map_or(0, |page| page[(address % PAGE / 4) as usize].into())
    }

    /// Tells whether any instruction from `first` to `last` was executed.
    pub(super) fn any(&self, first: u64, last: u64) -> bool {
        let numbers = first / PAGE..=last / PAGE;
        if numbers.is_empty() {
            return false;
        }
        // Pages that were counted, not all that the range has: that may be half of all addresses.
        self.pages.range(numbers).any(|(&number, page)| {
            let start = if number == first / PAGE { first % PAGE / 4 } else { 0 };
            let end = if number == last / PAGE { last % PAGE / 4 } else { WORDS as u64 - 1 };
            let within = page.get(start as usize..=end as usize).unwrap_or_default();
            within.iter().any(|count| *count > 0)
        })
    }

    /// Returns how many instructions were not counted, because there are too many pages.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    fn page(&mut self, number: u64) -> Option<&mut Box<[u32]>> {
        if self.pages.len() >= PAGES_MAX && !self.pages.contains_key(&number) {
            return None;
        }
        Some(self.pages.entry(number).or_insert_with(|| vec![0; WORDS].into_boxed_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_across_pages_is_counted_once_an_instruction() {
        let mut counts = Counts::default();
        counts.run(Va(0x1ff8), 4);
        counts.run(Va(0x1ffc), 1);
        assert_eq!(
            [0x1ff4, 0x1ff8, 0x1ffc, 0x2000, 0x2004, 0x2008].map(|at| counts.at(at)),
            [0, 1, 2, 1, 1, 0]
        );
        assert!(counts.any(0x1000, 0x1ff8) && counts.any(0x2004, 0x5000));
        assert!(!counts.any(0x2008, 0x5000) && !counts.any(0x1000, 0x1ff4));
        assert!(counts.any(0, u64::MAX) && !counts.any(0x3000, u64::MAX));
        assert_eq!(counts.lost(), 0);
    }
}
