//! Entering the guest for an instruction, and what its exit says of it.

use super::Stepper;
use super::look::Next;
use crate::hw::registers::{mrs, msr};
use crate::hw::world::Vector;
use crate::vcpu::exit::{Handled, handle};
use crate::vcpu::{End, debug, interrupt, time};
use stepwell_arch::esr::{EsrEl2, ec};
use stepwell_arch::{Pstate, Va};
use stepwell_engine::own_step::{self, GuestDebug};
use stepwell_engine::{Boundary, Exit, Outcome, Plan, StepState};
use stepwell_wire::InterruptPolicy;

impl Stepper<'_, '_> {
    /// Enters the guest for the next instruction until the engine sees a boundary.
    pub(super) fn execute(&mut self, next: Next, limit: u64) -> Option<End> {
        let mut next = next;
        let mut limit = limit;
        let mut breakpoints = !self.past_first;
        let mut retry = false;
        loop {
            // An instruction that was begun is not to be overtaken by an interrupt.
            let hold = self.interrupts == InterruptPolicy::Hold || retry;
            let interface = !next.is_known || next.plan == Plan::InterruptMask;
            let (outcome, vector, used) = self.enter(limit, breakpoints, hold, interface);
            if used > 0 {
                // What is at the PC now was begun by the fast path, and is plain.
                next = Next { pc: self.running.core.pc(), plan: Plan::Execute, ..next };
            }
            limit = 1;
            match outcome {
                Outcome::Boundary(boundary) => {
                    self.after(next, boundary, used);
                    self.passed(1);
                    return None;
                }
                Outcome::Continue => {
                    let handled = handle(self.running, vector);
                    if let Some(end) = self.interrupted(handled, next, used) {
                        return Some(end);
                    }
                }
                Outcome::Trapped => match self.trapped(vector) {
                    Handled::Emulated => {
                        // It came to EL2 and goes back: either clears the CPU's monitor.
                        self.running.core.monitor.clear();
                        self.carried_out();
                        return None;
                    }
                    Handled::Injected => {
                        // A breakpoint exception comes before its instruction begins.
                        if EsrEl2(self.running.core.context.esr).ec() == ec::BREAKPOINT_LOWER {
                            self.take_back();
                        }
                        self.entered_exception();
                        return None;
                    }
                    Handled::Resume => {}
                    Handled::Past => {
                        if self.running.is_called() {
                            self.take_back();
                            return Some(End::Asked);
                        }
                        // Another vCPU may have closed the page meanwhile.
                        debug::open_pages(self.running, true);
                        breakpoints = false;
                    }
                    Handled::Stop(reason) => {
                        self.take_back();
                        return Some(End::Stop(reason));
                    }
                    Handled::SwitchedOff => {
                        if EsrEl2(self.running.core.context.esr).ec() == ec::HVC64 {
                            self.passed(1);
                        } else {
                            self.take_back();
                        }
                        return Some(End::SwitchedOff);
                    }
                },
            }
            retry = true;
        }
    }

    fn trapped(&mut self, vector: Vector) -> Handled {
        let handled = handle(self.running, vector);
        // It may have been a timer's register.
        self.find_deadline();
        handled
    }

    /// After an asynchronous exit: may the instruction be retried?
    pub(super) fn interrupted(&mut self, handled: Handled, next: Next, used: u64) -> Option<End> {
        if handled == Handled::SwitchedOff {
            return Some(End::SwitchedOff);
        }
        if !self.running.is_called() {
            return None;
        }
        if self.running.core.engine.state() == StepState::ActivePending {
            // It has executed: report it here and now rather than with the next command.
            let boundary = Boundary { load_exclusive: false, syndrome_valid: false };
            self.after(next, boundary, used);
            let _boundary = self.running.core.engine.emulated();
            self.passed(1);
        } else {
            self.take_back();
        }
        Some(End::Asked)
    }

    pub(super) fn enter(
        &mut self,
        limit: u64,
        breakpoints: bool,
        hold: bool,
        interface: bool,
    ) -> (Outcome, Vector, u64) {
        let running = &mut *self.running;
        // The virtual CPU interface costs more than the step: left alone while it is quiet and
        // the instruction does not look at it.
        let loaded = interface || !interrupt::is_quiet(running);
        if loaded {
            let all_held = self.interrupts == InterruptPolicy::Hold;
            interrupt::load_for_step(running, hold, all_held);
        }
        debug::load_for_step(running, breakpoints);
        let core = &mut *running.core;
        core.context.set_fast_budget(limit - 1);
        self.lend_run();
        let vector = self.cross(limit);
        let core = &mut *self.running.core;
        let used = (limit - 1) - core.context.fast_budget();
        self.take_run_back();
        let core = &mut *self.running.core;
        let mut pstate = core.pstate();
        let outcome = core.engine.on_exit(exit_of(vector, core.context.esr), &mut pstate);
        core.context.spsr = pstate.0;
        self.passed(used);
        if loaded {
            interrupt::sync(self.running);
        }
        if !self.running.core.virtual_clock {
            time::update_lines(self.running);
        }
        (outcome, vector, used)
    }

    /// What an executed instruction leaves to do.
    fn after(&mut self, next: Next, boundary: Boundary, used: u64) {
        let guest = self.running.core.debug.guest();
        if self.has_entered_exception(next, boundary) {
            self.exception_entered(next, guest);
            return;
        }
        if used == 0 {
            self.advance_guests_own_step();
        }
        let was_load_exclusive = matches!(next.plan, Plan::LoadExclusive(_));
        if boundary.syndrome_valid && boundary.load_exclusive != was_load_exclusive {
            // The CPU executed something else than what was looked at: a known page has changed.
            self.running.core.context.forget_pages();
            self.running.core.monitor.clear();
            return;
        }
        match next.plan {
            Plan::LoadExclusive(load) => self.arm(load, Va(next.base), next.pstate),
            Plan::ClearExclusive => self.running.core.monitor.clear(),
            Plan::TranslationChange => self.running.core.context.forget_pages(),
            // What was masked may be deliverable now.
            Plan::InterruptMask => interrupt::disturb(self.running),
            Plan::ExceptionReturn => {
                self.running.core.monitor.clear();
                let pstate = self.running.core.pstate();
                let source = next.pstate;
                let ss = own_step::debug_exception_return_ss(
                    guest,
                    source,
                    pstate.with_ss(next.spsr_el1.ss()),
                );
                self.running.core.context.spsr = pstate.with_ss(ss).0;
            }
            _ => {}
        }
    }

    /// Tells whether the boundary is at a vector that an exception has just led to.
    fn has_entered_exception(&self, next: Next, boundary: Boundary) -> bool {
        let pc = self.running.core.context.elr;
        let offset = pc.wrapping_sub(mrs!("vbar_el1") & !0x7ff);
        let at_vector = offset < 0x800 && offset & 0x7f == 0;
        let leaked = Pstate(mrs!("spsr_el1")).ss() != self.running.core.pstate().ss();
        at_vector && (!boundary.syndrome_valid || leaked || next.svc)
    }

    /// The CPU took an exception to EL1: the SS that it left in SPSR_EL1 was ours.
    fn exception_entered(&mut self, next: Next, guest: GuestDebug) {
        let core = &mut *self.running.core;
        core.monitor.clear();
        let pstate = core.pstate();
        // SSAdvance comes before an SVC's exception, and after no other's.
        let at_entry = if next.svc { own_step::ss_advance(guest, pstate) } else { pstate };
        let saved = Pstate(mrs!("spsr_el1"));
        msr!("spsr_el1", saved.with_ss(at_entry.ss()).0);
        core.context.spsr = pstate.with_ss(false).0;
    }
}

fn exit_of(vector: Vector, esr: u64) -> Exit {
    let esr = EsrEl2(esr);
    match (vector, esr.ec()) {
        (Vector::Synchronous, ec::SOFTWARE_STEP_LOWER) => Exit::SoftwareStep(esr.step()),
        // QEMU fetches, and finds that stage 2 forbids it, before it looks at the pending step.
        (Vector::Synchronous, ec::BREAKPOINT_LOWER | ec::IABT_LOWER) => Exit::Breakpoint,
        (Vector::Synchronous, _) => Exit::Synchronous,
        _ => Exit::Asynchronous,
    }
}
