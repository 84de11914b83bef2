//! `stepwell run`: the guest's console on this terminal.

use super::options::GuestOptions;
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
use stepwell_debuggee::{Debuggee, Event, StopReason};

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
}

/// A key has to reach the guest faster than a typist notices.
const POLL: Duration = Duration::from_millis(10);
const KEYS: &str = "\r\nCtrl-A x leaves, Ctrl-A h shows this, Ctrl-A Ctrl-A types Ctrl-A\r\n";

impl Run {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        let (mut session, names) = self.guest.prepare()?.launch()?;
        let raw = RawMode::enter();
        let typed_here = raw.is_some();
        let result = session.with(|link| follow(link, &names, typed_here));
        drop(raw);
        let (status, text) = result?;
        if let Some(text) = text {
            notice(&text);
        }
        Ok(status)
    }
}

fn follow(
    debuggee: &mut dyn Debuggee,
    names: &Names,
    typed_here: bool,
) -> anyhow::Result<(u8, Option<String>)> {
    let mut input = Input::start().context("cannot read standard input")?;
    let mut escapes = Escapes::default();
    debuggee.resume(0)?;
    loop {
        if interruption::take().is_some() {
            return Ok((ending::LEFT, None));
        }
        for byte in input.take() {
            // A pipe has no typist to escape from: every byte of it is the guest's.
            match if typed_here { escapes.push(byte) } else { Some(Key::Guest(byte)) } {
                Some(Key::Guest(byte)) => input.waiting.push_back(byte),
                Some(Key::Leave) => return Ok((ending::LEFT, None)),
                Some(Key::Help) => print(KEYS.as_bytes())?,
                None => {}
            }
        }
        forward(debuggee, &mut input)?;
        match debuggee.wait(POLL)? {
            Some(Event::Console { bytes, .. }) => print(&bytes)?,
            Some(Event::Ended { ending, .. }) => return Ok(ending::describe(ending, names)),
            Some(Event::Stopped(stop)) if stop.reason == StopReason::AArch32 => {
                return Ok((ending::FAILED, Some(format!("{} {}", stop.vcpu, stop.reason))));
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
        // The guest has ended; the event that says so is on its way.
        Err(_) => input.waiting.clear(),
    }
    Ok(())
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write the guest's console")
}
