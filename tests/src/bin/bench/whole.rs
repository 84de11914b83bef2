//! Whole boots of Debian's kernel, where it is there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use stepwell_tests::guest::folder;
use stepwell_tests::plain::{self, Setup};
use stepwell_tests::process::{Finished, run};
use stepwell_tests::stepwell::{command, run_guest};
use stepwell_trace::{Ending, Reader};

use crate::table::Table;

const LIMIT: Duration = Duration::from_secs(240);
/// Instructions of the boot that are recorded.
const STEPS: u64 = 10_000_000;
const ROUNDS: usize = 3;

/// Prints the bytes of an instruction, and the slow-down of a guest that is not stepped.
pub fn measure() -> Result<()> {
    let setup = Setup {
        initrd: Some(folder().join("debian/initramfs.cpio.gz")),
        append: Some("console=ttyAMA0 stepwell.poweroff".to_owned()),
        memory_mib: 512,
        ..Setup::new(&folder().join("debian/vmlinuz"))
    };
    if !setup.kernel.exists() {
        println!("No Debian kernel here: its boot is left out.");
        return Ok(());
    }
    let (bytes, rate) = recorded(&setup)?;
    let mut table = Table::new(["Debian's boot, recorded", "bytes/insn", "steps/s"]);
    table.row("with --irq into", [Some(bytes), Some(rate.round())]);
    println!("{table}");
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(seconds(|| plain::console(&setup, LIMIT))?);
        ours.push(seconds(|| run_guest(&setup, LIMIT))?);
    }
    let (bare, ours) = (crate::median(bare), crate::median(ours));
    let mut table = Table::new(["Debian's boot to shell, not stepped", "seconds", "ratio"]);
    table.row("on QEMU alone", [Some(bare), Some(1.0)]);
    table.row("under Stepwell", [Some(ours), Some(ours / bare)]);
    println!("{table}");
    Ok(())
}

fn recorded(setup: &Setup) -> Result<(f64, f64)> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let file = folder.path().join("boot.stepwell");
    let mut trace = command("trace", setup);
    trace.args(["--steps", &STEPS.to_string(), "--irq", "into", "--quiet", "-o"]).arg(&file);
    let started = Instant::now();
    let finished = run(&mut trace, LIMIT)?;
    let seconds = started.elapsed().as_secs_f64();
    if !finished.status.success() {
        bail!("trace: {}", finished.output());
    }
    let mut reader = Reader::open(&file)?;
    while reader.next_record()?.is_some() {}
    let Some(Ending::Finished(totals)) = reader.ending() else { bail!("it is not whole") };
    let instructions = totals.instructions as f64;
    // Symbols are there once, however long the recording is.
    Ok((std::fs::metadata(&file)?.len() as f64 / instructions, instructions / seconds))
}

fn seconds<E: std::error::Error + Send + Sync + 'static>(
    work: impl FnOnce() -> std::result::Result<Finished, E>,
) -> Result<f64> {
    let started = Instant::now();
    let finished = work()?;
    if !finished.stdout.contains("reboot: Power down") {
        bail!("it did not boot: {}", finished.output());
    }
    Ok(started.elapsed().as_secs_f64())
}
