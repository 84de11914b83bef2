//! `stepwell step`: the interactive stepper on this terminal.

mod editor;

use super::arrive::{At, Start};
use super::options::{GuestOptions, OF_THE_RUN};
use super::policies::StepPolicies;
use super::replayed::Replayed;
use crate::console::MarkedLines;
use crate::ending;
use crate::follow::{Follower, Outcome};
use crate::interruption::Interruption;
use crate::names::Names;
use crate::stepper::{Flow, Prompt};
use crate::terminal::{Visible, notice};
use clap::Args;
use editor::Lines;
use std::io::{Write, stdout};
use std::path::PathBuf;
use stepwell_debuggee::Debuggee;

/// Steps a guest interactively
///
/// Stops where --at says and reads commands; h shows them. Where standard input is no terminal,
/// the commands are read from it line by line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stepwell step --kernel vmlinuz --at start_kernel\n  \
    printf 's 20\\nr\\nx\\n' | stepwell step --kernel vmlinuz --at smc\n  \
    stepwell step --replay boot.replay --at end")]
#[command(mut_arg("kernel", |kernel| kernel.required_unless_present_any(["replay", "firmware"])))]
pub(super) struct Step {
    #[command(flatten)]
    guest: GuestOptions,
    /// Steps in a run that was recorded (stepwell record), forwards and backwards
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_THE_RUN)]
    replay: Option<PathBuf>,
    /// Where to stop first: reset, smc (the first one), SYMBOL, SYMBOL+0xOFFSET, 0xADDRESS,
    /// MODULE:SYMBOL of a Linux module once it is loaded, PROGRAM!SYMBOL of a program (--sysroot), or
    /// in a replay a position, or end
    #[arg(long, value_name = "WHERE", default_value = "reset")]
    at: At,
    #[command(flatten)]
    policies: StepPolicies,
}

impl Step {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        let (status, text) = match &self.replay {
            None => {
                let mut prepared = self.guest.prepare()?.by_clock(self.policies.time);
                let start = self.at.resolve(&mut prepared.names)?;
                let (mut session, names) = prepared.launch()?;
                session.with(|link| {
                    self.policies.choose(link)?;
                    self.step(link, names, start)
                })?
            }
            Some(log) => {
                let mut replayed = Replayed::open(log, &self.guest)?;
                let script = replayed.script.clone();
                let start = self.at.resolve_in_replay(&script, replayed.names())?;
                replayed.with(|navigator, names| self.step(navigator, names, start))?
            }
        };
        if let Some(text) = text {
            notice(&text);
        }
        Ok(status)
    }

    /// Steps a guest that is at reset.
    fn step(
        &self,
        debuggee: &mut dyn Debuggee,
        mut names: Names,
        start: Start,
    ) -> anyhow::Result<(u8, Option<String>)> {
        let (mut output, mut lines, mut records) =
            (Visible(stdout()), MarkedLines::default(), Vec::new());
        let mut console = |bytes: &[u8]| lines.push(bytes, &mut stdout());
        let mut follower =
            Follower { console: &mut console, records: &mut records, interruption: None };
        let outcome = start.arrive(debuggee, &mut names, &mut follower)?;
        let left = follower.interruption == Some(Interruption::Leave);
        lines.flush(&mut output)?;
        match outcome {
            Outcome::Stopped(_) if left => Ok((ending::LEFT, None)),
            Outcome::Ended(ending) => {
                let (status, text) = ending::describe_early(ending, &names, &self.at);
                Ok((status, Some(text)))
            }
            Outcome::Stopped(stop) => {
                let symbols = names.clone();
                let stepper = Prompt::new(debuggee, names, stop, &mut output)?;
                converse(stepper, &symbols)
            }
        }
    }
}

/// Reads lines and executes them until there are no more.
fn converse(mut stepper: Prompt<'_>, names: &Names) -> anyhow::Result<(u8, Option<String>)> {
    let mut lines = Lines::new(names)?;
    while let Some(line) = lines.next()? {
        match stepper.execute(&line)? {
            Flow::More => {}
            Flow::Leave => break,
            flow @ (Flow::Ended(ending) | Flow::NeverMet(ending)) => {
                lines.keep();
                let (status, text) = ending::describe(ending, &stepper.into_names());
                if text.is_none() {
                    writeln!(stdout(), "the guest powered off")?;
                }
                let is_met = !matches!(flow, Flow::NeverMet(_));
                let status =
                    if is_met || status != ending::CLEAN { status } else { ending::FAILED };
                return Ok((status, text));
            }
        }
    }
    lines.keep();
    Ok((ending::CLEAN, None))
}
