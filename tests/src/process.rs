//! Programs with a time limit, whose descendants are accounted for.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Put into the environment of what we start, to find its descendants wherever they went.
const MARK: &str = "STEPWELL_TEST_MARK";

/// Why a program gave no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// What was to be started.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It went on for too long and was killed.
    #[error("{program} was killed after {seconds} s; it had written:\n{output}")]
    Overdue {
        /// What was running.
        program: String,
        /// Its limit.
        seconds: u64,
        /// What it had written on both streams.
        output: String,
    },
    /// Talking to it, or to a file, failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// A program that ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Command lines of descendants that were still there two seconds later. They were killed.
    pub left_behind: Vec<String>,
}

impl Finished {
    /// Both streams, for a message: where they are long, their beginnings and ends.
    #[must_use]
    pub fn output(&self) -> String {
        let (stdout, stderr) = (excerpt(&self.stdout), excerpt(&self.stderr));
        format!("{}\nstderr:\n{stderr}\nstdout:\n{stdout}", self.status)
    }
}

/// The first and the last lines of a text.
fn excerpt(text: &str) -> String {
    const FIRST: usize = 10;
    const LAST: usize = 40;
    let lines: Vec<&str> = text.lines().collect();
    let left_out = lines.len().saturating_sub(FIRST + LAST);
    if left_out == 0 {
        return text.to_owned();
    }
    let (first, last) = (&lines[..FIRST], &lines[FIRST + left_out..]);
    format!("{}\n({left_out} lines left out)\n{}", first.join("\n"), last.join("\n"))
}

/// A running program. Dropping it kills its process group.
#[derive(Debug)]
pub struct Running {
    child: Child,
    program: String,
    mark: String,
    ended: bool,
}

impl Running {
    /// Starts a program in a process group of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .env(MARK, &mark)
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Start { program: program.clone(), source })?;
        Ok(Self { child, program, mark, ended: false })
    }

    /// Process id of the program itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Takes its standard input for writing, if it was piped.
    pub fn stdin(&mut self) -> Option<impl Write + use<>> {
        self.child.stdin.take()
    }

    /// Takes its standard output line by line, if it was piped.
    pub fn lines(&mut self) -> Option<impl BufRead + use<>> {
        self.child.stdout.take().map(|pipe| BufReader::with_capacity(1 << 16, pipe))
    }

    /// Process ids of its descendants and itself, by mark.
    #[must_use]
    pub fn family(&self) -> Vec<(u32, String)> {
        marked(&self.mark)
    }

    /// Kills the group at a time limit, from a thread of its own, unless it has ended.
    ///
    /// For a caller that blocks on reading from the program.
    pub fn kill_after(&self, limit: Duration) {
        let (pid, mark) = (self.child.id(), self.mark.clone());
        thread::spawn(move || {
            let end = Instant::now() + limit;
            while Instant::now() < end {
                if marked(&mark).is_empty() {
                    return;
                }
                thread::sleep(Duration::from_millis(200));
            }
            kill_group(pid);
        });
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the limit passes first.
    pub fn finish(mut self, limit: Duration) -> Result<Finished, Error> {
        let stdout = collect(self.child.stdout.take());
        let stderr = collect(self.child.stderr.take());
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= end {
                break None;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let left_behind = if status.is_some() { outlived(&self.mark) } else { Vec::new() };
        self.kill();
        let (stdout, stderr) = (joined(stdout), joined(stderr));
        match status {
            Some(status) => Ok(Finished { status, stdout, stderr, left_behind }),
            None => Err(Error::Overdue {
                program: self.program.clone(),
                seconds: limit.as_secs(),
                output: format!("{}\n{}", excerpt(&stdout), excerpt(&stderr)),
            }),
        }
    }

    /// Kills the group and reaps the program.
    pub fn kill(&mut self) {
        if !self.ended {
            self.ended = true;
            kill_group(self.child.id());
            for (pid, _) in marked(&self.mark) {
                kill_one(pid);
            }
            // Killed or not, it is gone or was reaped before.
            let _ = self.child.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end, with nothing to read on its standard input.
///
/// # Errors
/// When it cannot be started or the limit passes.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished, Error> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command)?.finish(limit)
}

/// Kills one process that a test found by [`Running::family`].
pub fn kill_one(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended meanwhile, which is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn kill_group(leader: u32) {
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // As above.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn outlived(mark: &str) -> Vec<String> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let left = marked(mark);
        if left.is_empty() || Instant::now() >= end {
            return left.into_iter().map(|(_, command)| command).collect();
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Living processes with the mark in their environment.
fn marked(mark: &str) -> Vec<(u32, String)> {
    let wanted = format!("{MARK}={mark}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&words).replace('\0', " ")));
        }
    }
    found
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> Option<thread::JoinHandle<String>> {
    pipe.map(|mut pipe| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What came before an error is still of use.
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    })
}

fn joined(thread: Option<thread::JoinHandle<String>>) -> String {
    thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
}

/// A path in an environment variable, or a default below the workspace's root.
#[must_use]
pub fn configured(variable: &str, default: &str) -> PathBuf {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os(variable)
        .filter(|value| value != OsStr::new(""))
        .map_or_else(|| root.join(default), |value| root.join(value))
}

/// The QEMU that everything here runs, witnesses too: `$STEPWELL_QEMU`, or the one in the PATH.
#[must_use]
pub fn qemu() -> PathBuf {
    std::env::var_os("STEPWELL_QEMU").map_or_else(|| "qemu-system-aarch64".into(), PathBuf::from)
}

/// Another version of it, which the two are to agree with: `$STEPWELL_OTHER_QEMU`, where there is one.
#[must_use]
pub fn other_qemu() -> Option<PathBuf> {
    std::env::var_os("STEPWELL_OTHER_QEMU").filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed() {
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, Error::Overdue { .. }), "{error}");
    }

    #[test]
    fn a_long_text_is_cut_in_the_middle() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let cut = excerpt(&text);
        assert!(cut.starts_with("0\n1\n") && cut.ends_with("\n98\n99"), "{cut}");
        assert!(cut.contains("\n9\n(50 lines left out)\n60\n"), "{cut}");
        assert_eq!(excerpt("1\n2\n"), "1\n2\n");
    }

    #[test]
    fn what_outlives_its_parent_is_told_and_killed() {
        let script = "sleep 60 >/dev/null 2>&1 & echo done";
        let limit = Duration::from_secs(10);
        let finished = run(Command::new("sh").args(["-c", script]), limit).unwrap();
        assert_eq!(finished.stdout, "done\n");
        assert_eq!(finished.left_behind, ["sleep 60 "]);
    }
}
