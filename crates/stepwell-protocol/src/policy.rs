//! How a guest is stepped: its interrupts, its clock, its other vCPUs, and what is monitored.
//!
//! Each policy is read from the word that it is written as, on the command line, in GDB's `monitor`
//! and in the stepper alike.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// What can be monitored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Monitor {
    /// Every instruction: while on, a vCPU that is let run stops after one.
    SingleStep,
    /// SMC: while on, an SMC stops the domain before it takes effect.
    PrivilegedCall,
}

/// What happens to the guest's interrupts while it is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InterruptPolicy {
    /// None is delivered.
    Hold,
    /// A handler runs at full speed, and steps go on where the interrupted code resumes.
    Over,
    /// The exception entry is reported, and the handler stepped.
    Into,
}

impl fmt::Display for InterruptPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hold => "hold",
            Self::Over => "over",
            Self::Into => "into",
        })
    }
}

/// A word that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {expected}")]
pub struct UnknownPolicy {
    given: String,
    expected: &'static str,
}

impl FromStr for InterruptPolicy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, UnknownPolicy> {
        match word {
            "hold" => Ok(Self::Hold),
            "over" => Ok(Self::Over),
            "into" => Ok(Self::Into),
            _ => Err(UnknownPolicy { given: word.into(), expected: "hold, over, into" }),
        }
    }
}

/// How the guest's clock goes while it is stepped or stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimePolicy {
    /// It does not advance while the domain is stopped and while EL2 works; a stepped instruction
    /// takes a nominal time.
    #[default]
    Stopped,
    /// It advances by so many nanoseconds a step, and does not advance otherwise.
    PerStep {
        /// Nanoseconds a step.
        ns: u32,
    },
    /// It goes on with the machine's clock, whatever the debugger does.
    Real,
    /// As [`TimePolicy::Stopped`], but that a step takes as long as its instruction may on a CPU that
    /// nobody steps, by class and by chance: the same in every run.
    Natural {
        /// Where chance begins.
        seed: u64,
    },
}

impl fmt::Display for TimePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::PerStep { ns } => write!(f, "per-step={ns}"),
            Self::Real => f.write_str("real"),
            Self::Natural { seed } => write!(f, "natural={seed}"),
        }
    }
}

impl FromStr for TimePolicy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, UnknownPolicy> {
        const EXPECTED: &str = "stopped, natural, natural=SEED, real, per-step=NS";
        let policy = match word.split_once('=') {
            None if word == "stopped" => Some(Self::Stopped),
            None if word == "real" => Some(Self::Real),
            None if word == "natural" => Some(Self::Natural { seed: 0 }),
            Some(("per-step", ns)) => ns.parse().ok().map(|ns| Self::PerStep { ns }),
            Some(("natural", seed)) => seed.parse().ok().map(|seed| Self::Natural { seed }),
            _ => None,
        };
        policy.ok_or(UnknownPolicy { given: word.into(), expected: EXPECTED })
    }
}

/// What the other vCPUs of a domain do while one is stepped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OthersPolicy {
    /// They are stopped, but for bounded turns while the stepped one makes no progress alone.
    #[default]
    Stop,
    /// They run.
    Run,
    /// They are stepped as well, one at a time.
    Step {
        /// Instructions of a turn. 0 is refused.
        quantum: u32,
    },
    /// They are stopped, whatever the stepped one waits for: a WFI of its that only they could end
    /// ends at once, as it may anyway.
    Freeze,
}

impl OthersPolicy {
    /// Instructions of a turn, where nobody says: long enough that yielding it costs little beside
    /// it, short enough that a lock's holder is soon back.
    pub const QUANTUM: u32 = 10_000;
    /// [`OthersPolicy::Step`] with turns of [`OthersPolicy::QUANTUM`].
    pub const STEP: Self = Self::Step { quantum: Self::QUANTUM };

    /// Returns the instructions of a turn of the others.
    #[must_use]
    pub const fn quantum(self) -> u32 {
        match self {
            Self::Step { quantum } => quantum,
            Self::Stop | Self::Run | Self::Freeze => Self::QUANTUM,
        }
    }

    /// Tells whether the others are stepped as well.
    #[must_use]
    pub const fn is_step(self) -> bool {
        matches!(self, Self::Step { .. })
    }
}

impl fmt::Display for OthersPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop => f.write_str("stop"),
            Self::Run => f.write_str("run"),
            Self::Step { quantum } => write!(f, "step={quantum}"),
            Self::Freeze => f.write_str("freeze"),
        }
    }
}

impl FromStr for OthersPolicy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, UnknownPolicy> {
        match word {
            "stop" => Ok(Self::Stop),
            "run" => Ok(Self::Run),
            "freeze" => Ok(Self::Freeze),
            "step" => Ok(Self::STEP),
            _ => word
                .strip_prefix("step=")
                .and_then(|quantum| quantum.parse().ok())
                .filter(|quantum| *quantum > 0)
                .map(|quantum| Self::Step { quantum })
                .ok_or(UnknownPolicy {
                    given: word.into(),
                    expected: "stop, run, step, step=N, freeze",
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for policy in [InterruptPolicy::Hold, InterruptPolicy::Over, InterruptPolicy::Into] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        for policy in [
            TimePolicy::Stopped,
            TimePolicy::PerStep { ns: 17 },
            TimePolicy::Real,
            TimePolicy::Natural { seed: 5 },
        ] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("natural".parse(), Ok(TimePolicy::Natural { seed: 0 }));
        assert!("natural=".parse::<TimePolicy>().is_err());
        let others =
            [OthersPolicy::Stop, OthersPolicy::Run, OthersPolicy::STEP, OthersPolicy::Freeze];
        for policy in others {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let refused = "per-step=".parse::<TimePolicy>().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "\"per-step=\" is none of stopped, natural, natural=SEED, real, per-step=NS"
        );
        assert_eq!("step".parse(), Ok(OthersPolicy::STEP));
        let refused = "step=0".parse::<OthersPolicy>().unwrap_err();
        assert_eq!(refused.to_string(), "\"step=0\" is none of stop, run, step, step=N, freeze");
    }
}
