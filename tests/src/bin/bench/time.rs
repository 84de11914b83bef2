//! What having every moment again costs: recording a boot, next to plain QEMU that counts instructions,
//! and going back in it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use stepwell_link::Link;
use stepwell_tests::debian::debian;
use stepwell_tests::machine::launch_counted_setup;
use stepwell_tests::plain;
use stepwell_tests::positions::{arrive, checkpoints};
use stepwell_tests::process::run;
use stepwell_tests::stepwell::command;

use crate::median;
use crate::table::Table;

const CPU: &str = "cortex-a57";
const VCPUS: u8 = 4;
const TURN: u32 = 50_000;
const LIMIT: Duration = Duration::from_secs(600);
/// Where it is gone back.
const PRESENT: u64 = 600_000_000;
/// Between two moments that are kept on the way there.
const APART: u64 = 20_000_000;
/// From the moment before to the present.
const NEAR: u64 = 10_000;
/// How often one instruction is gone back.
const TIMES: u64 = 100;

/// Prints what it costs.
pub fn measure() -> Result<()> {
    recording()?;
    going_back()
}

/// The boot, recorded on four vCPUs, and plain on one CPU.
fn recording() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let begun = Instant::now();
    let mut record = command("record", &debian(CPU, VCPUS));
    let recorded = run(record.arg("--quiet").arg("-o").arg(folder.path().join("boot")), LIMIT)?;
    let ours = begun.elapsed().as_secs_f64();
    ensure!(recorded.status.success(), "the boot was not recorded: {}", recorded.output());
    let begun = Instant::now();
    let alone = plain::counting_console(&debian(CPU, 1), LIMIT)?;
    let qemus = begun.elapsed().as_secs_f64();
    ensure!(alone.status.success(), "QEMU alone did not come through: {}", alone.output());
    let mut table = Table::new(["Debian, from reset to its end", "s", "ratio"]);
    table.row("recorded, four vCPUs", [Some(ours), Some(ours / qemus)]);
    table.row("QEMU alone, -icount shift=4, one CPU", [Some(qemus), Some(1.0)]);
    println!("{table}");
    Ok(())
}

/// Moments of that boot, and one instruction back.
fn going_back() -> Result<()> {
    let (_machine, mut link) = launch_counted_setup(&debian(CPU, VCPUS), TURN)?;
    let begun = Instant::now();
    arrive(&mut link, PRESENT, false)?;
    let straight = begun.elapsed().as_secs_f64();
    drop((_machine, link));
    let (_machine, mut link) = launch_counted_setup(&debian(CPU, VCPUS), TURN)?;
    let begun = Instant::now();
    let (mut kept, mut keeping) = (Vec::new(), Vec::new());
    for position in (APART..=PRESENT - APART).step_by(APART as usize) {
        arrive(&mut link, position, false)?;
        keeping.push(timed(&mut link, |link| {
            kept.push(checkpoints(link).keep(0)?);
            Ok(())
        })?);
    }
    arrive(&mut link, PRESENT - NEAR, false)?;
    let with_moments = begun.elapsed().as_secs_f64();
    let near = checkpoints(&mut link).keep(0)?;
    arrive(&mut link, PRESENT, false)?;
    let mut back = Vec::new();
    for n in 1..=TIMES {
        back.push(timed(&mut link, |link| {
            checkpoints(link).go_to(0, near)?;
            Ok(arrive(link, PRESENT - n, false)?)
        })?);
    }
    let mut far = Vec::new();
    for &checkpoint in kept.iter().rev() {
        // Those that memory was short of are gone.
        let mut is_there = true;
        let took = timed(&mut link, |link| {
            is_there = checkpoints(link).go_to(0, checkpoint).is_ok();
            Ok(())
        })?;
        far.extend(is_there.then_some(took));
    }
    let there = far.len();
    let mut table = Table::new(["at position 600,000,000", "ms, median", "99 in 100"]);
    table.row("one instruction back", of(back));
    table.row("keeping a moment", of(keeping));
    table.row("20,000,000 instructions back", of(far));
    println!("{table}");
    println!(
        "There in {straight:.1} s; in {with_moments:.1} s where {} moments are kept on the way, of which \
         {there} were there at the end.\n",
        kept.len()
    );
    Ok(())
}

/// The median, and what all but one in a hundred are below.
fn of(mut values: Vec<f64>) -> [Option<f64>; 2] {
    values.sort_by(f64::total_cmp);
    let worst = values.get(values.len().saturating_sub(1) * 99 / 100).copied();
    [(!values.is_empty()).then(|| median(values)), worst]
}

/// Milliseconds that something takes.
fn timed(link: &mut Link, act: impl FnOnce(&mut Link) -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    act(link)?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}
