//! Runs kvm-unit-tests' programs for arm64 as guests, and compares what they report with plain QEMU:
//! running freely, and stepped from their first instruction to their last.
//!
//! Run by `cargo xtask kvm-unit-tests`; docs/conformance.md has what was seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use stepwell_tests::plain::{Setup, console_with};
use stepwell_tests::process::{self, Finished, run};
use stepwell_tests::stepwell::command;

/// One of its tests, as its own `unittests.cfg` describes it.
struct Unit {
    name: &'static str,
    /// The program, without `.flat`.
    program: &'static str,
    arguments: &'static str,
    smp: u8,
    /// The clock to step it by, where it waits by that for longer than anybody else would.
    time: Option<&'static str>,
}

const fn unit(name: &'static str, program: &'static str, arguments: &'static str) -> Unit {
    Unit { name, program, arguments, smp: 1, time: None }
}

impl Unit {
    const fn on(self, smp: u8) -> Self {
        Self { smp, ..self }
    }

    const fn by(self, time: &'static str) -> Self {
        Self { time: Some(time), ..self }
    }
}

/// All that need neither a migration nor another board (GICv2, an ITS, MTE).
const UNITS: [Unit; 22] = [
    unit("dummy", "dummy", ""),
    unit("selftest-setup", "selftest", "setup smp=2 mem=256").on(2),
    unit("selftest-vectors-kernel", "selftest", "vectors-kernel"),
    unit("selftest-vectors-user", "selftest", "vectors-user"),
    unit("selftest-smp", "selftest", "smp").on(4),
    // Waits for 1.6 s by its clock: 160 million steps of 10 ns.
    unit("timer", "timer", "").by("per-step=1000"),
    // Waits for its clock's seconds.
    unit("pl031", "pl031", "").by("per-step=1000"),
    unit("debug-bp", "debug", "bp"),
    unit("debug-wp", "debug", "wp"),
    unit("debug-sstep", "debug", "ss"),
    unit("fpu", "fpu", "").on(2),
    unit("psci", "psci", "").on(4),
    unit("gicv3-ipi", "gic", "ipi").on(4),
    unit("gicv3-active", "gic", "active").on(4),
    unit("its-introspection", "gic", "its-introspection").on(4),
    unit("its-trigger", "gic", "its-trigger").on(4),
    unit("pmu-cycle-counter", "pmu", "cycle-counter 0"),
    unit("pmu-event-introspection", "pmu", "pmu-event-introspection"),
    unit("sieve", "sieve", ""),
    unit("cache", "cache", ""),
    unit("spinlock", "spinlock-test", "").on(2),
    unit("micro-bench", "micro-bench", "").on(2),
];

const CPUS: [&str; 2] = ["cortex-a57", "max"];
const MEMORY_MIB: u32 = 256;
/// As many as any of them could need.
const STEPS_MAX: &str = "100000000000";

/// How each is run.
#[derive(Clone, Copy)]
enum Way {
    Plain,
    Unstepped,
    Stepped,
}

struct Suite {
    folder: PathBuf,
    patience: Duration,
    ways: Vec<Way>,
    others: String,
    time: String,
}

fn main() -> ExitCode {
    match tried() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// FOLDER SECONDS OTHERS TIME [unstepped] NAME…
fn tried() -> Result<bool> {
    let mut words = std::env::args().skip(1);
    let mut word = |what: &str| words.next().with_context(|| format!("{what} is missing"));
    let folder = PathBuf::from(word("the folder")?);
    let seconds = word("the patience")?.parse().context("patience is a number of seconds")?;
    let others = word("the policy for other vCPUs")?;
    let time = word("the policy for time")?;
    let mut names: Vec<String> = words.collect();
    let mut ways = vec![Way::Unstepped, Way::Stepped];
    if names.first().is_some_and(|name| name == "unstepped") {
        names.remove(0);
        ways.pop();
    }
    for name in &names {
        let known = UNITS.iter().map(|unit| unit.name);
        let all = || known.clone().collect::<Vec<_>>().join(", ");
        ensure!(known.clone().any(|known| known == name), "no test {name}: there are {}", all());
    }
    let suite = Suite { folder, patience: Duration::from_secs(seconds), ways, others, time };
    let wanted = |unit: &&Unit| names.is_empty() || names.iter().any(|name| name == unit.name);
    println!("| test | CPU | plain QEMU | running freely | stepped |");
    println!("| --- | --- | --- | --- | --- |");
    let mut all_equal = true;
    for unit in UNITS.iter().filter(wanted) {
        for cpu in CPUS {
            all_equal &= suite.row(unit, cpu);
        }
    }
    Ok(all_equal)
}

impl Suite {
    /// Runs one test on one CPU in every way, and prints its row; false where something differs.
    fn row(&self, unit: &Unit, cpu: &'static str) -> bool {
        let (plain, cell) = match self.report(unit, cpu, Way::Plain) {
            Ok((lines, time)) => (lines.clone(), format!("{} in {time}", summary(&lines))),
            Err(error) => {
                println!("| {} | `{cpu}` | {error:#} | | |", unit.name);
                return false;
            }
        };
        let mut all_equal = true;
        let mut cells = vec![cell];
        let mut differences = Vec::new();
        for &way in &self.ways {
            let cell = match self.report(unit, cpu, way) {
                Ok((lines, time)) => {
                    let found = differing(&plain, &lines);
                    all_equal &= found.is_empty();
                    let differ = format!("{} lines differ", found.len());
                    differences.extend(found);
                    if differ.starts_with("0 ") { format!("equal, {time}") } else { differ }
                }
                Err(error) => {
                    all_equal = false;
                    format!("{error:#}").replace('\n', " / ").replace('|', "\\|")
                }
            };
            cells.push(cell);
        }
        println!("| {} | `{cpu}` | {} |", unit.name, cells.join(" | "));
        differences.iter().for_each(|line| println!("  {line}"));
        all_equal
    }

    /// The lines in which a test reports, and how long it took.
    fn report(&self, unit: &Unit, cpu: &'static str, way: Way) -> Result<(Vec<String>, String)> {
        let kernel = self.folder.join(format!("{}.flat", unit.program));
        ensure!(
            kernel.is_file(),
            "{} is not there: build kvm-unit-tests for arm64 first",
            kernel.display()
        );
        let append = Some(unit.arguments.to_owned());
        let setup =
            Setup { cpu, smp: unit.smp, memory_mib: MEMORY_MIB, append, ..Setup::new(&kernel) };
        let start = Instant::now();
        let finished = self.finished(&setup, way, unit.time.unwrap_or(&self.time))?;
        let time = format!("{:.1} s", start.elapsed().as_secs_f64());
        let mut lines = reports(&finished.stdout);
        // Several CPUs report in whichever order they come to it.
        lines.sort();
        if lines.is_empty() {
            bail!("it reports nothing: {}", finished.output());
        }
        Ok((lines, time))
    }

    fn finished(&self, setup: &Setup, way: Way, time: &str) -> Result<Finished> {
        let folder = tempfile::tempdir()?;
        Ok(match way {
            // Stepwell's board has no ITS.
            Way::Plain => console_with(setup, &["-machine", "its=off"], self.patience)?,
            Way::Unstepped => run(command("run", setup).arg("--raw"), self.patience)?,
            Way::Stepped => {
                let mut trace = command("trace", setup);
                trace.args(["--raw", "--quiet", "--steps", STEPS_MAX]);
                trace.args(["--others", &self.others, "--time", time]);
                run(trace.arg("-o").arg(recording(folder.path())), self.patience).map_err(told)?
            }
        })
    }
}

/// Of a run that did not end: what the tool has said of who waits for whom, if it has, and no more.
fn told(error: process::Error) -> anyhow::Error {
    let process::Error::Overdue { seconds, output, .. } = &error else { return error.into() };
    match output.lines().find(|line| line.contains(" waits at ")) {
        Some(waits) => anyhow!("not at its end after {seconds} s; it told: {}", waits.trim()),
        None => error.into(),
    }
}

fn recording(folder: &Path) -> PathBuf {
    folder.join("recording")
}

/// What a test says of its results, without what it measures.
fn reports(console: &str) -> Vec<String> {
    const VERDICTS: [&str; 8] =
        ["PASS", "FAIL", "XPASS", "XFAIL", "KFAIL", "SKIP", "SUMMARY", "EXIT"];
    let lines = console.lines().map(|line| {
        let line = line.trim();
        line.strip_prefix("guest| ").unwrap_or(line).to_owned()
    });
    let tells = |line: &String| {
        VERDICTS.iter().any(|verdict| line.starts_with(&format!("{verdict}: ")))
            || ["Hello World", " out of ", "test skipped"].iter().any(|words| line.contains(words))
    };
    lines.map(without_measures).filter(tells).collect()
}

/// Of a row that has two times after a name (`micro-bench`), that it is there.
fn without_measures(line: String) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [name, total, each] if [total, each].iter().all(|time| time.parse::<f64>().is_ok()) => {
            format!("PASS: {name}")
        }
        _ => line,
    }
}

/// The verdict in a few words.
fn summary(lines: &[String]) -> String {
    let summary = lines.iter().find_map(|line| line.strip_prefix("SUMMARY: "));
    summary.map_or_else(|| format!("{} lines", lines.len()), str::to_owned)
}

/// Lines that only one of the two has.
fn differing(plain: &[String], seen: &[String]) -> Vec<String> {
    let (plain, seen): (BTreeSet<_>, BTreeSet<_>) = (plain.iter().collect(), seen.iter().collect());
    let only_plain = plain.difference(&seen).map(|line| format!("plain QEMU: {line}"));
    let only_seen = seen.difference(&plain).map(|line| format!("Stepwell:   {line}"));
    only_plain.chain(only_seen).collect()
}
