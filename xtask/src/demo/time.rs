//! `cargo xtask demo --time`: from a panic back to its cause, with the stepper and with GDB.
//!
//! What it prints is the transcript of docs/time-travel.md.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol};

use super::{COMMAND_LIMIT, heading, path, run, words};
use crate::{layout, process, setup};

const RECORDING: &str = "\
Four CPUs; one of them follows a pointer, finds nothing there and panics. Nobody knows yet why.";

const STEPPING: &str = "\
The run again, at its end. `last` goes to the instruction that wrote the pointer last: another CPU's,
millions of instructions before.";

const DEBUGGING: &str = "\
The same with GDB: a watchpoint, and reverse-continue.";

/// How long a server may take until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
/// Where the pointer is in the guest's desk.
const ROUTE: u64 = 128;

/// Shows it. The guest is built already.
pub(super) fn show() -> Result<()> {
    let folder = layout::target_dir().join("demo");
    fs::create_dir_all(&folder).context("making the demo's folder")?;
    let (image, elf) =
        (layout::guests_dir().join("hunt.bin"), layout::guests_dir().join("hunt.elf"));
    let (log, typed) = (folder.join("hunt.replay"), folder.join("typed"));
    if log.exists() {
        fs::remove_file(&log).context("removing the last demo's log")?;
    }
    let route = desk(&elf)? + ROUTE;

    heading("1. Record", RECORDING);
    let until = ["--smp", "4", "--until", "panic", "--quiet", "-o"];
    let record = [words(&["--kernel"]), path(&image), words(&until), path(&log)].concat();
    run("record", &record, None)?;

    heading("2. Back to the cause", STEPPING);
    let lines = format!(
        "when\nvcpu\nm {route:#x} 8\nlast {route:#x}\nwhen\nm {route:#x} 8\nrs 3\ns 4\nx\n"
    );
    fs::write(&typed, lines).context("writing the demo's script")?;
    let replay = [words(&["--replay"]), path(&log)].concat();
    let symbols = [words(&["--symbols"]), path(&elf)].concat();
    let step = [replay.clone(), symbols, words(&["--at", "end"])].concat();
    run("step", &step, Some(&typed))?;

    heading("3. With GDB", DEBUGGING);
    debug(&replay, &elf, &folder.join("socket"))
}

/// Where the guest has what its CPUs share.
fn desk(elf: &Path) -> Result<u64> {
    let bytes = fs::read(elf).with_context(|| layout::shown(elf))?;
    let file = object::File::parse(bytes.as_slice()).with_context(|| layout::shown(elf))?;
    let desk = file.symbols().find(|symbol| symbol.name() == Ok("DESK"));
    Ok(desk.context("the guest has no DESK")?.address())
}

/// Serves the replay, and runs GDB.
fn debug(replay: &[String], elf: &Path, socket: &Path) -> Result<()> {
    if socket.exists() {
        fs::remove_file(socket).context("removing the last demo's socket")?;
    }
    let mut server = process::command(layout::stepwell_binary());
    server.arg("gdb").args(replay).args(["--at", "end", "--listen"]);
    server.arg(format!("unix:{}", layout::shown(socket))).env("STEPWELL_QEMU", setup::qemu());
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = server.spawn().context("starting the server")?;
    let result = hunt(&mut server, elf, socket);
    let _ended = server.kill();
    let _status = server.wait();
    result
}

fn hunt(server: &mut Child, elf: &Path, socket: &Path) -> Result<()> {
    let begun = Instant::now();
    while !socket.exists() {
        if server.try_wait()?.is_some() || begun.elapsed() > LISTENS_WITHIN {
            bail!("the server does not listen");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut gdb = process::command("gdb-multiarch");
    gdb.args(["-nx", "-batch", "-ex", "set confirm off", "-ex", "set language c"]);
    gdb.arg("-ex").arg(format!("symbol-file {}", layout::shown(elf)));
    gdb.arg("-ex").arg(format!("target remote {}", layout::shown(socket)));
    gdb.args(["-ex", "set trace-commands on", "-ex", "info threads", "-ex", "monitor when"]);
    gdb.args(["-ex", "watch *(long *)((char *)&DESK + 128)", "-ex", "reverse-continue"]);
    gdb.args(["-ex", "x/2i $pc", "-ex", "monitor when", "-ex", "reverse-stepi"]);
    gdb.args(["-ex", "info threads", "-ex", "continue"]);
    process::run(&mut gdb, COMMAND_LIMIT)
}
