//! Store-exclusives, and how often they failed.
//!
//! Programs loop around a store-exclusive with a CBNZ of its status register, so a CBNZ that was
//! taken is a store that failed: that tells of every attempt. Where there is no such branch, the
//! recording may tell; if it does not either, the result is unknown.

use super::mix;
use crate::code::CodePages;
use std::collections::{BTreeMap, HashMap};
use stepwell_arch::address::Va;

/// How far behind a store-exclusive its CBNZ may be, in instructions.
const BRANCH_WITHIN: u64 = 4;
/// Most store-exclusives that are told apart: kernels have some thousand.
const SITES_MAX: usize = 1 << 16;

/// One store-exclusive of the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) attempts: u64,
    pub(super) failed: u64,
    /// The recording says what became of each attempt.
    told: bool,
    /// A CBNZ follows that tells what became of it.
    has_branch: bool,
}

impl Site {
    /// Tells whether `failed` is known.
    pub(super) const fn is_known(&self) -> bool {
        self.told || self.has_branch
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Exclusives {
    sites: BTreeMap<u64, Site>,
    /// Store-exclusives by the branch behind them.
    branches: HashMap<u64, u64>,
    /// Load-exclusives that were executed.
    pub(super) loads: u64,
}

impl Exclusives {
    /// Looks for branches behind store-exclusives.
    pub(super) fn new(code: &CodePages) -> Self {
        let mut found = Self::default();
        for (pc, word) in code.words() {
            let Some(status) = mix::store_exclusive_status(word) else { continue };
            let near = (1..=BRANCH_WITHIN).map(|index| pc.offset(4 * index));
            let mut branches =
                near.filter(|at| code.word(*at).is_some_and(|word| mix::is_retry_on(word, status)));
            if let Some(branch) = branches.next()
                && found.branches.len() < SITES_MAX
            {
                found.branches.insert(branch.0, pc.0);
                found.sites.insert(pc.0, Site { has_branch: true, ..Site::default() });
            }
        }
        found
    }

    /// Adds that the instruction at `pc` led elsewhere than to the next one.
    pub(super) fn branched(&mut self, pc: Va) {
        let Some(store) = self.branches.get(&pc.0) else { return };
        if let Some(site) = self.sites.get_mut(store) {
            site.failed += 1;
        }
    }

    /// Adds that the recording tells what became of the store-exclusive at `pc`.
    pub(super) fn told(&mut self, pc: Va, stored: bool) {
        if self.sites.len() >= SITES_MAX && !self.sites.contains_key(&pc.0) {
            return;
        }
        let site = self.sites.entry(pc.0).or_default();
        if !site.has_branch {
            site.told = true;
            site.failed += u64::from(!stored);
        }
    }

    /// Adds executions of an instruction, once all were counted.
    pub(super) fn executed(&mut self, pc: Va, word: u32, count: u64) {
        if mix::is_load_exclusive(word) {
            self.loads += count;
        } else if mix::store_exclusive_status(word).is_some()
            && (self.sites.len() < SITES_MAX || self.sites.contains_key(&pc.0))
        {
            self.sites.entry(pc.0).or_default().attempts += count;
        }
    }

    /// Returns those that were executed, those that failed most first.
    pub(super) fn executed_sites(&self) -> Vec<(Va, Site)> {
        let executed = self.sites.iter().filter(|(_, site)| site.attempts > 0);
        let mut sites: Vec<_> = executed.map(|(pc, site)| (Va(*pc), *site)).collect();
        sites.sort_by_key(|(pc, site)| std::cmp::Reverse((site.failed, site.attempts, pc.0)));
        sites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STXR_W2: u32 = 0xc802_7c20;
    const CBNZ_W2: u32 = 0x35ff_ffc2;
    const NOP: u32 = 0xd503_201f;

    fn code(words: &[u32]) -> CodePages {
        let mut code = CodePages::default();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        code.insert(Va(0x1000), &bytes);
        code
    }

    #[test]
    fn a_branch_that_is_taken_is_a_store_that_failed() {
        let mut exclusives = Exclusives::new(&code(&[STXR_W2, NOP, CBNZ_W2, STXR_W2]));
        (0..3).for_each(|_| exclusives.branched(Va(0x1008)));
        exclusives.branched(Va(0x1004));
        exclusives.executed(Va(0x1000), STXR_W2, 10);
        exclusives.executed(Va(0x100c), STXR_W2, 4);
        let sites = exclusives.executed_sites();
        assert_eq!((sites[0].0, sites[0].1.attempts, sites[0].1.failed), (Va(0x1000), 10, 3));
        assert!(sites[0].1.is_known());
        assert_eq!((sites[1].1.attempts, sites[1].1.is_known()), (4, false));
    }

    #[test]
    fn without_a_branch_the_recording_tells() {
        let mut exclusives = Exclusives::new(&code(&[STXR_W2, NOP]));
        exclusives.told(Va(0x1000), true);
        exclusives.told(Va(0x1000), false);
        exclusives.executed(Va(0x1000), STXR_W2, 2);
        let (_, site) = exclusives.executed_sites()[0];
        assert_eq!((site.failed, site.is_known()), (1, true));
    }
}
