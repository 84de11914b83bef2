//! QEMU as a process: started, listened to, and killed.
//!
//! It gets no terminal and a process group of its own, so that Ctrl-C is ours to interpret. It is
//! killed when its [`Qemu`] is dropped, and by the kernel when we die without dropping anything.
//! SIGKILL, because QEMU 7.2 can hang in a way that ignores SIGTERM.

#![expect(unsafe_code, reason = "asks the kernel, between fork and exec, to kill QEMU with us")]

use super::{MachineError, MachineOptions, board, in_option};
use crate::interruption;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use stepwell_trace::printable;

const POLL: Duration = Duration::from_millis(5);
/// For QEMU to be gone once the link is.
const DYING_TIME: Duration = Duration::from_secs(3);
/// Lines that are remembered of each stream.
const LINES_KEPT: usize = 50;
/// Longest line that is remembered.
const LINE_MAX: usize = 1000;

pub(super) struct Qemu {
    child: Child,
    messages: Lines,
    log: Lines,
}

impl Qemu {
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        verbose: bool,
    ) -> Result<Self, MachineError> {
        if verbose {
            eprintln!("[tool] {} {}", program.display(), arguments.join(" "));
        }
        let mut child = spawn(program, arguments)?;
        let messages = Lines::of(child.stderr.take(), verbose.then_some("[qemu] "));
        let log = Lines::of(child.stdout.take(), verbose.then_some("[hypervisor] "));
        Ok(Self { child, messages, log })
    }

    pub(super) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for QEMU to connect.
    pub(super) fn accept(
        &mut self,
        listener: &UnixListener,
        timeout: Duration,
    ) -> Result<UnixStream, MachineError> {
        let failed = |error| MachineError::Link(std::io::Error::into(error));
        listener.set_nonblocking(true).map_err(failed)?;
        let started = Instant::now();
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(failed)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(failed(error)),
            }
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return Err(self.obituary());
            }
            if interruption::pending() {
                return Err(MachineError::Interrupted);
            }
            if started.elapsed() > timeout {
                return Err(MachineError::NoConnection { seconds: timeout.as_secs() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Says how QEMU ended, killing it if it has not.
    pub(super) fn obituary(&mut self) -> MachineError {
        let started = Instant::now();
        let mut how = "it closed the link and went on".to_owned();
        while started.elapsed() < DYING_TIME {
            if let Ok(Some(status)) = self.child.try_wait() {
                how = describe(status);
                break;
            }
            std::thread::sleep(POLL);
        }
        self.kill();
        self.messages.finish();
        self.log.finish();
        MachineError::QemuEnded { how, words: self.last_words() }
    }

    /// Returns the last line of QEMU's messages, or else of the hypervisor's log.
    pub(super) fn last_words(&self) -> Option<String> {
        self.messages.last().or_else(|| self.log.last())
    }

    fn kill(&mut self) {
        // It fails only where QEMU is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
        // What it said is shown to the end.
        self.messages.finish();
        self.log.finish();
    }
}

/// Has QEMU write the device tree of its board.
pub(super) fn dump_tree(
    options: &MachineOptions,
    ram_bytes: u64,
    to: &Path,
) -> Result<(), MachineError> {
    let dump = format!(",dumpdtb={}", in_option(to));
    let child = spawn(&options.qemu, &board(options, ram_bytes, &dump))?;
    let output = child.wait_with_output();
    let output =
        output.map_err(|error| MachineError::CannotRun { path: options.qemu.clone(), error })?;
    if output.status.success() && to.exists() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let words = text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned);
    Err(MachineError::QemuEnded { how: describe(output.status), words })
}

fn spawn(program: &Path, arguments: &[String]) -> Result<Child, MachineError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let parent = rustix::process::getpid();
    // SAFETY: what runs between fork and exec may only do async-signal-safe things: it makes two
    // system calls, allocates nothing, takes no lock, and touches no memory but its own copies.
    unsafe {
        command.pre_exec(move || {
            let kill = rustix::process::Signal::KILL;
            rustix::process::set_parent_process_death_signal(Some(kill))?;
            // The parent may have died before the kernel was told.
            if rustix::process::getppid() != Some(parent) {
                return Err(ErrorKind::NotConnected.into());
            }
            Ok(())
        });
    }
    command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => MachineError::NoQemu(program.to_owned()),
        _ => MachineError::CannotRun { path: program.to_owned(), error },
    })
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The last lines of a stream, read by a thread of its own so that its writer never waits.
struct Lines {
    kept: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn of(stream: Option<impl Read + Send + 'static>, prefix: Option<&'static str>) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let reader = stream.map(|stream| {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || Self::read(stream, &kept, prefix))
        });
        Self { kept, reader }
    }

    fn read(stream: impl Read, kept: &Mutex<VecDeque<String>>, prefix: Option<&str>) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            line.truncate(LINE_MAX);
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if text.is_empty() {
                continue;
            }
            if let Some(prefix) = prefix {
                eprintln!("{prefix}{}\r", printable(&text));
            }
            if let Ok(mut kept) = kept.lock() {
                kept.push_back(text);
                if kept.len() > LINES_KEPT {
                    kept.pop_front();
                }
            }
        }
    }

    /// Waits for the stream's end, which the writer's death brings.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has kept what it read before.
            drop(reader.join());
        }
    }

    fn last(&self) -> Option<String> {
        self.kept.lock().ok()?.back().cloned()
    }
}
