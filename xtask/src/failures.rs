//! What failed in a long run of tests, told once more at its end: of a long output often only the end is at
//! hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process;

/// Of what one test printed; its panic is mostly at the end, its backtrace behind that.
const LINES_MAX: usize = 60;
/// How long what the tests have printed is read after they have ended: a process that one of them has left
/// behind may have the pipe open for longer.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The failed tests of what `cargo test` prints, and what each printed.
#[derive(Default)]
struct Failures {
    tests: Vec<Vec<String>>,
    is_inside: bool,
}

impl Failures {
    fn note(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.is_inside = true;
            self.tests.push(Vec::new());
        } else if line == "failures:" || line.starts_with("test result:") {
            self.is_inside = false;
        }
        if let (true, Some(test)) = (self.is_inside, self.tests.last_mut()) {
            test.push(line.to_owned());
        }
    }

    fn told(&self) -> String {
        let mut told = String::new();
        for test in &self.tests {
            let (shown, left) = test.split_at(test.len().min(LINES_MAX));
            told.extend(shown.iter().flat_map(|line| [line, "\n"]));
            if !left.is_empty() {
                told += &format!("… and {} lines\n", left.len());
            }
        }
        told
    }
}

fn locked(failures: &Mutex<Failures>) -> MutexGuard<'_, Failures> {
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes on what is read, and notes what failed.
fn pass_on(from: impl Read, failures: &Mutex<Failures>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|count| count != 0) {
        let mut to = std::io::stdout().lock();
        if to.write_all(&line).and_then(|()| to.flush()).is_err() {
            return;
        }
        locked(failures).note(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// Runs tests as [`process::run`] does, and tells what failed once more at their end.
///
/// # Errors
/// As [`process::run`].
pub fn run(tests: &mut Command, limit: Duration) -> Result<()> {
    let line = process::shown(tests);
    let mut child = tests
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{line}` cannot be started"))?;
    let output = child.stdout.take().context("what the tests print")?;
    let failures = Arc::new(Mutex::new(Failures::default()));
    let reader = thread::spawn({
        let failures = Arc::clone(&failures);
        move || pass_on(output, &failures)
    });
    let result = process::wait_within(child, &line, limit);
    let end = Instant::now() + READ_LIMIT;
    while !reader.is_finished() && Instant::now() < end {
        thread::sleep(process::POLL_INTERVAL);
    }
    let told = locked(&failures).told();
    if !told.is_empty() {
        println!("== what failed, once more\n{told}");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_once_more() {
        let mut failures = Failures::default();
        let printed = "running 2 tests\ntest one ... FAILED\ntest two ... FAILED\n\nfailures:\n\n\
            ---- one stdout ----\nit is 3\n\n---- two stdout ----\nleft\n\n\nfailures:\n    one\n    two\n\n\
            test result: FAILED. 0 passed; 2 failed\nrunning 1 test\n";
        printed.lines().for_each(|line| failures.note(line));
        let told = "---- one stdout ----\nit is 3\n\n---- two stdout ----\nleft\n\n\n";
        assert_eq!(failures.told(), told);
    }

    #[test]
    fn a_long_backtrace_is_cut() {
        let mut failures = Failures::default();
        failures.note("---- one stdout ----");
        (0..100).for_each(|_| failures.note("at"));
        assert!(failures.told().ends_with("at\n… and 41 lines\n"));
        assert!(Failures::default().told().is_empty());
    }

    #[test]
    fn tests_that_fail_are_a_failure() {
        let mut shell = Command::new("sh");
        let limit = Duration::from_secs(60);
        assert!(run(shell.arg("-c").arg("echo fine"), limit).is_ok());
        let mut shell = Command::new("sh");
        assert!(run(shell.arg("-c").arg("echo '---- a stdout ----'; exit 1"), limit).is_err());
    }
}
