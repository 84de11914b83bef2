//! A guest that runs freely: every exit handled, nothing reported, until something stops it.

use super::advance::{Onward, VcpuLoop};
use super::exit::handle;
use super::flow::{At, Mode};
use super::running::{End, Running};
use super::{address_space, debug, fetch, interrupt, pages, quiesce, step, time};
use crate::cpu::{Cpu, Vector};
use crate::domain::Order;
use crate::vcpu::handled::Handled;
use crate::vcpu::roots::Root;
use stepwell_arch::Va;
use stepwell_arch::esr::{EsrEl2, ec};
use stepwell_protocol::StopReason;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Begins what is ordered.
    pub(super) fn start(&mut self) -> Onward {
        address_space::load(self.running);
        let order = match self.flow.order {
            Order::Run => None,
            Order::Step(order) => Some(order),
        };
        match order {
            Some(order) => self.start_steps(order),
            None => {
                time::begin_run(self.running);
                self.running.core.forget_pages();
                // It may be within an exclusive sequence, with its load executed under a step.
                let Running { domain, index, core, .. } = &*self.running;
                let is_owed_one = domain.timeline.is_none() && domain.quiescence.is_held_by(*index);
                self.flow.is_armed = core.monitor.armed().is_some() || is_owed_one;
                (self.flow.mode, self.flow.at) = (Mode::Free, At::Boundary);
                self.flow.is_owed = true;
                Onward::GoOn
            }
        }
    }

    /// At a boundary of a guest that runs as ordered: makes way for others, or runs on.
    pub(super) fn free(&mut self) -> Onward {
        let running = &mut *self.running;
        // That was about its last exit.
        running.core.entered_at = 0;
        let vcpu = running.index;
        let quiescence = &running.domain.quiescence;
        if !running.is_called() && quiescence.must_wait(vcpu) {
            self.flow.at = At::Quiesced;
            return Onward::Wait;
        }
        if self.flow.at == At::Quiesced {
            quiescence.leave(vcpu);
            // EL2's timer may have gone off meanwhile, which the guest's physical timer rests on.
            time::update_lines(running);
            self.flow.at = At::Boundary;
        }
        if running.is_called() {
            return self.called();
        }
        if core::mem::take(&mut self.flow.is_armed) {
            return self.finish_sequence();
        }
        self.run()
    }

    /// The vCPU was quiesced, and has been called.
    pub(super) fn quiesced(&mut self) -> Onward {
        interrupt::take_all(self.running);
        self.free()
    }

    /// It is to stop. What was let go has one instruction to execute first: a debugger that stops the
    /// guest at once, again and again, because one vCPU goes round a loop with a breakpoint in it, would
    /// keep the one for ever from moving that the loop waits for.
    fn called(&mut self) -> Onward {
        let running = &mut *self.running;
        if running.core.acknowledged_here().is_none() && debug::breakpoint_at_pc(running).is_some()
        {
            return self.ends(End::Stop(StopReason::Breakpoint));
        }
        let moves = core::mem::take(&mut self.flow.is_owed)
            && !running.core.is_suspended
            && !debug::must_step_for_guest(running)
            && running.domain.timeline.is_none()
            // Beside one that is stepped, whose sequences nobody's may come between.
            && !running.domain.control.lock().by_turns;
        if !moves {
            return self.ends(End::Asked);
        }
        // What has called it would come before that instruction.
        interrupt::take_all(running);
        self.flow.is_armed = false;
        self.begin_past(Root::Guarded, false)
    }

    /// Goes on within an exclusive sequence, the others being quiesced.
    fn finish_sequence(&mut self) -> Onward {
        let is_acknowledged = self.running.core.acknowledged_here().is_some();
        if is_acknowledged || debug::breakpoint_at_pc(self.running).is_none() {
            return self.begin_past(Root::Guarded, false);
        }
        // A breakpoint that is to be reported first: its store fails then.
        self.running.core.monitor.clear();
        quiesce::resume_others(self.running);
        Onward::GoOn
    }

    /// Has the guest run on from a boundary: stepped, as far as something is in its way.
    #[inline]
    pub(super) fn run(&mut self) -> Onward {
        let running = &mut *self.running;
        if let Some(acknowledged) = running.core.acknowledged_here()
            && (acknowledged.act || debug::breakpoint_at_pc(running).is_some())
        {
            let is_broken = pages::is_in_sequence(running, running.core.pc());
            return self.begin_past(Root::Guarded, is_broken);
        }
        if running.core.is_suspended && !interrupt::has_waited(running) {
            self.flow.at = At::Suspended;
            return Onward::Wait;
        }
        running.core.is_suspended = false;
        running.core.wakes_at = u64::MAX;
        if debug::must_step_for_guest(running) {
            return self.begin_own_step();
        }
        if let Some(at) = running.core.broken_at {
            // Where it stopped there, the handler has returned already.
            if at != running.core.context.elr || interrupt::to_be_taken(running).is_some() {
                return self.begin_handler_in_sequence();
            }
            running.core.broken_at = None;
        }
        if running.domain.timeline.is_none() && time::is_virtual_timer_offered(running) {
            return self.begin_timer();
        }
        if fetch::is_withheld(self.running) { self.begin_withheld() } else { self.enter_free() }
    }

    /// At an instruction in a page that is withheld from its fetch: what EL2 would be told by an entry is
    /// known without one.
    fn begin_withheld(&mut self) -> Onward {
        if debug::breakpoint_at_pc(self.running).is_some() {
            return self.ends(End::Stop(StopReason::Breakpoint));
        }
        self.begin_page()
    }

    /// It has waited within CPU_SUSPEND, as WFI does, for an interrupt or whatever else wakes the CPU.
    pub(super) fn suspended(&mut self) -> Onward {
        interrupt::take_all(self.running);
        time::exit(self.running);
        time::update_lines(self.running);
        self.flow.at = At::Boundary;
        Onward::GoOn
    }

    /// Lets the guest run.
    #[inline]
    pub(super) fn enter_free(&mut self) -> Onward {
        let running = &mut *self.running;
        pages::select(running, Root::Running);
        interrupt::load(running, false);
        debug::load(running);
        running.domain.alone.enter(running.index);
        running.core.entered_at = running.core.context.elr;
        time::enter(running);
        self.flow.at = At::Free;
        Onward::Enter
    }

    /// The guest has left.
    #[inline]
    pub(super) fn free_left(&mut self, vector: Vector) -> Onward {
        self.flow.at = At::Boundary;
        let running = &mut *self.running;
        self.flow.is_owed &=
            vector == Vector::Irq && running.core.context.elr == running.core.entered_at;
        time::exit(running);
        interrupt::sync(running, false);
        // What the guest asks for is answered from what its timers are now, and may change them.
        time::update_lines(running);
        let pc = running.core.pc();
        if running.core.acknowledged_here().is_none() {
            running.core.acknowledged = None;
        }
        address_space::look(running);
        let handled = handle(running, vector);
        time::update_lines(running);
        match handled {
            Handled::Resume => {
                self.keep_sequence();
                Onward::GoOn
            }
            Handled::Injected => Onward::GoOn,
            // A call to EL2 clears the monitor on every machine.
            Handled::Emulated if EsrEl2(running.core.context.esr).ec() == ec::HVC64 => Onward::GoOn,
            Handled::Emulated => self.emulated(pc),
            Handled::Past => self.past(Root::Guarded),
            Handled::Unrestricted => self.past(Root::Unrestricted),
            // The exception has cleared the monitor: this store could not succeed, however often it is
            // tried. The one that is tried next, under a step, can.
            Handled::Stop(StopReason::Watchpoint { .. })
                if running.domain.timeline.is_none() && pages::is_store_exclusive(running) =>
            {
                self.begin_sequence()
            }
            Handled::Stop(reason) => {
                // Where instructions are counted, this store does what it would have done.
                self.keep_sequence();
                self.ends(End::Stop(reason))
            }
            Handled::SwitchedOff => self.ends(End::SwitchedOff),
        }
    }

    /// After an instruction, at `pc`, that EL2 has carried out.
    fn emulated(&mut self, pc: Va) -> Onward {
        self.keep_sequence();
        if self.flow.is_armed || self.running.domain.timeline.is_some() {
            return Onward::GoOn;
        }
        // One that began at a device is stepped to its store.
        let is_armed = self.running.core.monitor.armed().is_some();
        let is_broken = is_armed || pages::is_in_sequence(self.running, pc);
        if is_broken { self.begin_sequence() } else { Onward::GoOn }
    }

    /// After an exit that the guest has not asked for, or that EL2 has carried out its instruction at:
    /// goes on within an exclusive sequence as if there had been none, where nobody else can have
    /// written since what it loaded.
    fn keep_sequence(&mut self) {
        let running = &mut *self.running;
        let is_counted = running.domain.timeline.is_some();
        let is_alone = |running: &Running<'_, C>| running.domain.alone.has_been(running.index);
        if !is_counted && !is_alone(running) {
            return;
        }
        if is_counted && interrupt::to_be_taken(running).is_some() {
            // It breaks the sequence right here, as it did each time.
            running.core.monitor.clear();
            step::note_broken_sequence(running);
        } else if running.core.monitor.armed().is_none() {
            step::rearm(running);
            // What has been read since is what the load has read, if that still holds.
            if !is_counted && !is_alone(running) {
                running.core.monitor.clear();
            }
        }
        self.flow.is_armed = running.core.monitor.armed().is_some();
    }

    /// Has the instruction at the PC executed under a step, and what is left of an exclusive sequence
    /// around it, which the exit broke.
    fn past(&mut self, root: Root) -> Onward {
        self.keep_sequence();
        // It is stepped to its end now.
        let is_kept = core::mem::take(&mut self.flow.is_armed);
        let is_broken = !is_kept && pages::is_in_sequence(self.running, self.running.core.pc());
        self.begin_past(root, is_broken)
    }
}
