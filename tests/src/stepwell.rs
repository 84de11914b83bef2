//! The `stepwell` command, as the tests call it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::plain::Setup;
use crate::process::{Error, Finished, Running, configured, run};
use crate::stream::Stream;

/// The command under test.
#[must_use]
pub fn binary() -> PathBuf {
    configured("STEPWELL_BIN", "target/release/stepwell")
}

/// `stepwell SUBCOMMAND` with the guest's machine in options.
#[must_use]
pub fn command(subcommand: &str, setup: &Setup) -> Command {
    let mut command = Command::new(binary());
    command.arg(subcommand).arg("--kernel").arg(&setup.kernel);
    with_machine(&mut command, setup);
    if let Some(initrd) = &setup.initrd {
        command.arg("--initrd").arg(initrd);
    }
    if let Some(append) = &setup.append {
        command.args(["--append", append]);
    }
    command
}

/// Adds what the guest's machine is.
pub fn with_machine(command: &mut Command, setup: &Setup) {
    command
        .args(["--cpu", setup.cpu, "--smp", &setup.smp.to_string()])
        .args(["--memory", &format!("{}M", setup.memory_mib)]);
}

/// Runs the guest unstepped.
///
/// # Errors
/// When the command cannot be started or the limit passes.
pub fn run_guest(setup: &Setup, limit: Duration) -> Result<Finished, Error> {
    run(&mut command("run", setup), limit)
}

/// What a recording is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Recording<'a> {
    /// Where stepping begins.
    pub at: &'a str,
    /// Most instructions.
    pub steps: usize,
    /// The interrupt policy.
    pub irq: &'a str,
    /// The device tree to give to the guest, instead of a generated one.
    pub dtb: Option<&'a Path>,
}

/// Records a guest, then reads vCPU 0's stream back.
///
/// # Errors
/// A text with all that the command said, where it fails, leaves a process behind or takes too long.
pub fn record(setup: &Setup, wanted: Recording<'_>, limit: Duration) -> Result<Stream, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("recording.stw");
    let mut trace = command("trace", setup);
    trace
        .args(["--at", wanted.at, "--steps", &wanted.steps.to_string(), "--irq", wanted.irq])
        .arg("-o")
        .arg(&file);
    if let Some(dtb) = wanted.dtb {
        trace.arg("--dtb").arg(dtb);
    }
    let finished = run(&mut trace, limit).map_err(|error| error.to_string())?;
    if !finished.status.success() || !finished.left_behind.is_empty() {
        let left = &finished.left_behind;
        return Err(format!("trace: {}\nleft behind: {left:?}", finished.output()));
    }
    show(&file)
}

/// Reads vCPU 0's stream from a recording.
///
/// # Errors
/// A text with what the command said, or the line that is none.
pub fn show(file: &Path) -> Result<Stream, String> {
    let mut show = Command::new(binary());
    show.arg("show").arg(file).args(["--format", "pc"]);
    let finished = run(&mut show, Duration::from_secs(60)).map_err(|error| error.to_string())?;
    if !finished.status.success() {
        return Err(format!("show: {}", finished.output()));
    }
    let mut stream = Vec::new();
    for line in finished.stdout.lines() {
        let (vcpu, pc) = pc_line(line).ok_or_else(|| format!("show: no `vcpu pc` line: {line}"))?;
        if vcpu == 0 {
            stream.push(pc);
        }
    }
    Ok(stream)
}

fn pc_line(line: &str) -> Option<(u32, u64)> {
    let (vcpu, pc) = line.split_once(' ')?;
    let pc = pc.trim();
    Some((vcpu.parse().ok()?, u64::from_str_radix(pc.strip_prefix("0x").unwrap_or(pc), 16).ok()?))
}

/// Types a script at the interactive stepper and returns what it said.
///
/// # Errors
/// When the command cannot be started or the limit passes.
pub fn type_at_stepper(
    setup: &Setup,
    options: &[&str],
    script: &str,
    limit: Duration,
) -> Result<Finished, Error> {
    let mut step = command("step", setup);
    step.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut step)?;
    if let Some(mut stdin) = running.stdin() {
        // It may end before it read all: what it said tells.
        let _ = std::io::Write::write_all(&mut stdin, script.as_bytes());
    }
    running.finish(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_pc_format() {
        assert_eq!(pc_line("0 0xffff800008000000"), Some((0, 0xffff_8000_0800_0000)));
        assert_eq!(pc_line("3 40200000"), Some((3, 0x4020_0000)));
        assert_eq!(pc_line("pc"), None);
    }
}
