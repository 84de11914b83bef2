//! Bad input: one clear line, a non-zero status, no QEMU left behind, no recording lost.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use stepwell_tests::guest::Guest;
use stepwell_tests::plain::Setup;
use stepwell_tests::process::{Finished, Running, kill_one, qemu, run};
use stepwell_tests::stepwell::{binary, command, show, type_at_stepper};

const LIMIT: Duration = Duration::from_secs(180);

/// One line of error that has every word, and nothing left running.
fn refused(finished: &Finished, words: &[&str]) {
    assert!(!finished.status.success(), "it succeeded: {}", finished.output());
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert!((1..=3).contains(&lines.len()), "not one clear line: {}", finished.output());
    assert!(!finished.stderr.contains("panicked"), "{}", finished.output());
    let said = finished.stderr.to_lowercase();
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "no {word:?} in: {}", finished.output());
    }
}

fn kernel(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn kernels_that_are_none_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = fs::read(Guest::named("plain").path).unwrap();
    let garbage: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, bytes) in [
        ("empty", &[][..]),
        ("garbage", &garbage),
        ("truncated-header", &good[..40]),
        ("truncated-gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1]),
        ("truncated-elf", b"\x7fELF\x02\x01\x01"),
        ("x86-elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0"),
    ] {
        let setup = Setup::new(&kernel(folder.path(), name, bytes));
        refused(&run(&mut command("run", &setup), LIMIT).unwrap(), &[name]);
    }
    let setup = Setup::new(&folder.path().join("missing"));
    refused(&run(&mut command("run", &setup), LIMIT).unwrap(), &["missing"]);
}

#[test]
fn too_little_memory() {
    let setup = Setup { memory_mib: 2, ..Setup::new(&Guest::named("plain").path) };
    refused(&run(&mut command("run", &setup), LIMIT).unwrap(), &["memory"]);
}

#[test]
fn an_unknown_symbol() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&Guest::named("plain").path);
    let mut trace = command("trace", &setup);
    trace.args(["--at", "no_such_symbol", "--steps", "10", "-o"]).arg(folder.path().join("t.stw"));
    refused(&run(&mut trace, LIMIT).unwrap(), &["no_such_symbol"]);
}

#[test]
fn symbols_of_another_guest() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, hammer) = (Guest::named("plain"), Guest::named("hammer"));
    let trace = |symbols: &Path| {
        let mut trace = command("trace", &Setup::new(&plain.path));
        trace.arg("--symbols").arg(symbols).args(["--steps", "10", "--quiet", "-o"]);
        trace.arg(folder.path().join("t.stw"));
        run(&mut trace, LIMIT).unwrap()
    };
    refused(&trace(&hammer.path.with_extension("elf")), &["hammer.elf", "another build"]);
    let finished = trace(&plain.path.with_extension("elf"));
    assert!(finished.status.success(), "{}", finished.output());
}

#[test]
fn qemu_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut run_it = command("run", &Setup::new(&Guest::named("plain").path));
    run_it.env("PATH", folder.path()).env_remove("STEPWELL_QEMU");
    refused(&run(&mut run_it, LIMIT).unwrap(), &["qemu-system-aarch64"]);
}

/// A stand-in for QEMU in a folder that is put before the others in PATH.
fn with_fake_qemu(folder: &Path, script: &str, command: &mut Command) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("qemu-system-aarch64");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let rest = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{rest}", folder.display())).env_remove("STEPWELL_QEMU");
}

#[test]
fn qemu_fails_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut run_it = command("run", &Setup::new(&Guest::named("plain").path));
    with_fake_qemu(folder.path(), "#!/bin/sh\necho no such machine >&2\nexit 1\n", &mut run_it);
    let finished = run(&mut run_it, LIMIT).unwrap();
    assert!(!finished.status.success(), "{}", finished.output());
    assert!(finished.stderr.contains("no such machine"), "{}", finished.output());
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
}

/// The real QEMU sets the machine up; but where its link should be, there is somebody who sends
/// garbage.
#[test]
fn a_link_that_sends_garbage() {
    let folder = tempfile::tempdir().unwrap();
    let find = "command -v \"$0\"";
    let real = Command::new("sh").args(["-c", find]).arg(qemu()).output().unwrap();
    let real = String::from_utf8(real.stdout).unwrap();
    let script = format!(
        r#"#!/usr/bin/env python3
import os, re, socket, sys
link = int(re.search(r"socket,id=link,fd=(\d+)", " ".join(sys.argv)).group(1))
if os.fork():
    ours, theirs = socket.socketpair()
    os.dup2(theirs.fileno(), link)
    os.set_inheritable(ours.fileno(), True)
    os.execv("{}", sys.argv)
for fd in os.listdir("/proc/self/fd"):
    if int(fd) != link:
        try:
            os.close(int(fd))
        except OSError:
            pass
link = socket.socket(fileno=link)
try:
    for _ in range(1000):
        link.sendall(os.urandom(1000))
    link.recv(1)
except OSError:
    pass
"#,
        real.trim()
    );
    let mut run_it = command("run", &Setup::new(&Guest::named("plain").path));
    with_fake_qemu(folder.path(), &script, &mut run_it);
    refused(&run(&mut run_it, LIMIT).unwrap(), &["link"]);
}

/// Starts a long recording, and waits until it has something.
fn long_recording(file: &Path) -> Running {
    let mut trace = command("trace", &Setup::new(&Guest::named("loop_sum").path));
    // Never reached: the recording goes on until it is interrupted.
    trace.args(["--at", "reset", "--steps", "100000000000", "--irq", "hold", "-o"]).arg(file);
    trace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(&mut trace).unwrap()
}

/// The machine's QEMU among the tool's descendants.
fn find_qemu(running: &Running) -> u32 {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let machine = running
            .family()
            .into_iter()
            .find(|(_, words)| words.contains("qemu-system-aarch64") && words.contains("socket"));
        if let Some((pid, _)) = machine {
            return pid;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("no QEMU was started");
}

#[test]
fn qemu_dies_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.stw");
    let mut trace = command("trace", &Setup::new(&Guest::named("wfx").path));
    trace.args(["--at", "reset", "--steps", "100000000000", "--irq", "hold", "-o"]).arg(&file);
    trace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running::start(&mut trace).unwrap();
    let qemu = find_qemu(&running);
    // Chunks come as the guest goes.
    let end = Instant::now() + LIMIT;
    while file.metadata().map_or(0, |file| file.len()) < 4096 && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    kill_one(qemu);
    refused(&running.finish(LIMIT).unwrap(), &["qemu"]);
    let stream = show(&file).unwrap();
    assert!(stream.len() > 100, "{} instructions are readable", stream.len());
}

/// Killed at any time of its first second, it leaves nothing: no file, no folder, no QEMU.
#[test]
fn killed_while_it_starts() {
    let scratch = tempfile::tempdir().unwrap();
    for after_ms in [0, 20, 50, 100, 150, 200, 300, 500, 800] {
        let mut step = command("step", &Setup::new(&Guest::named("plain").path));
        step.env("TMPDIR", scratch.path()).env("XDG_RUNTIME_DIR", scratch.path());
        step.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(&mut step).unwrap();
        // So that it does not end by itself.
        let stdin = running.stdin();
        thread::sleep(Duration::from_millis(after_ms));
        let named = named_files(&running);
        assert!(named.is_empty(), "{after_ms} ms: {named:?} have names");
        kill_one(running.pid());
        let finished = running.finish(LIMIT).unwrap();
        drop(stdin);
        assert_eq!(finished.status.code(), None, "it was killed: {}", finished.output());
        assert!(finished.left_behind.is_empty(), "{after_ms} ms: {:?}", finished.left_behind);
        let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{after_ms} ms: {left:?}");
    }
}

/// Files in shared memory that a program and its descendants have open, and that have a name.
fn named_files(running: &Running) -> Vec<PathBuf> {
    let descriptors = |(pid, _): (u32, String)| {
        // They may be gone by now.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
    };
    let files = running.family().into_iter().flat_map(descriptors);
    files.filter(|file| file.starts_with("/dev/shm") && file.exists()).collect()
}

/// A machine that hangs is killed at the first Ctrl-C, and what was recorded is kept.
#[test]
fn a_machine_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.stw");
    let mut trace = command("trace", &Setup::new(&Guest::named("wfx").path));
    trace.args(["--at", "reset", "--steps", "100000000000", "--irq", "hold", "-o"]).arg(&file);
    trace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running::start(&mut trace).unwrap();
    let qemu = find_qemu(&running);
    let end = Instant::now() + LIMIT;
    while file.metadata().map_or(0, |file| file.len()) < 4096 && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    signal(qemu, Signal::STOP);
    signal(running.pid(), Signal::INT);
    let finished = running.finish(LIMIT).unwrap();
    refused(&finished, &["did not answer", "within 2 s", "steps were recorded"]);
    assert!(show(&file).unwrap().len() > 100);
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_place_that_is_never_met_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.stw");
    let mut trace = command("trace", &Setup::new(&Guest::named("plain").path));
    trace.args(["--at", "0x4ff00000", "--steps", "10", "-o"]).arg(&file);
    let finished = run(&mut trace, LIMIT).unwrap();
    refused(&finished, &["never came to 0x4ff00000"]);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.output());
    let mut trace = command("trace", &Setup::new(&Guest::named("plain").path));
    trace.args(["--until", "0x4ff00000", "--irq", "hold", "-o"]).arg(&file);
    refused(&run(&mut trace, LIMIT).unwrap(), &["ended before it came to 0x4ff00000"]);
    let mut trace = command("trace", &Setup::new(&Guest::named("plain").path));
    trace.args(["--until", "0x4ff00000", "--steps", "10", "-o"]).arg(&file);
    let finished = run(&mut trace, LIMIT).unwrap();
    refused(&finished, &["all steps were made, and the guest never came to 0x4ff00000"]);
    assert_eq!(show(&file).unwrap().len(), 10, "what was recorded is there");
}

/// As at the stepper: for `--at`, and for `u`.
#[test]
fn a_place_that_is_never_come_to_under_the_stepper_is_no_success() {
    let setup = Setup::new(&Guest::named("plain").path);
    let step = |options: &[&str], typed: &str| {
        let finished = type_at_stepper(&setup, options, typed, LIMIT).unwrap();
        assert_eq!(finished.status.code(), Some(1), "{}", finished.output());
        assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
        finished.output()
    };
    let said = step(&["--at", "0x4ff00000"], "");
    assert!(said.contains("never came to 0x4ff00000"), "{said}");
    let said = step(&[], "u 0x4ff00000\n");
    assert!(said.contains("the guest ended before it came to 0x4ff00000"), "{said}");
}

/// In a replay, which does not end with its guest.
#[test]
fn a_place_that_a_replay_never_comes_to_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.replay");
    let mut record = command("record", &Setup::new(&Guest::named("plain").path));
    record.args(["--quiet", "--until", "1000", "-o"]).arg(&log);
    let finished = run(&mut record, LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    for subcommand in ["step", "gdb"] {
        let mut replay = Command::new(binary());
        replay.args([subcommand, "--at", "0x4ff00000", "--replay"]).arg(&log);
        let finished = run(&mut replay, LIMIT).unwrap();
        refused(&finished, &["the recording ends before the guest comes to 0x4ff00000"]);
    }
}

#[test]
fn a_recording_that_ends_with_the_guest_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.stw");
    let finished = long_recording(&file).finish(LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
    assert!(show(&file).unwrap().len() > 30_000);
}

#[test]
fn a_full_disk() {
    let mut trace = command("trace", &Setup::new(&Guest::named("plain").path));
    trace.args(["--at", "reset", "--steps", "10000", "--irq", "hold", "-o", "/dev/full"]);
    let finished = run(&mut trace, LIMIT).unwrap();
    assert!(!finished.status.success(), "{}", finished.output());
    assert!(finished.stderr.to_lowercase().contains("space"), "{}", finished.output());
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
}

#[test]
fn recordings_that_are_none_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in
        [("empty.stw", &b""[..]), ("garbage.stw", &b"not a recording at all, sorry"[..])]
    {
        let mut show = Command::new(binary());
        show.arg("show").arg(kernel(folder.path(), name, bytes)).args(["--format", "pc"]);
        refused(&run(&mut show, LIMIT).unwrap(), &[name]);
    }
}
