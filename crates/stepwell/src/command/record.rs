//! `stepwell record`: runs a guest so that the run can be had again.

use super::beginning;
use super::options::GuestOptions;
use crate::console::{Escapes, Input, Key};
use crate::ending;
use crate::interruption;
use crate::terminal::{RawMode, notice};
use crate::travelled::Travelled;
use anyhow::{Context, anyhow};
use clap::Args;
use std::fs::{File, OpenOptions};
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::str::FromStr;
use stepwell_debuggee::Moment;
use stepwell_replay::log::Writer;
use stepwell_replay::record::{End, RecordError, Recorder, Until, World};

/// Runs a guest so that the run can be had again, to the instruction
///
/// The machine counts instructions, and its vCPUs take turns on one CPU: what the guest does depends
/// on nothing else but what is typed on its console, which goes into the log with its moment. The
/// console is on this terminal, as with `run`: Ctrl-A x leaves.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  stepwell record --kernel vmlinuz --initrd initrd.cpio.gz \
    --append 'console=ttyAMA0' --smp 4 --until 'text:# ' -o boot.replay\n  \
    stepwell replay boot.replay --verify")]
pub(super) struct Record {
    #[command(flatten)]
    guest: GuestOptions,
    /// Where to end: a position (instructions since reset), text:WORDS once the console has shown
    /// them, or power-off
    #[arg(long, value_name = "WHERE", default_value = "power-off")]
    until: UntilWord,
    /// Who executes when: turns[=N], N instructions each
    #[arg(long, value_name = "HOW", default_value = "turns=50000")]
    schedule: Schedule,
    /// Takes the state down every N instructions
    #[arg(long, value_name = "N", default_value_t = 200_000_000,
        value_parser = clap::value_parser!(u64).range(1..))]
    state_every: u64,
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
    PowerOff,
}

impl FromStr for UntilWord {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.split_once(':') {
            Some(("text", "")) => Err("which text? Write text:WORDS".into()),
            Some(("text", text)) => Ok(Self::Text(text.into())),
            _ if word == "power-off" => Ok(Self::PowerOff),
            _ => match word.parse() {
                Ok(0) | Err(_) => {
                    Err("neither a position from 1 on, nor text:WORDS, nor power-off".into())
                }
                Ok(position) => Ok(Self::Position(position)),
            },
        }
    }
}

/// Who executes when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Instructions of a turn.
    turn: u32,
}

/// A turn's instructions, if they are not told.
const TURN: u32 = 50_000;
/// Shorter turns would be spent on changing them.
const TURN_MIN: u32 = 100;

impl FromStr for Schedule {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let turn = match word.split_once('=') {
            None if word == "turns" => Some(TURN),
            Some(("turns", length)) => length.parse().ok(),
            _ => return Err("not a schedule: write turns or turns=N".into()),
        };
        let turn = turn.filter(|&turn| turn >= TURN_MIN);
        let turn =
            turn.ok_or(format!("a turn has between {TURN_MIN} and {} instructions", u32::MAX))?;
        Ok(Self { turn })
    }
}

impl Record {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        anyhow::ensure!(
            !self.guest.has_disks(),
            "a recording has no disks: what is on them would not be in the log"
        );
        let prepared = self.guest.prepare()?.with_turns(self.schedule.turn);
        let header = beginning::describe(&self.guest, &prepared)?;
        let log = create(&self.output)?;
        let file = self.output.display();
        let log = Writer::new(log, &header).with_context(|| file.to_string())?;
        let (mut session, names) = prepared.launch()?;
        let raw = RawMode::enter();
        let mut terminal = Terminal::new(raw.is_some(), self.quiet)?;
        let until = match &self.until {
            UntilWord::Position(position) => Until { position: Some(*position), text: None },
            UntilWord::Text(text) => Until { position: None, text: Some(text.as_bytes()) },
            UntilWord::PowerOff => Until::default(),
        };
        let result = session.with(|link| {
            let mut recorder = Recorder::new(link, log, until, self.state_every);
            recorder.run(&mut terminal).map_err(explained)
        });
        terminal.travelled.finish();
        drop(raw);
        let end = result.with_context(|| format!("{file} has the run up to there"))?;
        self.conclude(end, &names)
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

/// The errors of a log are about its file, those of a machine have an explanation of their own.
fn explained(error: RecordError) -> anyhow::Error {
    match error {
        RecordError::Debuggee(error) => anyhow!(error),
        error => anyhow!(error),
    }
}

/// Makes the log, where there is no file yet.
fn create(path: &std::path::Path) -> anyhow::Result<File> {
    let made = OpenOptions::new().write(true).create_new(true).open(path);
    made.with_context(|| {
        let there = if path.exists() { ": choose another name, or remove it" } else { "" };
        format!("cannot create {}{there}", path.display())
    })
}

/// The guest's console on this terminal.
struct Terminal {
    input: Input,
    escapes: Escapes,
    typed_here: bool,
    leaves: bool,
    travelled: Travelled,
}

impl Terminal {
    fn new(typed_here: bool, quiet: bool) -> anyhow::Result<Self> {
        let input = Input::start().context("cannot read standard input")?;
        // A bar beside a console that somebody types on would be in the way.
        let travelled = Travelled::new(quiet || typed_here, None);
        Ok(Self { input, escapes: Escapes::default(), typed_here, leaves: false, travelled })
    }
}

impl World for Terminal {
    fn input(&mut self) -> Vec<u8> {
        let mut typed = Vec::new();
        for byte in self.input.take() {
            match if self.typed_here { self.escapes.push(byte) } else { Some(Key::Guest(byte)) } {
                Some(Key::Guest(byte)) => typed.push(byte),
                Some(Key::Leave) => self.leaves = true,
                Some(Key::Help) | None => {}
            }
        }
        typed
    }

    fn console(&mut self, bytes: &[u8]) -> std::io::Result<()> {
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
    fn ends_and_schedules_are_read() {
        let until = |word: &str| word.parse::<UntilWord>();
        assert_eq!(until("1000"), Ok(UntilWord::Position(1000)));
        assert_eq!(until("text:# "), Ok(UntilWord::Text("# ".into())));
        assert_eq!(until("power-off"), Ok(UntilWord::PowerOff));
        for word in ["", "0", "text:", "never", "-1", "18446744073709551616"] {
            assert!(until(word).is_err(), "{word}");
        }
        let turn = |word: &str| word.parse::<Schedule>().map(|schedule| schedule.turn);
        assert_eq!((turn("turns"), turn("turns=1000")), (Ok(TURN), Ok(1000)));
        for word in ["", "turns=", "turns=99", "turns=4294967296", "random"] {
            assert!(turn(word).is_err(), "{word}");
        }
    }
}
