//! Replaying: a guest runs again as its log has it.

use crate::log::{Entry, LogError, Reader, typed};
use crate::record::describe;
use std::io::BufRead;
use std::time::Duration;
use stepwell_debuggee::{Debuggee, DomainEnding, Error, Event, Moment, StateHash, StopReason};

/// How often it is looked whether the user wants something.
const POLL: Duration = Duration::from_millis(50);

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
    /// Takes it that so much has been replayed.
    fn progress(&mut self, moment: Moment);
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
    #[error("the recording ends at position {last}, before {wanted}")]
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
pub struct Replay<'a, R> {
    debuggee: &'a mut dyn Debuggee,
    log: Reader<R>,
    now: Moment,
    /// States that were compared.
    compared: u64,
}

/// What became of a run to a moment.
enum Run {
    Came,
    Ended(DomainEnding),
    Left,
}

impl<'a, R: BufRead> Replay<'a, R> {
    /// Makes one of a guest that is stopped at reset.
    #[must_use]
    pub fn new(debuggee: &'a mut dyn Debuggee, log: Reader<R>) -> Self {
        Self { debuggee, log, now: Moment::default(), compared: 0 }
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
        // The state that was seen last, which is the end's.
        let mut last = None;
        loop {
            let entry = self.log.next_entry()?;
            let moment = entry.as_ref().map(Entry::moment);
            if let Some(position) = to
                && moment.is_none_or(|moment| moment.position > position)
            {
                if entry.is_none() {
                    return self.too_far(position);
                }
                return self.arrive(Moment::at(position), audience);
            }
            match entry {
                None => return self.finish(last),
                Some(Entry::Ended { how, .. }) => return self.end_as(&how, audience),
                Some(entry) => {
                    let moment = entry.moment();
                    match self.run_to(moment, audience)? {
                        Run::Came => {}
                        Run::Left => return Ok(End::Left),
                        Run::Ended(ending) => {
                            return self.diverged(format!("the guest {}", describe(ending)));
                        }
                    }
                    self.come_to(&entry, moment)?;
                    last = self.happen(entry, verify)?.or(last);
                }
            }
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

    fn too_far(&self, wanted: u64) -> Result<End, ReplayError> {
        match self.now.position {
            last if last >= wanted => Ok(End::At(self.now)),
            last => Err(ReplayError::TooFar { last, wanted }),
        }
    }

    fn arrive(&mut self, moment: Moment, audience: &mut dyn Audience) -> Result<End, ReplayError> {
        Ok(match self.run_to(moment, audience)? {
            Run::Came => End::At(self.now),
            Run::Left => End::Left,
            Run::Ended(ending) => End::Ended(ending),
        })
    }

    /// Holds the moment against that of an entry.
    fn come_to(&self, entry: &Entry, moment: Moment) -> Result<(), ReplayError> {
        // Looks may have been at positions of which it was not known how long they last.
        if self.now == moment {
            return Ok(());
        }
        let what = match entry {
            Entry::Input { .. } => "when something was typed",
            _ => "when it was looked at",
        };
        Err(ReplayError::Diverged { at: self.now, what: format!("it was {moment} {what}") })
    }

    /// Has an entry happen. Returns the state that it names, where that was not compared.
    fn happen(&mut self, entry: Entry, verify: bool) -> Result<Option<StateHash>, ReplayError> {
        match entry {
            Entry::Input { bytes, .. } => {
                let bytes = typed(&bytes).unwrap_or_default();
                let Some(console) = self.debuggee.support_console() else { return Ok(None) };
                let done = console.type_bytes(0, &bytes)?;
                if done < bytes.len() {
                    let room =
                        format!("the console had room for {} bytes, not {done}", bytes.len());
                    return Err(ReplayError::Diverged { at: self.now, what: room });
                }
                Ok(None)
            }
            Entry::State { registers, memory, .. } => {
                let number = |word: &str| u64::from_str_radix(word, 16).unwrap_or(0);
                let seen = StateHash { registers: number(&registers), memory: number(&memory) };
                if verify {
                    self.compare(seen)?;
                }
                Ok(Some(seen))
            }
            Entry::Left { .. } | Entry::Ended { .. } => Ok(None),
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
        Err(ReplayError::Diverged { at: self.now, what: what.into() })
    }

    /// At the end of a log whose guest had not ended.
    fn finish(&mut self, last: Option<StateHash>) -> Result<End, ReplayError> {
        if let Some(last) = last {
            self.compare(last)?;
        }
        Ok(End::At(self.now))
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

    fn run_to(&mut self, moment: Moment, audience: &mut dyn Audience) -> Result<Run, ReplayError> {
        if self.now == moment && moment != Moment::default() {
            return Ok(Run::Came);
        }
        let travel = self.debuggee.support_time_travel().ok_or(ReplayError::NotCounted)?;
        travel.run_until(0, moment)?;
        let mut is_leaving = false;
        loop {
            match self.debuggee.wait(POLL)? {
                Some(Event::Console { bytes, .. }) => audience.console(&bytes)?,
                Some(Event::Ended { ending, .. }) => return Ok(Run::Ended(ending)),
                Some(Event::Stopped(stop)) if stop.reason == StopReason::Reset => {}
                Some(Event::Stopped(_)) => break,
                None if !is_leaving && audience.wants_to_leave() => {
                    is_leaving = true;
                    self.debuggee.pause(0)?;
                }
                None => {}
            }
        }
        let travel = self.debuggee.support_time_travel().ok_or(ReplayError::NotCounted)?;
        self.now = travel.moment(0)?;
        audience.progress(self.now);
        Ok(if is_leaving { Run::Left } else { Run::Came })
    }
}
