//! The commands, one file each, and what they share: options, errors, exit status.

mod arrive;
mod diff;
mod gdb;
mod options;
mod report;
mod run;
mod selection;
mod show;
mod step;
mod trace;

use crate::ending;
use crate::machine::Machine;
use anyhow::anyhow;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use stepwell_debuggee::Error;
use stepwell_link::{Link, LinkError};

/// Single-steps arm64 virtual machines exactly
///
/// Boots an unmodified arm64 guest under a small hypervisor in QEMU, steps it one instruction at
/// a time, and records what it executes.
#[derive(Debug, Parser)]
#[command(name = "stepwell", version, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit status: 0 the guest powered off, 1 an error of ours or yours, \
    2 the guest crashed, 3 it asked to be reset, 130 you left.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Step(step::Step),
    Gdb(gdb::Gdb),
    Trace(trace::Trace),
    Show(show::Show),
    Diff(diff::Diff),
    Report(report::Report),
}

/// Runs a command; errors are told in one line.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Run(run) => run.execute(),
        Command::Step(step) => step.execute(),
        Command::Gdb(gdb) => gdb.execute(),
        Command::Trace(trace) => trace.execute(),
        Command::Show(show) => show.execute(),
        Command::Diff(diff) => diff.execute(),
        Command::Report(report) => report.execute(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::from(ending::FAILED)
        }
    }
}

/// Returns the status of a command line that makes no sense. It is not clap's own, 2, which is what
/// a crashed guest has; but of a comparison, 1 would tell a difference.
#[must_use]
pub fn misused() -> ExitCode {
    let is_diff = std::env::args_os().nth(1).is_some_and(|command| command == "diff");
    ExitCode::from(if is_diff { diff::FAILED } else { ending::FAILED })
}

/// Tells the user something that is not the output.
fn tell(text: &str) {
    eprintln!("stepwell: {text}");
}

/// A machine with its link, which are dropped in the right order: QEMU first.
struct Session {
    machine: Machine,
    link: Link,
}

impl Session {
    /// Says what became of the machine, where the link only says that it closed.
    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let lost = match error.downcast_ref::<Error>() {
            Some(Error::Lost(lost)) => lost.downcast_ref::<LinkError>().cloned(),
            _ => None,
        };
        match lost {
            Some(lost) => anyhow!(self.machine.explain(lost)),
            None => error,
        }
    }

    /// Does something with the link, and explains its errors.
    fn with<T>(&mut self, work: impl FnOnce(&mut Link) -> anyhow::Result<T>) -> anyhow::Result<T> {
        work(&mut self.link).map_err(|error| self.explain(error))
    }
}
