//! How numbers are spread, without keeping them.
//!
//! Numbers below 16 are counted one by one, larger ones in classes whose width is an eighth of
//! their power of two: percentiles are right within 12 %, extremes and mean are exact.

use serde::Serialize;

const EXACT: u64 = 16;
const PARTS: u64 = 8;

/// Counts of numbers, by class.
#[derive(Clone, Debug, Default)]
pub(super) struct Distribution {
    classes: Vec<u64>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

/// A distribution as the page shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) min: u64,
    pub(super) median: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
    pub(super) mean: u64,
    /// First and last number of a bar, and how many numbers were there.
    pub(super) bars: Vec<(u64, u64, u64)>,
}

impl Distribution {
    /// Counts a number.
    pub(super) fn add(&mut self, number: u64) {
        let class = class(number);
        if self.classes.len() <= class {
            self.classes.resize(class + 1, 0);
        }
        self.classes[class] += 1;
        self.min = if self.count == 0 { number } else { self.min.min(number) };
        self.max = self.max.max(number);
        self.count += 1;
        self.sum = self.sum.saturating_add(number);
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            count: self.count,
            min: self.min,
            median: self.percentile(50),
            p90: self.percentile(90),
            p99: self.percentile(99),
            max: self.max,
            mean: self.sum.checked_div(self.count).unwrap_or(0),
            bars: self.bars(),
        }
    }

    fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (class, count) in self.classes.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(class).clamp(self.min, self.max);
            }
        }
        self.max
    }

    /// Returns bars of a power of two each, or of as little less as makes enough of them to see a
    /// shape.
    fn bars(&self) -> Vec<(u64, u64, u64)> {
        /// So few bars have no shape.
        const FEW: usize = 6;
        let (powers, rest) = ([3, 2, 1], self.bars_of(0));
        let found = powers.into_iter().map(|part| self.bars_of(part));
        found.into_iter().find(|bars| bars.len() >= FEW).unwrap_or(rest)
    }

    /// Returns bars of 2 to the power of `part` eighths of a power of two.
    fn bars_of(&self, part: u32) -> Vec<(u64, u64, u64)> {
        let mut bars: Vec<(usize, u64, u64, u64)> = Vec::new();
        for (class, &count) in self.classes.iter().enumerate() {
            let (first, last) = (lower_end(class), upper_end(class));
            let group = match class as u64 {
                // Up to here all are exact: by powers of two only if all bars are.
                small if small < EXACT && part == 3 => small.checked_ilog2().map_or(0, |it| it + 1),
                small if small < EXACT => small as u32,
                large => EXACT as u32 + ((large - EXACT) >> part) as u32,
            } as usize;
            match bars.last_mut() {
                Some(bar) if bar.0 == group => (bar.2, bar.3) = (last, bar.3 + count),
                _ => bars.push((group, first, last, count)),
            }
        }
        let counted = |bar: &(usize, u64, u64, u64)| bar.3 > 0;
        let first = bars.iter().position(counted).unwrap_or(bars.len());
        bars.drain(..first);
        bars.into_iter().map(|(_, first, last, count)| (first, last, count)).collect()
    }
}

fn class(number: u64) -> usize {
    if number < EXACT {
        return number as usize;
    }
    let power = u64::from(number.ilog2());
    let part = (number >> (power - 3)) & (PARTS - 1);
    (EXACT + (power - 4) * PARTS + part) as usize
}

fn lower_end(class: usize) -> u64 {
    let class = class as u64;
    if class < EXACT {
        return class;
    }
    let (power, part) = ((class - EXACT) / PARTS + 4, (class - EXACT) % PARTS);
    (PARTS + part) << (power - 3)
}

fn upper_end(class: usize) -> u64 {
    let class = class as u64;
    if class < EXACT {
        return class;
    }
    let (power, part) = ((class - EXACT) / PARTS + 4, (class - EXACT) % PARTS);
    let width = 1_u64 << (power - 3);
    ((PARTS + part) << (power - 3)) + (width - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_tile_the_numbers() {
        let mut last = None;
        for number in (0..5000).chain([u64::MAX / 2, u64::MAX - 1, u64::MAX]) {
            let class = class(number);
            assert!(lower_end(class) <= number && number <= upper_end(class), "{number}");
            assert!(last.is_none_or(|last| last <= class));
            last = Some(class);
        }
    }

    #[test]
    fn a_summary_is_near_the_truth() {
        let mut distribution = Distribution::default();
        (1..=1000).for_each(|number| distribution.add(number));
        let summary = distribution.summary();
        assert_eq!((summary.count, summary.min, summary.max, summary.mean), (1000, 1, 1000, 500));
        assert!((500..=560).contains(&summary.median), "{}", summary.median);
        assert!((900..=1000).contains(&summary.p90), "{}", summary.p90);
        assert_eq!(summary.bars.iter().map(|bar| bar.2).sum::<u64>(), 1000);
        assert_eq!(summary.bars[0], (1, 1, 1));
        assert_eq!(summary.bars[3], (8, 15, 8));
        assert_eq!(summary.bars[5], (32, 63, 32));
        assert_eq!(Distribution::default().summary(), Summary::default());
    }

    #[test]
    fn numbers_near_each_other_have_narrow_bars() {
        let mut distribution = Distribution::default();
        (2000..3000).for_each(|number| distribution.add(number));
        let bars = distribution.summary().bars;
        assert_eq!(bars[0], (1920, 2047, 48));
        assert!(bars.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{bars:?}");
    }
}
