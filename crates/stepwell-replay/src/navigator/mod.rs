//! A whole run to go back and forth in: a debuggee that replays a log, and can be taken to any moment.
//!
//! Forwards it is a debuggee as any other: it runs, stops at breakpoints and steps, and what came from
//! outside comes in at its moments. It goes as it was recorded, so that a step of one vCPU lasts until
//! the recorded turns have it execute one instruction, and whatever would change the run is refused
//! ([`stepwell_debuggee::Refusal::WouldDiverge`]).
//!
//! Back it goes by going forward from a moment that lies before ([`stepwell_debuggee::Reverse`]): from a
//! checkpoint, where the debuggee has such, or else from the beginning, on a machine that is made anew.
//! Both come to the same state; they differ in how long it takes.
//!
//! Whatever takes time is done piece by piece in `wait`, so that it can be paused: what the navigator is
//! in the middle of is a value ([`Going`]), and each stop of the debuggee below leads to the next one.
//! [`leg`] is the way from here to a moment that lies ahead, [`search`] looks for what happened last,
//! [`step`] counts instructions of one vCPU, [`kept`] says which checkpoints are worth their memory,
//! [`snapshots`] are moments with names, and [`live`] is a run that is being recorded meanwhile.

mod debuggee;
mod kept;
mod leg;
mod live;
mod search;
mod snapshots;
mod step;

pub use live::Log;

use crate::log::Header;
use crate::replay::ReplayError;
use crate::script::Script;
use kept::{Kept, One};
use leg::Leg;
use live::Live;
use search::Search;
use snapshots::Named;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use step::Step;
use stepwell_arch::Va;
use stepwell_debuggee::{
    CHECKPOINTS_MAX, Debuggee, Error, Event, Moment, Place, Refusal, Stop, StopReason, VcpuId,
    Watchpoint,
};

/// The machine of a replay, which can be made anew.
pub trait Machine {
    /// Returns what runs on it, stopped at reset when it was just made.
    fn debuggee(&mut self) -> &mut dyn Debuggee;

    /// Makes it anew, with its guest at reset.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    fn restart(&mut self) -> Result<(), Error>;
}

impl<M: Machine + ?Sized> Machine for &mut M {
    fn debuggee(&mut self) -> &mut dyn Debuggee {
        (**self).debuggee()
    }

    fn restart(&mut self) -> Result<(), Error> {
        (**self).restart()
    }
}

/// How many moments are kept, and how near to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Moments at most.
    pub most: usize,
    /// Instructions between two on the way forwards.
    pub spacing: u64,
}

impl Default for Keeping {
    fn default() -> Self {
        // Two fewer than can be: one is kept before another is let go.
        Self { most: CHECKPOINTS_MAX - 2, spacing: 10_000_000 }
    }
}

/// What it is in the middle of.
#[derive(Debug)]
enum Going {
    Stopped,
    /// Forwards, as its user wants.
    Forward(Leg),
    /// One vCPU forwards, instruction by instruction.
    Step(Step),
    /// To a moment at which nothing but that is told.
    Seek(Leg, Told),
    /// To what happened last.
    Search(Box<Search>),
}

/// What is told once a moment is come to.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Of whom; of who has executed last, where that is nobody's in particular.
    vcpu: Option<VcpuId>,
    reason: StopReason,
    steps: u64,
    /// Not there yet: so many instructions of that vCPU more are to be gone back.
    back: u64,
}

impl Told {
    const REACHED: Self = Self { vcpu: None, reason: StopReason::Reached, steps: 0, back: 0 };
}

/// What the user was told last: it does not stop him again.
#[derive(Clone, Copy, Debug)]
struct Last {
    moment: Moment,
    vcpu: VcpuId,
    pc: Va,
    /// What the instruction there is about to do was told, too.
    is_access: bool,
}

/// A replay that can be gone back and forth in.
pub struct Navigator<'m> {
    machine: Box<dyn Machine + 'm>,
    vcpus: Vec<u8>,
    script: Script,
    /// How much of the script has happened, and how much of it was compared.
    done: usize,
    compared: usize,
    now: Moment,
    kept: Kept,
    going: Going,
    events: VecDeque<Event>,
    last: Option<Last>,
    /// Somebody wants it to stop.
    is_paused: bool,
    has_begun: bool,
    /// What its user has set, for a machine that is made anew.
    breakpoints: Vec<Place>,
    watchpoints: Vec<(VcpuId, Watchpoint)>,
    /// The breakpoints are in the debuggee.
    is_armed: bool,
    /// It has left the run that was recorded.
    is_forked: bool,
    named: Vec<Named>,
    /// The run is being recorded.
    live: Option<Live<'m>>,
}

impl<'m> Navigator<'m> {
    /// Begins, with a machine that was just made.
    #[must_use]
    pub fn new(mut machine: impl Machine + 'm, script: Script, keeping: Keeping) -> Self {
        let vcpus = machine.debuggee().vcpu_counts().to_vec();
        Self {
            machine: Box::new(machine),
            vcpus,
            script,
            done: 0,
            compared: 0,
            now: Moment::default(),
            kept: Kept::new(keeping.most, keeping.spacing),
            going: Going::Stopped,
            events: VecDeque::new(),
            last: None,
            is_paused: false,
            has_begun: false,
            breakpoints: Vec::new(),
            watchpoints: Vec::new(),
            is_armed: true,
            is_forked: false,
            named: Vec::new(),
            live: None,
        }
    }

    /// Begins a run that is recorded while it is gone back and forth in, and takes its state down every
    /// so many instructions.
    #[must_use]
    pub fn recording(
        machine: impl Machine + 'm,
        header: Header,
        keeping: Keeping,
        log: Box<dyn Log + 'm>,
        states_every: Option<u64>,
    ) -> Self {
        let live = Some(Live::new(log, states_every));
        Self { live, ..Self::new(machine, Script::begin(header), keeping) }
    }

    /// The last moment that it may go to.
    fn end_of_run(&self) -> Moment {
        match self.is_forked || self.is_at_frontier() {
            true => Moment { position: u64::MAX, clock: u64::MAX },
            false => self.script.end,
        }
    }

    /// Demands that what comes is not to be what was recorded.
    fn demand_fork(&self) -> Result<(), Error> {
        if self.is_forked { Ok(()) } else { Err(Refusal::WouldDiverge.into()) }
    }

    /// Returns where it is; while it goes, where it was last seen.
    #[must_use]
    pub const fn now(&self) -> Moment {
        self.now
    }

    fn below(&mut self) -> &mut dyn Debuggee {
        self.machine.debuggee()
    }

    fn travel(&mut self) -> Result<&mut dyn stepwell_debuggee::TimeTravel, Error> {
        self.machine.debuggee().support_time_travel().ok_or(Error::Refused(Refusal::NotCounted))
    }

    /// Demands that it is stopped.
    fn stopped(&self, domain: u8) -> Result<(), Error> {
        match self.going {
            _ if domain != 0 => Err(Refusal::NoSuchVcpu.into()),
            Going::Stopped => Ok(()),
            _ => Err(Refusal::NotStopped.into()),
        }
    }

    /// Returns the next event, of the debuggee below or of its own.
    fn next_event(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let begun = Instant::now();
        let mut is_first = true;
        loop {
            // A search may stop thousands of times: who waits is to be heard in between.
            if !std::mem::take(&mut is_first)
                && begun.elapsed() >= timeout
                && self.events.is_empty()
            {
                return Ok(None);
            }
            self.ask_for_typed()?;
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.below().wait(timeout)? {
                None => return Ok(None),
                Some(event @ Event::Console { .. }) => {
                    // What is gone through once more has been seen.
                    if matches!(self.going, Going::Forward(_) | Going::Step(_)) {
                        return Ok(Some(event));
                    }
                }
                Some(event @ Event::Ended { ending, .. })
                    if self.is_forked || self.is_going_into_new() =>
                {
                    self.take_down_end(ending)?;
                    return Ok(Some(event));
                }
                Some(Event::Ended { .. }) => {
                    return Err(self.diverged("the guest ended, which goes on in it".to_owned()));
                }
                Some(Event::Stopped(stop)) if stop.reason == StopReason::Reset => {
                    if !std::mem::replace(&mut self.has_begun, true) {
                        self.keep()?;
                        self.tell(stop);
                    }
                }
                Some(Event::Stopped(stop)) => self.happened(stop)?,
            }
        }
    }

    /// The debuggee below has stopped.
    fn happened(&mut self, stop: Stop) -> Result<(), Error> {
        let going = std::mem::replace(&mut self.going, Going::Stopped);
        if matches!(going, Going::Stopped) {
            return Ok(());
        }
        self.now = self.travel()?.moment(0)?;
        self.come_to_happenings()?;
        self.take_down()?;
        if std::mem::take(&mut self.is_paused) {
            if let Going::Search(search) = going {
                self.end_search(&search)?;
            }
            self.arm()?;
            self.tell(Stop { reason: StopReason::Paused, ..stop });
            return Ok(());
        }
        if self.is_for_typed(stop) {
            return self.go_on(going);
        }
        match going {
            Going::Stopped => Ok(()),
            Going::Forward(leg) => self.went_forward(leg, stop),
            Going::Step(step) => self.went_step(step, stop),
            Going::Seek(leg, told) => self.sought(leg, told, stop),
            Going::Search(search) => self.searched(search, stop),
        }
    }

    /// Goes on after a stop that is nobody's business.
    fn go_on(&mut self, mut going: Going) -> Result<(), Error> {
        match &mut going {
            Going::Forward(leg) | Going::Seek(leg, _) | Going::Step(Step { leg, .. }) => {
                self.set_off(leg)?;
            }
            Going::Search(search) => self.set_off(&mut search.leg)?,
            Going::Stopped => {}
        }
        self.going = going;
        Ok(())
    }

    /// Tells the user of a stop, and is stopped.
    fn tell(&mut self, stop: Stop) {
        self.going = Going::Stopped;
        self.is_paused = false;
        let Stop { vcpu, pc, reason, .. } = stop;
        let is_access = matches!(reason, StopReason::Watchpoint { .. });
        self.last = Some(Last { moment: self.now, vcpu, pc, is_access });
        self.events.push_back(Event::Stopped(stop));
    }

    /// What was sought is come to.
    fn come(&mut self, told: Told) -> Result<(), Error> {
        if let Told { vcpu: Some(vcpu), back: left @ 1.., steps, .. } = told {
            return self.back_by(vcpu, left, steps);
        }
        self.arm()?;
        self.report_arrival(told)
    }

    /// Tells of the moment at which it is.
    fn report_arrival(&mut self, told: Told) -> Result<(), Error> {
        let vcpu = match told.vcpu {
            Some(vcpu) => vcpu,
            None => self.last_to_execute()?,
        };
        let pc = match self.below().read_registers(vcpu) {
            Ok(registers) => Va(registers.pc),
            // It was switched off there.
            Err(Error::Refused(_)) => Va(0),
            Err(error) => return Err(error),
        };
        self.tell(Stop { vcpu, reason: told.reason, pc, steps: told.steps });
        Ok(())
    }

    /// Returns the vCPU that has executed the instruction before this moment.
    fn last_to_execute(&mut self) -> Result<VcpuId, Error> {
        let position = self.now.position;
        let executed = self.travel()?.executed(0)?;
        let last = (0..).zip(executed).find(|&(_, behind)| behind == position && position > 0);
        Ok(VcpuId { domain: 0, vcpu: last.map_or(0, |(vcpu, _)| vcpu) })
    }

    /// Tells whether a stop is the one that the user set it going from.
    fn is_known(&self, stop: Stop) -> bool {
        let Some(last) = self.last else { return false };
        let is_there = (last.moment, last.vcpu, last.pc) == (self.now, stop.vcpu, stop.pc);
        match stop.reason {
            StopReason::Breakpoint => is_there,
            StopReason::Watchpoint { .. } => is_there && last.is_access,
            _ => false,
        }
    }

    fn diverged(&self, what: String) -> Error {
        let at = self.now;
        Error::Lost(Box::new(ReplayError::Diverged { at, what }))
    }

    /// Keeps this moment, where that is possible.
    fn keep(&mut self) -> Result<(), Error> {
        if self.is_forked || self.kept.is_kept(self.now) {
            return Ok(());
        }
        let Some(checkpoints) = self.travel()?.support_checkpoints() else { return Ok(()) };
        let checkpoint = match checkpoints.keep(0) {
            Ok(checkpoint) => checkpoint,
            Err(Error::Refused(Refusal::NoMemory)) => {
                // Fewer, then: what has been kept is worth more than that there be no gap.
                let now = self.now;
                if let Some(least) = self.kept.thin(now) {
                    self.forget(least)?;
                }
                return Ok(());
            }
            Err(Error::Refused(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let one = One { moment: self.now, done: self.done, checkpoint };
        if let Some(surplus) = self.kept.add(one) {
            self.forget(surplus)?;
        }
        Ok(())
    }

    fn forget(&mut self, checkpoint: stepwell_debuggee::Checkpoint) -> Result<(), Error> {
        if let Some(checkpoints) = self.travel()?.support_checkpoints() {
            checkpoints.forget(checkpoint);
        }
        Ok(())
    }

    /// Goes to a moment that is kept, or to one before it, or to the beginning.
    fn restore(&mut self, mut one: Option<One>) -> Result<(), Error> {
        self.is_forked = false;
        while let Some(kept) = one
            && let Some(checkpoints) = self.travel()?.support_checkpoints()
        {
            match checkpoints.go_to(0, kept.checkpoint) {
                Ok(()) => {
                    (self.now, self.done) = (kept.moment, kept.done);
                    return Ok(());
                }
                // The memory for it was needed for others.
                Err(Error::Refused(Refusal::NoSuchCheckpoint)) => {
                    self.kept.lose(kept.checkpoint);
                    one = self.kept.at_most(kept.moment);
                }
                Err(error) => return Err(error),
            }
        }
        self.machine.restart()?;
        self.kept.clear();
        self.lose_forks();
        (self.now, self.done) = (Moment::default(), 0);
        self.keep()?;
        if self.is_armed {
            self.set_breakpoints()?;
        }
        for (vcpu, watchpoint) in self.watchpoints.clone() {
            if let Some(watchpoints) = self.below().support_watchpoints() {
                watchpoints.set_watchpoint(vcpu, watchpoint)?;
            }
        }
        Ok(())
    }

    /// Puts the user's breakpoints into the debuggee.
    fn arm(&mut self) -> Result<(), Error> {
        if !std::mem::replace(&mut self.is_armed, true) {
            self.set_breakpoints()?;
        }
        Ok(())
    }

    fn set_breakpoints(&mut self) -> Result<(), Error> {
        for place in self.breakpoints.clone() {
            self.below().set_breakpoint(0, place)?;
        }
        Ok(())
    }

    /// Takes them out, so that nothing stops on the way.
    fn disarm(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_armed, false) {
            for place in self.breakpoints.clone() {
                self.below().clear_breakpoint(0, place)?;
            }
        }
        Ok(())
    }
}
