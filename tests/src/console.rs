//! A guest's console in conversation: what is typed next depends on what it has shown.

use std::io::{BufRead, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Finished, Running};

/// Marks the end of a shell's command, with its status. What is typed has quotes in it, so that the
/// shell's echo is not taken for it.
const END: &str = "status-is=";

/// The console of a guest that runs.
pub struct Console {
    running: Running,
    typed: Box<dyn Write>,
    shown: Box<dyn BufRead>,
    said: Vec<u8>,
    /// So much of it was heard.
    heard: usize,
}

impl Console {
    /// Starts a program whose streams are a guest's console; whatever happens, it is killed after `limit`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command, limit: Duration) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(command)?;
        running.kill_after(limit);
        let typed = Box::new(running.stdin().context("its input is a pipe")?);
        let shown = Box::new(running.lines().context("its output is a pipe")?);
        Ok(Self { running, typed, shown, said: Vec::new(), heard: 0 })
    }

    /// Waits until the guest has shown `words`, behind all that was heard before. Returns what came
    /// before them.
    ///
    /// # Errors
    /// When it ends before it has shown them: with the last that it said.
    pub fn hear(&mut self, words: &str) -> Result<String> {
        loop {
            let rest = self.said.get(self.heard..).unwrap_or_default();
            let found = rest.windows(words.len()).position(|here| here == words.as_bytes());
            if let Some(at) = found {
                let before = String::from_utf8_lossy(&rest[..at]).into_owned();
                self.heard += at + words.len();
                return Ok(before);
            }
            let piece = self.shown.fill_buf().context("reading the console")?;
            let length = piece.len();
            self.said.extend_from_slice(piece);
            self.shown.consume(length);
            ensure!(length > 0, "no {words:?} in the console's last lines:\n{}", self.last_lines());
        }
    }

    /// Types a line.
    ///
    /// # Errors
    /// When the guest's console is no more.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.typed.write_all(line.as_bytes()).context("typing")?;
        self.typed.flush().context("typing")
    }

    /// Types a command at a shell, and waits for its end. Returns what it said.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn shell(&mut self, command: &str) -> Result<String> {
        let (first, rest) = END.split_at(4);
        self.say(&format!("{command}; status=$?; echo; echo {first}''{rest}$status\n"))?;
        let said = self.hear(END)?;
        let status = self.hear("\r\n")?;
        ensure!(status == "0", "{command} ended with {status}: {said}");
        Ok(said)
    }

    /// Waits for the end, and returns all that was said from the start.
    ///
    /// # Errors
    /// When reading fails or the limit passes.
    pub fn finish(mut self, limit: Duration) -> Result<Finished> {
        drop(self.typed);
        self.shown.read_to_end(&mut self.said).context("reading the console")?;
        let finished = self.running.finish(limit)?;
        let stdout = String::from_utf8_lossy(&self.said).into_owned();
        Ok(Finished { stdout, ..finished })
    }

    fn last_lines(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn console() -> Console {
        Console::start(Command::new("sh").args(["-c", "tr '\\n' '#' | sed 's/#/\\r\\n/g'"]), LIMIT)
            .unwrap()
    }

    #[test]
    fn a_command_ends_with_its_status() {
        // The other end is a shell's: its lines end as a terminal's do.
        let shell = "while read -r line; do eval \"$line\" | sed 's/$/\\r/'; done";
        let mut shell = Console::start(Command::new("sh").args(["-c", shell]), LIMIT).unwrap();
        assert_eq!(shell.shell("echo one").unwrap().trim(), "one");
        let error = shell.shell("echo two; false").unwrap_err().to_string();
        assert!(error.contains("ended with 1") && error.contains("two"), "{error}");
        assert!(shell.finish(LIMIT).unwrap().stdout.contains("one\r\n"));
    }

    #[test]
    fn what_is_never_said_is_told_with_what_was() {
        let mut console = console();
        console.say("a question\n").unwrap();
        drop(std::mem::replace(&mut console.typed, Box::new(std::io::sink())));
        assert_eq!(console.hear("question").unwrap(), "a ");
        let error = console.hear("an answer").unwrap_err().to_string();
        assert!(error.contains("a question"), "{error}");
    }
}
