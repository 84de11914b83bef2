//! What the vCPUs did over time, in a bounded number of bins.
//!
//! Time is the instructions of the whole recording, those of all vCPUs in the order in which they
//! were executed. Bins begin one instruction wide and are joined in pairs whenever there are too
//! many, so a short recording is seen whole and a long one at the best resolution that fits.

use crate::call_stack::FunctionId;
use serde::Serialize;
use std::collections::{BTreeMap, BinaryHeap};

/// Most bins: more than a wide screen has columns.
const BINS_MAX: usize = 2048;
/// Most bins of all vCPUs together, once written.
const BINS_WRITTEN_MAX: usize = 16_384;
/// Functions that are kept of each bin.
const TOP: usize = 4;
/// Most intervals of each kind.
const INTERVALS_MAX: usize = 4000;

/// What a vCPU is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// The kernel, or all there is.
    Kernel,
    /// A program.
    User,
    /// A system call or fault.
    Exception,
    /// An interrupt.
    Interrupt,
    /// A lock that another has.
    LockWait,
}

/// How many activities there are.
pub(super) const ACTIVITIES: usize = 5;

/// A part of a vCPU's time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bin {
    pub(super) activities: [u64; ACTIVITIES],
    /// Functions that took most of it. What is there is right for a function that took more than
    /// a fifth, and too much for the others.
    pub(super) top: [(u32, u64); TOP],
}

impl Bin {
    fn add(&mut self, activity: Activity, function: FunctionId, instructions: u64) {
        self.activities[activity as usize] += instructions;
        self.count(function.0, instructions);
    }

    /// Counts in the way of "space saving": a function without a place takes that of the least.
    fn count(&mut self, function: u32, instructions: u64) {
        let place = self
            .top
            .iter()
            .position(|(other, count)| *other == function && *count > 0)
            .unwrap_or_else(|| least(&self.top));
        self.top[place] = (function, self.top[place].1 + instructions);
    }

    fn join(mut self, other: &Self) -> Self {
        for (sum, more) in self.activities.iter_mut().zip(other.activities) {
            *sum += more;
        }
        let mut both: Vec<(u32, u64)> = self.top.to_vec();
        for &(function, count) in &other.top {
            match both.iter_mut().find(|(there, _)| *there == function) {
                Some((_, sum)) => *sum += count,
                None => both.push((function, count)),
            }
        }
        both.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        self.top.copy_from_slice(&both[..TOP]);
        self
    }
}

fn least(top: &[(u32, u64); TOP]) -> usize {
    let places = top.iter().enumerate();
    places.min_by_key(|(_, (_, count))| *count).map_or(0, |(place, _)| place)
}

/// Something that began and ended, such as an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Interval {
    /// Instructions that its vCPU executed in it; first, so that intervals order by it.
    pub(super) cost: u64,
    pub(super) vcpu: u8,
    /// Instructions of the recording before it.
    pub(super) start: u64,
    /// Instructions of the recording until its end.
    pub(super) length: u64,
    /// The function that it is named by.
    pub(super) function: u32,
}

/// The longest of all intervals of a kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Intervals {
    /// The shortest is taken out first.
    longest: BinaryHeap<std::cmp::Reverse<Interval>>,
    count: u64,
    cost: u64,
}

impl Intervals {
    pub(super) fn add(&mut self, interval: Interval) {
        self.count += 1;
        self.cost = self.cost.saturating_add(interval.cost);
        self.longest.push(std::cmp::Reverse(interval));
        if self.longest.len() > INTERVALS_MAX {
            self.longest.pop();
        }
    }

    /// Returns how many there were, kept or not.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the instructions of all of them.
    pub(super) const fn cost(&self) -> u64 {
        self.cost
    }

    /// Returns those that were kept, in the order in which they began.
    pub(super) fn in_order(&self) -> Vec<Interval> {
        let mut list: Vec<Interval> = self.longest.iter().map(|kept| kept.0).collect();
        list.sort_by_key(|interval| (interval.start, interval.vcpu));
        list
    }
}

/// The bins of all vCPUs.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    /// Instructions of a bin.
    width: u64,
    vcpus: BTreeMap<u8, Vec<Bin>>,
    position: u64,
}

impl Timeline {
    pub(super) const fn new() -> Self {
        Self { width: 1, vcpus: BTreeMap::new(), position: 0 }
    }

    /// Returns how many instructions were added.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) const fn width(&self) -> u64 {
        self.width
    }

    /// Adds what a vCPU executed after all that was added before.
    pub(super) fn add(
        &mut self,
        vcpu: u8,
        activity: Activity,
        function: FunctionId,
        instructions: u64,
    ) {
        let end = self.position + instructions;
        while end > self.width * BINS_MAX as u64 {
            self.join();
        }
        let bins = self.vcpus.entry(vcpu).or_default();
        while self.position < end {
            let index = (self.position / self.width) as usize;
            let here = ((index as u64 + 1) * self.width).min(end) - self.position;
            if bins.len() <= index {
                bins.resize(index + 1, Bin::default());
            }
            bins[index].add(activity, function, here);
            self.position += here;
        }
    }

    /// Returns the bins of each vCPU, at most as many as a page can hold.
    pub(super) fn bins(&mut self) -> &BTreeMap<u8, Vec<Bin>> {
        while self.vcpus.values().map(Vec::len).sum::<usize>() > BINS_WRITTEN_MAX {
            self.join();
        }
        &self.vcpus
    }

    fn join(&mut self) {
        self.width *= 2;
        for bins in self.vcpus.values_mut() {
            let pairs = bins.chunks(2).map(|pair| match pair {
                [one, other] => one.join(other),
                _ => pair[0],
            });
            *bins = pairs.collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_widen_and_keep_their_sums() {
        let mut timeline = Timeline::new();
        for round in 0..10_000u64 {
            let function = FunctionId(if round < 5000 { 3 } else { 4 });
            timeline.add(0, Activity::Kernel, function, 7);
            timeline.add(1, Activity::Interrupt, FunctionId(5), 1);
        }
        assert_eq!(timeline.position(), 80_000);
        assert_eq!(timeline.width(), 64);
        let bins = timeline.bins();
        assert!(bins[&0].len() <= BINS_MAX);
        let sum = |vcpu: u8, at: usize| bins[&vcpu].iter().map(|bin| bin.activities[at]).sum();
        let sums: [u64; 2] = [sum(0, Activity::Kernel as usize), sum(1, 3)];
        assert_eq!(sums, [70_000, 10_000]);
        assert_eq!(bins[&0][0].top[0], (3, 56));
        assert_eq!(bins[&0].last().map(|bin| bin.top[0].0), Some(4));
    }

    #[test]
    fn many_vcpus_share_the_bins() {
        let mut timeline = Timeline::new();
        for round in 0..100_000u64 {
            timeline.add((round % 256) as u8, Activity::User, FunctionId(1), 2);
        }
        let bins: usize = timeline.bins().values().map(Vec::len).sum();
        assert!(bins <= BINS_WRITTEN_MAX, "{bins}");
    }

    #[test]
    fn the_function_that_took_most_stays() {
        let mut bin = Bin::default();
        for round in 0..1000 {
            bin.count(if round % 2 == 0 { 9 } else { round }, 1);
        }
        assert!(bin.top.iter().any(|&(function, count)| function == 9 && count >= 500));
    }

    #[test]
    fn the_longest_intervals_are_kept() {
        let mut intervals = Intervals::default();
        for start in 0..INTERVALS_MAX as u64 + 10 {
            intervals.add(Interval { cost: start, vcpu: 0, start, length: start, function: 0 });
        }
        let kept = intervals.in_order();
        assert_eq!((kept.len(), kept[0].start), (INTERVALS_MAX, 10));
        assert_eq!(intervals.count(), INTERVALS_MAX as u64 + 10);
    }
}
