//! Plain QEMU, without Stepwell: what the same guest does there, instruction by instruction.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Error, Finished, Running, qemu, run};
use crate::stream::Stream;

/// A guest's machine, in terms that QEMU and Stepwell both understand.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The kernel or guest image.
    pub kernel: PathBuf,
    /// Firmware in flash, which is started in place of it.
    pub firmware: Option<PathBuf>,
    /// The initial file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub append: Option<String>,
    /// QEMU's name of the CPU.
    pub cpu: &'static str,
    /// CPUs.
    pub smp: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
}

impl Setup {
    /// One Cortex-A57 and 128 MiB, nothing else.
    #[must_use]
    pub fn new(kernel: &Path) -> Self {
        Self {
            kernel: kernel.to_owned(),
            firmware: None,
            initrd: None,
            append: None,
            cpu: "cortex-a57",
            smp: 1,
            memory_mib: 128,
        }
    }

    fn qemu(&self, machine: &str) -> Command {
        let mut command = Command::new(qemu());
        command
            .arg("-machine")
            .arg(format!("virt,gic-version=3,dtb-randomness=off{machine}"))
            // Stepwell's guest has no PMU: what it may read of one is not to differ.
            .args(["-cpu", &format!("{},pmu=off", self.cpu), "-smp", &self.smp.to_string()])
            .args(["-m", &self.memory_mib.to_string()])
            .args(["-nic", "none", "-display", "none", "-monitor", "none"]);
        match &self.firmware {
            Some(firmware) => command.arg("-bios").arg(firmware),
            None => command.arg("-kernel").arg(&self.kernel),
        };
        if let Some(initrd) = &self.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if let Some(append) = &self.append {
            command.args(["-append", append]);
        }
        command
    }
}

/// Runs the guest to its end; the console is the result's standard output.
///
/// # Errors
/// When QEMU cannot be started or the limit passes.
pub fn console(setup: &Setup, limit: Duration) -> Result<Finished, Error> {
    run(setup.qemu("").args(["-serial", "stdio"]), limit)
}

/// As [`console`], with more options of QEMU's.
///
/// # Errors
/// As [`console`].
pub fn console_with(setup: &Setup, more: &[&str], limit: Duration) -> Result<Finished, Error> {
    run(on_stdio(setup).args(more), limit)
}

/// QEMU with the guest's console on its standard streams.
#[must_use]
pub fn on_stdio(setup: &Setup) -> Command {
    let mut command = setup.qemu("");
    command.args(["-serial", "stdio"]);
    command
}

/// Writes the device tree that the guest is given.
///
/// # Errors
/// When QEMU cannot be started, fails or takes too long.
pub fn dump_device_tree(setup: &Setup, file: &Path) -> Result<(), Error> {
    let machine = format!(",dumpdtb={}", file.display());
    let finished = run(setup.qemu(&machine).args(["-serial", "null"]), Duration::from_secs(20))?;
    if file.exists() {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("no device tree: {}", finished.output())).into())
    }
}

/// How this QEMU is told to execute one instruction at a time: by an option before 8.1, and by a
/// property of the accelerator since.
fn one_instruction_at_a_time() -> &'static [&'static str] {
    let has_property = qemu_version().is_some_and(|version| version >= (8, 1));
    if has_property { &["-accel", "tcg,one-insn-per-tb=on"] } else { &["-singlestep"] }
}

/// The version of this QEMU: its first two numbers.
#[must_use]
pub fn qemu_version() -> Option<(u32, u32)> {
    static VERSION: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let output = Command::new(qemu()).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        version(&text.unwrap_or_default())
    })
}

fn version(text: &str) -> Option<(u32, u32)> {
    let numbers = text.split("version ").nth(1)?;
    let mut parts = numbers.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Executes the guest under the witness: one stream for each CPU, from the guest's first instruction.
///
/// Stops after `length_max` instructions of CPU 0, or when the guest powers off.
///
/// # Errors
/// When QEMU cannot be started.
pub fn witness(
    setup: &Setup,
    entry: u64,
    length_max: usize,
    limit: Duration,
) -> Result<Vec<Stream>, Error> {
    observe(setup, entry, length_max, limit, ("nochain,exec", "null"))
}

/// As [`witness`], for one CPU and with exceptions looked at: an address at which a pending step of
/// the guest's own was taken has not executed, though QEMU lists it.
///
/// `console` is where QEMU sends the guest's serial line (`null`, `file:PATH`).
///
/// # Errors
/// When QEMU cannot be started.
pub fn witness_and_console(
    setup: &Setup,
    entry: u64,
    length_max: usize,
    limit: Duration,
    console: &str,
) -> Result<Stream, Error> {
    let streams = observe(setup, entry, length_max, limit, ("nochain,exec,int", console))?;
    Ok(streams.into_iter().next().unwrap_or_default())
}

fn observe(
    setup: &Setup,
    entry: u64,
    length_max: usize,
    limit: Duration,
    (log, console): (&str, &str),
) -> Result<Vec<Stream>, Error> {
    let mut command = setup.qemu("");
    command
        .args(one_instruction_at_a_time())
        .args(["-d", log, "-D", "/dev/stdout", "-serial", console])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut qemu = Running::start(&mut command)?;
    qemu.kill_after(limit);
    let mut lines = qemu.lines().expect("its standard output is piped");
    let mut reader = Reader::new(setup.smp.into(), entry);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        // One more than asked for, because a later line can take the last one back.
        if reader.take(&String::from_utf8_lossy(&line)) > length_max {
            break;
        }
    }
    qemu.kill();
    Ok(reader.streams)
}

/// Turns the lines of QEMU's log into streams.
struct Reader {
    streams: Vec<Stream>,
    /// The exception that is being reported is a Software Step exception.
    is_step: bool,
    /// Instructions before this one, by which the board's boot code gets to the guest, do not count.
    entry: Option<u64>,
}

impl Reader {
    fn new(cpus: usize, entry: u64) -> Self {
        Self { streams: vec![Vec::new(); cpus], is_step: false, entry: Some(entry) }
    }

    /// Takes one line, and tells how many instructions CPU 0 has.
    fn take(&mut self, line: &str) -> usize {
        if let Some((cpu, pc)) = executed(line) {
            if self.entry == Some(pc) {
                self.entry = None;
            }
            if self.entry.is_none()
                && let Some(stream) = self.streams.get_mut(cpu)
            {
                stream.push(pc);
            }
        } else if let Some(pc) = taken_back(line) {
            // An interrupt came first. The line does not say on which CPU; its last one tells.
            if let Some(stream) = self.streams.iter_mut().find(|stream| stream.last() == Some(&pc))
            {
                stream.pop();
            }
        } else if let Some(class) = line.strip_prefix("...with ESR 0x") {
            self.is_step = class.starts_with("32/") || class.starts_with("33/");
        } else if let Some(elr) = line.strip_prefix("...with ELR 0x")
            && self.is_step
            && let Some(stream) = self.streams.first_mut()
            && stream.last().copied() == u64::from_str_radix(elr.trim(), 16).ok()
        {
            // It was pending, so that what is at its address has not executed.
            stream.pop();
        }
        self.streams.first().map_or(0, Vec::len)
    }
}

/// `Trace CPU: HOST [CS_BASE/PC/FLAGS/CFLAGS] SYMBOL`.
fn executed(line: &str) -> Option<(usize, u64)> {
    let (cpu, rest) = line.strip_prefix("Trace ")?.split_once(':')?;
    let state = rest.split_once('[')?.1;
    let pc = state.split('/').nth(1)?;
    Some((cpu.parse().ok()?, u64::from_str_radix(pc, 16).ok()?))
}

/// `Stopped execution of TB chain before HOST [PC] SYMBOL`.
fn taken_back(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("Stopped execution of TB chain before ")?;
    let pc = rest.split_once('[')?.1.split_once(']')?.0;
    u64::from_str_radix(pc, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
Trace 0: 0x7fb3fc000100 [0000000000004000/0000000040000000/00000121/ff000201] \n\
Trace 0: 0x7fb3fc0008c0 [0000000000004000/0000000040200000/00000121/ff000201] \n\
Trace 0: 0x7fb3fc000a00 [0000000000004000/0000000040200004/00000121/ff000201] _start\n\
Stopped execution of TB chain before 0x7fb3fc000a00 [0000000040200004] _start\n\
Trace 0: 0x7fb3fc000a00 [0000000000004000/0000000040200280/00000121/ff000201] \n\
Trace 1: 0x7fb3fc000a00 [0000000000004000/ffff800008001000/00000121/ff000201] primary_entry\n\
noise\n";

    #[test]
    fn the_log_is_read_by_cpu_and_what_did_not_run_is_taken_back() {
        let mut reader = Reader::new(2, 0x4020_0000);
        for line in LOG.lines() {
            reader.take(line);
        }
        assert_eq!(reader.streams[0], [0x4020_0000, 0x4020_0280]);
        assert_eq!(reader.streams[1], [0xffff_8000_0800_1000]);
    }

    #[test]
    fn where_a_pending_step_is_taken_nothing_has_executed() {
        let step = |elr: u64| format!("...with ESR 0x32/0xca000022\n...with ELR 0x{elr:x}\n");
        let seen = |log: String| {
            let mut reader = Reader::new(1, 0x4020_0000);
            for line in log.lines() {
                reader.take(line);
            }
            reader.streams.swap_remove(0)
        };
        let executed: String = LOG.lines().take(3).map(|line| format!("{line}\n")).collect();
        assert_eq!(seen(format!("{executed}{}", step(0x4020_0008))), [0x4020_0000, 0x4020_0004]);
        assert_eq!(seen(format!("{executed}{}", step(0x4020_0004))), [0x4020_0000]);
        let other = "...with ESR 0x15/0x56000000\n...with ELR 0x40200004\n";
        assert_eq!(seen(format!("{executed}{other}")), [0x4020_0000, 0x4020_0004]);
    }

    #[test]
    fn versions_are_told_apart() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2)"), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(version("something else"), None);
    }
}
