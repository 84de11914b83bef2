//! Stepping over an interrupt or an SError: its handler runs freely, and steps go on where it
//! returns to.

use super::step_past::past_breakpoint;
use super::stepper::Stepper;
use super::switch::{disable, enable};
use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::vcpu::interrupt::Asynchronous;
use crate::vcpu::running::End;
use crate::vcpu::shadow::Breakpoints;
use crate::vcpu::{debug, inject, interrupt, run, time};
use core::sync::atomic::Ordering;
use stepwell_arch::SystemRegister;
use stepwell_engine::{InterruptedContext, TimePolicy, Yield};
use stepwell_wire::StopReason;

/// How long a handler runs before the other vCPUs get a turn: a hundred times what one takes.
const SLICE_NS: u64 = 2_000_000;

impl<C: Cpu> Stepper<'_, '_, C> {
    /// Enters what is pending and runs its handler freely until it returns to here.
    pub(super) fn run_handler(&mut self, what: Asynchronous) -> Option<End> {
        let core = &*self.running.core;
        let pstate = core.pstate();
        let interrupted = InterruptedContext::new(
            core.pc(),
            pstate,
            self.base(31, pstate),
            self.running.cpu.read(SystemRegister::TTBR0_EL1),
        );
        self.note_interrupt();
        inject::asynchronous(self.running, what);
        disable(self.running);
        self.let_time_go();
        self.running.domain.translation.ignore();
        let end = self.until_return(interrupted);
        self.stop_time();
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
            let (pc, pstate) = (self.running.core.pc(), self.running.core.pstate());
            match end {
                None => {}
                Some(End::Stop(StopReason::Breakpoint)) if pc == interrupted.pc => {
                    let sp = self.base(31, pstate);
                    if InterruptedContext::new(
                        pc,
                        pstate,
                        sp,
                        self.running.cpu.read(SystemRegister::TTBR0_EL1),
                    ) == interrupted
                    {
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
        self.stop_time();
        let end = self.yield_turn(Yield::NoProgress);
        self.let_time_go();
        *since = self.running.cpu.counter();
        // The one from above went off while others had the turn: without another, a handler that
        // waits with all interrupts masked would never come back here.
        self.running.cpu.interrupt_in(SLICE_NS);
        end
    }

    fn let_time_go(&mut self) {
        if !self.running.core.virtual_clock {
            return;
        }
        self.running.core.virtual_clock = false;
        let offset = self.running.domain.clock.lock().release(self.running.cpu.counter());
        self.running.domain.clock_offset.store(offset, Ordering::Release);
        time::release(self.running);
    }

    fn stop_time(&mut self) {
        if self.time == TimePolicy::Real {
            return;
        }
        let offset = self.running.domain.clock_offset.load(Ordering::Acquire);
        self.running.domain.clock.lock().hold(self.running.cpu.counter(), offset);
        time::hold(self.running);
        self.running.core.virtual_clock = true;
        // A timer may have gone off since the handler's last exit, and its interrupt is off now.
        time::update_lines(self.running);
    }
}
