//! What happened last: found by going forward through what lies before, from the newest piece to the
//! oldest, and within a piece by taking the last of its hits.
//!
//! A piece begins at a moment that is kept, and ends where the next one begins. Where it has so many
//! hits that each stop costs more than the way, it is halved: its later half comes first, and most often
//! has the answer.

use super::leg::{How, Leg};
use super::{Going, Navigator, Told};
use stepwell_arch::Ipa;
use stepwell_debuggee::{
    Checkpoint, Error, Moment, Refusal, Stop, StopReason, VcpuId, WatchAccess, Watchpoint,
};

/// Hits in a piece from which on it is halved.
const MANY: usize = 64;
/// Instructions of a piece that is not worth it.
const SHORT: u64 = 2_000;

/// What is written is known by pages of 4 KiB.
const PAGE_SHIFT: u32 = 12;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Whatever the user would have been told of.
    Anything,
    /// An access to this, for which a watchpoint is set meanwhile.
    Access(VcpuId, Watchpoint),
}

/// A search.
#[derive(Debug)]
pub(super) struct Search {
    what: What,
    /// Where the piece begins that is looked through.
    start: Moment,
    pub(super) leg: Leg,
    /// It is on the way to where the later half of a piece begins, which ends there.
    skips_to: Option<Moment>,
    may_halve: bool,
    /// What has to be written for anything to be found, where that is all that can be.
    written: Option<Vec<(Ipa, u64)>>,
    /// Hits in this piece.
    hits: usize,
    /// The last hit of all.
    found: Option<(Moment, Stop)>,
    /// The earlier half of a piece, which begins at `found`.
    earlier: Option<(Moment, Moment)>,
}

impl Navigator<'_> {
    /// Begins to look for what happened before this moment.
    pub(super) fn search(&mut self, what: What) -> Result<(), Error> {
        if self.now.position == 0 {
            return self.report_arrival(Told::REACHED);
        }
        let written = self.written(what);
        if written.is_some() {
            // So that it can be asked what was written before it.
            self.keep()?;
        }
        if let What::Access(..) = what {
            self.watch(what)?;
            self.disarm()?;
        }
        let search = Search {
            what,
            start: self.now,
            leg: Leg::to(self.now, How::Run),
            skips_to: None,
            may_halve: true,
            written,
            hits: 0,
            found: None,
            earlier: None,
        };
        self.look_before(Box::new(search))
    }

    /// Sets the watchpoint of a search.
    fn watch(&mut self, what: What) -> Result<(), Error> {
        let What::Access(vcpu, watchpoint) = what else { return Ok(()) };
        let watchpoints = self.below().support_watchpoints();
        let watchpoints = watchpoints.ok_or(Error::Refused(Refusal::Unsupported))?;
        match watchpoints.set_watchpoint(vcpu, watchpoint) {
            // The user has the same.
            Err(Error::Refused(Refusal::Watchpoint)) => Ok(()),
            result => result,
        }
    }

    /// Takes the watchpoint of a search away, unless it is the user's, too.
    fn unwatch(&mut self, what: What) -> Result<(), Error> {
        let What::Access(vcpu, watchpoint) = what else { return Ok(()) };
        if self.watchpoints.iter().any(|&(_, users)| users == watchpoint) {
            return Ok(());
        }
        let Some(watchpoints) = self.below().support_watchpoints() else { return Ok(()) };
        match watchpoints.clear_watchpoint(vcpu.domain, watchpoint) {
            Err(Error::Refused(Refusal::Watchpoint)) => Ok(()),
            result => result,
        }
    }

    /// The memory that has to be written for anything to be found; nothing where more can be.
    fn written(&mut self, what: What) -> Option<Vec<(Ipa, u64)>> {
        let watched = match what {
            What::Access(vcpu, watchpoint) => vec![(vcpu, watchpoint)],
            What::Anything if self.breakpoints.is_empty() => self.watchpoints.clone(),
            What::Anything => return None,
        };
        let mut written = Vec::new();
        for (vcpu, Watchpoint { address, length, access }) in watched {
            let last = address.0.checked_add(length.checked_sub(1)?)?;
            let is_one_page = address.0 >> PAGE_SHIFT == last >> PAGE_SHIFT;
            if access != WatchAccess::Write || !is_one_page {
                return None;
            }
            written.push((self.below().translate(vcpu, address).ok()?, length));
        }
        Some(written)
    }

    /// Looks through the piece before the one that was looked through, or through one before that, if
    /// nothing can be in it.
    fn look_before(&mut self, mut search: Box<Search>) -> Result<(), Error> {
        let mut kept = self.kept.before(search.start);
        while let Some(from) = kept
            && let Some(to) = self.kept.at_most(search.start)
            && to.moment == search.start
            && from.moment.position > 0
            && !self.may_have_written(&search, from.checkpoint, to.checkpoint)?
        {
            search.start = from.moment;
            kept = self.kept.before(from.moment);
        }
        let end = search.start;
        self.restore(kept)?;
        if self.now == Moment::default() {
            // On a machine that was made anew, it may be.
            self.watch(search.what)?;
        }
        self.look(search, end)
    }

    /// Tells whether something may have been written on the way from one kept moment to another that
    /// would have been found.
    fn may_have_written(
        &mut self,
        search: &Search,
        from: Checkpoint,
        to: Checkpoint,
    ) -> Result<bool, Error> {
        let Some(written) = &search.written else { return Ok(true) };
        let Some(checkpoints) = self.travel()?.support_checkpoints() else { return Ok(true) };
        for &(ipa, bytes) in written {
            match checkpoints.wrote(0, from, to, ipa, bytes) {
                Ok(false) => {}
                Ok(true) | Err(Error::Refused(_)) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Looks through the piece from here to `end`.
    fn look(&mut self, mut search: Box<Search>, end: Moment) -> Result<(), Error> {
        (search.start, search.hits, search.skips_to) = (self.now, 0, None);
        search.leg = Leg::to(end, How::Run);
        self.set_off(&mut search.leg)?;
        self.going = Going::Search(search);
        Ok(())
    }

    pub(super) fn searched(&mut self, mut search: Box<Search>, stop: Stop) -> Result<(), Error> {
        // A stop at the end of a piece is not before it.
        let is_over = self.now >= search.leg.until;
        if is_over || stop.reason == StopReason::Reached && self.is_at_end(&mut search.leg)? {
            return match search.skips_to {
                Some(end) => self.look_at_later_half(search, end),
                None => self.looked_through(search),
            };
        }
        if stop.reason != StopReason::Reached
            && search.skips_to.is_none()
            && is_hit(search.what, stop)
        {
            search.found = Some((self.now, stop));
            search.hits += 1;
            if search.hits >= MANY && search.may_halve {
                self.halve(&mut search)?;
            }
        }
        self.set_off(&mut search.leg)?;
        self.going = Going::Search(search);
        Ok(())
    }

    /// Turns to the later half of what is left of a piece, where the earlier one can be come back to.
    fn halve(&mut self, search: &mut Search) -> Result<(), Error> {
        let (here, end) = (self.now, search.leg.until);
        let left = end.position.saturating_sub(here.position);
        if left < SHORT || self.travel()?.support_checkpoints().is_none() {
            return Ok(());
        }
        self.keep()?;
        let middle = Moment::at(here.position + left / 2);
        search.earlier = Some((here, middle));
        search.skips_to = Some(end);
        search.leg = Leg::to(middle, How::Run);
        self.unwatch(search.what)?;
        self.disarm()
    }

    fn look_at_later_half(&mut self, mut search: Box<Search>, end: Moment) -> Result<(), Error> {
        if search.what == What::Anything {
            self.arm()?;
        }
        match self.watch(search.what) {
            Ok(()) => {
                self.keep()?;
                self.look(search, end)
            }
            // It is not mapped here: all the way, then, with the watchpoint set.
            Err(Error::Refused(_)) => {
                search.may_halve = false;
                let (from, _) = search.earlier.take().unwrap_or((search.start, end));
                let kept = self.kept.at_most(from);
                self.restore(kept)?;
                self.watch(search.what)?;
                self.look(search, end)
            }
            Err(error) => Err(error),
        }
    }

    fn looked_through(&mut self, mut search: Box<Search>) -> Result<(), Error> {
        if search.hits == 0 {
            if let Some((from, end)) = search.earlier.take() {
                let kept = self.kept.at_most(from);
                self.restore(kept)?;
                return self.look(search, end);
            }
            if search.found.is_none() && search.start.position > 0 {
                return self.look_before(search);
            }
        }
        self.end_search(&search)?;
        match search.found {
            Some((moment, Stop { vcpu, reason, .. })) => {
                self.seek(moment, Told { vcpu: Some(vcpu), reason, steps: 0, back: 0 })
            }
            None => self.seek(Moment::default(), Told::REACHED),
        }
    }

    /// Takes out what was set for a search.
    pub(super) fn end_search(&mut self, search: &Search) -> Result<(), Error> {
        self.unwatch(search.what)
    }
}

/// Tells whether a stop is what is looked for.
fn is_hit(what: What, stop: Stop) -> bool {
    match (what, stop.reason) {
        (What::Anything, StopReason::Reached | StopReason::Paused) => false,
        (What::Anything, _) => true,
        (What::Access(_, wanted), StopReason::Watchpoint { address, access }) => {
            let is_there = address.0.wrapping_sub(wanted.address.0) < wanted.length;
            is_there && (wanted.access == WatchAccess::ReadWrite || wanted.access == access)
        }
        (What::Access(..), _) => false,
    }
}
