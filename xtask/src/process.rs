//! Child processes: how they are shown, bounded in time, and what of our environment they see.
//!
//! Cargo tells a program that it runs about itself in dozens of `CARGO_*` variables. A child cargo
//! that inherits them takes them for its user's wishes, and build scripts that watch them run
//! again for nothing; so they are removed here, in the one place where children are made.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::layout;

/// Variables that start with one of these are the user's, not cargo's report about ourselves.
const KEPT: [&str; 8] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_INCREMENTAL",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// How often is looked whether a child has ended.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(30);

/// A command run in the workspace's root, without cargo's report about ourselves and with the QEMU
/// that was unpacked, if none is installed.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(layout::root());
    if let (None, Some(qemu)) = (env::var_os("STEPWELL_QEMU"), unpacked_qemu()) {
        command.env("STEPWELL_QEMU", qemu);
    }
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(&name);
        }
    }
    command
}

/// QEMU's program, and the wrapper around one that was unpacked.
pub const QEMU: &str = "qemu-system-aarch64";

/// The QEMU that was unpacked because it could not be installed, if that is still so.
pub fn unpacked_qemu() -> Option<PathBuf> {
    let wrapper = layout::unpacked_qemu_dir().join(QEMU);
    (!is_installed(QEMU) && wrapper.is_file()).then_some(wrapper)
}

/// The cargo of the host's toolchain, building into our target directory.
pub fn host_cargo() -> Command {
    let mut command = command("cargo");
    command.env("CARGO_TARGET_DIR", layout::target_dir());
    command
}

/// The compiler that [`host_cargo`] uses.
pub fn host_rustc() -> Command {
    command(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// A command of the bare-metal toolchain: nothing that chose the host's compiler or its flags
/// reaches it.
pub fn bare_metal(program: impl AsRef<OsStr>) -> Command {
    let mut command = command(program);
    for name in [
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
    command
}

/// The command as one line, as it would be typed.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// As much of a command as fits into a line of a terminal beside some words.
fn in_brief(line: &str) -> String {
    const CHARACTERS: usize = 50;
    match line.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Runs `command` with our terminal and requires that it succeeds within `limit`.
///
/// # Errors
/// When it cannot be started, ends with a failure, or is still running at the limit; then it and
/// all its descendants are ended.
pub fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let line = shown(command);
    let child = command.spawn().with_context(|| format!("`{line}` cannot be started"))?;
    wait_within(child, &line, limit)
}

/// Prints `command`, then runs it as [`run`] does.
///
/// # Errors
/// As [`run`].
pub fn show_and_run(command: &mut Command, limit: Duration) -> Result<()> {
    println!("+ {}", shown(command));
    run(command, limit)
}

/// Runs `command` without showing anything and returns what it printed, whatever its status.
///
/// # Errors
/// When it cannot be started.
pub fn capture(command: &mut Command) -> Result<Output> {
    let line = shown(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("`{line}` cannot be started"))
}

/// What `command` prints, trimmed, if it succeeds; `None` when it fails or does not exist.
pub fn answer(command: &mut Command) -> Option<String> {
    let output = capture(command).ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether `program` is a path to a file, or a name that PATH leads to.
pub fn is_installed(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether this process has root's rights.
pub fn is_root() -> bool {
    answer(Command::new("id").arg("-u")).as_deref() == Some("0")
}

/// Waits for a child, started by the command `line`, and requires that it succeeds within `limit`.
///
/// # Errors
/// As [`run`].
pub fn wait_within(mut child: Child, line: &str, limit: Duration) -> Result<()> {
    let start = Instant::now();
    let mut next_sign = SIGN_OF_LIFE_INTERVAL;
    loop {
        if let Some(status) = child.try_wait().context("waiting for a child process")? {
            ensure!(status.success(), "`{line}` failed ({status})");
            return Ok(());
        }
        let elapsed = start.elapsed();
        if elapsed >= limit {
            end_tree(child.id());
            let _reaped = child.wait();
            bail!("`{line}` was still running after {} s and was ended", limit.as_secs());
        }
        if elapsed >= next_sign {
            eprintln!("… {} s, still running: {}", elapsed.as_secs(), in_brief(line));
            next_sign += SIGN_OF_LIFE_INTERVAL;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Ends `pid` and everything that it started, so that no QEMU outlives a test run.
fn end_tree(pid: u32) {
    let mut doomed = vec![pid];
    let mut next = 0;
    while let Some(parent) = doomed.get(next).copied() {
        doomed.extend(children_of(parent));
        next += 1;
    }
    for signal in ["-TERM", "-KILL"] {
        let mut kill = Command::new("kill");
        kill.arg(signal).args(doomed.iter().map(u32::to_string)).stderr(Stdio::null());
        // Some of them are gone by now, which `kill` calls a failure.
        let _status = kill.status();
        thread::sleep(Duration::from_millis(500));
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let tasks = format!("/proc/{parent}/task");
    let Ok(threads) = fs::read_dir(tasks) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_over_its_limit_is_ended_with_its_own_children() {
        let note = env::temp_dir().join(format!("xtask-{}", std::process::id()));
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("sleep 300 & echo $! >\"$0\"; wait").arg(&note);
        let error = run(&mut shell, Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("still running after 1 s"), "{error}");
        let grandchild = fs::read_to_string(&note).unwrap();
        fs::remove_file(&note).unwrap();
        let state = fs::read_to_string(format!("/proc/{}/stat", grandchild.trim()));
        assert!(state.is_err() || state.unwrap().contains(") Z "), "it lives on");
    }

    #[test]
    fn a_long_command_is_told_in_brief() {
        assert_eq!(in_brief("cargo test"), "cargo test");
        let long = "ä".repeat(51);
        assert_eq!(in_brief(&long), format!("{}…", "ä".repeat(50)));
    }

    #[test]
    fn cargo_tells_nothing_of_itself_to_children() {
        let seen = answer(command("env").env("CARGO_HOME", "kept")).unwrap();
        assert!(seen.lines().any(|line| line == "CARGO_HOME=kept"));
        assert!(!seen.lines().any(|line| line.starts_with("CARGO_PKG_")));
    }
}
