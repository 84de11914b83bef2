//! Stepping over an interrupt or an SError: nothing is told of its handler, and steps go on where it
//! returns to.
//!
//! Where the clock is a number of steps, the handler is stepped as well, *unseen*: neither recorded nor
//! counted, and no range ends there. So it goes by the clock of what it interrupted, and two runs are
//! one. Turns go on meanwhile. Where the clock is the machine's, the handler runs freely.
//!
//! Where a step is said to take long, so that ticks come often, those of a handler take no longer than
//! [`UNSEEN_STEP_MAX_NS`]: some thousand of them have to be over before the next tick.
//!
//! A handler that takes longer than its timer's period would be entered again as soon as it returns,
//! for ever. On any board it gets somewhere in the end, as an interrupt is recognised some time after it
//! became pending; here what was interrupted executes one instruction at least.

use super::step_past::past_breakpoint;
use super::stepper::{BeforeHandler, Stepper};
use super::switch::{disable, enable};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Run};
use crate::vcpu::interrupt::Asynchronous;
use crate::vcpu::running::End;
use crate::vcpu::shadow::Breakpoints;
use crate::vcpu::{debug, inject, interrupt, run, time};
use stepwell_arch::SystemRegister;
use stepwell_engine::{InterruptedContext, TimePolicy, Yield};
use stepwell_protocol::StopReason;

/// How long a handler runs before the other vCPUs get a turn: a hundred times what one takes.
const SLICE_NS: u64 = 2_000_000;

/// What an instruction of a handler takes at most, where time is a number of steps.
const UNSEEN_STEP_MAX_NS: u32 = 100;

impl<C: Cpu> Stepper<'_, '_, C> {
    /// Enters what is pending and has its handler executed, until it returns to here or, where it is
    /// stepped, up to its first instruction.
    pub(super) fn over_handler(&mut self, what: Asynchronous) -> Option<End> {
        let interrupted = self.context_here();
        self.note_interrupt();
        if self.running.core.virtual_clock {
            self.hide(interrupted);
            self.enter_handler(what);
            return None;
        }
        let end = self.run_handler(what, interrupted);
        self.emit_state();
        end
    }

    fn context_here(&self) -> InterruptedContext {
        let core = &*self.running.core;
        let pstate = core.pstate();
        let ttbr0 = self.running.cpu.read(SystemRegister::TTBR0_EL1);
        InterruptedContext::new(core.pc(), pstate, self.base(31, pstate), ttbr0)
    }

    /// From here on nothing is told, until [`Self::take_return`] finds this context again.
    pub(super) fn hide(&mut self, interrupted: InterruptedContext) {
        if self.turn.has_turns() && self.running.core.handler_of.is_none() {
            self.emit_steps();
        }
        let left = self.count.saturating_sub(self.steps);
        self.before = BeforeHandler { left, past_first: self.past_first, time: self.time };
        if let TimePolicy::PerStep { ns } = self.time {
            self.time = TimePolicy::PerStep { ns: ns.min(UNSEEN_STEP_MAX_NS) };
        }
        self.record = false;
        self.running.core.handler_of = Some(interrupted);
        self.running.core.context.lend_run(Run::default(), None);
        self.count_unseen();
        let full = self.running.core.debug.wanted.push(interrupted.pc.0);
        debug_assert!(full.is_ok(), "one place for `until`, one for this");
        debug::program_for_step(self.running);
    }

    /// How far an unseen handler may go without a look.
    fn count_unseen(&mut self) {
        let left = if self.turn.has_turns() { self.left_of_turn().unwrap_or(0) } else { u64::MAX };
        self.count = self.steps.saturating_add(left);
    }

    /// At a boundary: takes up telling again where an unseen handler has returned. A reason to stop
    /// there.
    pub(super) fn take_return(&mut self) -> Option<StopReason> {
        let interrupted = self.running.core.handler_of?;
        if self.running.core.pc() != interrupted.pc || self.context_here() != interrupted {
            return None;
        }
        let BeforeHandler { mut left, past_first, time } = self.before;
        self.time = time;
        self.past_first |= past_first;
        if self.turn.has_turns() {
            self.emit_steps();
        }
        self.running.core.handler_of = None;
        if self.turn.has_turns() {
            left = self.left_of_turn().unwrap_or(0);
        }
        self.count = self.steps.saturating_add(left);
        self.running.core.debug.wanted.pop();
        debug::program_for_step(self.running);
        self.must_move = true;
        self.record = self.is_recorded;
        // Whoever had turns meanwhile may have written into it.
        self.ring_room = 0;
        if self.record && !self.has_ring_room() {
            return Some(StopReason::RingFull);
        }
        self.emit_state();
        None
    }

    /// The range that steps are to stay in, which a handler that is stepped over does not leave.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        let core = &*self.running.core;
        if core.handler_of.is_some() { None } else { core.within }
    }

    /// Enters what is pending and runs its handler freely until it returns to here.
    fn run_handler(&mut self, what: Asynchronous, interrupted: InterruptedContext) -> Option<End> {
        inject::asynchronous(self.running, what);
        disable(self.running);
        self.running.domain.translation.ignore();
        let end = self.until_return(interrupted);
        // From here on the clock goes, whatever EL2 does.
        self.running.core.is_hidden = false;
        self.running.core.debug.wanted.pop();
        debug::program_for_step(self.running);
        interrupt::invalidate_interface(self.running);
        self.find_deadline();
        self.running.core.context.forget_pages();
        if let Some(end) = end {
            return Some(end);
        }
        enable(self.running).err()
    }

    fn until_return(&mut self, interrupted: InterruptedContext) -> Option<End> {
        let full = self.running.core.debug.wanted.push(interrupted.pc.0);
        debug_assert!(full.is_ok(), "one place for `until`, one for this");
        let mut breakpoints = Breakpoints::On;
        let mut slice = self.running.cpu.counter();
        loop {
            if self.running.is_called() {
                return Some(End::Asked);
            }
            if self.turn.has_turns()
                && let Some(end) = self.share(&mut slice)
            {
                return Some(end);
            }
            let end = run::once(self.running, &mut breakpoints);
            let pc = self.running.core.pc();
            match end {
                None => {}
                Some(End::Stop(StopReason::Breakpoint)) if pc == interrupted.pc => {
                    if self.context_here() == interrupted {
                        return None;
                    }
                    // Somebody else's turn at the same code.
                    if let Some(end) = past_breakpoint(self.running) {
                        return Some(end);
                    }
                }
                Some(end) => return Some(end),
            }
        }
    }

    /// A handler may wait for another vCPU: each gets a turn now and then. `since`: the counter
    /// when this one's began.
    fn share(&mut self, since: &mut u64) -> Option<End> {
        self.running.cpu.interrupt_in(SLICE_NS);
        let ticks = self.running.cpu.counter().wrapping_sub(*since);
        if time::ticks_to_ns(self.running.cpu, ticks) < SLICE_NS {
            return None;
        }
        let end = self.yield_turn(Yield::NoProgress);
        *since = self.running.cpu.counter();
        // The one from above went off while others had the turn: without another, a handler that
        // waits with all interrupts masked would never come back here.
        self.running.cpu.interrupt_in(SLICE_NS);
        end
    }
}
