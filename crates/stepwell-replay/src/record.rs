//! Recording: a guest runs, and what comes to it from outside is taken down with its moment.
//!
//! The guest runs in slices. It is stopped between them, and only then does anything come in, so that
//! the moment is known to the instruction. That it stops makes no difference to it.

use crate::log::{Entry, LogError, Writer};
use std::io::Write;
use std::time::{Duration, Instant};
use stepwell_debuggee::{Debuggee, DomainEnding, Error, Event, Moment, Refusal, StopReason};

/// Instructions of a slice: a key that is typed waits for its end.
const SLICE: u64 = 5_000_000;
/// How long a key waits at most: all vCPUs may sleep for longer than any slice takes.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often it is looked whether the user wants something.
const POLL: Duration = Duration::from_millis(10);

/// Where a recording ends, beside where its user or its guest ends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until<'a> {
    /// At this position.
    pub position: Option<u64>,
    /// Soon after the guest has written this on its console.
    pub text: Option<&'a [u8]>,
}

/// What a recording has to do with the world.
pub trait World {
    /// Returns what is to be typed, and forgets it.
    fn input(&mut self) -> Vec<u8>;
    /// Takes what the guest has written on its console.
    ///
    /// # Errors
    ///
    /// Where it cannot be shown.
    fn console(&mut self, bytes: &[u8]) -> std::io::Result<()>;
    /// Tells whether the user wants to leave.
    fn wants_to_leave(&mut self) -> bool;
    /// Takes it that so much has been recorded.
    fn progress(&mut self, moment: Moment);
}

/// How a recording came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it was to.
    Reached(Moment),
    /// Its user left.
    Left(Moment),
    /// The guest ended.
    Ended(DomainEnding),
}

/// Why a recording could not go on. What was written is a log up to there.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
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
}

/// Runs a guest that is stopped at reset, and takes down what happens.
pub struct Recorder<'a, W> {
    debuggee: &'a mut dyn Debuggee,
    log: Writer<W>,
    until: Until<'a>,
    /// Instructions between two looks at the state; none where nobody wants any.
    states_every: Option<u64>,
    state_due: u64,
    now: Moment,
    waiting: Vec<u8>,
    /// The end of the console's text that may be the beginning of what is waited for.
    tail: Vec<u8>,
    has_said_it: bool,
}

impl<'a, W: Write> Recorder<'a, W> {
    /// Makes one.
    #[must_use]
    pub fn new(
        debuggee: &'a mut dyn Debuggee,
        log: Writer<W>,
        until: Until<'a>,
        states_every: Option<u64>,
    ) -> Self {
        let states_every = states_every.map(|every| every.max(1));
        Self {
            debuggee,
            log,
            until,
            states_every,
            state_due: states_every.unwrap_or(u64::MAX),
            now: Moment::default(),
            waiting: Vec::new(),
            tail: Vec::new(),
            has_said_it: false,
        }
    }

    /// Records to the end.
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub fn run(&mut self, world: &mut dyn World) -> Result<End, RecordError> {
        loop {
            let is_reached = self.until.position == Some(self.now.position) || self.has_said_it;
            let leaves = world.wants_to_leave();
            if is_reached || leaves {
                self.look()?;
                let Moment { position, clock } = self.now;
                self.log.add(&Entry::Left { position, clock })?;
                return Ok(if is_reached { End::Reached(self.now) } else { End::Left(self.now) });
            }
            if self.now.position >= self.state_due {
                self.look()?;
                let every = self.states_every.unwrap_or(u64::MAX);
                self.state_due = self.now.position.saturating_add(every);
            }
            self.type_waiting(world)?;
            let before = self.now;
            if let Some(ending) = self.slice(world)? {
                let travel = self.debuggee.support_time_travel().ok_or(RecordError::NotCounted)?;
                let moment @ Moment { position, clock } = travel.moment(0)?;
                self.log.add(&Entry::Ended { position, clock, how: describe(ending).into() })?;
                let is_reached = self.has_said_it;
                return Ok(if is_reached { End::Reached(moment) } else { End::Ended(ending) });
            }
            if self.now > before {
                self.log.add(&Entry::passed(self.now))?;
            }
            world.progress(self.now);
        }
    }

    /// Takes down the state.
    fn look(&mut self) -> Result<(), RecordError> {
        if self.states_every.is_none() {
            return Ok(());
        }
        let travel = self.debuggee.support_time_travel().ok_or(RecordError::NotCounted)?;
        let hash = travel.state_hash(0)?;
        self.log.add(&Entry::state(self.now, hash))?;
        Ok(())
    }

    fn type_waiting(&mut self, world: &mut dyn World) -> Result<(), RecordError> {
        self.waiting.extend(world.input());
        if self.waiting.is_empty() {
            return Ok(());
        }
        let Some(console) = self.debuggee.support_console() else { return Ok(()) };
        let typed = console.type_bytes(0, &self.waiting)?;
        let bytes: Vec<u8> = self.waiting.drain(..typed).collect();
        if !bytes.is_empty() {
            self.log.add(&Entry::input(self.now, &bytes))?;
        }
        Ok(())
    }

    /// Lets the guest run for a slice. Returns how it ended, if it has.
    fn slice(&mut self, world: &mut dyn World) -> Result<Option<DomainEnding>, RecordError> {
        let end = self.now.position.saturating_add(SLICE).min(self.state_due);
        let end = end.min(self.until.position.unwrap_or(u64::MAX));
        let travel = self.debuggee.support_time_travel().ok_or(RecordError::NotCounted)?;
        travel.run_until(0, Moment::at(end))?;
        let begun = Instant::now();
        let mut is_asked = false;
        loop {
            match self.debuggee.wait(POLL)? {
                Some(Event::Console { bytes, .. }) => {
                    world.console(&bytes)?;
                    self.notice(&bytes);
                }
                Some(Event::Ended { ending, .. }) => return Ok(Some(ending)),
                // That it was stopped at reset is told late.
                Some(Event::Stopped(stop)) if stop.reason != StopReason::Reset => break,
                Some(Event::Stopped(_)) => {}
                None => {
                    self.waiting.extend(world.input());
                    let is_wanted =
                        !self.waiting.is_empty() || self.has_said_it || world.wants_to_leave();
                    if is_wanted && !is_asked && begun.elapsed() > PATIENCE {
                        is_asked = true;
                        // Where the guest has just ended, that is the next event.
                        match self.debuggee.pause(0) {
                            Ok(()) | Err(Error::Lost(_)) => {}
                            Err(Error::Refused(Refusal::Ended)) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
            }
        }
        let travel = self.debuggee.support_time_travel().ok_or(RecordError::NotCounted)?;
        self.now = travel.moment(0)?;
        Ok(None)
    }

    /// Looks for the text that is waited for.
    fn notice(&mut self, bytes: &[u8]) {
        let Some(text) = self.until.text.filter(|text| !text.is_empty()) else { return };
        self.tail.extend(bytes);
        self.has_said_it |= self.tail.windows(text.len()).any(|part| part == text);
        let kept = self.tail.len().saturating_sub(text.len());
        self.tail.drain(..kept);
    }
}

/// Returns an ending in the words of a log.
#[must_use]
pub fn describe(ending: DomainEnding) -> &'static str {
    match ending {
        DomainEnding::PoweredOff => "powered off",
        DomainEnding::Reset => "asked to be reset",
        DomainEnding::Fault(_) => "crashed",
    }
}
