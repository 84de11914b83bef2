//! `stepwell run`: the guest's console on this terminal.

use super::options::{GuestOptions, Prepared};
use super::session::Session;
use crate::console::{Escapes, Input, Key};
use crate::ending;
use crate::interruption;
use crate::names::Names;
use crate::terminal::RawMode;
use crate::terminal::notice;
use anyhow::Context;
use clap::Args;
use std::io::{Write, stdout};
use std::time::Duration;
use stepwell_debuggee::{Debuggee, DomainEnding, Event, StopReason};

/// Runs a guest, its console on this terminal
///
/// Ctrl-A x leaves, Ctrl-A h shows the keys, Ctrl-A Ctrl-A types Ctrl-A. Where standard input is
/// no terminal, what comes from it is typed on the guest's console.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  stepwell run --kernel vmlinuz --initrd initrd.cpio.gz \
    --append 'console=ttyAMA0' --smp 2")]
pub(super) struct Run {
    #[command(flatten)]
    guest: GuestOptions,
    /// Ends, with status 3, when the guest asks to be reset, in place of starting it anew
    #[arg(long, help_heading = "Guest")]
    no_reboot: bool,
}

/// A key has to reach the guest faster than a typist notices.
const POLL: Duration = Duration::from_millis(10);
const KEYS: &str = "\r\nCtrl-A x leaves, Ctrl-A h shows this, Ctrl-A Ctrl-A types Ctrl-A\r\n";

/// Why a guest is no longer followed.
enum Over {
    /// It asked to be reset.
    Reset,
    /// There is an exit status, and maybe something to tell.
    Status(u8, Option<String>),
}

/// Whoever types on the guest's console, through all of its resets.
struct Typist {
    input: Input,
    escapes: Escapes,
    is_here: bool,
}

impl Run {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        let prepared = self.guest.prepare()?;
        interruption::install().context("cannot handle signals")?;
        let session = prepared.start()?;
        let raw = RawMode::enter();
        let result = self.boot_after_boot(&prepared, session, raw.is_some());
        drop(raw);
        let (status, text) = result?;
        if let Some(text) = text {
            notice(&text);
        }
        Ok(status)
    }

    /// Follows the guest, and starts it anew each time that it asks to be reset.
    fn boot_after_boot(
        &self,
        prepared: &Prepared,
        mut session: Session,
        is_here: bool,
    ) -> anyhow::Result<(u8, Option<String>)> {
        let input = Input::start().context("cannot read standard input")?;
        let mut typist = Typist { input, escapes: Escapes::default(), is_here };
        loop {
            let over = session.with(|link| follow(link, &prepared.names, &mut typist))?;
            match over {
                Over::Status(status, text) => return Ok((status, text)),
                Over::Reset if self.no_reboot => {
                    return Ok(ending::describe(DomainEnding::Reset, &prepared.names));
                }
                // One machine at a time: there may be no memory for two.
                Over::Reset => drop(session),
            }
            session = prepared.start()?;
        }
    }
}

fn follow(debuggee: &mut dyn Debuggee, names: &Names, typist: &mut Typist) -> anyhow::Result<Over> {
    let Typist { input, escapes, is_here } = typist;
    debuggee.resume(0)?;
    loop {
        if interruption::take().is_some() {
            return Ok(Over::Status(ending::LEFT, None));
        }
        for byte in input.take() {
            // A pipe has no typist to escape from: every byte of it is the guest's.
            match if *is_here { escapes.push(byte) } else { Some(Key::Guest(byte)) } {
                Some(Key::Guest(byte)) => input.waiting.push_back(byte),
                Some(Key::Leave) => return Ok(Over::Status(ending::LEFT, None)),
                Some(Key::Help) => print(KEYS.as_bytes())?,
                None => {}
            }
        }
        forward(debuggee, input)?;
        match debuggee.wait(POLL)? {
            Some(Event::Console { bytes, .. }) => print(&bytes)?,
            Some(Event::Ended { ending: DomainEnding::Reset, .. }) => return Ok(Over::Reset),
            Some(Event::Ended { ending, .. }) => {
                let (status, text) = ending::describe(ending, names);
                return Ok(Over::Status(status, text));
            }
            Some(Event::Stopped(stop)) if stop.reason == StopReason::AArch32 => {
                let text = format!("{} {}", stop.vcpu, stop.reason);
                return Ok(Over::Status(ending::FAILED, Some(text)));
            }
            // That it was stopped at reset, before it was let go.
            Some(Event::Stopped(_)) | None => {}
        }
    }
}

/// Types what waits, as far as the guest has room.
fn forward(debuggee: &mut dyn Debuggee, input: &mut Input) -> anyhow::Result<()> {
    let waiting = input.waiting.make_contiguous();
    if waiting.is_empty() {
        return Ok(());
    }
    let Some(console) = debuggee.support_console() else { return Ok(()) };
    let typed = console.type_bytes(0, waiting);
    match typed {
        Ok(typed) => drop(input.waiting.drain(..typed)),
        Err(error) if error.is_fatal() => return Err(error.into()),
        // The guest has ended; the event that says so is on its way. If it is reset, what waits is for
        // its next boot.
        Err(_) => {}
    }
    Ok(())
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write the guest's console")
}
