//! Who executes when, where vCPUs take turns on one CPU and instructions are counted.

use core::fmt;
use core::str::FromStr;

/// Shorter turns would be spent on changing them.
pub const TURN_MIN: u32 = 100;
/// A turn's instructions, if they are not told.
const TURN: u32 = 50_000;

/// How turns are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// One vCPU after the other.
    Turns {
        /// Instructions each, unless it waits before.
        instructions: u32,
    },
    /// Drawn from a seed: how long a turn is, who is next, and who is left out for a while. What shows
    /// once in a thousand runs shows with some seeds, and with these each time.
    Random {
        /// The seed.
        seed: u64,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Turns { instructions: TURN }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turns { instructions } => write!(f, "turns={instructions}"),
            Self::Random { seed } => write!(f, "random={seed}"),
        }
    }
}

/// A word that is no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Neither of the words.
    #[error("not a schedule: write turns[=N], or random[=SEED]")]
    Word,
    /// Too short, too long, or no number.
    #[error("a turn has between {TURN_MIN} and {} instructions", u32::MAX)]
    Turn,
    /// No number.
    #[error("a seed is a number from 0 to {}", u64::MAX)]
    Seed,
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(word: &str) -> Result<Self, ScheduleError> {
        match word.split_once('=') {
            None if word == "turns" => Ok(Self::default()),
            None if word == "random" => Ok(Self::Random { seed: 1 }),
            Some(("turns", length)) => {
                let length = length.parse().ok().filter(|&length| length >= TURN_MIN);
                Ok(Self::Turns { instructions: length.ok_or(ScheduleError::Turn)? })
            }
            Some(("random", seed)) => {
                Ok(Self::Random { seed: seed.parse().map_err(|_| ScheduleError::Seed)? })
            }
            _ => Err(ScheduleError::Word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn schedules_are_words() {
        let read = |word: &str| word.parse::<Schedule>();
        assert_eq!(read("turns"), Ok(Schedule::default()));
        assert_eq!(read("turns=1000"), Ok(Schedule::Turns { instructions: 1000 }));
        assert_eq!(read("random"), Ok(Schedule::Random { seed: 1 }));
        assert_eq!(read("random=7"), Ok(Schedule::Random { seed: 7 }));
        for word in ["turns=1000", "random=18446744073709551615"] {
            assert_eq!(read(word).map(|schedule| schedule.to_string()), Ok(word.to_string()));
        }
        for word in ["turns=", "turns=99", "turns=4294967296"] {
            assert_eq!(read(word), Err(ScheduleError::Turn), "{word}");
        }
        for word in ["random=", "random=-1", "random=18446744073709551616"] {
            assert_eq!(read(word), Err(ScheduleError::Seed), "{word}");
        }
        for word in ["", "fair", "turns:5", "random:5"] {
            assert_eq!(read(word), Err(ScheduleError::Word), "{word}");
        }
    }
}
