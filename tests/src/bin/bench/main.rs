//! `cargo xtask bench`: what a step costs, next to the least that it could cost.
//!
//! Two questions, two ways of asking:
//!
//! - *How fast?* Steps a second of wall-clock time, against a bare EL2 that only counts steps and
//!   returns ([`Bare`]). The two alternate for several rounds and the medians are compared, so
//!   that a machine that is busy, or slow, slows down both. Only the ratio means anything.
//! - *How much?* Instructions that EL2 executes for a step, from QEMU's instruction counting: the
//!   counter then advances by one for each instruction, whatever the machine is doing besides.
//!
//! Then several vCPUs beside each other ([`several`]), the tool by itself ([`host`]), a disk ([`disk`]),
//! and whole boots of Debian's kernel ([`whole`]): how small its recording gets, and how much slower it
//! boots where nothing is stepped; and going back in one that was recorded ([`time`]).
//!
//! The verdict is on the two ratios of steps; everything else is for people to read.

mod debugger;
mod disk;
mod host;
mod several;
mod table;
mod time;
mod whole;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use stepwell_tests::cost::bare::Bare;
use stepwell_tests::cost::stepped::{self, EXCLUSIVE_PAIR, PLAIN_STEP, Stepped};
use stepwell_tests::cost::{self, Programs};
use table::Table;

/// Silent steps have to be at least so fast, as a share of the bare loop's.
const SILENT_RATIO_MIN: f64 = 0.80;
/// And traced ones.
const TRACED_RATIO_MIN: f64 = 0.65;
const ROUNDS_DEFAULT: usize = 5;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let first = std::env::args().nth(1).unwrap_or_default();
    let is_alone = matches!(first.as_str(), "--debugger" | "--disk" | "--time");
    let rounds = if is_alone { 0 } else { rounds()? };
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let programs = Programs {
        qemu: named("STEPWELL_QEMU").unwrap_or("qemu-system-aarch64".into()).into(),
        hypervisor: named("STEPWELL_HYPERVISOR").map(PathBuf::from),
    };
    println!("{}", machine_line(&programs)?);
    match first.as_str() {
        "--debugger" => return debugger::measure(&programs.qemu).map(|()| true),
        "--disk" => return disk::measure().map(|()| true),
        "--time" => return time::measure().map(|()| true),
        _ => {}
    }
    counts(&programs)?;
    let is_fast = rates(&programs, rounds)?;
    several::measure(&programs)?;
    debugger::measure(&programs.qemu)?;
    host::measure()?;
    disk::measure()?;
    whole::measure()?;
    time::measure()?;
    Ok(is_fast)
}

/// `--rounds N` is all there is, but for `--debugger`, `--disk` and `--time`, which measure nothing but that.
fn rounds() -> Result<usize> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(ROUNDS_DEFAULT),
        ["--rounds", number] => match number.parse() {
            Ok(rounds @ 1..) => Ok(rounds),
            _ => bail!("--rounds {number}: not a number of rounds"),
        },
        _ => bail!("usage: bench [--rounds N | --debugger | --disk | --time]"),
    }
}

fn machine_line(programs: &Programs) -> Result<String> {
    let output = Command::new(&programs.qemu).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", programs.qemu.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let qemu = text.lines().next().unwrap_or("an unknown QEMU").replace("emulator version ", "");
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("On {count} × {model}, {qemu}, guest CPU {}", stepped::CPU))
}

/// The exact counts.
fn counts(programs: &Programs) -> Result<()> {
    let (bare, costs) = cost::count(programs)?;
    let mut table = Table::new(["EL2 instructions, exact", "silent", "traced"]);
    table.row("a step of the bare loop", [Some(bare.round()), None]);
    let of = |title| costs.iter().find(|cost| cost.title == title);
    let pair = of(EXCLUSIVE_PAIR).zip(of(PLAIN_STEP));
    for cost in &costs {
        table.row(cost.title, [Some(cost.silent.round()), Some(cost.traced.round())]);
    }
    println!("\n{table}");
    if let Some((pair, plain)) = pair {
        let times = pair.silent / plain.silent;
        println!("A pair of exclusives costs {times:.0} plain steps more than its two.\n");
    }
    Ok(())
}

/// The rates and the verdict.
fn rates(programs: &Programs, rounds: usize) -> Result<bool> {
    let mut stepped = Stepped::timed(programs)?;
    let sizes = [stepped.calibrate(false)?, stepped.calibrate(true)?];
    let (mut bare, mut silent, mut traced) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        bare.push(Bare::timed(programs)?.steps_per_second());
        silent.push(stepped.steps_per_second(sizes[0], false)?);
        traced.push(stepped.steps_per_second(sizes[1], true)?);
    }
    // Round by round, so that a change of the host's load meets both sides of a ratio.
    let ratios = |rates: &[f64]| rates.iter().zip(&bare).map(|(rate, bare)| rate / bare).collect();
    let (silent_ratios, traced_ratios): (Vec<f64>, Vec<f64>) = (ratios(&silent), ratios(&traced));
    let spreads = [spread(&silent_ratios), spread(&traced_ratios)];
    let found = [median(silent_ratios), median(traced_ratios)];
    let [bare, silent, traced] = [bare, silent, traced].map(|rates| median(rates).round());
    let mut table = Table::new(["wall clock, medians", "steps/s", "ratio"]);
    table.row("the bare loop", [Some(bare), Some(1.0)]);
    table.row("silent steps", [Some(silent), Some(found[0])]);
    table.row("traced steps, ring drained", [Some(traced), Some(found[1])]);
    println!("{table}");
    let kinds = ["silent", "traced"].into_iter().zip([SILENT_RATIO_MIN, TRACED_RATIO_MIN]);
    let mut is_fast = true;
    for (((kind, least), found), spread) in kinds.zip(found).zip(spreads) {
        is_fast &= found >= least;
        let verdict = if found >= least { "PASS" } else { "SHORT OF TARGET" };
        println!(
            "{verdict}: {kind} steps run at {found:.2} of the bare loop's rate ({spread} over \
             {rounds} rounds; target: {least})"
        );
    }
    println!();
    Ok(is_fast)
}

/// The least and the greatest: how much the host's other work is in a result.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(0.0, f64::max);
    format!("{least:.2} to {greatest:.2}")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
