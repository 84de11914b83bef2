//! `goto`, `when`, `last`, `fork` and snapshots: positions of a replay.

use crate::guest::Guest;
use std::time::Duration;
use stepwell_arch::Va;
use stepwell_debuggee::{
    Debuggee, Error, Event, Moment, Refusal, Reverse, Snapshot, Stop, StopReason, WatchAccess,
    Watchpoint,
};

const NO_REPLAY: &str =
    "only what is or was recorded has positions: stepwell gdb --record FILE, or --replay FILE\n";
/// GDB does not look again by itself after a `monitor` command.
const LOOK_AGAIN: &str = "`maintenance flush register-cache`, and GDB sees it\n";
const POLL: Duration = Duration::from_millis(50);
const WORD: u64 = 8;

/// Says where the replay is.
pub(super) fn when(guest: &mut Guest<'_>) -> Result<String, Error> {
    let domain = guest.domain;
    let Some(reverse) = guest.debuggee.support_reverse() else { return Ok(NO_REPLAY.to_owned()) };
    let end = reverse.end().position;
    let travel = guest.debuggee.support_time_travel().ok_or(Refusal::NotCounted)?;
    let Moment { position, clock } = travel.moment(domain)?;
    Ok(format!("position {position} of {end}, clock {clock}\n"))
}

/// Goes to a position.
pub(super) fn go_to(guest: &mut Guest<'_>, word: &str) -> Result<String, Error> {
    let domain = guest.domain;
    let Some(reverse) = guest.debuggee.support_reverse() else { return Ok(NO_REPLAY.to_owned()) };
    let end = reverse.end();
    let moment = match (word, word.parse()) {
        ("start", _) => Moment::default(),
        ("end", _) => end,
        (_, Ok(position)) => Moment::at(position),
        _ => return Ok("which position? A number, start, or end\n".to_owned()),
    };
    if moment > end {
        return Ok(format!("the recording ends at position {}\n", end.position));
    }
    travel(guest, |reverse| reverse.go_to(domain, moment))?;
    Ok(format!("{}{LOOK_AGAIN}", when(guest)?))
}

/// Goes to who wrote some bytes last.
pub(super) fn last(
    guest: &mut Guest<'_>,
    word: &str,
    length: Option<&str>,
) -> Result<String, Error> {
    if !guest.goes_back() {
        return Ok(NO_REPLAY.to_owned());
    }
    let address = Va(super::number(guest, word)?);
    let length = match length.map(str::parse) {
        None => WORD,
        Some(Ok(length)) => length,
        Some(Err(_)) => return Ok("how many bytes? A number\n".to_owned()),
    };
    let vcpu = guest.current();
    let watchpoint = Watchpoint { address, length, access: WatchAccess::Write };
    let stop = travel(guest, |reverse| reverse.last_access(vcpu, watchpoint))?;
    if !matches!(stop.reason, StopReason::Watchpoint { .. }) {
        return Ok(format!("nothing has written there since the run began\n{LOOK_AGAIN}"));
    }
    let place = super::place(guest, stop.vcpu, stop.pc)?;
    Ok(format!("{}  {place}\n{}{LOOK_AGAIN}", stop.vcpu, when(guest)?))
}

/// Gives this moment a name.
pub(super) fn take_snapshot(guest: &mut Guest<'_>, name: &str) -> Result<String, Error> {
    let domain = guest.domain;
    let Some(reverse) = guest.debuggee.support_reverse() else { return Ok(NO_REPLAY.to_owned()) };
    reverse.take_snapshot(domain, name)?;
    Ok(format!("{name} is here\n"))
}

/// Goes to a moment that has a name.
pub(super) fn go_to_snapshot(guest: &mut Guest<'_>, name: &str) -> Result<String, Error> {
    let domain = guest.domain;
    let Some(reverse) = guest.debuggee.support_reverse() else { return Ok(NO_REPLAY.to_owned()) };
    if !reverse.snapshots().iter().any(|snapshot| snapshot.name == name) {
        return Ok(format!("nothing is called {name}: monitor snapshots lists what is\n"));
    }
    travel(guest, |reverse| reverse.go_to_snapshot(domain, name))?;
    Ok(format!("{}{LOOK_AGAIN}", when(guest)?))
}

/// Lists the moments that have names.
pub(super) fn snapshots(guest: &mut Guest<'_>) -> String {
    let Some(reverse) = guest.debuggee.support_reverse() else { return NO_REPLAY.to_owned() };
    let all = reverse.snapshots();
    if all.is_empty() {
        return "none has a name\n".to_owned();
    }
    let line = |Snapshot { name, moment, is_of_fork }: Snapshot| {
        let of_fork = if is_of_fork { ", not of the recorded run" } else { "" };
        format!("{name}  {moment}{of_fork}\n")
    };
    all.into_iter().map(line).collect()
}

/// Leaves the run that was recorded.
pub(super) fn fork(guest: &mut Guest<'_>) -> Result<String, Error> {
    let domain = guest.domain;
    if !guest.goes_back() {
        return Ok(NO_REPLAY.to_owned());
    }
    guest.debuggee.support_time_travel().ok_or(Refusal::NotCounted)?.fork(domain)?;
    Ok("this is another run from here on; going back leads to the recorded one\n".to_owned())
}

/// Sets the replay going, and waits for it.
fn travel(
    guest: &mut Guest<'_>,
    go: impl FnOnce(&mut dyn Reverse) -> Result<(), Error>,
) -> Result<Stop, Error> {
    let domain = guest.domain;
    go(guest.debuggee.support_reverse().ok_or(Refusal::Unsupported)?)?;
    loop {
        match guest.debuggee.wait(POLL)? {
            Some(Event::Stopped(stop)) if stop.vcpu.domain == domain => {
                guest.selected = stop.vcpu.vcpu;
                return Ok(stop);
            }
            Some(Event::Ended { .. }) => return Err(Refusal::Ended.into()),
            _ => {}
        }
    }
}
