//! Random numbers from a seed: the same on every machine, in every version.

/// A stream of them (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// Begins at a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// One that has nothing to do with this one's other numbers.
    #[must_use]
    pub fn fork(seed: u64, number: u64) -> Self {
        let mut chance = Self::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self::new(chance.next())
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "an iterator of numbers is not the point")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    /// A number of a range, both ends included.
    pub fn between(&mut self, first: u32, last: u32) -> u32 {
        first + self.below(last - first + 1)
    }

    /// Yes, once in so many times.
    pub fn one_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// One of a list that is not empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u32) as usize]
    }

    /// A register for data: X0 to X15.
    pub fn data(&mut self) -> u32 {
        self.below(16)
    }
}
