//! `stepwell replay`: runs a recorded run again.

use super::beginning::Sources;
use super::replayed::Replayed;
use crate::ending;
use crate::interruption;
use crate::names::Names;
use crate::terminal::notice;
use crate::travelled::Travelled;
use anyhow::{Context, anyhow};
use clap::Args;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::str::FromStr;
use stepwell_debuggee::Moment;
use stepwell_replay::replay::{Audience, End, Replay as Run, ReplayError};

/// Runs a recorded run again, and prints where it ends and a hash of the state there
///
/// The kernel and what else the run began with are looked for where they were, or where the options
/// say, and have to be the same.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stepwell replay boot.replay --verify\n  \
    stepwell replay boot.replay --to 500000000")]
pub(super) struct Replay {
    /// The log
    #[arg(value_name = "FILE")]
    log: PathBuf,
    /// Where to end: a position, or end
    #[arg(long, value_name = "WHERE", default_value = "end")]
    to: To,
    /// Compares each state that was taken down, and not only the last one
    #[arg(long)]
    verify: bool,
    /// The kernel, where it is not where it was
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initial ramdisk, where it is not where it was
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The device tree, where it is not where it was
    #[arg(long, value_name = "FILE")]
    dtb: Option<PathBuf>,
    /// A disk's image, where it is not where it was: all of them then, in their order
    #[arg(long = "disk", value_name = "FILE")]
    disks: Vec<PathBuf>,
    /// Hypervisor image in place of the built-in one
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    hypervisor: Option<PathBuf>,
    /// QEMU
    #[arg(
        long,
        value_name = "PATH",
        default_value = "qemu-system-aarch64",
        env = "STEPWELL_QEMU",
        help_heading = "Machine"
    )]
    qemu: PathBuf,
    /// Shows QEMU's command line and messages, and the hypervisor's log
    #[arg(long, short, help_heading = "Machine")]
    verbose: bool,
    /// Shows neither the guest's console nor a progress bar
    #[arg(long, short)]
    quiet: bool,
}

/// Where a replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    End,
    Position(u64),
}

impl FromStr for To {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "end" => Ok(Self::End),
            _ => match word.parse() {
                Ok(0) | Err(_) => Err("neither a position from 1 on, nor end".into()),
                Ok(position) => Ok(Self::Position(position)),
            },
        }
    }
}

impl Replay {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        let file = self.log.display();
        let mut replayed = Replayed::open_with(&self.log, self.sources(), |_| ())?;
        let to = match self.to {
            To::End => None,
            To::Position(position) => Some(position),
        };
        let last = replayed.script.last_position();
        if let Some(wanted) = to.filter(|&to| to > last) {
            return Err(ReplayError::TooFar { last, wanted }).with_context(|| file.to_string());
        }
        let mut session = replayed.start()?;
        let travelled = Travelled::new(self.quiet, Some(to.unwrap_or(last)));
        let mut audience = Shown { is_quiet: self.quiet, travelled };
        let result = session.with(|link| {
            let mut run = Run::new(link, &replayed.script);
            let end = run.run(to, self.verify, &mut audience).map_err(explained)?;
            let hash = match end {
                End::At(_) => Some(run.state_hash().map_err(explained)?),
                _ => None,
            };
            Ok((end, hash, run.compared()))
        });
        audience.travelled.finish();
        let (end, hash, compared) = result.with_context(|| file.to_string())?;
        if compared > 0 {
            println!("{compared} states compared: all the same");
        }
        Ok(conclude(end, hash.map(|hash| hash.to_string()), replayed.names()))
    }

    fn sources(&self) -> Sources {
        Sources {
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            devicetree: self.dtb.clone(),
            disks: self.disks.clone(),
            hypervisor: self.hypervisor.clone(),
            qemu: self.qemu.clone(),
            verbose: self.verbose,
        }
    }
}

fn conclude(end: End, hash: Option<String>, names: &Names) -> u8 {
    match end {
        End::At(moment) => {
            println!("{moment}, state {}", hash.unwrap_or_default());
            ending::CLEAN
        }
        End::Left => ending::LEFT,
        End::Ended(how) => {
            let (status, text) = ending::describe(how, names);
            text.iter().for_each(|text| notice(text));
            println!("the guest ended, as it did when it was recorded");
            status
        }
    }
}

/// The errors of a machine have an explanation of their own.
fn explained(error: ReplayError) -> anyhow::Error {
    match error {
        ReplayError::Debuggee(error) => anyhow!(error),
        error => anyhow!(error),
    }
}

/// The guest's console, and how far it has come.
struct Shown {
    is_quiet: bool,
    travelled: Travelled,
}

impl Audience for Shown {
    fn console(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.is_quiet {
            return Ok(());
        }
        self.travelled.aside(|| {
            let mut out = stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        })
    }

    fn wants_to_leave(&mut self) -> bool {
        interruption::take().is_some()
    }

    fn watches(&self) -> bool {
        self.travelled.is_shown()
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
        assert_eq!("end".parse(), Ok(To::End));
        assert_eq!("7".parse(), Ok(To::Position(7)));
        for word in ["", "0", "-1", "start", "1e9"] {
            assert!(word.parse::<To>().is_err(), "{word}");
        }
    }
}
