//! What may happen between two events, and what the adversary does of it.

use crate::over::Policy;
use crate::world::World;
use crate::{bits, programs};
use stepwell_engine::plan;
use stepwell_spec::exception::SYNCHRONOUS_VECTOR;
use stepwell_spec::{Class, Op};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// EL2 lets the guest go on.
    Enter,
    /// The machine does what comes next.
    Proceed,
    /// A physical interrupt comes before it: the guest exits for no reason of its own.
    PhysicalInterrupt,
    /// The machine takes the virtual interrupt before it.
    VirtualInterrupt,
    /// The guest's write of MDSCR_EL1 is seen before the event that synchronizes it.
    Synchronize,
    /// EL2 delivers the virtual interrupt at a boundary, as the policy says.
    Deliver,
    /// Stepping is switched on.
    StepOn,
    /// Stepping is switched off.
    StepOff,
    /// Everything is stopped, and goes on.
    Pause,
    /// What happens to interrupts while stepping is from now on this.
    SetPolicy(Policy),
    /// A virtual interrupt becomes pending, or is no longer.
    ToggleInterrupt,
    /// The second vCPU writes the line.
    OtherWrites,
    /// The second vCPU writes the value that the line has already.
    OtherRewrites,
    /// The debugger writes PSTATE: SS becomes this.
    DebuggerWritesSs(bool),
    /// The debugger writes PSTATE: D and what masks the interrupt become what they are not.
    DebuggerWritesMasks,
    /// The debugger sends the guest back to instruction 0.
    DebuggerWritesPc,
    /// The debugger toggles MDSCR_EL1.SS.
    DebuggerWritesMdscr,
    /// EL2 withdraws the page at stage 2.
    Unmap,
}

impl World {
    /// What the adversary may do, at EL2.
    pub fn actions_of_the_adversary(&self, actions: &mut Vec<Action>) {
        actions.push(if self.holds_debug() { Action::StepOff } else { Action::StepOn });
        actions.extend([Action::ToggleInterrupt, Action::OtherWrites]);
        // A write that changes nothing is one that a compare-and-swap does not see: not while the
        // engine needs the others to stop.
        let next = plan(programs::instruction(self.look.op));
        if !self.is_stepping() || !self.monitor.needs_others_stopped(next) {
            actions.push(Action::OtherRewrites);
        }
        if self.over.is_some() {
            // It runs: nobody else is let near.
            return;
        }
        if self.is_stepping() {
            let policies = [Policy::Hold, Policy::Into, Policy::Over];
            let others = policies.into_iter().filter(|&policy| policy != self.policy);
            actions.extend(others.map(Action::SetPolicy));
        }
        // Where SS is part of what is pending, in a guest that steps itself or has just entered or
        // left an exception, EL2 settles it before it lets a debugger near.
        let is_part = self.alone.mdscr.ss
            || self.machine.elr_el2 >= SYNCHRONOUS_VECTOR
            || self.look.op == Op::Eret;
        if !self.is_pending() || !is_part {
            actions.push(Action::DebuggerWritesSs(!self.saved().ss()));
        }
        if self.is_pending() {
            actions.push(Action::Pause);
        } else {
            actions.extend([
                Action::DebuggerWritesMasks,
                Action::DebuggerWritesPc,
                Action::DebuggerWritesMdscr,
                Action::Unmap,
            ]);
        }
    }

    /// Does it.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::StepOn => {
                self.switch_on();
                self.was_stepping = true;
            }
            Action::StepOff => {
                self.switch_off();
                self.unreported = 0;
            }
            Action::Pause => self.stop(),
            Action::SetPolicy(policy) => self.policy = policy,
            Action::ToggleInterrupt => {
                self.machine.virq = !self.machine.virq;
                self.alone.virq = self.machine.virq;
            }
            Action::OtherWrites | Action::OtherRewrites => {
                let line = self.machine.line + u8::from(action == Action::OtherWrites);
                self.machine.written_by_another(line % 4);
                self.alone.written_by_another(line % 4);
            }
            Action::DebuggerWritesSs(ss) => {
                self.machine.spsr_el2.ss = ss;
                self.alone.pstate.ss = ss;
            }
            Action::DebuggerWritesMasks => {
                let class = self.machine.virq_class;
                for pstate in [&mut self.machine.spsr_el2, &mut self.alone.pstate] {
                    pstate.d = !pstate.d;
                    let mask = match class {
                        Class::Fiq => &mut pstate.f,
                        Class::SystemError => &mut pstate.a,
                        _ => &mut pstate.i,
                    };
                    *mask = !*mask;
                }
            }
            Action::DebuggerWritesPc => {
                self.machine.elr_el2 = 0;
                self.alone.pc = 0;
                self.monitor.clear();
            }
            Action::DebuggerWritesMdscr => self.debugger_writes_mdscr(),
            Action::Unmap => {
                self.machine.is_mapped = false;
                self.alone.is_mapped = false;
            }
            Action::Enter
            | Action::Proceed
            | Action::PhysicalInterrupt
            | Action::VirtualInterrupt
            | Action::Synchronize
            | Action::Deliver => {}
        }
    }

    fn debugger_writes_mdscr(&mut self) {
        self.alone.mdscr.ss = !self.alone.mdscr.ss;
        self.alone.synchronize_context();
        if self.is_stepping() {
            self.shadow.mdscr.ss = !self.shadow.mdscr.ss;
            self.engine.set_guest_mdscr(bits::mdscr(self.shadow.mdscr));
        } else {
            self.machine.mdscr.ss = !self.machine.mdscr.ss;
        }
    }
}
