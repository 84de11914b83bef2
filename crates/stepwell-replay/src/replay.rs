//! Replaying: a guest runs again as its log has it.

use crate::log::LogError;
use crate::record::describe;
use crate::script::{Happening, Script};
use std::time::{Duration, Instant};
use stepwell_debuggee::{Debuggee, DomainEnding, Error, Event, Moment, StateHash, StopReason};

/// How often it is looked whether the user wants something.
const POLL: Duration = Duration::from_millis(50);
/// Instructions between two looks at where it is, to begin with: a replay that somebody watches is
/// stopped for them.
const SLICE: u64 = 5_000_000;
/// A look is worth so long a run.
const SLICE_TIME: Duration = Duration::from_millis(200);

/// What a replay has to do with the world.
pub trait Audience {
    /// Takes what the guest has written on its console.
    ///
    /// # Errors
    ///
    /// Where it cannot be shown.
    fn console(&mut self, bytes: &[u8]) -> std::io::Result<()>;
    /// Tells whether the user wants to leave.
    fn wants_to_leave(&mut self) -> bool;
    /// Tells whether somebody watches how far it has come.
    fn watches(&self) -> bool {
        false
    }
    /// Takes it that so much has been replayed.
    fn progress(&mut self, moment: Moment);
    /// How many instructions apart it wants to know what each vCPU was at, if it does.
    fn samples_every(&self) -> Option<u64> {
        None
    }
    /// Takes for each vCPU the position behind the last instruction that it has executed.
    fn sampled(&mut self, _moment: Moment, _executed: &[u64]) {}
}

/// Why a replay could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The guest's machine.
    #[error(transparent)]
    Debuggee(#[from] Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The console.
    #[error("cannot write the guest's console: {0}")]
    Console(#[from] std::io::Error),
    /// The machine does not count instructions.
    #[error("the machine does not count instructions")]
    NotCounted,
    /// It is another run.
    #[error("the replay differs from the recording at {at}: {what}")]
    Diverged {
        /// Where that was seen.
        at: Moment,
        /// What differs.
        what: String,
    },
    /// The log does not go so far.
    #[error("the recording ends at position {last}, before {wanted}: name one up to there, or end")]
    TooFar {
        /// Its last position.
        last: u64,
        /// What was asked for.
        wanted: u64,
    },
}

/// How a replay came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it was to, or where the recording does.
    At(Moment),
    /// The guest ended, as it did.
    Ended(DomainEnding),
    /// The user left.
    Left,
}

/// A guest that runs as its log has it.
pub struct Replay<'a> {
    debuggee: &'a mut dyn Debuggee,
    script: &'a Script,
    now: Moment,
    /// States that were compared.
    compared: u64,
    slice: u64,
}

/// What became of a run to a moment.
enum Run {
    Came,
    Ended(DomainEnding),
    Left,
}

impl<'a> Replay<'a> {
    /// Makes one of a guest that is stopped at reset.
    #[must_use]
    pub fn new(debuggee: &'a mut dyn Debuggee, script: &'a Script) -> Self {
        Self { debuggee, script, now: Moment::default(), compared: 0, slice: SLICE }
    }

    /// Replays to a position, or to the end. `verify`: compares each state that was taken down, and not
    /// only the last one.
    ///
    /// # Errors
    ///
    /// [`ReplayError`].
    pub fn run(
        &mut self,
        to: Option<u64>,
        verify: bool,
        audience: &mut dyn Audience,
    ) -> Result<End, ReplayError> {
        let script = self.script;
        let last = script.last_position();
        if let Some(wanted) = to.filter(|&to| to > last) {
            return Err(ReplayError::TooFar { last, wanted });
        }
        // The state that was seen last is that of the end, or close to it.
        let is_state = |(_, what): &(Moment, Happening)| matches!(what, Happening::State(_));
        let last_state = script.happenings.iter().rposition(is_state).filter(|_| to.is_none());
        for (n, (moment, what)) in script.happenings.iter().enumerate() {
            if to.is_some_and(|to| moment.position > to) {
                break;
            }
            let is_compared = verify || last_state == Some(n);
            if matches!(what, Happening::State(_)) && !is_compared {
                continue;
            }
            match self.run_to(*moment, audience)? {
                Run::Came => {}
                Run::Left => return Ok(End::Left),
                Run::Ended(ending) => {
                    return self.diverged(format!("the guest {}", describe(ending)));
                }
            }
            self.demand_moment(*moment, what)?;
            self.happen(what)?;
        }
        match (to, &script.ending) {
            (Some(to), _) => self.arrive(Moment::at(to), audience),
            (None, Some((_, how))) => self.end_as(how, audience),
            (None, None) => self.arrive(script.end, audience),
        }
    }

    /// Returns how many states were compared.
    #[must_use]
    pub const fn compared(&self) -> u64 {
        self.compared
    }

    /// Returns a hash of the state.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Debuggee`].
    pub fn state_hash(&mut self) -> Result<StateHash, ReplayError> {
        let travel = self.debuggee.support_time_travel().ok_or(ReplayError::NotCounted)?;
        Ok(travel.state_hash(0)?)
    }

    fn arrive(&mut self, moment: Moment, audience: &mut dyn Audience) -> Result<End, ReplayError> {
        Ok(match self.run_to(moment, audience)? {
            Run::Came => End::At(self.now),
            Run::Left => End::Left,
            Run::Ended(ending) => End::Ended(ending),
        })
    }

    /// Holds where it is against where something happened.
    fn demand_moment(&self, moment: Moment, what: &Happening) -> Result<(), ReplayError> {
        if self.now == moment {
            return Ok(());
        }
        let what = match what {
            Happening::Input(_) => "when something was typed",
            Happening::State(_) => "when it was looked at",
        };
        self.diverged(format!("it was {moment} {what}"))
    }

    fn happen(&mut self, what: &Happening) -> Result<(), ReplayError> {
        match what {
            Happening::Input(bytes) => {
                let Some(console) = self.debuggee.support_console() else { return Ok(()) };
                let done = console.type_bytes(0, bytes)?;
                if done < bytes.len() {
                    let room = bytes.len();
                    return self
                        .diverged(format!("the console had room for {room} bytes, not {done}"));
                }
                Ok(())
            }
            Happening::State(seen) => self.compare(*seen),
        }
    }

    fn compare(&mut self, seen: StateHash) -> Result<(), ReplayError> {
        let hash = self.state_hash()?;
        self.compared += 1;
        let what = match (hash.registers == seen.registers, hash.memory == seen.memory) {
            (true, true) => return Ok(()),
            (false, true) => "registers",
            (true, false) => "memory",
            (false, false) => "registers and memory",
        };
        self.diverged(what.into())
    }

    fn diverged<T>(&self, what: String) -> Result<T, ReplayError> {
        Err(ReplayError::Diverged { at: self.now, what })
    }

    fn end_as(&mut self, how: &str, audience: &mut dyn Audience) -> Result<End, ReplayError> {
        match self.run_to(Moment::at(u64::MAX), audience)? {
            Run::Ended(ending) if describe(ending) == how => Ok(End::Ended(ending)),
            Run::Ended(ending) => {
                self.diverged(format!("the guest {}, and it had {how}", describe(ending)))
            }
            Run::Left => Ok(End::Left),
            Run::Came => self.diverged(format!("the guest had {how}")),
        }
    }

    /// Runs to a moment; in slices, where somebody watches.
    fn run_to(&mut self, moment: Moment, audience: &mut dyn Audience) -> Result<Run, ReplayError> {
        while self.now != moment || moment == Moment::default() {
            let begun = Instant::now();
            let every = audience.samples_every();
            let ahead = self.now.position.saturating_add(every.unwrap_or(self.slice));
            let is_sliced = audience.watches() || every.is_some();
            let is_last = !is_sliced || ahead >= moment.position;
            let next = if is_last { moment } else { Moment::at(ahead) };
            match self.run_straight_to(next, audience)? {
                Run::Came if is_last => break,
                Run::Came => self.slice = next_slice(self.slice, begun.elapsed()),
                other => return Ok(other),
            }
        }
        Ok(Run::Came)
    }

    fn run_straight_to(
        &mut self,
        moment: Moment,
        audience: &mut dyn Audience,
    ) -> Result<Run, ReplayError> {
        let travel = self.debuggee.support_time_travel().ok_or(ReplayError::NotCounted)?;
        travel.run_until(0, moment)?;
        let mut is_leaving = false;
        loop {
            match self.debuggee.wait(POLL)? {
                Some(Event::Console { bytes, .. }) => audience.console(&bytes)?,
                Some(Event::Ended { ending, .. }) => return Ok(Run::Ended(ending)),
                Some(Event::Stopped(stop)) if stop.reason == StopReason::Reset => {}
                Some(Event::Stopped(_)) => break,
                None => {}
            }
            // Also of one that writes all the time.
            if !is_leaving && audience.wants_to_leave() {
                is_leaving = true;
                match self.debuggee.pause(0) {
                    // Where it has stopped or ended by itself, the event is on its way.
                    Ok(()) | Err(Error::Refused(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let travel = self.debuggee.support_time_travel().ok_or(ReplayError::NotCounted)?;
        self.now = travel.moment(0)?;
        if audience.samples_every().is_some() {
            let executed = travel.executed(0)?;
            audience.sampled(self.now, &executed);
        }
        audience.progress(self.now);
        let is_leaving = is_leaving || audience.wants_to_leave();
        Ok(if is_leaving { Run::Left } else { Run::Came })
    }
}

/// Makes slices longer where they take less time than they are to, and shorter where they take more.
fn next_slice(slice: u64, took: Duration) -> u64 {
    match took {
        took if took < SLICE_TIME / 2 => slice.saturating_mul(2),
        took if took > SLICE_TIME * 2 => (slice / 2).max(SLICE / 50),
        _ => slice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_worth_a_look() {
        assert_eq!(next_slice(SLICE, Duration::from_millis(10)), 2 * SLICE);
        assert_eq!(next_slice(SLICE, SLICE_TIME), SLICE);
        assert_eq!(next_slice(SLICE, Duration::from_secs(1)), SLICE / 2);
        assert_eq!(next_slice(1, Duration::from_secs(1)), SLICE / 50, "but not to nothing");
    }
}
