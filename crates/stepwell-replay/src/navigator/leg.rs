//! The way to a moment that lies ahead: what happens on it happens, and moments are kept.

use super::{Going, Navigator, Told};
use crate::script::Happening;
use stepwell_debuggee::{Error, Moment, Stop, StopReason, VcpuId};

/// Moments are kept so far before the one that is sought: who goes back goes back a little, mostly.
const NEAR: [u64; 2] = [1_000_000, 20_000];

/// How the way is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Run,
    /// By steps that are recorded.
    Record,
    /// Only until this vCPU has its turn.
    ToTurn(VcpuId),
}

/// A way ahead.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    pub(super) until: Moment,
    pub(super) how: How,
    /// Where moments are to be kept on it, from the last to the first.
    keeps: Vec<u64>,
    /// Where the debuggee was sent.
    sent: Moment,
}

impl Leg {
    pub(super) const fn to(until: Moment, how: How) -> Self {
        Self { until, how, keeps: Vec::new(), sent: until }
    }
}

impl Navigator<'_> {
    /// Sends the debuggee on its way, to where something is to be done.
    pub(super) fn set_off(&mut self, leg: &mut Leg) -> Result<(), Error> {
        let mut to = leg.until;
        if let Some(end) = self.slice_end()? {
            to = to.min(Moment::at(end));
        }
        if !self.is_forked {
            if let Some(&(moment, _)) = self.script.happenings.get(self.done) {
                to = to.min(moment);
            }
            let due = self.kept.due(self.now);
            let due = leg.keeps.last().map_or(due, |&near| due.min(near));
            to = to.min(Moment::at(due));
        }
        leg.sent = to;
        let travel = self.travel()?;
        match leg.how {
            How::Run => travel.run_until(0, to),
            How::Record => travel.record_until(0, to),
            How::ToTurn(vcpu) => travel.run_until_turn(vcpu, to),
        }
    }

    /// Takes it that the debuggee is where it was sent. Tells whether the way is at its end.
    pub(super) fn is_at_end(&mut self, leg: &mut Leg) -> Result<bool, Error> {
        if self.now >= leg.until {
            return Ok(true);
        }
        if self.now < leg.sent {
            if matches!(leg.how, How::ToTurn(_)) {
                return Ok(true);
            }
            // It is about to execute where all its vCPUs waited until something happened.
            return Err(match self.script.happenings.get(self.done) {
                Some((moment, what)) => self.missed(*moment, what),
                None => self.diverged(format!("it was {}", leg.sent)),
            });
        }
        let position = self.now.position;
        let is_near = leg.keeps.last() == Some(&position);
        leg.keeps.retain(|&near| near > position);
        if is_near || self.kept.due(Moment::at(position.saturating_sub(1))) == position {
            self.keep()?;
        }
        Ok(false)
    }

    /// Has everything happen that happened here.
    pub(super) fn come_to_happenings(&mut self) -> Result<(), Error> {
        while let Some((moment, what)) = self.script.happenings.get(self.done).cloned() {
            if moment > self.now || self.is_forked {
                return Ok(());
            }
            if moment != self.now {
                return Err(self.missed(moment, &what));
            }
            match what {
                Happening::Input(bytes) => self.type_again(&bytes)?,
                // Once is enough: what is gone through again is the same machine.
                Happening::State(seen) if self.compared <= self.done => {
                    let hash = self.travel()?.state_hash(0)?;
                    if hash != seen {
                        return Err(self.diverged(format!("its state is {hash}, and was {seen}")));
                    }
                    self.compared = self.done + 1;
                }
                Happening::State(_) => {}
            }
            self.done += 1;
        }
        Ok(())
    }

    /// It is somewhere else than when something happened.
    fn missed(&self, moment: Moment, what: &Happening) -> Error {
        let what = match what {
            Happening::Input(_) => "when something was typed",
            Happening::State(_) => "when it was looked at",
        };
        self.diverged(format!("it was {moment} {what}"))
    }

    fn type_again(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(console) = self.below().support_console() else { return Ok(()) };
        let typed = console.type_bytes(0, bytes)?;
        if typed < bytes.len() {
            let room = format!("the console had room for {} bytes, not {typed}", bytes.len());
            return Err(self.diverged(room));
        }
        Ok(())
    }

    /// Lets it run for its user, no further than to a moment.
    pub(super) fn go_forward(&mut self, until: Moment, how: How) -> Result<(), Error> {
        let mut leg = Leg::to(until.min(self.end_of_run()), how);
        if self.now >= leg.until {
            return self.report_arrival(Told::REACHED);
        }
        self.set_off(&mut leg)?;
        self.going = Going::Forward(leg);
        Ok(())
    }

    pub(super) fn went_forward(&mut self, mut leg: Leg, stop: Stop) -> Result<(), Error> {
        let goes_on = match stop.reason {
            StopReason::Reached => !self.is_at_end(&mut leg)?,
            _ => self.is_known(stop),
        };
        if goes_on {
            self.set_off(&mut leg)?;
            self.going = Going::Forward(leg);
        } else {
            self.tell(stop);
        }
        Ok(())
    }

    /// Goes to a moment, before or after this one, and tells `told` there.
    pub(super) fn seek(&mut self, moment: Moment, told: Told) -> Result<(), Error> {
        let target = moment.min(self.script.end);
        let kept = self.kept.at_most(target);
        let is_nearer = kept.is_some_and(|one| one.moment > self.now);
        if self.now > target || is_nearer || self.is_forked {
            self.restore(kept)?;
        }
        let mut leg = Leg::to(target, How::Run);
        let left = target.position.saturating_sub(self.now.position);
        for near in NEAR.into_iter().rev().filter(|&near| 2 * near < left) {
            if !self.kept.has_one_within(target.position, near) {
                leg.keeps.push(target.position - near);
            }
        }
        if self.now >= target {
            return self.come(told);
        }
        self.set_off(&mut leg)?;
        self.going = Going::Seek(leg, told);
        Ok(())
    }

    pub(super) fn sought(&mut self, mut leg: Leg, told: Told, stop: Stop) -> Result<(), Error> {
        if self.now >= leg.until
            || stop.reason == StopReason::Reached && self.is_at_end(&mut leg)?
        {
            return self.come(told);
        }
        if stop.reason == StopReason::Breakpoint {
            // There may be many on the way.
            self.disarm()?;
        }
        self.set_off(&mut leg)?;
        self.going = Going::Seek(leg, told);
        Ok(())
    }
}
