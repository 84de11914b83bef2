//! Turns that are drawn from a seed.
//!
//! A race shows where one vCPU is preempted at the wrong instruction, or does not get on for long enough.
//! So the length of a turn is drawn evenly over its order of magnitude, from 16 instructions to 4,095;
//! who is next is drawn as well; and one vCPU rests for some turns, as long as others can move. All of it
//! is a function of the seed and of how many turns there were, and so of the position.

use crate::domain::bit;
use serde::{Deserialize, Serialize};

/// The shortest turns have as many instructions as this power of two.
const SHORTEST: u64 = 4;
/// Orders of magnitude of a turn, in powers of two; itself one.
const ORDERS: u64 = 8;
/// Turns for which a vCPU rests, at most; a power of two.
const REST: u64 = 64;

/// What is drawn next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draws {
    /// Of SplitMix64.
    state: u64,
    /// Who rests, and for how many turns more.
    resting: u8,
    rest: u64,
}

impl Draws {
    /// Begins with a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed, resting: 0, rest: 0 }
    }

    const fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Draws how many instructions a turn has.
    pub const fn length(&mut self) -> u64 {
        let order = SHORTEST.wrapping_add(self.draw() & (ORDERS - 1));
        let least = 1_u64.wrapping_shl(order as u32);
        least | self.draw() & least.wrapping_sub(1)
    }

    /// Draws who is next, of those that can move, one bit each. Nothing is drawn where nobody can: how
    /// often that is asked is no function of the position.
    pub fn vcpu(&mut self, can_move: u8) -> Option<usize> {
        if can_move == 0 {
            return None;
        }
        match self.rest.checked_sub(1) {
            Some(rest) => self.rest = rest,
            None => {
                self.resting = (self.draw() & 7) as u8;
                self.rest = self.draw() & (REST - 1);
            }
        }
        let awake = can_move & !bit(usize::from(self.resting));
        let from = if awake == 0 { can_move } else { awake };
        let nth = self.draw().checked_rem(u64::from(from.count_ones()))?;
        (0..8).filter(|&vcpu| from & bit(vcpu) != 0).nth(usize::try_from(nth).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_sequence() {
        let drawn = |seed| {
            let mut draws = Draws::new(seed);
            (0..100).map(|_| (draws.length(), draws.vcpu(0b1011))).collect::<Vec<_>>()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn turns_are_of_every_order() {
        let mut draws = Draws::new(1);
        let lengths: Vec<u64> = (0..1000).map(|_| draws.length()).collect();
        for order in 4..12 {
            let within = |&&length: &&u64| length >> order == 1;
            assert!(lengths.iter().filter(within).count() > 50, "2^{order}");
        }
        assert!(lengths.iter().all(|&length| (16..1 << 12).contains(&length)));
    }

    #[test]
    fn who_can_move_does_and_one_rests() {
        let mut draws = Draws::new(3);
        let before = draws.clone();
        assert_eq!(draws.vcpu(0), None);
        assert_eq!(draws, before, "nothing is drawn in vain");
        let drawn: Vec<usize> = (0..4000).map(|_| draws.vcpu(0b1011).expect("one can")).collect();
        for vcpu in [0, 1, 3] {
            assert!(drawn.iter().filter(|&&one| one == vcpu).count() > 800, "{vcpu}");
        }
        assert!(!drawn.contains(&2));
        let is_left_out = |turns: &[usize]| !turns.contains(&0);
        assert!(drawn.windows(16).any(is_left_out), "for as long as that");
        assert!((0..100).all(|_| draws.vcpu(0b100) == Some(2)), "nobody rests alone");
    }
}
