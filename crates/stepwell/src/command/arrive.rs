//! `--at`: where a guest is to be stopped before it is stepped.

use crate::follow::{Follower, Outcome};
use crate::losses::Lookout;
use crate::names::{NameError, Names, Target};
use crate::questions::{EXECUTED, LOADED, coming, current_task, mappings};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use stepwell_arch::Ipa;
use stepwell_debuggee::{Debuggee, Edge, Error, Moment, Monitor, Place, Refusal, Stop, StopReason};
use stepwell_replay::Script;
use stepwell_replay::replay::ReplayError;

/// What the user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    Reset,
    Smc,
    Word(String),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "its reset",
            Self::Smc => "an SMC",
            Self::Word(word) => word,
        })
    }
}

impl FromStr for At {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(match word {
            "reset" => Self::Reset,
            "smc" => Self::Smc,
            word => Self::Word(word.to_owned()),
        })
    }
}

/// What it means for this guest.
#[derive(Clone, Debug)]
pub(super) enum Start {
    Reset,
    /// A moment of a replay.
    Moment(Moment),
    Smc,
    Place {
        word: String,
        target: Target,
    },
    /// A place in a module, which is yet to be loaded, and where the kernel begins to initialize
    /// one.
    Module {
        word: String,
        loaded: Target,
    },
    /// A place in an image that the guest itself moves, or is yet to load.
    Image {
        word: String,
    },
    /// A place in a program, and where the kernel has put one into its place.
    Program {
        word: String,
        executed: Target,
    },
}

impl At {
    /// As [`At::resolve`], in a replay: also a position, or its end.
    pub(super) fn resolve_in_replay(
        &self,
        script: &Script,
        names: &mut Names,
    ) -> anyhow::Result<Start> {
        let Self::Word(word) = self else { return Ok(self.resolve(names)?) };
        let end = script.end;
        match (word.as_str(), word.parse()) {
            ("end", _) => Ok(Start::Moment(end)),
            ("start", _) => Ok(Start::Reset),
            (_, Ok(wanted)) if wanted > end.position => {
                Err(ReplayError::TooFar { last: end.position, wanted }.into())
            }
            (_, Ok(position)) => Ok(Start::Moment(Moment::at(position))),
            _ => Ok(self.resolve(names)?),
        }
    }

    /// Finds out what it means, before there is a machine.
    pub(super) fn resolve(&self, names: &mut Names) -> Result<Start, NameError> {
        match self {
            Self::Reset => Ok(Start::Reset),
            Self::Smc => Ok(Start::Smc),
            Self::Word(word) if word.contains('!') => {
                names.programs().check(word)?;
                let executed = names.resolve_instruction(EXECUTED)?;
                Ok(Start::Program { word: word.clone(), executed })
            }
            Self::Word(word) if word.contains(':') => {
                let loaded = names.resolve_instruction(LOADED)?;
                Ok(Start::Module { word: word.clone(), loaded })
            }
            Self::Word(word) => match names.resolve_instruction(word) {
                Ok(Target { place: Place::Ipa(_), .. }) | Err(NameError::NotPlaced(_))
                    if names.is_followed() =>
                {
                    Ok(Start::Image { word: word.clone() })
                }
                target => Ok(Start::Place { word: word.clone(), target: target? }),
            },
        }
    }
}

impl Start {
    /// Lets a fresh guest run to its start.
    ///
    /// # Errors
    ///
    /// Also where it cannot come there any more, or its recording ends before.
    pub(super) fn arrive(
        self,
        debuggee: &mut dyn Debuggee,
        names: &mut Names,
        follower: &mut Follower<'_>,
    ) -> anyhow::Result<Outcome> {
        let place = match &self {
            Self::Reset | Self::Moment(_) => None,
            Self::Smc => Some("an SMC".to_owned()),
            Self::Place { word, .. }
            | Self::Module { word, .. }
            | Self::Image { word }
            | Self::Program { word, .. } => Some(word.clone()),
        };
        let outcome = self.go(debuggee, names, follower)?;
        if let (Some(place), Outcome::Stopped(Stop { reason: StopReason::Reached, .. })) =
            (place, outcome)
            && follower.interruption.is_none()
            && let Some(reverse) = debuggee.support_reverse()
            && reverse.edge(0)? == Some(Edge::End)
        {
            anyhow::bail!("the recording ends before the guest comes to {place}");
        }
        Ok(outcome)
    }

    fn go(
        self,
        debuggee: &mut dyn Debuggee,
        names: &mut Names,
        follower: &mut Follower<'_>,
    ) -> anyhow::Result<Outcome> {
        let reset = follower.follow(debuggee)?;
        let Outcome::Stopped(stop) = reset else { return Ok(reset) };
        match self {
            Self::Reset => Ok(reset),
            Self::Moment(moment) => {
                let Some(reverse) = debuggee.support_reverse() else {
                    anyhow::bail!("only a replay has positions: name it with --replay")
                };
                reverse.go_to(0, moment)?;
                follower.follow(debuggee)
            }
            Self::Place { target, .. } if target.va == stop.pc => Ok(reset),
            Self::Place { word, target: Target { place: place @ Place::Ipa(_), .. } } => {
                go_to_name(debuggee, names, follower, &word, place)
            }
            Self::Place { target, .. } => go_to(debuggee, follower, target.place),
            Self::Image { word } => go_to_image(debuggee, names, follower, stop, &word),
            Self::Module { word, loaded } => {
                go_to_module(debuggee, names, follower, &word, loaded.place)
            }
            Self::Program { word, executed } => {
                go_to_program(debuggee, names, follower, &word, executed.place)
            }
            Self::Smc => {
                let Some(monitors) = debuggee.support_monitors() else {
                    anyhow::bail!("this debuggee cannot stop at SMC: use --at with an address")
                };
                monitors.set_monitor(0, None, Monitor::PrivilegedCall, true)?;
                debuggee.resume(0)?;
                follower.follow(debuggee)
            }
        }
    }
}

/// Lets the guest run with a breakpoint there for as long as that takes.
fn go_to(
    debuggee: &mut dyn Debuggee,
    follower: &mut Follower<'_>,
    place: Place,
) -> anyhow::Result<Outcome> {
    debuggee.set_breakpoint(0, place)?;
    debuggee.resume(0)?;
    let outcome = follower.follow(debuggee)?;
    if matches!(outcome, Outcome::Stopped(_)) {
        debuggee.clear_breakpoint(0, place)?;
    }
    Ok(outcome)
}

/// As [`go_to`], with a place that has a name in the kernel's image, for as long as it has one.
fn go_to_name(
    debuggee: &mut dyn Debuggee,
    names: &mut Names,
    follower: &mut Follower<'_>,
    word: &str,
    place: Place,
) -> anyhow::Result<Outcome> {
    debuggee.set_breakpoint(0, place)?;
    let mut lookout = Lookout::default();
    lookout.arm(names, debuggee, 0, Some(place))?;
    let (outcome, loss) = loop {
        debuggee.resume(0)?;
        let outcome = follower.follow(debuggee)?;
        let Outcome::Stopped(stop) = outcome else { return Ok(outcome) };
        names.locate(debuggee, stop.vcpu, stop.pc)?;
        let is_other = stop.reason != StopReason::Breakpoint || follower.interruption.is_some();
        if is_other || names.is_met(debuggee, stop.vcpu, place, stop.pc)? {
            break (outcome, None);
        }
        if let Some(loss) = Lookout::begins(names, stop)
            && loss.concerns(names, Some(place))
        {
            break (outcome, Some(loss));
        }
    };
    for place in std::iter::once(place).chain(lookout.disarm()) {
        clear_quietly(debuggee, place)?;
    }
    match loss {
        None => Ok(outcome),
        Some(loss) => anyhow::bail!("the guest never came to {word}, which {loss}"),
    }
}

/// Lets the guest run to a place in an image, which may not be where it is now by then, or nowhere yet.
fn go_to_image(
    debuggee: &mut dyn Debuggee,
    names: &mut Names,
    follower: &mut Follower<'_>,
    reset: Stop,
    word: &str,
) -> anyhow::Result<Outcome> {
    let mut place = names.resolve_instruction(word).ok().map(|target| target.place);
    if names.resolve_instruction(word).is_ok_and(|target| target.va == reset.pc) {
        return Ok(Outcome::Stopped(reset));
    }
    names.follow_image(debuggee, reset.vcpu)?;
    if let Some(place) = place {
        set_quietly(debuggee, place)?;
    }
    loop {
        debuggee.resume(0)?;
        let outcome = follower.follow(debuggee)?;
        let Outcome::Stopped(stop) = outcome else { return Ok(outcome) };
        let is_passed = names.image_moved(debuggee, stop)?;
        let now = names.resolve_instruction(word).ok().map(|target| target.place);
        if now != place {
            if let Some(place) = place {
                clear_quietly(debuggee, place)?;
            }
            if let Some(place) = now {
                set_quietly(debuggee, place)?;
            }
        }
        let before = std::mem::replace(&mut place, now);
        // Also where it was moved to just now: it is stopped at its entry.
        let here = Place::Ipa(Ipa(stop.pc.0));
        let is_there = [before, now].contains(&Some(here));
        if (!is_passed || is_there) || follower.interruption.is_some() {
            if let Some(place) = now {
                clear_quietly(debuggee, place)?;
            }
            return Ok(outcome);
        }
    }
}

/// Sets a breakpoint where there may be one already.
fn set_quietly(debuggee: &mut dyn Debuggee, place: Place) -> Result<(), Error> {
    match debuggee.set_breakpoint(0, place) {
        Err(Error::Refused(Refusal::Breakpoint)) => Ok(()),
        result => result,
    }
}

/// Clears a breakpoint that may be gone.
fn clear_quietly(debuggee: &mut dyn Debuggee, place: Place) -> Result<(), Error> {
    match debuggee.clear_breakpoint(0, place) {
        Err(Error::Refused(Refusal::Breakpoint)) => Ok(()),
        result => result,
    }
}

/// Lets the guest run until it has loaded the module of `word`, and then to the place itself.
fn go_to_module(
    debuggee: &mut dyn Debuggee,
    names: &mut Names,
    follower: &mut Follower<'_>,
    word: &str,
    loaded: Place,
) -> anyhow::Result<Outcome> {
    loop {
        let outcome = go_to(debuggee, follower, loaded)?;
        let Outcome::Stopped(stop) = outcome else { return Ok(outcome) };
        if stop.reason != StopReason::Breakpoint || follower.interruption.is_some() {
            return Ok(outcome);
        }
        if coming(names, debuggee, stop)?.is_some_and(|module| module.has(word)) {
            let target = names.resolve_instruction(word)?;
            return go_to(debuggee, follower, target.place);
        }
    }
}

/// Lets the guest run until a process executes the program of `word`, and then to the place itself, in
/// that process or another that has it mapped there.
fn go_to_program(
    debuggee: &mut dyn Debuggee,
    names: &mut Names,
    follower: &mut Follower<'_>,
    word: &str,
    executed: Place,
) -> anyhow::Result<Outcome> {
    // Where it was found so far: each process may have it elsewhere.
    let mut places = vec![executed];
    debuggee.set_breakpoint(0, executed)?;
    loop {
        debuggee.resume(0)?;
        let outcome = follower.follow(debuggee)?;
        let Outcome::Stopped(stop) = outcome else { return Ok(outcome) };
        if stop.reason != StopReason::Breakpoint || follower.interruption.is_some() {
            return Ok(outcome);
        }
        names.locate(debuggee, stop.vcpu, stop.pc)?;
        let task = current_task(names, debuggee, stop.vcpu)?;
        let mappings = mappings(names, debuggee, stop.vcpu, &task)?;
        let Some(va) = names.programs().resolve(word, &mappings)? else { continue };
        if va == stop.pc {
            for place in places {
                debuggee.clear_breakpoint(0, place)?;
            }
            return Ok(outcome);
        }
        if !places.contains(&Place::Va(va)) {
            debuggee.set_breakpoint(0, Place::Va(va))?;
            places.push(Place::Va(va));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_debuggee::{StopReason, contract, fake::Fake};

    fn arrive(word: &str) -> Outcome {
        let mut fake = Fake::new(&contract::guest_bytes());
        let mut names = Names::none();
        let start = word.parse::<At>().unwrap().resolve(&mut names).unwrap();
        let (mut console, mut records) = (|_: &[u8]| Ok(()), Vec::new());
        let mut follower =
            Follower { console: &mut console, records: &mut records, interruption: None };
        start.arrive(&mut fake, &mut names, &mut follower).unwrap()
    }

    #[test]
    fn guests_arrive() {
        for (word, reason, pc) in [
            ("reset", StopReason::Reset, contract::ENTRY),
            ("0x40080000", StopReason::Reset, contract::ENTRY),
            ("0x40080018", StopReason::Breakpoint, contract::CALL),
            ("smc", StopReason::PrivilegedCall { immediate: 0x12 }, contract::SMC),
        ] {
            let Outcome::Stopped(stop) = arrive(word) else { panic!("{word}") };
            assert_eq!((stop.reason, stop.pc), (reason, pc), "{word}");
        }
        assert!(matches!(arrive("0x4008002c"), Outcome::Ended(_)));
    }
}
