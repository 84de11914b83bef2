//! QEMU as a process: started, listened to, and killed.
//!
//! It gets no terminal and a process group of its own, so that Ctrl-C is ours to interpret. It is
//! killed when its [`Qemu`] is dropped, and by the kernel when we die without dropping anything.
//! SIGKILL, because QEMU 7.2 can hang in a way that ignores SIGTERM.

#![expect(unsafe_code, reason = "asks the kernel, between fork and exec, to kill QEMU with us")]

use super::monitor::{Heard, Monitor};
use super::{MachineError, MachineOptions};
use crate::interruption;
use rustix::io::FdFlags;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
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
    monitor: Monitor,
    messages: Lines,
    log: Lines,
}

impl Qemu {
    /// Starts QEMU, which inherits some descriptors. `monitor` leads to its monitor.
    pub(super) fn start(
        options: &MachineOptions,
        arguments: &[String],
        inherited: &[RawFd],
        monitor: UnixStream,
    ) -> Result<Self, MachineError> {
        let (program, verbose) = (&options.qemu, options.verbose);
        if verbose {
            eprintln!("[tool] {} {}", program.display(), arguments.join(" "));
        }
        let monitor = Monitor::new(monitor, POLL).map_err(MachineError::Monitor)?;
        let mut child = spawn(program, arguments, inherited)?;
        let messages = Lines::of(child.stderr.take(), verbose.then_some("[qemu] "));
        let log = Lines::of(child.stdout.take(), verbose.then_some("[hypervisor] "));
        Ok(Self { child, monitor, messages, log })
    }

    pub(super) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the machine is set up. It is paused, its RAM as it will be when it goes.
    pub(super) fn wait_until_set_up(&mut self, timeout: Duration) -> Result<(), MachineError> {
        self.hear("QMP", timeout)?;
        // It answers once it is through with all that it does before the machine goes.
        self.command("qmp_capabilities", timeout)
    }

    /// Lets the machine go.
    pub(super) fn go(&mut self, timeout: Duration) -> Result<(), MachineError> {
        self.command("cont", timeout)
    }

    fn command(&mut self, command: &str, timeout: Duration) -> Result<(), MachineError> {
        match self.monitor.say(command) {
            // It has ended, and says why elsewhere.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(self.obituary()),
            Err(error) => Err(MachineError::Monitor(error)),
            Ok(()) => self.hear("return", timeout),
        }
    }

    /// Waits for a line with this member. Events may come in between.
    fn hear(&mut self, member: &str, timeout: Duration) -> Result<(), MachineError> {
        let started = Instant::now();
        loop {
            match self.monitor.hear().map_err(MachineError::Monitor)? {
                Heard::Line(line) if line.get(member).is_some() => return Ok(()),
                Heard::Line(line) => {
                    if let Some(error) = line.get("error") {
                        return Err(MachineError::Monitor(std::io::Error::other(
                            error.to_string(),
                        )));
                    }
                }
                Heard::End => return Err(self.obituary()),
                Heard::Nothing if interruption::pending() => return Err(MachineError::Interrupted),
                Heard::Nothing if started.elapsed() > timeout => {
                    return Err(MachineError::NoConnection { seconds: timeout.as_secs() });
                }
                Heard::Nothing => {}
            }
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

fn spawn(program: &Path, arguments: &[String], inherited: &[RawFd]) -> Result<Child, MachineError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let parent = rustix::process::getpid();
    let inherited = inherited.to_vec();
    // SAFETY: what runs between fork and exec may only do async-signal-safe things: it makes a few
    // system calls, allocates nothing, takes no lock, and touches no memory but its own copies. The
    // descriptors are open: the caller keeps them until the process is spawned.
    unsafe {
        command.pre_exec(move || {
            let kill = rustix::process::Signal::KILL;
            rustix::process::set_parent_process_death_signal(Some(kill))?;
            // The parent may have died before the kernel was told.
            if rustix::process::getppid() != Some(parent) {
                return Err(ErrorKind::NotConnected.into());
            }
            for &descriptor in &inherited {
                let descriptor = BorrowedFd::borrow_raw(descriptor);
                rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
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
