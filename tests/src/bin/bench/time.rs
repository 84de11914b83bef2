//! `cargo xtask bench --time`: what it costs to record a boot, and how long going back in it takes, by GDB,
//! beside QEMU's own reverse debugging of the same kernel on one CPU.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use stepwell_tests::debian::debian;
use stepwell_tests::debugger::{Served, gdb};
use stepwell_tests::plain::{self, Setup};
use stepwell_tests::process::{Finished, Running, run};
use stepwell_tests::stepwell::command;

use crate::table::Table;

const VCPUS: u8 = 4;
const CPU: &str = "cortex-a57";
/// Where GDB goes back from.
const POSITION: &str = "600000000";
/// To its shell, which is the last it writes before it powers off.
const SHELL: &str = "stepwell-demo: shell is up";
const LIMIT: Duration = Duration::from_secs(1800);
const KIB_PER_MIB: f64 = 1024.0;
const MEMORY_MAX_MIB: f64 = 1024.0;

/// Prints the tables.
pub fn measure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = debian(CPU, VCPUS);
    ensure!(setup.kernel.exists(), "no Debian kernel here: `cargo xtask guests` fetches it");
    let log = folder.path().join("boot.replay");
    recording(&setup, &log)?;
    let (ours, memory) = going_back(&log)?;
    let mut table = Table::new(["by GDB, from 600 M, milliseconds", "ours", "at most"]);
    for (title, value) in &ours {
        table.row(title, [Some(*value), at_most(title)]);
    }
    table.row("the tool's memory, MiB", [Some(memory), Some(MEMORY_MAX_MIB)]);
    println!("{table}");
    // It may take minutes to come to its watchpoint.
    let qemus = by_qemu(&debian(CPU, 1), folder.path())?;
    let mut table = Table::new(["the same on one CPU, milliseconds", "QEMU's", "ours"]);
    for (title, value) in &qemus {
        let same = ours.iter().find(|(ours, _)| ours.starts_with(title.as_str()));
        table.row(title, [Some(*value), same.map(|&(_, value)| value)]);
    }
    println!("{table}");
    println!("QEMU's are of three reverse-stepi, from the same count of instructions.");
    Ok(())
}

/// What a figure is to stay within.
fn at_most(title: &str) -> Option<f64> {
    let limits = [
        ("reverse-stepi, median", 100.0),
        ("reverse-stepi, 99th", 250.0),
        ("reverse-continue", 3000.0),
    ];
    limits.iter().find(|(of, _)| title.starts_with(of)).map(|&(_, limit)| limit)
}

/// Prints what recording takes, beside QEMU alone.
fn recording(setup: &Setup, log: &Path) -> Result<()> {
    let mut record = command("record", setup);
    record.args(["--quiet", "--until", &format!("text:{SHELL}"), "-o"]).arg(log);
    let ours = seconds(|| run(&mut record, LIMIT))?;
    let setup = debian(CPU, 1);
    let plain = seconds(|| plain::console_with(&setup, &["-icount", "shift=4"], LIMIT))?;
    let mut table = Table::new(["Debian's boot to its shell", "seconds", "ratio"]);
    table.row("recorded, four vCPUs", [Some(ours), Some(ours / plain)]);
    table.row("plain -icount, one CPU", [Some(plain), Some(1.0)]);
    println!("{table}");
    Ok(())
}

fn seconds<E: std::error::Error + Send + Sync + 'static>(
    work: impl FnOnce() -> std::result::Result<Finished, E>,
) -> Result<f64> {
    let begun = Instant::now();
    let finished = work()?;
    ensure!(finished.stdout.contains(SHELL), "no shell: {}", finished.output());
    Ok(begun.elapsed().as_secs_f64())
}

/// What the script of GDB's has measured, and the most memory that the server had.
fn going_back(log: &Path) -> Result<(Vec<(String, f64)>, f64)> {
    let served = Served::replay(log, POSITION);
    let told = measured(&run(&mut gdb(None, &served.socket(), "times.py"), LIMIT)?)?;
    let status = fs::read_to_string(format!("/proc/{}/status", served.pid()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    Ok((told, peak.context("the kernel does not tell its memory")? / KIB_PER_MIB))
}

/// The figures that a script printed.
fn measured(said: &Finished) -> Result<Vec<(String, f64)>> {
    ensure!(said.stdout.contains("all passed"), "the script failed: {}", said.output());
    let lines = said.stdout.lines().filter_map(|line| line.strip_prefix("measured: "));
    let figure = |line: &str| {
        let (title, value) = line.split_once(" | ").context("no figure")?;
        Ok((title.to_owned(), value.parse()?))
    };
    lines.map(figure).collect()
}

/// The same by QEMU: recorded there, replayed with its own server for GDB.
fn by_qemu(setup: &Setup, folder: &Path) -> Result<Vec<(String, f64)>> {
    let (disk, log, socket) =
        (folder.join("rr.qcow2"), folder.join("rr.log"), folder.join("rr.socket"));
    fs::write(&disk, empty_disk())?;
    let command = |mode: &str| {
        let mut qemu = plain::on_stdio(setup);
        qemu.arg("-icount")
            .arg(format!("shift=4,rr={mode},rrfile={},rrsnapshot=beginning", log.display()));
        qemu.arg("-drive").arg(format!("file={},if=none,id=rr", disk.display()));
        qemu
    };
    seconds(|| run(&mut command("record"), LIMIT)).context("recorded by QEMU")?;
    let mut replay = command("replay");
    replay
        .arg("-S")
        .arg("-chardev")
        .arg(format!("socket,path={},server=on,wait=off,id=gdb", socket.display()));
    replay.args(["-gdb", "chardev:gdb"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut running = Running::start(&mut replay)?;
    let begun = Instant::now();
    while !socket.exists() {
        if !running.is_running() || begun.elapsed() > LIMIT {
            bail!("QEMU's replay does not listen for GDB");
        }
        thread::sleep(Duration::from_millis(50));
    }
    let mut script: Command = gdb(None, &socket, "times_qemu.py");
    let told = measured(&run(&mut script, LIMIT)?);
    running.kill();
    told
}

/// A qcow2 image of a mebibyte, without contents: what QEMU keeps its snapshot of the machine in.
fn empty_disk() -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &2_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes()); // bits of a cluster
    put(24, &(1_u64 << 20).to_be_bytes()); // bytes
    put(36, &1_u32.to_be_bytes()); // entries of the L1 table, and where it is
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes()); // the refcount table, of one cluster
    put(56, &1_u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    image
}
