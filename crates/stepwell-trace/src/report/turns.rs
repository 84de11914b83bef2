//! Where a vCPU made no progress until the others had moved.
//!
//! What the others executed meanwhile is not in the recording, only how much. So a turn takes no
//! time on the timeline: it is a mark between two instructions.

use super::timeline::{Interval, Intervals};
use crate::format::Waiting;
use std::collections::BTreeMap;
use stepwell_arch::address::Va;

/// Most places that are told apart.
const SITES_MAX: usize = 1 << 14;

/// One place, and what was waited for there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) times: u64,
    /// Instructions that the others executed meanwhile.
    pub(super) instructions: u64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    /// By what was waited for ([`Waiting::number`]): the longest, in the instructions of others.
    marks: [Intervals; Waiting::ALL.len()],
    sites: BTreeMap<(u64, u8), Site>,
}

impl Turns {
    /// Adds that `vcpu` waited before the instruction at `pc`, in `function`, after `start`
    /// instructions of the recording, until the others had executed `instructions`.
    pub(super) fn add(
        &mut self,
        (vcpu, pc, function): (u8, Va, u32),
        start: u64,
        why: Waiting,
        instructions: u64,
    ) {
        let interval = Interval { cost: instructions, vcpu, start, length: 0, function };
        self.marks[usize::from(why.number())].add(interval);
        let key = (pc.0, why.number());
        if self.sites.len() < SITES_MAX || self.sites.contains_key(&key) {
            let site = self.sites.entry(key).or_default();
            site.times += 1;
            site.instructions = site.instructions.saturating_add(instructions);
        }
    }

    /// Returns how many there were, and what the others executed in them.
    pub(super) fn totals(&self) -> (u64, u64) {
        let add = |(times, instructions): (u64, u64), of: &Intervals| {
            (times + of.count(), instructions.saturating_add(of.cost()))
        };
        self.marks.iter().fold((0, 0), add)
    }

    /// Returns what was waited for, and the marks.
    pub(super) fn marks(&self) -> impl Iterator<Item = (Waiting, &Intervals)> {
        Waiting::ALL.into_iter().zip(&self.marks)
    }

    /// Returns the places, those that were waited at most often first.
    pub(super) fn sites(&self) -> Vec<(Va, Waiting, Site)> {
        let site = |(&(pc, why), site): (&(u64, u8), &Site)| {
            Waiting::from_number(why).map(|why| (Va(pc), why, *site))
        };
        let mut sites: Vec<_> = self.sites.iter().filter_map(site).collect();
        sites.sort_by_key(|(pc, why, site)| {
            (std::cmp::Reverse((site.times, site.instructions)), pc.0, why.number())
        });
        sites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_by_what_is_waited_for() {
        let mut turns = Turns::default();
        for round in 0..3 {
            turns.add((1, Va(0x1000), 7), round, Waiting::Memory, 10);
        }
        turns.add((0, Va(0x1000), 7), 9, Waiting::Event, 500);
        assert_eq!(turns.totals(), (4, 530));
        let sites = turns.sites();
        let memory = Site { times: 3, instructions: 30 };
        assert_eq!(sites[0], (Va(0x1000), Waiting::Memory, memory));
        assert_eq!(sites[1].1, Waiting::Event);
        let (_, marks) = turns.marks().find(|(why, _)| *why == Waiting::Event).unwrap();
        assert_eq!((marks.in_order()[0].start, marks.in_order()[0].cost), (9, 500));
    }

    #[test]
    fn a_recording_of_nothing_but_turns_stays_small() {
        let mut turns = Turns::default();
        for pc in 0..SITES_MAX as u64 + 5 {
            turns.add((0, Va(4 * pc), 0), 0, Waiting::Interrupt, u64::MAX);
        }
        assert_eq!(turns.sites().len(), SITES_MAX);
        assert_eq!(turns.totals().0, SITES_MAX as u64 + 5);
    }
}
