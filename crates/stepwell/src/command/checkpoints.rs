//! `--checkpoints`: what is taken down of the state while a run is recorded.

use std::str::FromStr;

/// Instructions between two states, where nobody says.
const EVERY: u64 = 200_000_000;

/// What is taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckpointsWord {
    /// Nothing.
    None,
    /// Hashes of registers and memory, every so many instructions.
    Hashes(u64),
}

impl CheckpointsWord {
    /// Instructions between two states, if any are taken down.
    pub(super) const fn every(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Hashes(every) => Some(every),
        }
    }
}

impl FromStr for CheckpointsWord {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let every = word.strip_prefix("hashes=").map(str::parse);
        match (word, every) {
            ("none", _) => Ok(Self::None),
            ("hashes", _) => Ok(Self::Hashes(EVERY)),
            (_, Some(Ok(every @ 1..))) => Ok(Self::Hashes(every)),
            _ => Err("neither none nor hashes[=N], N instructions from 1 on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let every = |word: &str| word.parse::<CheckpointsWord>().map(CheckpointsWord::every);
        assert_eq!(every("none"), Ok(None));
        assert_eq!(every("hashes"), Ok(Some(EVERY)));
        assert_eq!(every("hashes=70"), Ok(Some(70)));
        for word in ["", "whole", "hashes=", "hashes=0", "hashes=-1", "hashes=x"] {
            assert!(every(word).is_err(), "{word}");
        }
    }
}
