//! The client's breakpoints, and what the debuggee has for them.
//!
//! A client thinks in virtual addresses. Its software breakpoints (`Z0`) are set by guest-physical
//! address: those are hidden, they are as many as one likes, and they hold whatever the guest does
//! to its tables. The price is that another virtual address, or another process, may lead to the
//! same instruction; such a hit is passed over as if nothing had been ([`Guest::is_ours`]).
//!
//! Its hardware breakpoints (`Z1`) are the CPU's, by virtual address, and so is a software one
//! whose address leads nowhere yet.

use crate::guest::{Guest, refused};
use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{
    Breakpoints as Ops, HwBreakpoint, HwBreakpointOps, SwBreakpoint, SwBreakpointOps,
};
use std::collections::HashMap;
use stepwell_arch::Va;
use stepwell_debuggee::{Error, Place, Refusal};

/// Most breakpoints that a client may set. More than anybody has, and a bound.
const MOST: usize = 1 << 16;

/// Which of the client's two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sort {
    Software,
    Hardware,
}

/// What is set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breakpoints {
    set: HashMap<(u64, Sort), Place>,
    /// How many of the client's are at a place: two addresses may lead there.
    users: HashMap<Place, usize>,
}

impl Breakpoints {
    /// The sort of breakpoint that a client has at an address.
    pub(crate) fn at(&self, pc: Va) -> Option<Sort> {
        let sorts = [Sort::Software, Sort::Hardware];
        sorts.into_iter().find(|&sort| self.set.contains_key(&(pc.0, sort)))
    }
}

impl Guest<'_> {
    fn add(&mut self, va: u64, sort: Sort) -> Result<(), Error> {
        if !va.is_multiple_of(4) || self.breakpoints.set.len() >= MOST {
            return Err(Refusal::Range.into());
        }
        if self.breakpoints.set.contains_key(&(va, sort)) {
            // A client that says so twice: nothing has to be done.
            return Ok(());
        }
        let place = match sort {
            Sort::Hardware => self.claim(Place::Va(Va(va)))?,
            Sort::Software => match self.hidden(va) {
                Ok(place) => place,
                Err(Error::Refused(Refusal::NotMapped(_))) => self.claim(Place::Va(Va(va)))?,
                Err(error) => return Err(error),
            },
        };
        self.breakpoints.set.insert((va, sort), place);
        Ok(())
    }

    /// Sets a hidden breakpoint where an address leads.
    fn hidden(&mut self, va: u64) -> Result<Place, Error> {
        let vcpu = self.current();
        if self.is_untranslated(vcpu)
            && let Some(ipa) = self.services.image_place(Va(va))
        {
            return self.claim(Place::Ipa(ipa));
        }
        let ipa = self.debuggee.translate(vcpu, Va(va))?;
        self.claim(Place::Ipa(ipa))
    }

    fn claim(&mut self, place: Place) -> Result<Place, Error> {
        let users = self.breakpoints.users.get(&place).copied().unwrap_or_default();
        if users == 0 {
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
                self.debuggee.clear_breakpoint(self.domain, place)
            }
        }
    }

    fn remove(&mut self, va: u64, sort: Sort) -> Result<(), Error> {
        match self.breakpoints.set.remove(&(va, sort)) {
            Some(place) => self.release(place),
            None => Err(Refusal::Breakpoint.into()),
        }
    }

    /// Takes out everything that the client has set.
    pub(crate) fn remove_all(&mut self) -> Result<(), Error> {
        self.breakpoints.users.clear();
        let places: Vec<Place> = self.breakpoints.set.drain().map(|(_, place)| place).collect();
        for place in places {
            match self.debuggee.clear_breakpoint(self.domain, place) {
                // Two of the client's were one; or the domain has ended.
                Ok(()) | Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells whether a breakpoint that was hit at `pc` is one that the client has set there, and
    /// not in the same place under another address.
    pub(crate) fn is_ours(&self, pc: Va) -> bool {
        self.breakpoints.at(pc).is_some()
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
            guest.services.note(&format!("breakpoint at {va:#x}: {error}"));
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
