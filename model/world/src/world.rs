//! The state that is explored.

use crate::adversary::{Action, Order};
use crate::alone::Thing;
use crate::bits;
use crate::board::{Shared, Values};
use crate::pe;
use crate::pool::Pooled;
use stepwell_arch::Pstate;
use stepwell_engine::StepState;
use stepwell_protocol::StopReason;
use stepwell_spec::{El, ProcState, SpecMachine};
use stepwell_vm::domain::bit;
use stepwell_vm::vcpu::advance::Needs;
use stepwell_vm::vcpu::sharing;
use stepwell_vm::vgic::Vgic;

/// A CPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeState {
    /// The machine.
    pub machine: SpecMachine,
    /// Its guest has acknowledged what its list registers offered.
    pub has_acknowledged: bool,
}

/// A vCPU: the loop's values around it, and the machine that runs alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VcpuState {
    /// The loop's values.
    pub values: Values,
    /// What it needs; nothing where it is stopped, or has not begun with its order.
    pub needs: Option<Needs>,
    /// Its virtual interrupt is pending.
    pub virq: bool,
    /// The same guest, stepped by nobody.
    pub alone: SpecMachine,
    /// Things that have happened since the order, and are to be counted.
    pub happened: u8,
    /// Instructions of these that are not in the ring yet.
    pub unrecorded: Vec<u8>,
    /// Where the debugger knows that it is: a breakpoint there does not stop it.
    pub may_pass: Option<u8>,
    /// The stop that was told of it, if nothing has happened since.
    pub told: Option<StopReason>,
}

/// What a CPU has of the vCPUs that share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedCpu {
    /// What it keeps of those that it has not.
    pub kept: Pooled<sharing::Shared>,
    /// The one that it has, and what that is in the middle of.
    pub on: Option<usize>,
    /// The turn's time is over.
    pub is_late: bool,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// The guest is somewhere that it would not be alone.
    Guest,
    /// Another number of steps was told than there were things that happened.
    Count,
    /// The ring has something else than what was executed.
    Record,
    /// A store-exclusive succeeded that could not have.
    Store,
    /// An instruction executed at which a breakpoint was to stop it.
    Breakpoint,
    /// An interrupt was entered under a step that was to be held.
    Held,
    /// The tool was told twice of one thing, or was not told, or of what there is not.
    Told,
    /// The domain ended.
    Ended,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Which of the programs the guest executes.
    pub program: u8,
    /// The CPUs.
    pub pes: Vec<PeState>,
    /// The vCPUs.
    pub vcpus: Vec<VcpuState>,
    /// What they share.
    pub shared: Pooled<Shared>,
    /// Their interrupt controller.
    pub vgic: Pooled<Vgic>,
    /// The CPU, where they share one.
    pub turn: Option<SharedCpu>,
    /// CPUs that were called.
    pub kicks: u8,
    /// The command that was given last.
    pub last: Option<Order>,
    /// The stop that was told last.
    pub stop: Option<StopReason>,
    /// What went wrong.
    pub wrong: Option<Wrong>,
    /// What is left of the adversary's budget.
    pub budget: u8,
}

impl VcpuState {
    /// Whether it is in its guest.
    #[must_use]
    pub fn is_in_guest(&self) -> bool {
        self.needs == Some(Needs::Entry)
    }

    /// Whether it is stepped, and its steps are counted.
    #[must_use]
    pub fn is_counting(&self) -> bool {
        let is_hidden = self.values.cold.handler_of.is_some();
        !is_hidden && self.values.flow.as_ref().is_some_and(|flow| flow.is_counting())
    }

    /// Whether it is stepped, for whatever reason.
    #[must_use]
    pub fn is_stepping(&self) -> bool {
        self.values.hot.engine.is_enabled()
    }

    /// Whether an instruction has executed that was not counted.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.values.hot.engine.state() == StepState::ActivePending
    }

    /// Something has happened to it.
    pub(crate) fn take(&mut self, thing: Thing, counts: bool) {
        self.told = None;
        if counts {
            self.happened = self.happened.saturating_add(1);
            self.unrecorded.extend(thing.begun);
        }
        if self.may_pass == thing.begun {
            self.may_pass = None;
        }
    }
}

impl World {
    /// Whether vCPU `n` has an order.
    #[must_use]
    pub fn is_running(&self, n: usize) -> bool {
        self.shared.control.running & bit(n) != 0
    }

    /// Whether all vCPUs are stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.control.running == 0
    }

    /// The CPU of vCPU `n`.
    #[must_use]
    pub const fn cpu_of(&self, n: usize) -> usize {
        if self.turn.is_some() { 0 } else { n }
    }

    /// The machine of vCPU `n`'s CPU.
    #[must_use]
    pub fn machine(&self, n: usize) -> &SpecMachine {
        &self.pes[self.cpu_of(n)].machine
    }

    /// Whether vCPU `n` is on its CPU.
    #[must_use]
    pub fn is_on_cpu(&self, n: usize) -> bool {
        match &self.turn {
            Some(turn) => turn.on == Some(n),
            None => true,
        }
    }

    /// The guest of vCPU `n` as it is, wherever it is.
    #[must_use]
    pub fn guest(&self, n: usize) -> SpecMachine {
        let vcpu = &self.vcpus[n];
        let mut guest = *self.machine(n);
        if vcpu.is_in_guest() {
            return guest;
        }
        let hot = &vcpu.values.hot;
        if !self.is_on_cpu(n) {
            pe::load(&mut guest, &vcpu.values.cold.snapshot);
        }
        guest.pstate = bits::proc_state(Pstate(hot.spsr));
        guest.pc = pe::number_of(hot.elr);
        (guest.loaded, guest.status) = (hot.loaded, hot.status);
        guest.virq = vcpu.virq;
        guest
    }

    /// Takes down what is wrong, if nothing was before.
    pub(crate) fn is_wrong(&mut self, wrong: Wrong) {
        self.wrong.get_or_insert(wrong);
    }

    /// Somebody writes the line: CPU `by` has done so itself.
    pub(crate) fn written(&mut self, by: Option<usize>, vcpu: Option<usize>, value: u8) {
        for (_, pe) in self.pes.iter_mut().enumerate().filter(|(n, _)| Some(*n) != by) {
            pe.machine.written_by_another(value);
        }
        for (_, other) in self.vcpus.iter_mut().enumerate().filter(|(n, _)| Some(*n) != vcpu) {
            other.alone.written_by_another(value);
        }
    }

    /// What may be done next, below EL2 and by vCPUs that wait.
    pub(crate) fn moves(&self, actions: &mut Vec<Action>) {
        for (n, vcpu) in (0_u8..).zip(&self.vcpus) {
            let index = usize::from(n);
            match vcpu.needs {
                Some(Needs::Entry) => self.moves_below_el2(n, actions),
                Some(Needs::Interrupt) if self.turn.is_none() => {
                    if self.kicks & bit(self.cpu_of(index)) != 0 {
                        actions.push(Action::Wake(n));
                    } else if self.vcpus.len() == 1 {
                        actions.push(Action::Arrive(n));
                    }
                }
                Some(Needs::Others) => actions.push(Action::Wake(n)),
                None if self.turn.is_none() && vcpu.values.order.is_some() => {
                    actions.push(Action::Begin(n));
                }
                _ => {}
            }
        }
        if self.turn.as_ref().is_some_and(|turn| turn.on.is_none()) && !self.is_stopped() {
            actions.push(Action::NextTurn);
        }
    }

    fn moves_below_el2(&self, n: u8, actions: &mut Vec<Action>) {
        let machine = self.machine(usize::from(n));
        actions.push(Action::Proceed(n));
        if machine.can_be_interrupted() {
            actions.push(Action::PhysicalInterrupt(n));
            if self.turn.as_ref().is_some_and(|turn| !turn.is_late) {
                actions.push(Action::TurnIsOver(n));
            }
            if machine.can_take_virtual_interrupt() {
                actions.push(Action::VirtualInterrupt(n));
            }
        }
    }
}

/// A machine at EL2, about to enter a guest for the first time, without what is EL2's.
#[must_use]
pub const fn at_el2(guest: SpecMachine) -> SpecMachine {
    let nobody = stepwell_spec::Mdscr { ss: false, kde: false, mde: false };
    SpecMachine {
        pstate: ProcState::masked(El::El2),
        os_lock: false,
        os_double_lock: false,
        mdscr: nobody,
        mdscr_seen: nobody,
        spsr_el2: ProcState::at(El::El0),
        elr_el2: 0,
        is_mapped: true,
        virq_signalled: false,
        ..guest
    }
}
