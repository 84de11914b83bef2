//! `stepwell step`: the interactive stepper on this terminal.

mod editor;

use super::arrive::At;
use super::options::GuestOptions;
use super::policies::StepPolicies;
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
use stepwell_debuggee::Debuggee;

/// Steps a guest interactively
///
/// Stops where --at says and reads commands; h shows them. Where standard input is no terminal,
/// the commands are read from it line by line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stepwell step --kernel vmlinuz --at start_kernel\n  \
    printf 's 20\\nr\\nx\\n' | stepwell step --kernel vmlinuz --at smc")]
pub(super) struct Step {
    #[command(flatten)]
    guest: GuestOptions,
    /// Where to stop first: reset, smc (the first one), SYMBOL, SYMBOL+0xOFFSET, 0xADDRESS,
    /// MODULE:SYMBOL of a Linux module once it is loaded, or PROGRAM!SYMBOL of a program (--sysroot)
    #[arg(long, value_name = "WHERE", default_value = "reset")]
    at: At,
    #[command(flatten)]
    policies: StepPolicies,
}

impl Step {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        let mut prepared = self.guest.prepare()?;
        let start = self.at.resolve(&mut prepared.names)?;
        let (mut session, mut names) = prepared.launch()?;
        let (status, text) = session.with(|link| {
            let debuggee: &mut dyn Debuggee = link;
            self.policies.choose(debuggee)?;
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
        })?;
        if let Some(text) = text {
            notice(&text);
        }
        Ok(status)
    }
}

/// Reads lines and executes them until there are no more.
fn converse(mut stepper: Prompt<'_>, names: &Names) -> anyhow::Result<(u8, Option<String>)> {
    let mut lines = Lines::new(names)?;
    while let Some(line) = lines.next()? {
        match stepper.execute(&line)? {
            Flow::More => {}
            Flow::Leave => break,
            Flow::Ended(ending) => {
                lines.keep();
                let (status, text) = ending::describe(ending, &stepper.into_names());
                if text.is_none() {
                    writeln!(stdout(), "the guest powered off")?;
                }
                return Ok((status, text));
            }
        }
    }
    lines.keep();
    Ok((ending::CLEAN, None))
}
