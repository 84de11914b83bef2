//! A disk: how fast an unstepped Debian writes and reads one, beside the same on plain QEMU.
//!
//! Wall-clock time from line to line of the guest's console: its own clock does not go on while a
//! request is served. The two alternate, and what is told is the median of what each round had beside
//! its neighbour: a host that is busy for a while is so for both.

use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use stepwell_tests::debian::debian_doing;
use stepwell_tests::plain;
use stepwell_tests::process::Running;
use stepwell_tests::stepwell::command;

use crate::median;
use crate::table::Table;

const MIB: u64 = 100;
const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(300);
/// Writes the disk, to the host's, and reads what the guest has not kept.
const SCRIPT: &str = "mount -t proc proc /proc; mount -t devtmpfs dev /dev; load-modules; \
    echo mark 0; dd if=/dev/zero of=/dev/vda bs=1M count=100 conv=fsync 2>/dev/null; \
    echo mark 1; echo 3 >/proc/sys/vm/drop_caches; \
    dd if=/dev/vda of=/dev/null bs=1M count=100 2>/dev/null; echo mark 2; poweroff -f";

/// Prints MiB a second of both.
///
/// # Errors
/// When a guest does not come through.
pub fn measure() -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for the disk")?;
    let image = folder.path().join("disk.img");
    let file = std::fs::File::create(&image).context("a disk")?;
    file.set_len((MIB + 8) << 20).context("a disk")?;
    let setup = debian_doing(SCRIPT, "cortex-a57", 1);
    let (mut ours, mut plain) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..ROUNDS {
        let mut run = command("run", &setup);
        run.arg("--disk").arg(&image);
        add(&mut ours, rates(&mut run)?);
        add(&mut plain, rates(&mut on_plain_qemu(&setup, &image))?);
    }
    let mut table = Table::new(["Debian's dd on a virtio disk, unstepped", "MiB/s", "plain QEMU"]);
    for (name, (ours, plain)) in
        ["write and flush", "read"].into_iter().zip(ours.into_iter().zip(plain))
    {
        let share = median(ours.iter().zip(&plain).map(|(ours, plain)| ours / plain).collect());
        let [ours, plain] = [ours, plain].map(median);
        let title = format!("{name}, {share:.2} of plain");
        table.row(title, [ours, plain].map(|rate| Some(rate.round())));
    }
    println!("{table}");
    Ok(())
}

fn add(all: &mut [Vec<f64>; 2], rates: [f64; 2]) {
    all.iter_mut().zip(rates).for_each(|(all, rate)| all.push(rate));
}

fn on_plain_qemu(setup: &plain::Setup, image: &Path) -> Command {
    let drive = format!("if=none,id=disk,format=raw,file={}", image.display());
    let mut qemu = plain::on_stdio(setup);
    qemu.args(["-global", "virtio-mmio.force-legacy=false", "-drive", &drive]);
    qemu.args(["-device", "virtio-blk-device,drive=disk"]);
    qemu
}

/// MiB a second, written and read.
fn rates(command: &mut Command) -> Result<[f64; 2]> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running::start(command)?;
    let console = running.lines().context("its console is a pipe")?;
    let (mut marks, mut said) = (Vec::new(), String::new());
    let started = Instant::now();
    for line in console.lines() {
        let line = line.context("reading the console")?;
        if line.contains("mark ") {
            marks.push(Instant::now());
        }
        said = format!("{said}{line}\n");
        ensure!(started.elapsed() < LIMIT, "the guest takes too long: {said}");
    }
    running.finish(LIMIT)?;
    ensure!(marks.len() == 3, "the guest did not come through: {said}");
    let rate = |n: usize| MIB as f64 / (marks[n + 1] - marks[n]).as_secs_f64();
    Ok([rate(0), rate(1)])
}
