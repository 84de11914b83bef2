//! The stepper's prompt in conversation: what is typed next depends on what it answered.

use std::io::{BufRead, Write};
use std::process::Stdio;
use std::time::Duration;

use crate::plain::Setup;
use crate::process::{Error, Finished, Running};
use crate::stepwell::command;

/// A stepper that is being talked to.
pub struct Prompt {
    running: Running,
    typed: Box<dyn Write>,
    lines: Box<dyn BufRead>,
    said: String,
}

impl Prompt {
    /// Starts the stepper; whatever happens, it is killed after `limit`.
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// Never: the streams that it takes were piped.
    pub fn start(setup: &Setup, options: &[&str], limit: Duration) -> Result<Self, Error> {
        let mut step = command("step", setup);
        step.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(&mut step)?;
        running.kill_after(limit);
        let typed = Box::new(running.stdin().expect("it was piped"));
        let lines = Box::new(running.lines().expect("it was piped"));
        Ok(Self { running, typed, lines, said: String::new() })
    }

    /// Types a command.
    ///
    /// # Errors
    /// When the stepper has ended.
    pub fn say(&mut self, command: &str) -> Result<(), Error> {
        writeln!(self.typed, "{command}")?;
        Ok(self.typed.flush()?)
    }

    /// Returns the next line that `wanted` takes.
    ///
    /// # Errors
    /// When the stepper ended before it said any such line: with all that it said.
    pub fn hear(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String, Error> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                return Err(Error::Io(std::io::Error::other(format!("it ended: {}", self.said))));
            }
            self.said.push_str(&line);
            let line = line.trim_end();
            if wanted(line) {
                return Ok(line.to_owned());
            }
        }
    }

    /// Types a command, and returns the next line that tells of a vCPU.
    ///
    /// # Errors
    /// When the stepper ended before.
    pub fn stop_after(&mut self, command: &str) -> Result<String, Error> {
        self.say(command)?;
        self.hear(|line| line.starts_with("vcpu"))
    }

    /// Waits for the end, and returns all that was said from the start.
    ///
    /// # Errors
    /// When reading fails or the limit passes.
    pub fn finish(mut self, limit: Duration) -> Result<Finished, Error> {
        drop(self.typed);
        self.lines.read_to_string(&mut self.said)?;
        let finished = self.running.finish(limit)?;
        Ok(Finished { stdout: self.said, ..finished })
    }
}
