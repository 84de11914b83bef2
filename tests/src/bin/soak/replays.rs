//! A Debian boot on four vCPUs, recorded once and replayed to its end again and again: `cargo xtask soak
//! --replays N`.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use stepwell_tests::debian::debian;
use stepwell_tests::process::run as run_program;
use stepwell_tests::stepwell::{binary, command};

const VCPUS: u8 = 4;
/// To its shell, which is the last it writes before it powers off.
const UNTIL: &str = "text:stepwell-demo: shell is up";
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(900);

/// Replays it `count` times.
pub fn run(cpu: &'static str, count: u64) -> ExitCode {
    match replays(cpu, count) {
        Ok(place) => {
            println!("{cpu}: {count} replays to the end, each with this state: {place}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak: {cpu}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn replays(cpu: &'static str, count: u64) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("boot.replay");
    let mut record = command("record", &debian(cpu, VCPUS));
    let begun = Instant::now();
    let recorded = run_program(record.args(["--quiet", "--until", UNTIL, "-o"]).arg(&log), LIMIT)?;
    ensure!(recorded.status.success(), "{}", recorded.output());
    println!("{cpu}: recorded in {:.0?}", begun.elapsed());
    let first = end_of_replay(&log)?;
    for n in 2..=count {
        let place = end_of_replay(&log)?;
        if place != first {
            bail!("replay {n} came to {place}, the first one to {first}");
        }
        if n.is_multiple_of(10) || n == count {
            println!("{n} of {count} after {:.0?}: {place}", begun.elapsed());
        }
    }
    Ok(first)
}

/// Where a replay ends, and the state there: its last line.
fn end_of_replay(log: &Path) -> Result<String> {
    let mut replay = Command::new(binary());
    let replayed = run_program(replay.args(["replay", "--quiet"]).arg(log), LIMIT)?;
    ensure!(replayed.status.success(), "{}", replayed.output());
    Ok(replayed.stdout.lines().last().unwrap_or_default().to_owned())
}
