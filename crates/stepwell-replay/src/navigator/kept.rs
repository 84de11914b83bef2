//! Which moments are kept to go back to: many near the present, few in the distant past, and never more
//! than a number of them.

use stepwell_debuggee::{Checkpoint, Moment};

/// A moment that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct One {
    pub(super) moment: Moment,
    /// What of the script had happened.
    pub(super) done: usize,
    pub(super) checkpoint: Checkpoint,
}

/// The moments that are kept, in order.
#[derive(Debug)]
pub(super) struct Kept {
    all: Vec<One>,
    most: usize,
    spacing: u64,
}

impl Kept {
    /// Keeps `most` moments, or two, and on the way forwards one each `spacing` instructions.
    pub(super) fn new(most: usize, spacing: u64) -> Self {
        Self { all: Vec::new(), most: most.max(2), spacing: spacing.max(1) }
    }

    /// The last one that is not after a moment.
    pub(super) fn at_most(&self, moment: Moment) -> Option<One> {
        self.all.iter().rev().find(|one| one.moment <= moment).copied()
    }

    /// The last one that is before a moment.
    pub(super) fn before(&self, moment: Moment) -> Option<One> {
        self.all.iter().rev().find(|one| one.moment < moment).copied()
    }

    /// Where the next one is due on the way forwards.
    pub(super) fn due(&self, now: Moment) -> u64 {
        let last = self.at_most(now).map_or(0, |one| one.moment.position);
        last.saturating_add(self.spacing).max(now.position.saturating_add(1))
    }

    /// Tells whether one is kept within so many instructions before a position.
    pub(super) fn has_one_within(&self, position: u64, instructions: u64) -> bool {
        let from = position.saturating_sub(instructions);
        self.all.iter().any(|one| (from..=position).contains(&one.moment.position))
    }

    /// Takes one more. Returns one that is to be let go, where there are too many now.
    pub(super) fn add(&mut self, one: One) -> Option<Checkpoint> {
        let place = self.all.partition_point(|other| other.moment <= one.moment);
        self.all.insert(place, one);
        if self.all.len() > self.most { self.thin(one.moment) } else { None }
    }

    /// Lets the one go that is missed least: whose neighbours are near, measured by how far away they
    /// all are. The first one stays.
    pub(super) fn thin(&mut self, now: Moment) -> Option<Checkpoint> {
        let gap = |index: usize| {
            let before = self.all.get(index.checked_sub(1)?)?.moment.position;
            let here = self.all.get(index)?.moment.position;
            let after = self.all.get(index + 1).map_or(here, |one| one.moment.position);
            let away = here.abs_diff(now.position).saturating_add(self.spacing);
            // A fraction, as precise as a choice needs it.
            let gap = u128::from(after.saturating_sub(before)) << 32;
            gap.checked_div(u128::from(away))
        };
        let least = (1..self.all.len()).min_by_key(|&index| gap(index).unwrap_or(u128::MAX))?;
        Some(self.all.remove(least).checkpoint)
    }

    /// Tells whether this moment is kept.
    pub(super) fn is_kept(&self, moment: Moment) -> bool {
        self.all.iter().any(|one| one.moment == moment)
    }

    /// Forgets one that is gone.
    pub(super) fn lose(&mut self, checkpoint: Checkpoint) {
        self.all.retain(|one| one.checkpoint != checkpoint);
    }

    /// Forgets all of them: their machine is gone.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(position: u64) -> One {
        One { moment: Moment::at(position), done: 0, checkpoint: Checkpoint(position) }
    }

    #[test]
    fn the_one_before_is_found() {
        let mut kept = Kept::new(10, 100);
        assert_eq!(kept.at_most(Moment::at(5)), None);
        [0, 200, 100].into_iter().for_each(|position| assert_eq!(kept.add(one(position)), None));
        let position = |one: Option<One>| one.map(|one| one.moment.position);
        assert_eq!(position(kept.at_most(Moment::at(100))), Some(100));
        assert_eq!(position(kept.before(Moment::at(100))), Some(0));
        assert_eq!(position(kept.at_most(Moment { position: 100, clock: 7 })), Some(100));
        assert_eq!(position(kept.at_most(Moment::at(99))), Some(0));
        assert_eq!((kept.due(Moment::at(150)), kept.due(Moment::at(250))), (200, 300));
        assert!(kept.has_one_within(205, 5) && !kept.has_one_within(205, 4));
    }

    #[test]
    fn they_are_dense_near_the_present() {
        let mut kept = Kept::new(16, 10);
        for n in 0..1000 {
            let _surplus = kept.add(one(10 * n));
        }
        assert_eq!(kept.all.len(), 16);
        let positions: Vec<u64> = kept.all.iter().map(|one| one.moment.position).collect();
        assert_eq!(positions.first(), Some(&0), "the beginning stays");
        assert_eq!(positions.last(), Some(&9990));
        let gaps: Vec<u64> = positions.windows(2).map(|two| two[1] - two[0]).collect();
        let (past, present) = gaps.split_at(gaps.len() / 2);
        assert!(past.iter().sum::<u64>() > 4 * present.iter().sum::<u64>(), "{positions:?}");
        assert!(present.iter().all(|&gap| gap < 2000), "{positions:?}");
    }
}
