//! Guests of programs that are no command, such as those in Python: launched, recorded and gone back in
//! as the commands do it.
//!
//! Such a program says what it wants in the commands' own options: so there is one check of each, one
//! default and one message. Signals are its own business.

use super::checkpoints::CheckpointsWord;
use super::options::{GuestOptions, OF_THE_RUN};
use super::replayed::{Recorded, Replayed};
use super::session::Session;
use crate::names::Names;
use anyhow::anyhow;
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;
use stepwell_debuggee::{Debuggee, Error, Schedule};
use stepwell_replay::Navigator;
use stepwell_trace::Header;

/// What a program may say.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
#[command(mut_arg("kernel", |kernel| kernel.required_unless_present_any(["replay", "firmware"])))]
struct Words {
    #[command(flatten)]
    guest: GuestOptions,
    #[arg(long, conflicts_with_all = OF_THE_RUN.into_iter().filter(|name| !OF_COMMANDS.contains(name)))]
    replay: Option<PathBuf>,
    #[arg(long, conflicts_with_all = ["replay", "cpus"])]
    record: Option<PathBuf>,
    #[arg(long, requires = "record", default_value = "turns=50000")]
    schedule: Schedule,
    #[arg(long, requires = "record", default_value = "hashes")]
    checkpoints: CheckpointsWord,
}

/// Options that commands have beside the guest's, and programs have calls for.
const OF_COMMANDS: [&str; 3] = ["irq", "others", "time"];

enum Held {
    /// A guest that only goes forwards.
    Fresh(Box<Session>),
    /// One that is, or was, recorded.
    Counted(Box<Navigator<'static>>),
}

/// A guest that a program holds, with its names.
pub struct Embedded {
    held: Held,
    names: Names,
    guest: GuestOptions,
}

impl Embedded {
    /// Starts a guest, stopped at reset, by the options of `stepwell gdb` that are about the guest, its
    /// machine, and runs that are recorded and replayed.
    ///
    /// # Errors
    ///
    /// In the commands' words.
    pub fn start(words: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let words = Words::try_parse_from(words).map_err(|error| told(&error))?;
        let Words { guest, replay, record, schedule, checkpoints } = words;
        let ((held, names), guest) = if let Some(log) = replay {
            let replayed = Replayed::open(&log, &guest)?;
            let guest = replayed.guest.clone();
            (counted(replayed.into_navigator()?), guest)
        } else if let Some(log) = record {
            let recorded = Recorded::begin(&guest, schedule, &log)?;
            (counted(recorded.into_navigator(checkpoints.every())?), guest)
        } else {
            let prepared = guest.prepare()?;
            let session = Box::new(prepared.start()?);
            ((Held::Fresh(session), prepared.names), guest)
        };
        Ok(Self { held, names, guest })
    }

    /// The guest and its names.
    pub fn parts(&mut self) -> (&mut dyn Debuggee, &mut Names) {
        let debuggee: &mut dyn Debuggee = match &mut self.held {
            Held::Fresh(session) => &mut session.link,
            Held::Counted(navigator) => navigator.as_mut(),
        };
        (debuggee, &mut self.names)
    }

    /// Says what became of the machine, where an error only says that its link closed.
    pub fn explain(&mut self, error: Error) -> anyhow::Error {
        match &mut self.held {
            Held::Fresh(session) => session.explain(error.into()),
            Held::Counted(_) => error.into(),
        }
    }

    /// Completes the log of a run that is recorded.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn finish(&mut self) -> Result<(), Error> {
        match &mut self.held {
            Held::Fresh(_) => Ok(()),
            Held::Counted(navigator) => navigator.finish(),
        }
    }

    /// What a recording of it begins with, with the policies that a guest has that nobody told any.
    #[must_use]
    pub fn header(&self) -> Header {
        Header {
            stepwell_version: env!("CARGO_PKG_VERSION").into(),
            cpu_model: self.guest.cpu().into(),
            command_line: self.guest.append().into(),
            interrupt_policy: "over".into(),
            time_policy: "stopped".into(),
            recorded: "pc".into(),
            vcpus: self.guest.smp(),
        }
    }
}

fn counted((navigator, names): (Navigator<'static>, Names)) -> (Held, Names) {
    (Held::Counted(Box::new(navigator)), names)
}

/// The line of an error that says what is wrong; the rest is for who has typed a command.
fn told(error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage"));
    let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    anyhow!("{}", line.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        let started = Embedded::start(words.iter().map(OsString::from));
        started.err().expect("it is wrong").to_string()
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line() {
        assert!(refused(&[]).contains("--kernel <FILE>"), "{}", refused(&[]));
        assert!(refused(&["--kernel=k", "--smp=9"]).contains("9 is not in 1..=8"));
        assert!(refused(&["--kernel=k", "--what"]).contains("--what"));
        assert!(refused(&["--replay=l", "--record=m"]).contains("cannot be used with"));
        assert!(refused(&["--replay=l", "--smp=2"]).contains("cannot be used with"));
        for words in [&["--kernel=k", "--smp=9"][..], &[]] {
            assert!(!refused(words).contains('\n'));
            assert!(!refused(words).contains("Usage"));
        }
    }

    #[test]
    fn what_cannot_be_had_again_is_not_recorded() {
        let words = ["--kernel=k", "--record=/nowhere/log", "--disk=d.img"];
        assert!(refused(&words).contains("d.img would be written to"));
    }
}
