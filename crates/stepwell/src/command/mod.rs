//! The commands, one file each, and what becomes of their errors.

mod arrive;
mod beginning;
mod checkpoints;
mod diff;
mod embedded;
mod gdb;
mod machines;
mod only;
mod options;
mod packing;
mod policies;
mod pursuit;
mod record;
mod replay;
mod replayed;
mod report;
mod run;
mod selection;
mod session;
mod show;
mod step;
mod trace;

pub use embedded::Embedded;

use crate::ending;
use crate::terminal::notice;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    2 the guest crashed, 3 it asked to be reset (`run` starts it anew instead), 130 you left.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Step(step::Step),
    Gdb(gdb::Gdb),
    Machines(machines::Machines),
    Trace(trace::Trace),
    Record(record::Record),
    Replay(replay::Replay),
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
        Command::Machines(machines) => machines.execute(),
        Command::Trace(trace) => trace.execute(),
        Command::Record(record) => record.execute(),
        Command::Replay(replay) => replay.execute(),
        Command::Show(show) => show.execute(),
        Command::Diff(diff) => diff.execute(),
        Command::Report(report) => report.execute(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            notice(&format!("{error:#}"));
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

/// A log's beginning, for tests.
#[cfg(test)]
pub(crate) fn header_of_a_log() -> stepwell_replay::Header {
    beginning::header(std::path::Path::new("kernel"))
}
