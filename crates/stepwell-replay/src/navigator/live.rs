//! A run that is being recorded while it is debugged.
//!
//! Where it has never been, a navigator goes on as a recorder does: in slices, with what is typed coming
//! in between two of them, and taken down. Where it has been, it is a replay of that. The frontier is
//! between the two: who goes forwards from before it stops there first, and goes on from there into what
//! is new.

use super::{Going, Navigator};
use crate::log::{Entry, LogError};
use crate::record::describe;
use crate::script::Happening;
use std::time::{Duration, Instant};
use stepwell_debuggee::{DomainEnding, Error, Moment, Stop};

/// Instructions of a slice, as a recorder has them.
const SLICE: u64 = 5_000_000;
/// That it has passed a moment is taken down where that is so far from the last thing that was: not at each
/// step of who goes by steps.
const PASSED_APART: u64 = 1_000_000;
/// How long what was typed waits for the end of a slice.
const PATIENCE: Duration = Duration::from_millis(50);

/// Where what happens is taken down.
pub trait Log {
    /// Takes down the next thing.
    ///
    /// # Errors
    ///
    /// [`LogError::Write`].
    fn add(&mut self, entry: &Entry) -> Result<(), LogError>;
}

impl<W: std::io::Write> Log for crate::log::Writer<W> {
    fn add(&mut self, entry: &Entry) -> Result<(), LogError> {
        Self::add(self, entry)
    }
}

/// What a run that is being recorded has beside one that was.
pub(super) struct Live<'m> {
    log: Box<dyn Log + 'm>,
    /// Instructions between two looks at the state.
    states_every: Option<u64>,
    state_due: u64,
    /// The last position that is in the log.
    logged: u64,
    /// What was typed and waits for a stop.
    typed: Vec<u8>,
    /// Since when it has been going, and whether it was asked to stop for what was typed.
    begun: Instant,
    is_asked: bool,
}

impl std::fmt::Debug for Live<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("typed", &self.typed).finish_non_exhaustive()
    }
}

fn lost(error: LogError) -> Error {
    Error::Lost(Box::new(error))
}

impl<'m> Live<'m> {
    pub(super) fn new(log: Box<dyn Log + 'm>, states_every: Option<u64>) -> Self {
        let state_due = states_every.unwrap_or(u64::MAX);
        let (typed, begun) = (Vec::new(), Instant::now());
        Self { log, states_every, state_due, logged: 0, typed, begun, is_asked: false }
    }
}

impl Navigator<'_> {
    /// Tells whether what comes next has never been.
    pub(super) fn is_at_frontier(&self) -> bool {
        self.live.is_some() && !self.is_forked && self.now >= self.script.end
    }

    /// Tells whether it goes, for its user, to where it has never been.
    pub(super) fn is_going_into_new(&self) -> bool {
        matches!(self.going, Going::Forward(_) | Going::Step(_)) && self.is_at_frontier()
    }

    /// Takes what is typed. It comes in where the guest is stopped next.
    pub(super) fn take_typed(&mut self, bytes: &[u8]) -> bool {
        let is_new = self.is_at_frontier();
        match &mut self.live {
            Some(live) if is_new => {
                live.typed.extend(bytes);
                true
            }
            _ => false,
        }
    }

    /// Where a way into what is new is to be stopped at the latest.
    pub(super) fn slice_end(&mut self) -> Result<Option<u64>, Error> {
        if !self.is_at_frontier() {
            return Ok(None);
        }
        self.type_waiting()?;
        let Some(live) = &mut self.live else { return Ok(None) };
        (live.begun, live.is_asked) = (Instant::now(), false);
        Ok(Some(self.now.position.saturating_add(SLICE).min(live.state_due)))
    }

    fn type_waiting(&mut self) -> Result<(), Error> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let waiting = std::mem::take(&mut live.typed);
        if waiting.is_empty() {
            return Ok(());
        }
        let Some(console) = self.machine.debuggee().support_console() else { return Ok(()) };
        let typed = console.type_bytes(0, &waiting)?;
        let (typed, rest) = waiting.split_at(typed.min(waiting.len()));
        let moment = self.now;
        if let Some(live) = &mut self.live {
            live.typed = rest.to_vec();
            if !typed.is_empty() {
                live.logged = moment.position;
                live.log.add(&Entry::input(moment, typed)).map_err(lost)?;
                self.script.happenings.push((moment, Happening::Input(typed.to_vec())));
                self.done = self.script.happenings.len();
            }
        }
        Ok(())
    }

    /// It has come somewhere: if nobody has been there, that is taken down.
    pub(super) fn take_down(&mut self) -> Result<(), Error> {
        let moment = self.now;
        if self.live.is_none() || self.is_forked || moment <= self.script.end {
            return Ok(());
        }
        self.script.end = moment;
        let is_due = self.live.as_ref().is_some_and(|live| moment.position >= live.state_due);
        let hash = match is_due {
            true => Some(self.travel()?.state_hash(0)?),
            false => None,
        };
        let Some(live) = &mut self.live else { return Ok(()) };
        let entry = match hash {
            Some(hash) => {
                let every = live.states_every.unwrap_or(u64::MAX);
                live.state_due = moment.position.saturating_add(every);
                self.script.happenings.push((moment, Happening::State(hash)));
                self.done = self.script.happenings.len();
                self.compared = self.done;
                Entry::state(moment, hash)
            }
            None if moment.position.saturating_sub(live.logged) < PASSED_APART => return Ok(()),
            None => Entry::passed(moment),
        };
        live.logged = moment.position;
        live.log.add(&entry).map_err(lost)
    }

    /// Takes down how far a run has come whose user leaves.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], where that cannot be written.
    pub fn finish(&mut self) -> Result<(), Error> {
        let Some(live) = self.live.as_mut().filter(|_| self.script.ending.is_none()) else {
            return Ok(());
        };
        let Moment { position, clock } = self.script.end;
        live.log.add(&Entry::Left { position, clock }).map_err(lost)
    }

    /// The guest has ended where nobody had been.
    pub(super) fn take_down_end(&mut self, ending: DomainEnding) -> Result<(), Error> {
        if self.live.is_none() || self.is_forked {
            return Ok(());
        }
        let moment @ Moment { position, clock } = self.travel()?.moment(0)?;
        let how = describe(ending);
        self.script.ending = Some((moment, how.into()));
        let Some(live) = &mut self.live else { return Ok(()) };
        live.log.add(&Entry::Ended { position, clock, how: how.into() }).map_err(lost)
    }

    /// Asks the guest to stop where something that was typed has waited for long.
    pub(super) fn ask_for_typed(&mut self) -> Result<(), Error> {
        let is_going = self.is_going_into_new();
        let Some(live) = &mut self.live else { return Ok(()) };
        let is_wanted = is_going && !live.typed.is_empty() && !live.is_asked;
        if !is_wanted || live.begun.elapsed() < PATIENCE {
            return Ok(());
        }
        live.is_asked = true;
        match self.machine.debuggee().pause(0) {
            // Where it has stopped or ended by itself, the event is on its way.
            Ok(()) | Err(Error::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells whether a stop is one that nobody but us has asked for.
    pub(super) fn is_for_typed(&self, stop: Stop) -> bool {
        let is_asked = self.live.as_ref().is_some_and(|live| live.is_asked);
        is_asked && stop.reason == stepwell_debuggee::StopReason::Paused
    }
}
