//! One case: a seed's program, run by the witness and by Stepwell, and compared.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::canonical::{Canonical, Form};
use super::chance::Chance;
use super::coverage::Coverage;
use super::program::{Ground, Program, Recipe};
use crate::guest::{LOAD, folder};
use crate::plain::{Setup, witness_and_console};
use crate::process::{configured, run};
use crate::stepwell::{command, show};
use crate::stream::demand_equal;

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);
const STEPS_MAX: usize = 20_000_000;
/// The least that a case has to compare to mean anything.
const LENGTH_MIN: usize = 5_000;
/// Fewest runs that a failing program is shrunk by.
const SHRINK_RUNS_MAX: usize = 40;

/// What a case may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Blocks of a program.
    pub blocks: u32,
    /// The engine's mutation to run with, to see that it is found.
    pub mutant: Option<String>,
    /// Some cases step over interrupts. Not yet the rule: a pause inside of a handler goes on there,
    /// as it should, and the canonical form does not know half a handler.
    pub over: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { blocks: 250, mutant: None, over: false }
    }
}

/// How Stepwell runs a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    /// The interrupt policy.
    pub irq: &'static str,
    /// The words of the test mode; none for the release image.
    pub test_mode: Option<String>,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--irq {}", self.irq)?;
        match &self.test_mode {
            Some(words) => write!(f, " --test-mode {words}"),
            None => Ok(()),
        }
    }
}

/// A case: what to run, and how.
#[derive(Clone, Debug)]
pub struct Case {
    /// The seed, from which everything follows.
    pub seed: u64,
    /// QEMU's name of the CPU.
    pub cpu: &'static str,
    /// The program.
    pub recipe: Recipe,
    /// Stepwell's runs of it.
    pub modes: Vec<Mode>,
}

/// What a case came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Steps of all of Stepwell's runs.
    pub steps: u64,
    /// Instructions of the main line, for each of the runs, that were compared.
    pub compared: u64,
    /// Interrupts that were entered in Stepwell's runs.
    pub excursions: u64,
    /// Of those, the nested ones.
    pub nested: u64,
    /// Turns of exclusive loops that failed, in Stepwell's runs.
    pub retries: u64,
    /// Exception returns that were started anew.
    pub restarts: u64,
    /// Stepwell's runs.
    pub runs: u64,
    /// What the test mode did.
    pub coverage: Coverage,
}

/// A divergence, or a run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which case and run, how to repeat it, and what parted.
    pub text: String,
}

impl Case {
    /// The case of a seed.
    #[must_use]
    pub fn new(seed: u64, options: &Options) -> Self {
        let mut chance = Chance::fork(seed, u64::MAX);
        let cpu = if chance.below(5) < 2 { "max" } else { "cortex-a57" };
        // A handler that returns elsewhere than it came from cannot be stepped over.
        let over = chance.one_in(5) && options.over;
        let mut adversary = || {
            let (pending, before) = (chance.between(5, 35), chance.between(3, 20));
            let (stage2, pause) = (chance.between(2, 15), chance.between(1, 8));
            let serror = chance.between(1, 4);
            let mutant = options.mutant.as_ref().map(|name| format!(",mutant={name}"));
            let seed = chance.next() >> 1;
            Some(format!(
                "seed={seed},pending={pending},before={before},stage2={stage2},pause={pause},\
                 serror={serror}{}",
                mutant.unwrap_or_default()
            ))
        };
        let mode = |irq, test_mode| Mode { irq, test_mode };
        let mut modes = match over {
            true => vec![mode("over", adversary()), mode("into", adversary())],
            false => vec![mode("into", adversary()), mode("into", adversary())],
        };
        if options.mutant.is_none() {
            modes.push(match seed % 4 {
                0 => mode("hold", None),
                1 => mode("hold", adversary()),
                2 if over => mode("over", None),
                _ => mode("into", None),
            });
        }
        let recipe = Recipe {
            seed,
            blocks: (0..options.blocks).collect(),
            has_atomics: cpu == "max",
            restartable: !over,
        };
        Self { seed, cpu, recipe, modes }
    }

    /// Writes the image that the case runs.
    ///
    /// # Errors
    /// [`Failure`] where there is no ground, or no room.
    pub fn write(&self, image: &Path) -> Result<(), Failure> {
        let fail = |text: String| Failure { text };
        let ground = Ground::read(&folder().join("random.bin"));
        let ground = ground.map_err(|error| fail(error.to_string()))?;
        let program = Program::new(&self.recipe, &ground.places);
        std::fs::write(image, ground.with(&program)).map_err(|error| fail(error.to_string()))
    }

    /// Runs everything and compares.
    ///
    /// # Errors
    /// [`Failure`] for the first run that is not as it should be.
    pub fn run(&self) -> Result<Outcome, Failure> {
        let fail = |text: String| Failure { text: format!("{self}\n{text}") };
        let ground = Ground::read(&folder().join("random.bin"));
        let ground = ground.map_err(|error| fail(error.to_string()))?;
        let bench = Bench::new(self, &ground).map_err(fail)?;
        let witness = bench.witness().map_err(fail)?;
        let mut outcome = Outcome::default();
        for mode in &self.modes {
            bench
                .stepped(mode, &witness, &mut outcome)
                .map_err(|text| fail(format!("stepwell trace {mode}\n{text}")))?;
        }
        Ok(outcome)
    }

    /// Drops blocks as long as it still fails, and returns the last failure.
    #[must_use]
    pub fn shrink(&self, first: Failure) -> (Self, Failure) {
        let (mut case, mut failure) = (self.clone(), first);
        let mut part = case.recipe.blocks.len() / 2;
        let mut runs = 0;
        while part > 0 && runs < SHRINK_RUNS_MAX {
            let mut at = 0;
            while at < case.recipe.blocks.len() && runs < SHRINK_RUNS_MAX {
                let mut less = case.clone();
                let end = (at + part).min(less.recipe.blocks.len());
                less.recipe.blocks.drain(at..end);
                runs += 1;
                match less.run() {
                    Err(again) => (case, failure) = (less, again),
                    Ok(_) => at = end,
                }
            }
            part /= 2;
        }
        (case, failure)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} on {}, {} blocks", self.seed, self.cpu, self.recipe.blocks.len())?;
        if self.recipe.blocks.len() < 40 {
            write!(f, " {:?}", self.recipe.blocks)?;
        }
        write!(f, "; repeat it by `cargo xtask soak --seed {} --programs 1`", self.seed)
    }
}

/// A case's image and what is needed to run and to read it.
struct Bench<'a> {
    folder: tempfile::TempDir,
    setup: Setup,
    ground: &'a Ground,
    program: Program,
    window: (u64, u64),
}

struct Witness {
    canonical: Canonical,
    result: String,
}

impl<'a> Bench<'a> {
    fn new(case: &Case, ground: &'a Ground) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let program = Program::new(&case.recipe, &ground.places);
        let image = folder.path().join("random.bin");
        std::fs::write(&image, ground.with(&program)).map_err(|error| error.to_string())?;
        let setup = Setup { cpu: case.cpu, memory_mib: 64, ..Setup::new(&image) };
        Ok(Self { folder, setup, ground, program, window: ground.window() })
    }

    fn form(&self, blind: bool) -> Form<'_> {
        let (places, exclusives) = (&self.ground.places, &self.program.exclusives[..]);
        Form { places, window: self.window, exclusives, blind }
    }

    fn witness(&self) -> Result<Witness, String> {
        let console = self.folder.path().join("console");
        let serial = format!("file:{}", console.display());
        let seen = witness_and_console(&self.setup, LOAD, STEPS_MAX, LIMIT, &serial);
        let seen = seen.map_err(|error| error.to_string())?;
        let canonical = self.form(false).of(&seen).map_err(|text| format!("witness: {text}"))?;
        let console = std::fs::read_to_string(&console).map_err(|error| error.to_string())?;
        let result = result_of(&console).ok_or_else(|| format!("witness: no result: {console}"))?;
        Ok(Witness { canonical, result })
    }

    fn stepped(&self, mode: &Mode, witness: &Witness, outcome: &mut Outcome) -> Result<(), String> {
        let file = self.folder.path().join("recording.stw");
        let mut trace = command("trace", &self.setup);
        trace.args(["--at", "reset", "--steps", &STEPS_MAX.to_string(), "--irq", mode.irq]);
        trace.args(["--quiet", "--verbose", "-o"]).arg(&file);
        if let Some(words) = &mode.test_mode {
            trace.arg("--hypervisor").arg(test_mode_image()).args(["--test-mode", words]);
        }
        let finished = run(&mut trace, LIMIT).map_err(|error| error.to_string())?;
        if !finished.status.success() || !finished.left_behind.is_empty() {
            return Err(format!("{}\nleft behind: {:?}", finished.output(), finished.left_behind));
        }
        let stream = show(&file)?;
        let canonical = self.form(mode.irq == "over").of(&stream)?;
        let length = witness.canonical.main.len();
        // The call that powers off does not complete: a recording may end before it.
        let length = length.min(canonical.main.len().max(length - 1));
        let both = (&witness.canonical.main[..], &canonical.main[..]);
        demand_equal(length, ("witness", both.0), ("stepwell", both.1))?;
        if both.1.len() > both.0.len() {
            return Err(format!("{} steps after the end", both.1.len() - both.0.len()));
        }
        let result = result_of(&finished.stdout).ok_or("the guest printed no result")?;
        if result != witness.result {
            return Err(format!("witness: {}\nstepwell: {result}", witness.result));
        }
        if length < LENGTH_MIN.min(40 * self.program.words().len()) {
            return Err(format!("only {length} instructions to compare"));
        }
        let coverage = Coverage::of_log(&finished.stderr);
        if mode.test_mode.is_some() && coverage.is_empty() {
            return Err("the test mode reported nothing".into());
        }
        outcome.coverage.merge(&coverage);
        outcome.runs += 1;
        outcome.steps += stream.len() as u64;
        outcome.compared += length as u64;
        outcome.excursions += canonical.excursions;
        outcome.nested += canonical.nested;
        outcome.retries += canonical.retries;
        outcome.restarts += canonical.restarts;
        Ok(())
    }
}

/// The line that the guest ends with.
fn result_of(console: &str) -> Option<String> {
    let line = console.lines().find_map(|line| line.split_once("random: "))?.1;
    line.starts_with("ok ").then(|| line.trim().to_owned())
}

/// The hypervisor with its test mode: `$STEPWELL_TEST_MODE_HYPERVISOR`, or next to the command's
/// own.
fn test_mode_image() -> PathBuf {
    let built = crate::stepwell::binary();
    let built = built.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let built = built.join("el2/stepwell-hypervisor-test-mode.bin");
    configured("STEPWELL_TEST_MODE_HYPERVISOR", &built.to_string_lossy())
}
