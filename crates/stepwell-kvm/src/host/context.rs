//! The guest's registers while it is not in the guest, and what plain steps need to go on by
//! themselves.

use super::ring::NoLease;
use std::ops::{Deref, DerefMut};
use stepwell_arch::{Pa, Va};
use stepwell_vm::cpu::{Context, Near, Run};
use stepwell_vm::registers::GuestRegisters;

const PAGES: usize = 64;
const PAGE_SHIFT: u32 = 12;

/// The registers, and the fast path's state.
pub struct KvmContext {
    registers: GuestRegisters,
    budget: u64,
    run: Run,
    /// By the low bits of the page's number.
    pages: [Option<(Va, Pa)>; PAGES],
}

impl Default for KvmContext {
    fn default() -> Self {
        let registers = GuestRegisters::default();
        Self { registers, budget: 0, run: Run::default(), pages: [None; PAGES] }
    }
}

impl Deref for KvmContext {
    type Target = GuestRegisters;

    fn deref(&self) -> &GuestRegisters {
        &self.registers
    }
}

impl DerefMut for KvmContext {
    fn deref_mut(&mut self) -> &mut GuestRegisters {
        &mut self.registers
    }
}

impl KvmContext {
    /// Counts a step that leads to the plain instruction at `pc`, if the budget and the run allow it.
    pub fn goes_on(&mut self, pc: Va) -> bool {
        if self.budget == 0 {
            return false;
        }
        if self.run.next != 0 {
            if self.run.next != pc.0 {
                return false;
            }
            self.run.next = self.run.next.wrapping_add(4);
        }
        self.budget -= 1;
        true
    }

    /// Whether any step may go on by itself.
    pub const fn has_budget(&self) -> bool {
        self.budget > 0
    }
}

const fn slot(va: Va) -> usize {
    (va.0 >> PAGE_SHIFT) as usize % PAGES
}

impl Context for KvmContext {
    type Page = Pa;
    type Lease = NoLease;

    fn set_fast_budget(&mut self, steps: u64) {
        self.budget = steps;
    }

    fn fast_budget(&self) -> u64 {
        self.budget
    }

    fn know_page(&mut self, va: Va, page: Pa) {
        if let Some(known) = self.pages.get_mut(slot(va)) {
            *known = Some((va.align_down(1 << PAGE_SHIFT), page));
        }
    }

    fn known_page(&self, va: Va) -> Option<Pa> {
        let known = self.pages.get(slot(va)).copied().flatten();
        known.filter(|(known, _)| *known == va.align_down(1 << PAGE_SHIFT)).map(|(_, page)| page)
    }

    fn forget_pages(&mut self) {
        self.pages = [None; PAGES];
    }

    fn lend_run(&mut self, run: Run, _: Option<Near<NoLease>>) {
        self.run = run;
    }

    fn take_run_back(&mut self) -> (Run, Option<NoLease>) {
        (std::mem::take(&mut self.run), None)
    }
}
