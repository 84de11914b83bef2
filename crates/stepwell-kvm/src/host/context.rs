//! The guest's registers while it is not in the guest, and what plain steps need to go on by
//! themselves. What runs they make is written at once where no jump leads far.

use super::general::{General, Reader};
use super::ring::RingLease;
use std::ops::{Deref, DerefMut};
use stepwell_arch::{Pa, Va};
use stepwell_vm::cpu::{Context, GENERAL, Near, Run};
use stepwell_vm::registers::GuestRegisters;
use stepwell_wire::ring::{LENGTH_SHIFT, NEAR_BITS, NEAR_SHIFT};

const PAGES: usize = 64;
const PAGE_SHIFT: u32 = 12;

/// The registers, and the fast path's state.
pub struct KvmContext {
    registers: GuestRegisters,
    /// X0 to X30, which are not in `registers`.
    pub general: General,
    budget: u64,
    /// The instruction that is executing, and whether it was led to straight on, so that neither
    /// PSTATE.BTYPE nor PSTATE.IL is in its way.
    stepped: (Va, bool),
    run: Run,
    near: Option<Near<RingLease>>,
    /// By the low bits of the page's number.
    pages: [Option<(Va, Pa)>; PAGES],
}

impl KvmContext {
    /// The registers of a vCPU that is reset, by whoever reads them.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self {
            registers: GuestRegisters::default(),
            general: General::new(reader),
            budget: 0,
            stepped: (Va(0), false),
            run: Run::default(),
            near: None,
            pages: [None; PAGES],
        }
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
    /// The guest is entered for the instruction at the PC, of which nothing is known.
    pub fn begin_straight(&mut self) {
        self.stepped = (Va(self.registers.elr), false);
    }

    /// The instruction that was stepped last, and whether it was led to straight on.
    #[must_use]
    pub const fn stepped(&self) -> (Va, bool) {
        self.stepped
    }

    /// Counts a step that leads to the plain instruction at `pc`, if the budget and the run allow it.
    /// `is_straight`: it was led to straight on.
    pub fn goes_on(&mut self, pc: Va, is_straight: bool) -> bool {
        self.stepped = (pc, is_straight);
        if self.budget == 0 {
            return false;
        }
        if self.run.next != 0 {
            if self.run.next != pc.0 {
                if !self.ends_run() {
                    return false;
                }
                self.run.start = pc.0;
            }
            self.run.next = pc.0.wrapping_add(4);
        }
        self.budget -= 1;
        true
    }

    /// Writes the run that a jump has ended, if it is near what was written before and there is room: see
    /// [`stepwell_wire::ring::near_tag`].
    fn ends_run(&mut self) -> bool {
        let Run { start, next } = self.run;
        let Some(Near { base, tag, lease }) = &mut self.near else { return false };
        let length = next.wrapping_sub(start) >> NEAR_SHIFT;
        let payload = (start & NEAR_BITS) >> NEAR_SHIFT;
        (*base ^ start) & !NEAR_BITS == 0 && lease.push(*tag | length << LENGTH_SHIFT | payload)
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
    type Lease = RingLease;

    fn register(&self, n: u8) -> u64 {
        self.general.read(n)
    }

    fn set_register(&mut self, n: u8, value: u64) {
        self.general.write(n, value);
    }

    fn general(&self) -> [u64; GENERAL] {
        std::array::from_fn(|n| self.general.read(n as u8))
    }

    fn set_general(&mut self, x: &[u64; GENERAL]) {
        (0..).zip(x).for_each(|(n, &value)| self.general.write(n, value));
    }

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

    fn lend_run(&mut self, run: Run, near: Option<Near<RingLease>>) {
        (self.run, self.near) = (run, near);
    }

    fn take_run_back(&mut self) -> (Run, Option<RingLease>) {
        let lease = self.near.take().map(|near| near.lease);
        (std::mem::take(&mut self.run), lease)
    }
}
