//! `stepwell record`: runs a guest so that the run can be had again.

use super::checkpoints::CheckpointsWord;
use super::options::{GuestOptions, Prepared};
use super::replayed::{begin_log, forget_log};
use crate::console::{Escapes, Input, Key};
use crate::ending;
use crate::interruption;
use crate::terminal::{RawMode, notice};
use crate::travelled::Travelled;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use stepwell_debuggee::{DomainEnding, Moment, Schedule};
use stepwell_replay::record::{End, RecordError, Recorder, Until, World};

/// Runs a guest so that the run can be had again, to the instruction
///
/// The machine counts instructions, and its vCPUs take turns on one CPU: what the guest does depends
/// on nothing else but what is typed on its console, which goes into the log with its moment. The
/// console is on this terminal, as with `run`: Ctrl-A x leaves.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  stepwell record --kernel vmlinuz --initrd initrd.cpio.gz \
    --append 'console=ttyAMA0' --smp 4 --until 'text:# ' -o boot.replay\n  \
    stepwell replay boot.replay --verify\n  \
    stepwell record --kernel guest.bin --raw --smp 4 --schedule random --runs 100 --until panic")]
pub(super) struct Record {
    #[command(flatten)]
    guest: GuestOptions,
    /// Where to end: a position (instructions since reset), text:WORDS once the console has shown
    /// them, panic once it has shown that word, or power-off
    #[arg(long, value_name = "WHERE", default_value = "power-off")]
    until: UntilWord,
    /// Who executes when: turns[=N], N instructions each, or random[=SEED], turns that are drawn
    #[arg(long, value_name = "HOW", default_value = "turns=50000")]
    schedule: Schedule,
    /// Records so many runs, with one seed after the other, until one comes to where --until says, and
    /// keeps the log of that one
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true,
        value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// What is taken down of the state on the way, by which a replay notices that it is another run:
    /// none, or hashes[=N], those of registers and memory every N instructions
    #[arg(long, value_name = "WHAT", default_value = "hashes=200000000")]
    checkpoints: CheckpointsWord,
    /// Puts kernel, ramdisk, device tree and disks into the log: a replay needs no other file then
    #[arg(long)]
    pack: bool,
    /// The log
    #[arg(long, short, value_name = "FILE", default_value = "run.replay")]
    output: PathBuf,
    /// Shows no progress bar
    #[arg(long, short)]
    quiet: bool,
}

/// Where a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum UntilWord {
    Position(u64),
    Text(String),
    /// It panics, or crashes.
    Panic,
    PowerOff,
}

/// What a kernel writes that panics, and a program.
const PANIC: &[u8] = b"panic";

impl FromStr for UntilWord {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.split_once(':') {
            Some(("text", "")) => Err("which text? Write text:WORDS".into()),
            Some(("text", text)) => Ok(Self::Text(text.into())),
            _ if word == "power-off" => Ok(Self::PowerOff),
            _ if word == "panic" => Ok(Self::Panic),
            _ => match word.parse() {
                Ok(0) | Err(_) => {
                    Err("neither a position from 1 on, nor text:WORDS, panic or power-off".into())
                }
                Ok(position) => Ok(Self::Position(position)),
            },
        }
    }
}

impl Record {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        self.guest.demand_repeatable()?;
        let mut prepared = self.guest.prepare()?.with_schedule(self.schedule);
        if self.runs > 1 {
            return self.search(prepared);
        }
        interruption::install().context("cannot handle signals")?;
        let raw = RawMode::enter();
        let to = match self.until {
            UntilWord::Position(position) => Some(position),
            _ => None,
        };
        let mut terminal = Terminal::new(raw.is_some(), self.quiet, to)?;
        let end = self.record(&mut prepared, &mut terminal);
        drop(raw);
        self.conclude(end?, &prepared.names)
    }

    /// Records one run.
    fn record(&self, prepared: &mut Prepared, terminal: &mut Terminal) -> anyhow::Result<End> {
        let (_, log) = begin_log(&self.guest, prepared, &self.output, self.pack)?;
        let file = self.output.display();
        let started = prepared.start_afresh(&self.guest);
        let mut session = started.inspect_err(|_| forget_log(&self.output))?;
        let until = match &self.until {
            UntilWord::Position(position) => Until { position: Some(*position), text: None },
            UntilWord::Text(text) => Until { position: None, text: Some(text.as_bytes()) },
            UntilWord::Panic => Until { position: None, text: Some(PANIC) },
            UntilWord::PowerOff => Until::default(),
        };
        let result = session.with(|link| {
            let mut recorder = Recorder::new(link, log, until, self.checkpoints.every());
            recorder.run(terminal).map_err(explained)
        });
        terminal.travelled.finish();
        result.with_context(|| format!("{file} has the run up to there"))
    }

    /// Records runs by one seed after the other, until one comes to where `--until` says.
    fn search(&self, mut prepared: Prepared) -> anyhow::Result<u8> {
        let Schedule::Random { seed: first } = self.schedule else {
            bail!("--runs is for schedules that differ: --schedule random[=SEED]")
        };
        interruption::install().context("cannot handle signals")?;
        let (file, bar) = (self.output.display(), ProgressBar::new(self.runs));
        if self.quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        for run in 0..self.runs {
            let seed = first.wrapping_add(run);
            bar.set_position(run);
            prepared = prepared.with_schedule(Schedule::Random { seed });
            let mut terminal = Terminal::silent();
            let end = bar.suspend(|| self.record(&mut prepared, &mut terminal))?;
            let is_found = match end {
                End::Reached(_) => true,
                End::Ended(DomainEnding::Fault(_)) => self.until == UntilWord::Panic,
                End::Ended(_) => false,
                End::Left(_) => {
                    remove(&self.output)?;
                    bar.finish_and_clear();
                    return Ok(ending::LEFT);
                }
            };
            if is_found {
                bar.finish_and_clear();
                stdout().write_all(&terminal.shown)?;
                if !terminal.shown.ends_with(b"\n") {
                    println!();
                }
                println!("seed {seed}, run {} of {}: {file}", run + 1, self.runs);
                return Ok(ending::CLEAN);
            }
            remove(&self.output)?;
        }
        bar.finish_and_clear();
        notice(&format!(
            "none of {} runs came to where --until says: try more, or other seeds",
            self.runs
        ));
        Ok(ending::FAILED)
    }

    fn conclude(&self, end: End, names: &crate::names::Names) -> anyhow::Result<u8> {
        let file = self.output.display();
        let (status, text) = match end {
            End::Reached(moment) => (ending::CLEAN, Some(format!("recorded to {moment}: {file}"))),
            End::Left(moment) => (ending::LEFT, Some(format!("recorded to {moment}: {file}"))),
            End::Ended(how) => {
                let (status, text) = ending::describe(how, names);
                text.iter().for_each(|text| notice(text));
                (status, Some(format!("recorded to the guest's end: {file}")))
            }
        };
        text.iter().for_each(|text| println!("{text}"));
        match (&self.until, end) {
            (UntilWord::PowerOff, _) | (_, End::Reached(_) | End::Left(_)) => Ok(status),
            _ if status == ending::CLEAN => {
                notice("the guest ended before it came to where --until says");
                Ok(ending::FAILED)
            }
            _ => Ok(status),
        }
    }
}

/// Removes a log; what is no file, such as a pipe, stays.
fn remove(log: &Path) -> anyhow::Result<()> {
    if !log.is_file() {
        return Ok(());
    }
    std::fs::remove_file(log).with_context(|| log.display().to_string())
}

/// The errors of a log are about its file, those of a machine have an explanation of their own.
fn explained(error: RecordError) -> anyhow::Error {
    match error {
        RecordError::Debuggee(error) => anyhow!(error),
        error => anyhow!(error),
    }
}

/// The guest's console on this terminal.
struct Terminal {
    /// Nothing, where runs are to differ by their schedule alone.
    input: Option<Input>,
    escapes: Escapes,
    typed_here: bool,
    leaves: bool,
    travelled: Travelled,
    /// What the guest has written, where that is shown later, if at all.
    shown: Vec<u8>,
    is_silent: bool,
}

impl Terminal {
    fn new(typed_here: bool, quiet: bool, to: Option<u64>) -> anyhow::Result<Self> {
        let input = Some(Input::start().context("cannot read standard input")?);
        // A bar beside a console that somebody types on would be in the way.
        let travelled = Travelled::new(quiet || typed_here, to);
        let (escapes, leaves) = (Escapes::default(), false);
        let (shown, is_silent) = (Vec::new(), false);
        Ok(Self { input, escapes, typed_here, leaves, travelled, shown, is_silent })
    }

    /// Makes one of a run that may be of no interest.
    fn silent() -> Self {
        Self {
            input: None,
            escapes: Escapes::default(),
            typed_here: false,
            leaves: false,
            travelled: Travelled::new(true, None),
            shown: Vec::new(),
            is_silent: true,
        }
    }
}

impl World for Terminal {
    fn input(&mut self) -> Vec<u8> {
        let mut typed = Vec::new();
        for byte in self.input.as_mut().map(Input::take).unwrap_or_default() {
            match if self.typed_here { self.escapes.push(byte) } else { Some(Key::Guest(byte)) } {
                Some(Key::Guest(byte)) => typed.push(byte),
                Some(Key::Leave) => self.leaves = true,
                Some(Key::Help) | None => {}
            }
        }
        typed
    }

    fn console(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.is_silent {
            self.shown.extend(bytes);
            return Ok(());
        }
        self.travelled.aside(|| {
            let mut out = stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        })
    }

    fn wants_to_leave(&mut self) -> bool {
        self.leaves |= interruption::take().is_some();
        self.leaves
    }

    fn progress(&mut self, moment: Moment) {
        self.travelled.come_to(moment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read() {
        let until = |word: &str| word.parse::<UntilWord>();
        assert_eq!(until("1000"), Ok(UntilWord::Position(1000)));
        assert_eq!(until("text:# "), Ok(UntilWord::Text("# ".into())));
        assert_eq!(until("power-off"), Ok(UntilWord::PowerOff));
        assert_eq!(until("panic"), Ok(UntilWord::Panic));
        for word in ["", "0", "text:", "never", "-1", "18446744073709551616"] {
            assert!(until(word).is_err(), "{word}");
        }
    }
}
