//! The adversary of the test mode: a [`Cpu`](crate::cpu::Cpu) around another one, which makes happen
//! what that never does by itself.
//!
//! QEMU always delivers a pending step before an interrupt, never withdraws a page, and calls a vCPU
//! out only when somebody wants it stopped. So the paths of the step loop that matter most on
//! hardware are not taken there. An image with the feature `test-mode` runs the same loop on an
//! [`Adversary`], which takes them on purpose, at random but from a seed: it decides and counts here,
//! acts in [`around`], and takes pages away in [`withdrawal`]. The loop cannot tell, and a release
//! image has nothing of it.
//!
//! Every count is of something that has happened to the machine, not of a decision: a physical
//! interrupt is counted when its exit came, a withdrawn page when the abort came. The one exception
//! is the *exit for no reason*, which is made up, since that is what it is.
//!
//! Deliberately absent: real locks or memory of another vCPU. One adversary belongs to one CPU.

pub mod around;
pub mod instruction_class;
pub mod withdrawal;

pub use around::Adversary;

use core::fmt;
use instruction_class::InstructionClass;
use stepwell_engine::mutation::Mutant;

/// What an adversary does between two events of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interference {
    /// A physical interrupt, exiting before the instruction (SPSR_EL2.SS as it was entered).
    Physical,
    /// A virtual interrupt, entered before the instruction. This one the guest sees.
    Virtual,
    /// An asynchronous exit after the instruction and before its step exception.
    Pending,
    /// An exit for no reason before the instruction.
    Spurious,
    /// Its code page was withdrawn, and it aborted.
    CodePage,
    /// The page of its data was withdrawn, and it aborted.
    DataPage,
    /// The vCPU was called out before it: stepping was switched off, everything saved, loaded again,
    /// and stepping switched on.
    Pause,
    /// An SError came before it, which the guest gets once it has unmasked it.
    SystemError,
}

impl Interference {
    /// All of them, in the order of the report's columns.
    pub const ALL: [Self; 8] = [
        Self::Physical,
        Self::Virtual,
        Self::Pending,
        Self::Spurious,
        Self::CodePage,
        Self::DataPage,
        Self::Pause,
        Self::SystemError,
    ];

    /// The name of its column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Virtual => "virtual",
            Self::Pending => "pending",
            Self::Spurious => "spurious",
            Self::CodePage => "code-page",
            Self::DataPage => "data-page",
            Self::Pause => "pause",
            Self::SystemError => "serror",
        }
    }
}

/// What is wrong with a test mode's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not `NAME=NUMBER`, or a name that nobody knows.
    #[error(
        "test mode: a word is not one of seed=, pending=, before=, stage2=, pause=, serror=, mutant="
    )]
    Word,
    /// A rate above 100.
    #[error("test mode: a rate is not a percentage")]
    Rate,
    /// The engine has no such mutation.
    #[error("test mode: the engine has no mutant of that name")]
    Mutant,
}

/// The engine's mutation of a name.
///
/// # Errors
///
/// [`ConfigError::Mutant`].
pub fn mutant(name: &str) -> Result<Mutant, ConfigError> {
    Mutant::from_name(name).ok_or(ConfigError::Mutant)
}

/// What the tool asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config<'a> {
    /// Where the random numbers begin.
    pub seed: u64,
    /// Percentage of step exceptions that an asynchronous exit is made to precede.
    pub pending: u8,
    /// Percentage of entries that exit before the instruction.
    pub before: u8,
    /// Percentage of entries under a withdrawn page.
    pub stage2: u8,
    /// Percentage of exits after which the vCPU is called out for nothing.
    pub pause: u8,
    /// Percentage of entries that an SError precedes.
    pub serror: u8,
    /// The engine's mutation to run with.
    pub mutant: Option<&'a str>,
}

impl<'a> Config<'a> {
    /// Reads `seed=1,pending=10,before=5,stage2=3,pause=3,serror=1,mutant=NAME`; what is left out
    /// is 0.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn parse(words: &'a str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').ok_or(ConfigError::Word)?;
            let rate = || {
                let rate = value.parse::<u8>().map_err(|_| ConfigError::Rate)?;
                if rate > 100 { Err(ConfigError::Rate) } else { Ok(rate) }
            };
            match name {
                "seed" => config.seed = value.parse().map_err(|_| ConfigError::Word)?,
                "pending" => config.pending = rate()?,
                "before" => config.before = rate()?,
                "stage2" => config.stage2 = rate()?,
                "pause" => config.pause = rate()?,
                "serror" => config.serror = rate()?,
                "mutant" => config.mutant = Some(value),
                _ => return Err(ConfigError::Word),
            }
        }
        Ok(config)
    }
}

const CLASSES: usize = InstructionClass::ALL.len();
const INTERFERENCES: usize = Interference::ALL.len();

/// Decides for one CPU, and counts.
#[derive(Clone, Debug)]
pub struct Decisions {
    is_on: bool,
    pending: u8,
    before: u8,
    stage2: u8,
    pause: u8,
    serror: u8,
    random: u64,
    counts: [[u32; INTERFERENCES]; CLASSES],
    /// How often each class was about to execute.
    met: [u32; CLASSES],
    /// The instruction about to execute, or executing.
    pub class: InstructionClass,
    /// The vCPU was called out, and nothing has executed since.
    pub paused: bool,
}

/// As many entries in a row without an instruction is bad luck beyond belief.
const IN_A_ROW_PERCENT: u8 = 40;
/// One in so many runs of plain instructions is left to the assembly.
const FAST_ONE_IN: u64 = 8;
const FAST_MAX: u64 = 24;

impl Decisions {
    /// Makes those of CPU `index`; without a configuration they are to do nothing.
    #[must_use]
    pub fn new(config: Option<&Config<'_>>, index: usize) -> Self {
        let is_on = config.is_some();
        let config = config.copied().unwrap_or_default();
        let spread = 0x9e37_79b9_7f4a_7c15_u64;
        let random = (config.seed ^ (index as u64) << 56).wrapping_mul(spread) ^ spread;
        Self {
            is_on,
            pending: config.pending,
            before: config.before,
            stage2: config.stage2,
            pause: config.pause,
            serror: config.serror,
            random: random | 1,
            counts: [[0; INTERFERENCES]; CLASSES],
            met: [0; CLASSES],
            class: InstructionClass::Plain,
            paused: false,
        }
    }

    /// xorshift64*: it only has to hit everything.
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.random() % 100 < u64::from(percent)
    }

    /// What is to meet the next entry. `again`: the instruction has executed already, or was tried.
    pub fn before_entry(&mut self, again: bool) -> Option<Interference> {
        let before = if again { self.before.min(IN_A_ROW_PERCENT) } else { self.before };
        if self.chance(before) {
            let spurious = self.random() & 1 == 0;
            return Some(if spurious { Interference::Spurious } else { Interference::Physical });
        }
        if self.chance(self.stage2) {
            let code = self.random() & 1 == 0;
            return Some(if code { Interference::CodePage } else { Interference::DataPage });
        }
        (self.chance(self.serror)).then_some(Interference::SystemError)
    }

    /// Whether an asynchronous exit precedes this step exception. `again`: one has already.
    pub fn delays_step(&mut self, again: bool) -> bool {
        let percent = match self.pending {
            0 => 0,
            _ if again => IN_A_ROW_PERCENT,
            rate => rate,
        };
        self.chance(percent)
    }

    /// Whether the vCPU is called out here.
    pub fn pauses(&mut self) -> bool {
        self.chance(self.pause)
    }

    /// How many steps of `limit` the assembly may take. Mostly one, so that Rust sees each.
    pub fn fast_limit(&mut self, limit: u64) -> u64 {
        if !self.is_on {
            limit
        } else if self.random().is_multiple_of(FAST_ONE_IN) {
            limit.min(1 + self.random() % FAST_MAX)
        } else {
            limit.min(1)
        }
    }

    /// Takes down the instruction that is about to execute.
    pub fn meet(&mut self, class: InstructionClass) {
        self.class = class;
        if let Some(met) = self.met.get_mut(class as usize) {
            *met = met.saturating_add(1);
        }
        if core::mem::take(&mut self.paused) {
            self.count_for(class, Interference::Pause);
        }
    }

    /// Counts what happened to the instruction about to execute, or executing.
    pub fn count(&mut self, what: Interference) {
        self.count_for(self.class, what);
    }

    /// Counts what happened to a class.
    pub fn count_for(&mut self, class: InstructionClass, what: Interference) {
        let row = self.counts.get_mut(class as usize);
        if let Some(count) = row.and_then(|row| row.get_mut(what as usize)) {
            *count = count.saturating_add(1);
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn counted(&self, class: InstructionClass, what: Interference) -> u32 {
        let row = self.counts.get(class as usize);
        row.and_then(|row| row.get(what as usize)).copied().unwrap_or(0)
    }

    /// Whether there is anything to report.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// One line of the report: a class's name, how often it was met, and its counts.
    #[must_use]
    pub fn row(&self, class: InstructionClass) -> Row<'_> {
        Row { decisions: self, class }
    }
}

/// A line of the report.
pub struct Row<'a> {
    decisions: &'a Decisions,
    class: InstructionClass,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = self.decisions.met.get(self.class as usize).copied().unwrap_or(0);
        write!(f, "{} met={met}", self.class.name())?;
        for what in Interference::ALL {
            write!(f, " {}={}", what.name(), self.decisions.counted(self.class, what))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_bad_ones_refused() {
        let words = "seed=7,pending=10,before=5,stage2=3,pause=2,serror=1,mutant=x";
        let expected = Config {
            seed: 7,
            pending: 10,
            before: 5,
            stage2: 3,
            pause: 2,
            serror: 1,
            mutant: Some("x"),
        };
        assert_eq!(Config::parse(words), Ok(expected));
        assert_eq!(Config::parse(""), Ok(Config::default()));
        assert_eq!(Config::parse("pending=101"), Err(ConfigError::Rate));
        assert_eq!(Config::parse("pending=x"), Err(ConfigError::Rate));
        assert_eq!(Config::parse("pending"), Err(ConfigError::Word));
        assert_eq!(Config::parse("often=1"), Err(ConfigError::Word));
    }

    #[test]
    fn the_same_seed_decides_the_same_and_another_does_not() {
        let decide = |seed, index| {
            let config = Config { seed, before: 30, stage2: 30, serror: 30, ..Config::default() };
            let mut decisions = Decisions::new(Some(&config), index);
            (0..200).map(|_| decisions.before_entry(false)).collect::<Vec<_>>()
        };
        assert_eq!(decide(1, 0), decide(1, 0));
        assert_ne!(decide(1, 0), decide(2, 0));
        assert_ne!(decide(1, 0), decide(1, 1));
        for what in [
            Interference::Physical,
            Interference::Spurious,
            Interference::DataPage,
            Interference::SystemError,
        ] {
            assert!(decide(1, 0).contains(&Some(what)), "{what:?}");
        }
    }

    #[test]
    fn rates_are_kept() {
        let config = Config { seed: 3, pending: 10, ..Config::default() };
        let mut decisions = Decisions::new(Some(&config), 0);
        let delayed = (0..10_000).filter(|_| decisions.delays_step(false)).count();
        assert!((800..1200).contains(&delayed), "{delayed}");
        assert!((0..1000).all(|_| decisions.before_entry(false).is_none()), "its rate is 0");
        assert!((0..1000).all(|_| !decisions.pauses()), "its rate is 0");
    }

    #[test]
    fn mutants_are_chosen_by_name() {
        for known in Mutant::ALL {
            assert_eq!(mutant(known.name()), Ok(known));
        }
        assert_eq!(mutant("nobody"), Err(ConfigError::Mutant));
    }

    #[test]
    fn without_a_configuration_nothing_is_done() {
        let mut decisions = Decisions::new(None, 0);
        assert!(!decisions.is_on());
        assert_eq!(decisions.fast_limit(1000), 1000);
        assert_eq!(decisions.before_entry(false), None);
        assert!(!decisions.delays_step(true));
    }

    #[test]
    fn what_happened_is_reported() {
        let mut decisions = Decisions::new(Some(&Config::default()), 0);
        decisions.paused = true;
        decisions.meet(InstructionClass::Svc);
        decisions.meet(InstructionClass::Svc);
        decisions.count(Interference::Virtual);
        let text = format!("{}", decisions.row(InstructionClass::Svc));
        assert_eq!(
            text,
            "svc met=2 physical=0 virtual=1 pending=0 spurious=0 code-page=0 data-page=0 pause=1 \
             serror=0"
        );
    }
}
