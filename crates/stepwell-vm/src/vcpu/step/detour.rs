//! Stepping a vCPU that otherwise runs freely past something that is in its way.
//!
//! A breakpoint that is come to at full speed breaks an exclusive sequence, as any exception does:
//! its store fails, and the guest tries again and comes to the breakpoint again, for ever. So a hidden
//! one has the load-exclusive before it stop the guest, too ([`crate::views`]), and from there
//! on the sequence is stepped, with the monitor kept at EL2, while the other vCPUs are quiesced
//! ([`crate::vcpu::quiesce`]). A breakpoint in it stops the domain with the monitor kept, and the
//! sequence goes on from there when the domain does: the others are stopped in between, and quiesced
//! again before they are let go. So no store of theirs falls between the load and the store, and
//! values that come back (ABA) cannot deceive the compare-and-swap.
//!
//! A breakpoint by virtual address has no such load. Nor has what traps between a load-exclusive and
//! its store because of us: a register, a device, a page that is withheld. All of these break the
//! sequence once. Then the rest of it is stepped, round its loop and to its store, which succeeds
//! ([`Detour::Sequence`]): on the guest's board nothing would have come in between.

use super::Event;
use super::switch::{disable, enable};
use crate::cpu::Cpu;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::flow::{At, Detour, Mode};
use crate::vcpu::quiesce::{self, SEQUENCE_MAX};
use crate::vcpu::roots::Root;
use crate::vcpu::running::{End, Running};
use crate::vcpu::{debug, pages, time};
use stepwell_engine::Plan;
use stepwell_protocol::{InterruptPolicy, StopReason};

/// Instructions after which what has come meanwhile is looked for, at the latest.
const PAGE_STEPS_MAX: u64 = 256;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Has the instruction at the PC executed with breakpoints off and these tables; an exclusive
    /// sequence to its end, because a step in the middle would break it, or to a breakpoint in it.
    /// Where it stops there the monitor is kept, and the sequence goes on from there.
    ///
    /// `is_broken`: the exit has broken a sequence around it.
    pub(in crate::vcpu) fn begin_past(&mut self, root: Root, is_broken: bool) -> Onward {
        if self.begin_detour(self.while_past()) {
            self.flow.rules.is_stepping_past = true;
            self.flow.hand.root = root;
            self.running.core.acknowledge_pc();
            // Where instructions are counted a stop breaks none, and what else has is part of the run.
            let is_broken = is_broken && self.running.domain.timeline.is_none();
            self.flow.detour =
                Some(Detour::Past { left: SEQUENCE_MAX, is_broken, has_loaded: false });
        }
        Onward::GoOn
    }

    /// Has instructions executed that lie in the page of the PC, which is withheld from fetches, as long as
    /// nothing else is to be done. A guest may stay in that page for ever: what is pending is taken.
    pub(in crate::vcpu) fn begin_page(&mut self) -> Onward {
        if self.begin_detour(InterruptPolicy::Into) {
            self.flow.rules.is_stepping_past = true;
            let at = self.running.core.pc().align_down(PAGE_BYTES).0;
            self.flow.detour = Some(Detour::Page { left: PAGE_STEPS_MAX, at });
        }
        Onward::GoOn
    }

    /// Whether what is stepped through a page is to run, or to wait.
    fn is_done_with_page(&self, at: u64) -> bool {
        let running = &*self.running;
        running.core.pc().align_down(PAGE_BYTES).0 != at
            || running.core.is_suspended
            || running.is_called()
            || self.flow.turn.has_quiesced_others
            || running.domain.quiescence.must_quiesce(running.index)
            || self.is_own_step_pending()
    }

    /// Steps from within an exclusive sequence that an exit of ours has broken, until its store has
    /// succeeded, or so far that there is none. A guest that steps itself keeps its monitor anyway.
    pub(in crate::vcpu) fn begin_sequence(&mut self) -> Onward {
        if !debug::must_step_for_guest(self.running) && self.begin_detour(self.while_past()) {
            self.flow.rules.is_stepping_past = true;
            let level = self.running.core.pstate().el();
            self.flow.detour =
                Some(Detour::Sequence { left: SEQUENCE_MAX, level, is_armed: false });
        }
        Onward::GoOn
    }

    /// What becomes of interrupts while it is stepped past something: they wait. Where instructions are
    /// counted they are entered where the guest that runs would have taken them.
    const fn while_past(&self) -> InterruptPolicy {
        match self.running.domain.timeline {
            None => InterruptPolicy::Hold,
            Some(_) => InterruptPolicy::Into,
        }
    }

    /// Lets a guest that is stepped for its own debugger's sake come to its next boundary; an exclusive
    /// sequence to its end, because an exit in the middle would break it.
    pub(in crate::vcpu) fn begin_own_step(&mut self) -> Onward {
        if let Err(end) = enable(self.running) {
            return self.ends(end);
        }
        if self.begin_detour(InterruptPolicy::Into) {
            self.flow.detour = Some(Detour::OwnStep { left: SEQUENCE_MAX });
        }
        Onward::GoOn
    }

    /// Begins steps in a guest that runs. No guest is in AArch32 above EL0, which does not step.
    pub(super) fn begin_detour(&mut self, interrupts: InterruptPolicy) -> bool {
        if enable(self.running).is_err() {
            return false;
        }
        if matches!(self.flow.mode, Mode::Over(_)) {
            self.flow.aside = Some((self.flow.rules.clone(), self.flow.tally.clone()));
        }
        let time = time::go_by_steps(self.running);
        self.begin_steps(interrupts, time);
        let domain = self.running.domain;
        let control = domain.control.lock();
        // Where instructions are counted nobody else executes before its turn.
        self.flow.rules.quiesces_others =
            control.free && !control.by_turns && domain.timeline.is_none();
        true
    }

    /// At a boundary of a detour: goes on with it, or ends it.
    #[inline(never)]
    pub(in crate::vcpu) fn detour(&mut self, detour: Detour) -> Onward {
        match detour {
            Detour::Past { left: 0, .. } | Detour::Page { left: 0, .. } => self.finish(None),
            Detour::Past { left, .. }
            | Detour::Page { left, .. }
            | Detour::OwnStep { left }
            | Detour::Sequence { left, is_armed: true, .. }
                if left < SEQUENCE_MAX / 2 && self.is_at_load_exclusive() =>
            {
                self.finish(None)
            }
            Detour::Past { .. } if self.is_own_step_pending() => self.finish(None),
            Detour::Past { .. } | Detour::Page { .. } | Detour::Sequence { .. }
                if self.is_interrupted() =>
            {
                self.end_detour(None);
                Onward::GoOn
            }
            Detour::Past { .. } | Detour::Page { .. } => self.one(1),
            Detour::Sequence { left, level, .. } => self.in_sequence(left, level),
            Detour::OwnStep { left: 0 } => self.finish(None),
            Detour::OwnStep { .. } => self.own_step(detour),
            Detour::Handler { left } => self.in_handler(left),
            Detour::Timer { in_sequence } => self.while_timer_is_pending(in_sequence),
        }
    }

    /// Whether the next instruction begins another exclusive sequence: whatever ends here breaks none, as it
    /// would between that load and its store.
    pub(super) fn is_at_load_exclusive(&mut self) -> bool {
        matches!(self.look_ahead().plan, Plan::LoadExclusive(_))
    }

    fn in_sequence(&mut self, left: u64, level: u8) -> Onward {
        // An exception leads out of it, and so does a return.
        let is_out = left == 0
            || self.running.is_called()
            || self.is_own_step_pending()
            || self.running.core.pstate().el() != level;
        if is_out {
            return self.finish(None);
        }
        if self.is_at_breakpoint() {
            return self.finish(Some(End::Stop(StopReason::Breakpoint)));
        }
        self.flow.hand.has_stored = false;
        self.one(1)
    }

    /// Enters an interrupt that is not to wait: it has broken an exclusive sequence.
    fn is_interrupted(&mut self) -> bool {
        self.flow.rules.interrupts == InterruptPolicy::Into && self.take_event() == Event::Entered
    }

    fn own_step(&mut self, detour: Detour) -> Onward {
        if self.take_event() == Event::Entered {
            return self.after(detour);
        }
        // Nothing of it is executed from the copy with the BRKs.
        if debug::is_met(self.running) {
            return self.finish(Some(End::Stop(StopReason::Breakpoint)));
        }
        self.one(1)
    }

    fn is_at_breakpoint(&self) -> bool {
        self.flow.rules.has_breakpoints && debug::breakpoint_at_pc(self.running).is_some()
    }

    /// After an instruction of a detour.
    pub(super) fn after(&mut self, mut detour: Detour) -> Onward {
        if let Detour::Past { has_loaded, .. } = &mut detour {
            *has_loaded |= matches!(self.flow.hand.next.plan, Plan::LoadExclusive(_));
            self.flow.detour = Some(detour);
        }
        let has_load = self.running.core.monitor.armed().is_some();
        let next = match detour {
            Detour::Past { .. } | Detour::OwnStep { .. } if !has_load => return self.finish(None),
            Detour::Page { at, .. } if !has_load && self.is_done_with_page(at) => {
                return self.finish(None);
            }
            Detour::Past { .. } | Detour::Page { .. } if self.is_at_breakpoint() => {
                return self.finish(Some(End::Stop(StopReason::Breakpoint)));
            }
            Detour::Page { left, at } => Detour::Page { left: left - 1, at },
            Detour::Past { left, is_broken, has_loaded } => {
                self.running.core.acknowledge_pc();
                Detour::Past { left: left - 1, is_broken, has_loaded }
            }
            Detour::OwnStep { left } => Detour::OwnStep { left: left - 1 },
            Detour::Sequence { .. } if self.flow.hand.has_stored => return self.finish(None),
            // Round its loop.
            Detour::Sequence { level, is_armed: false, .. } if has_load => {
                Detour::Sequence { left: SEQUENCE_MAX, level, is_armed: true }
            }
            Detour::Sequence { left, level, is_armed } => {
                Detour::Sequence { left: left - 1, level, is_armed }
            }
            Detour::Handler { left } => Detour::Handler { left: left.saturating_sub(1) },
            Detour::Timer { .. } => detour,
        };
        self.flow.detour = Some(next);
        Onward::GoOn
    }

    /// Ends a detour, and goes on with what its guest does otherwise.
    pub(super) fn finish(&mut self, end: Option<End>) -> Onward {
        let detour = self.flow.detour;
        if let Some(end) = end {
            return self.ends(end);
        }
        self.end_detour(None);
        let Some(Detour::Past { is_broken, .. }) = detour else { return Onward::GoOn };
        // Where it has come to nothing was told of: a breakpoint that is set there is met.
        self.running.core.acknowledged = None;
        if is_broken { self.begin_sequence() } else { Onward::GoOn }
    }

    /// Notes where it stops after it has gone round the loop of the sequence that it was let go in, or is
    /// about to: nothing was stored. `has_loaded`: it has begun anew.
    fn note_round(&mut self, has_loaded: bool) {
        let Running { domain, index, .. } = *self.running;
        let is_kept = domain.control.lock().kept == Some(index);
        if is_kept && (has_loaded || matches!(self.look_ahead().plan, Plan::LoadExclusive(_))) {
            domain.control.lock().has_gone_round = Some(index);
        }
    }

    /// Nothing of a detour is left.
    pub(in crate::vcpu) fn end_detour(&mut self, end: Option<End>) {
        if let Some(Detour::Past { has_loaded, .. }) = self.flow.detour
            && matches!(end, Some(End::Stop(_)))
        {
            self.note_round(has_loaded);
        }
        pages::settle(self.running);
        disable(self.running);
        time::go_on(self.running);
        if end.is_none() {
            // Where it stops, this waits until the domain has.
            quiesce::resume_others(self.running);
            self.running.core.monitor.clear();
        }
        self.flow.detour = None;
        self.flow.at = At::Boundary;
        if let Some((rules, tally)) = self.flow.aside.take() {
            (self.flow.rules, self.flow.tally) = (rules, tally);
        }
    }
}
