//! The client's breakpoints, and what the debuggee has for them.
//!
//! A client thinks in virtual addresses, and its breakpoints hold for these: whatever the guest does
//! to its tables, and in whichever address space. Those of programs, in the lower half, can be kept to
//! one process (`monitor break-in`, [`crate::scope`]); a hit in another is passed over as if nothing
//! had been.
//!
//! Two kinds of software breakpoints (`Z0`) are set by guest-physical address instead: those in the
//! kernel's image, which stays where it was loaded while it may not be mapped yet, or not for the vCPU
//! that is stopped (KPTI); and all of a guest whose MMU is off. Another virtual address may lead to the
//! same instruction; such a hit is passed over, too ([`Guest::is_hit`]). A debuggee that has no
//! breakpoint by virtual address left gets one by physical address, and the user is told what that
//! means.
//!
//! Either may have conditions ([`crate::conditions`]): a hit with none of them true is passed over
//! too. Set once more, a breakpoint has the conditions that it was last set with.
//!
//! Watchpoints (`Z2` to `Z4`) are the debuggee's, which has as many as one likes. They stop before
//! the access, as the CPU's do, and GDB knows: it steps once and looks whether the value is another.

use crate::conditions::Conditions;
use crate::guest::{Guest, refused};
use crate::scope::Scopes;
use crate::services::Services;
use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{
    Breakpoints as Ops, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use std::collections::{HashMap, HashSet};
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{Debuggee, Error, Place, Refusal, VcpuId, WatchAccess, Watchpoint};

/// Most breakpoints that a client may set. More than anybody has, and a bound.
const MOST: usize = 1 << 16;

/// Which of the client's two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sort {
    Software,
    Hardware,
}

/// One of the client's breakpoints.
#[derive(Clone, Debug)]
struct Set {
    place: Place,
    /// It was set in the kernel's image before there was a translation: nobody knew then at which
    /// addresses the kernel would run.
    is_early: bool,
    conditions: Conditions,
    tally: Tally,
}

/// How often a breakpoint was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How often it counted.
    pub(crate) hits: u64,
    /// How often none of its conditions was true.
    pub(crate) passed: u64,
}

/// What is set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breakpoints {
    set: HashMap<(u64, Sort), Set>,
    /// How many of the client's are at a place: two addresses may lead there.
    users: HashMap<Place, usize>,
    watched: Vec<Watchpoint>,
    /// Conditions of the breakpoint that is about to be set.
    pub(crate) arriving: Conditions,
    /// Bytes that all conditions take.
    pub(crate) condition_bytes: usize,
    /// Software breakpoints that were set when the guest was set going last.
    before: HashSet<u64>,
    /// In which processes those of programs hold.
    pub(crate) scopes: Scopes,
}

impl Breakpoints {
    /// The sort of breakpoint that a client has at an address.
    pub(crate) fn at(&self, pc: Va) -> Option<Sort> {
        let sorts = [Sort::Software, Sort::Hardware];
        sorts.into_iter().find(|&sort| self.set.contains_key(&(pc.0, sort)))
    }

    /// The conditions of one of a client's breakpoints.
    pub(crate) fn conditions(&self, va: u64, sort: Sort) -> Option<&Conditions> {
        self.set.get(&(va, sort)).map(|set| &set.conditions)
    }

    /// Counts that one of a client's breakpoints was met.
    pub(crate) fn tally(&mut self, va: u64, sort: Sort, counts: bool) {
        let Some(Set { tally, .. }) = self.set.get_mut(&(va, sort)) else { return };
        let field = if counts { &mut tally.hits } else { &mut tally.passed };
        *field = field.saturating_add(1);
    }

    /// Lists a client's breakpoints by address: what they are, how many conditions they have, and
    /// how often they were met.
    pub(crate) fn list(&self) -> Vec<(u64, Sort, usize, Tally)> {
        let each = self.set.iter();
        let mut list: Vec<_> =
            each.map(|(&(va, sort), set)| (va, sort, set.conditions.count(), set.tally)).collect();
        list.sort_unstable_by_key(|&(va, sort, ..)| (va, sort == Sort::Hardware));
        list
    }

    /// Counts conditions that took the place of others.
    fn count_conditions(&mut self, before: usize, after: usize) {
        self.condition_bytes = self.condition_bytes.saturating_sub(before) + after;
    }

    /// Where the client's breakpoints are.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.set.keys().map(|&(va, _)| va)
    }

    /// Tells whether there is a software breakpoint that was not there when the guest went last.
    pub(crate) fn is_new(&self, va: u64) -> bool {
        self.set.contains_key(&(va, Sort::Software)) && !self.before.contains(&va)
    }

    /// Tells whether there is any such.
    pub(crate) fn has_new(&self) -> bool {
        self.set.keys().any(|&(va, sort)| sort == Sort::Software && !self.before.contains(&va))
    }

    /// The guest is set going. `mark`: a breakpoint that is the client's way to step.
    pub(crate) fn going(&mut self, mark: Option<u64>) {
        let software = self.set.keys().filter(|(_, sort)| *sort == Sort::Software);
        self.before = software.map(|&(va, _)| va).filter(|&va| Some(va) != mark).collect();
    }

    /// What the client called the watchpoint that an access has hit.
    pub(crate) fn watched(&self, address: Va, access: WatchAccess) -> WatchKind {
        let covers = |watch: &&Watchpoint| {
            let offset = address.0.checked_sub(watch.address.0);
            offset.is_some_and(|offset| offset < watch.length)
                && (watch.access == WatchAccess::ReadWrite || watch.access == access)
        };
        match self.watched.iter().find(covers).map_or(access, |watch| watch.access) {
            WatchAccess::Write => WatchKind::Write,
            WatchAccess::Read => WatchKind::Read,
            WatchAccess::ReadWrite => WatchKind::ReadWrite,
        }
    }
}

/// Lets the tool learn where the guest runs. Its own breakpoint goes once that is known, unless it
/// is somebody else's too.
pub(crate) fn learn(
    debuggee: &mut dyn Debuggee,
    services: &mut dyn Services,
    vcpu: VcpuId,
    is_wanted: impl Fn(Place) -> bool,
) -> Result<(), Error> {
    let before = services.landmark().map(Place::Ipa);
    services.stopped(debuggee, vcpu)?;
    match before {
        Some(place) if services.landmark().is_none() && !is_wanted(place) => {
            debuggee.clear_breakpoint(vcpu.domain, place)
        }
        _ => Ok(()),
    }
}

impl Guest<'_> {
    fn add(&mut self, va: u64, sort: Sort) -> Result<(), Error> {
        if !va.is_multiple_of(4) {
            return Err(Refusal::Misaligned(va).into());
        }
        if self.breakpoints.set.len() >= MOST {
            return Err(Refusal::TooMany(MOST as u32).into());
        }
        let conditions = self.take_conditions(va, sort)?;
        if let Some(set) = self.breakpoints.set.get_mut(&(va, sort)) {
            // A client that says so twice means the conditions, or nothing.
            let before = std::mem::replace(&mut set.conditions, conditions);
            let after = set.conditions.size();
            self.breakpoints.count_conditions(before.size(), after);
            return Ok(());
        }
        let is_early = self.is_early(va);
        let place = match sort {
            Sort::Hardware => self.claim(Place::Va(Va(va)))?,
            Sort::Software => self.hidden(va)?,
        };
        self.breakpoints.count_conditions(0, conditions.size());
        self.breakpoints
            .set
            .insert((va, sort), Set { place, is_early, conditions, tally: Tally::default() });
        Ok(())
    }

    /// Tells whether an address is one that a kernel's image will have, as far as is known before
    /// there is a translation.
    fn is_early(&mut self, va: u64) -> bool {
        self.services.image_place(Va(va)).is_some() && self.is_untranslated(self.current())
    }

    /// Returns the address of a client's breakpoint that was set early, and is met at `pc`, where the
    /// kernel runs now: at its physical address, or where it has moved itself.
    pub(crate) fn met_elsewhere(&self, pc: Va) -> Option<u64> {
        let here = [Some(Ipa(pc.0)), self.services.image_place(pc)].map(|ipa| ipa.map(Place::Ipa));
        let mut set = self.breakpoints.set.iter();
        let is_there = |set: &Set| set.is_early && here.contains(&Some(set.place));
        set.find(|((va, _), set)| *va != pc.0 && is_there(set)).map(|((va, _), _)| *va)
    }

    /// Sets a hidden breakpoint for an address.
    fn hidden(&mut self, va: u64) -> Result<Place, Error> {
        let vcpu = self.current();
        let in_image = self.services.image_place(Va(va));
        let is_untranslated = self.is_untranslated(vcpu);
        match in_image {
            Some(ipa) if is_untranslated => return self.claim(Place::Ipa(ipa)),
            Some(ipa) => {
                let ipa = match self.debuggee.translate(vcpu, Va(va)) {
                    // A kernel that EL0 is not to know of (KPTI) has no translation there.
                    Err(Error::Refused(Refusal::NotMapped(_))) => ipa,
                    translated => translated?,
                };
                return self.claim(Place::Ipa(ipa));
            }
            None => {}
        }
        if !is_untranslated {
            match self.claim(Place::Va(Va(va))) {
                Err(Error::Refused(Refusal::NoBreakpointLeft(_) | Refusal::NoMemory)) => {}
                result => return result,
            }
        }
        let ipa = self.debuggee.translate(vcpu, Va(va))?;
        if !is_untranslated {
            self.services.note(&format!(
                "the breakpoint at {va:#x} holds the page that this address leads to now, not the \
                 address: there are too many others; delete some of them"
            ));
        }
        self.claim(Place::Ipa(ipa))
    }

    /// Lets the tool learn where the guest runs, and takes out the tool's own breakpoint once that
    /// is known.
    pub(crate) fn learn(&mut self, vcpu: VcpuId) -> Result<(), Error> {
        let users = &self.breakpoints.users;
        learn(&mut self.debuggee, self.services, vcpu, |place| users.contains_key(&place))
    }

    /// Tells whether a place has a breakpoint whatever the client has.
    fn is_landmark(&self, place: Place) -> bool {
        self.services.landmark().map(Place::Ipa) == Some(place)
    }

    fn claim(&mut self, place: Place) -> Result<Place, Error> {
        let users = self.breakpoints.users.get(&place).copied().unwrap_or_default();
        if users == 0 && !self.is_landmark(place) {
            self.debuggee.set_breakpoint(self.domain, place)?;
        }
        self.breakpoints.users.insert(place, users + 1);
        Ok(place)
    }

    fn release(&mut self, place: Place) -> Result<(), Error> {
        match self.breakpoints.users.get(&place).copied() {
            Some(users @ 2..) => {
                self.breakpoints.users.insert(place, users - 1);
                Ok(())
            }
            _ => {
                self.breakpoints.users.remove(&place);
                if self.is_landmark(place) {
                    return Ok(());
                }
                self.debuggee.clear_breakpoint(self.domain, place)
            }
        }
    }

    fn remove(&mut self, va: u64, sort: Sort) -> Result<(), Error> {
        match self.breakpoints.set.remove(&(va, sort)) {
            Some(set) => {
                self.breakpoints.count_conditions(set.conditions.size(), 0);
                self.release(set.place)
            }
            None => Err(Refusal::Breakpoint.into()),
        }
    }

    /// Takes out everything that the client has set.
    pub(crate) fn remove_all(&mut self) -> Result<(), Error> {
        self.breakpoints.users.clear();
        let mut places: Vec<Place> =
            self.breakpoints.set.drain().map(|(_, set)| set.place).collect();
        places.retain(|&place| !self.is_landmark(place));
        self.breakpoints.condition_bytes = 0;
        for place in places {
            match self.debuggee.clear_breakpoint(self.domain, place) {
                // Two of the client's were one; or the domain has ended.
                Ok(()) | Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        for watchpoint in std::mem::take(&mut self.breakpoints.watched) {
            let Some(watchpoints) = self.debuggee.support_watchpoints() else { break };
            match watchpoints.clear_watchpoint(self.domain, watchpoint) {
                Ok(()) | Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn watch(&mut self, watchpoint: Watchpoint) -> Result<(), Error> {
        if self.breakpoints.watched.contains(&watchpoint) {
            return Ok(());
        }
        if self.breakpoints.watched.len() >= MOST {
            return Err(Refusal::TooMany(MOST as u32).into());
        }
        let vcpu = self.current();
        let watchpoints = self.debuggee.support_watchpoints().ok_or(Refusal::Unsupported)?;
        watchpoints.set_watchpoint(vcpu, watchpoint)?;
        self.breakpoints.watched.push(watchpoint);
        Ok(())
    }

    fn unwatch(&mut self, watchpoint: Watchpoint) -> Result<(), Error> {
        let at = self.breakpoints.watched.iter().position(|set| *set == watchpoint);
        self.breakpoints.watched.swap_remove(at.ok_or(Refusal::Watchpoint)?);
        let watchpoints = self.debuggee.support_watchpoints().ok_or(Refusal::Unsupported)?;
        watchpoints.clear_watchpoint(self.domain, watchpoint)
    }
}

/// What is refused is told on the tool's terminal too: GDB shows a number, if anything.
fn outcome(
    guest: &mut Guest<'_>,
    result: Result<(), Error>,
    va: u64,
) -> TargetResult<bool, Guest<'static>> {
    match result {
        Ok(()) => Ok(true),
        Err(error) => {
            guest.services.note(&format!("break- or watchpoint at {va:#x}: {error}"));
            Err(refused(error))
        }
    }
}

impl Ops for Guest<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        // Without them GDB watches by stepping, which works anywhere.
        let is_able = self.debuggee.support_watchpoints().is_some();
        is_able.then_some(self as &mut dyn HwWatchpoint<Arch = _, Error = _>)
    }
}

const fn watchpoint(address: u64, length: u64, kind: WatchKind) -> Watchpoint {
    let access = match kind {
        WatchKind::Write => WatchAccess::Write,
        WatchKind::Read => WatchAccess::Read,
        WatchKind::ReadWrite => WatchAccess::ReadWrite,
    };
    Watchpoint { address: Va(address), length, access }
}

impl HwWatchpoint for Guest<'_> {
    fn add_hw_watchpoint(
        &mut self,
        va: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let result = self.watch(watchpoint(va, len, kind));
        outcome(self, result, va)
    }

    fn remove_hw_watchpoint(
        &mut self,
        va: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let result = self.unwatch(watchpoint(va, len, kind));
        outcome(self, result, va)
    }
}

impl SwBreakpoint for Guest<'_> {
    fn add_sw_breakpoint(&mut self, va: u64, _kind: usize) -> TargetResult<bool, Self> {
        let result = self.add(va, Sort::Software);
        outcome(self, result, va)
    }

    fn remove_sw_breakpoint(&mut self, va: u64, _kind: usize) -> TargetResult<bool, Self> {
        let result = self.remove(va, Sort::Software);
        outcome(self, result, va)
    }
}

impl HwBreakpoint for Guest<'_> {
    fn add_hw_breakpoint(&mut self, va: u64, _kind: usize) -> TargetResult<bool, Self> {
        let result = self.add(va, Sort::Hardware);
        outcome(self, result, va)
    }

    fn remove_hw_breakpoint(&mut self, va: u64, _kind: usize) -> TargetResult<bool, Self> {
        let result = self.remove(va, Sort::Hardware);
        outcome(self, result, va)
    }
}
