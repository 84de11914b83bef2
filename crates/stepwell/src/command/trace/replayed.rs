//! `stepwell trace --replay`: any part of a run that was recorded, instruction by instruction.

use super::super::replayed::Replayed;
use super::{End, Job, SLICE_FIRST, Trace};
use crate::follow::Outcome;
use crate::interruption;
use anyhow::{Context, bail};
use std::path::Path;
use std::time::Instant;
use stepwell_debuggee::{Debuggee, Moment, Refusal, StopReason};
use stepwell_replay::replay::ReplayError;

impl Trace {
    pub(super) fn execute_replayed(&self, log: &Path) -> anyhow::Result<u8> {
        let mut replayed = Replayed::open(log, &self.guest)?;
        let end = replayed.script.end;
        let wanted = self.to.unwrap_or(end.position);
        if wanted > end.position {
            let last = end.position;
            return Err(ReplayError::TooFar { last, wanted })
                .with_context(|| log.display().to_string());
        }
        if self.from >= wanted {
            bail!("--from {} is not before --to {wanted}: there is nothing to record", self.from);
        }
        let names = replayed.names().clone();
        let mut job = self.job(&replayed.guest, names)?;
        // Its vCPUs go on as they did.
        job.waits = None;
        let end = if self.to.is_some() { Moment::at(wanted) } else { end };
        let result = replayed.with(|navigator, names| {
            job.names = names;
            job.run_part(self, navigator, end)
        });
        job.conclude(self, result)
    }
}

impl Job {
    /// Records a part of a replay that is at reset.
    fn run_part(
        &mut self,
        options: &Trace,
        debuggee: &mut dyn Debuggee,
        end: Moment,
    ) -> anyhow::Result<End> {
        options.choose_policies(debuggee)?;
        let from = Moment::at(options.from);
        let reset = self.follow(debuggee, |_, follower, debuggee| follower.follow(debuggee))?;
        let Outcome::Stopped(mut stop) = reset.0 else { return Ok(End::NotWaitedFor) };
        if options.from > 0 {
            let reverse = debuggee.support_reverse().ok_or(Refusal::Unsupported)?;
            reverse.go_to(0, from)?;
            let (outcome, interruption) =
                self.follow(debuggee, |_, follower, debuggee| follower.follow(debuggee))?;
            match outcome {
                Outcome::Stopped(there) if interruption.is_none() => stop = there,
                _ => return Ok(End::NotWaitedFor),
            }
        }
        self.recorder.want(stop.pc, 1);
        self.advance(debuggee, stop)?;
        self.sieve.begin(&mut self.names, debuggee)?;
        self.emit_tasks()?;
        (self.done, self.flushed, self.started) = (0, 0, Instant::now());
        self.bar.set_length(end.position.saturating_sub(options.from));
        let mut slice = SLICE_FIRST;
        loop {
            let travel = debuggee.support_time_travel().ok_or(Refusal::NotCounted)?;
            let now = travel.moment(0)?;
            if now >= end {
                return Ok(End::Done);
            }
            let next = Moment::at(now.position.saturating_add(slice));
            travel.record_until(0, next.min(end))?;
            let (outcome, interruption) =
                self.follow(debuggee, |_, follower, debuggee| follower.follow(debuggee))?;
            let Outcome::Stopped(stop) = outcome else { return Ok(End::Done) };
            self.advance(debuggee, stop)?;
            let travel = debuggee.support_time_travel().ok_or(Refusal::NotCounted)?;
            self.done = travel.moment(0)?.position.saturating_sub(options.from);
            self.bar.set_position(self.done);
            if let Some(interruption) = interruption.or_else(interruption::take) {
                return self.interrupted(interruption);
            }
            let passes = self.sieve.stopped(&mut self.names, debuggee, stop, None)?;
            self.emit_tasks()?;
            let goes_on = matches!(stop.reason, StopReason::Reached | StopReason::RingFull);
            if !passes
                && !goes_on
                && let Some(end) = self.end(stop)?
            {
                return Ok(end);
            }
            slice = (slice * 2).min(options.slice_last());
        }
    }
}
