//! The state that is explored, and what may happen next in it.

use crate::bits;
use crate::el2::Look;
use crate::{programs, properties};
use stateright::{Model, Property};
use stepwell_engine::{Engine, ExclusiveMonitor, StepState, plan};
use stepwell_spec::exception::SYNCHRONOUS_VECTOR;
use stepwell_spec::{Choice, Class, El, Event, Letter, Machine, Mdscr, ProcState, Program};

/// What is explored.
#[derive(Clone, Debug)]
pub struct Exploration {
    /// The guests, one initial state and more for each.
    pub programs: &'static [Program],
    /// How often the adversary may act in one run. Physical interrupts are not counted.
    pub budget: u8,
}

/// The pair of machines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Which of the programs the guest executes.
    pub program: u8,
    /// The machine that is stepped.
    pub machine: Machine,
    /// It is below EL2.
    pub is_in_guest: bool,
    /// The engine.
    pub engine: Engine,
    /// Its exclusive monitor.
    pub monitor: ExclusiveMonitor,
    /// The guest's MDSCR_EL1 while stepping is on.
    pub mdscr: Mdscr,
    /// The guest's OS Lock while stepping is on.
    pub os_lock: bool,
    /// What EL2 saw of the instruction that is executing.
    pub look: Look,
    /// The same guest, stepped by nobody.
    pub alone: Machine,
    /// Things that have happened while stepping, less reports of them.
    pub unreported: i8,
    /// A store-exclusive succeeded that could not have.
    pub stored_wrongly: bool,
    /// Stepping was on before.
    pub was_stepping: bool,
    /// What is left of the adversary's budget.
    pub budget: u8,
}

/// What may happen between two events, and the events.
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
    /// EL2 delivers the virtual interrupt at a boundary.
    Deliver,
    /// Stepping is switched on.
    StepOn,
    /// Stepping is switched off.
    StepOff,
    /// A virtual interrupt becomes pending, or is no longer.
    ToggleInterrupt,
    /// The second vCPU writes the line.
    OtherWrites,
    /// The second vCPU writes the value that the line has already.
    OtherRewrites,
    /// The debugger writes PSTATE: SS becomes this.
    DebuggerWritesSs(bool),
    /// The debugger sends the guest back to instruction 0.
    DebuggerWritesPc,
    /// The debugger toggles MDSCR_EL1.SS.
    DebuggerWritesMdscr,
    /// EL2 withdraws the page at stage 2.
    Unmap,
}

impl World {
    fn new(program: u8, machine: Machine, budget: u8) -> Self {
        let mut stepped = machine;
        // The guest is at EL2, about to be entered for the first time.
        stepped.spsr_el2 = machine.pstate;
        stepped.elr_el2 = machine.pc;
        stepped.pstate = ProcState::masked(El::El2);
        Self {
            program,
            machine: stepped,
            is_in_guest: false,
            engine: Engine::new(),
            monitor: ExclusiveMonitor::new(),
            mdscr: machine.mdscr,
            os_lock: machine.os_lock,
            look: Look {
                letter: Letter::Plain,
                pstate: machine.pstate,
                spsr_el1: machine.spsr_el1,
            },
            alone: machine,
            unreported: 0,
            stored_wrongly: false,
            was_stepping: false,
            budget,
        }
    }

    /// Whether stepping is on.
    #[must_use]
    pub fn is_stepping(&self) -> bool {
        self.engine.is_enabled()
    }

    /// Whether an instruction has executed that was not reported.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.engine.state() == StepState::ActivePending
    }

    /// Whether the guest's own PSTATE.SS means anything where it is.
    ///
    /// Where it does not (its step disabled, the OS Lock set) a return from EL2 makes it 0, and
    /// whether there was one since is not the guest's to say: a 1 may stay, or be lost.
    #[must_use]
    pub fn is_ss_alive(&self) -> bool {
        self.alone.mdscr.ss && self.alone.generate_debug_exceptions()
    }

    /// The engine's caller reports a boundary.
    pub fn report(&mut self) {
        self.unreported = self.unreported.saturating_sub(1).max(-2);
    }

    /// Something happened to the guest: the machine that runs alone does the same.
    pub fn happened(&mut self, program: Program, choice: Choice) {
        if self.is_stepping() {
            self.unreported = self.unreported.saturating_add(1).min(3);
        }
        let had_monitor = self.alone.monitor;
        let stores = choice == Choice::Proceed
            && program.fetch(self.alone.pc) == Letter::StoreExclusive
            && !self.alone.check_software_step();
        self.follow(program, choice);
        self.stored_wrongly |= stores && !had_monitor;
    }

    /// The machine that runs alone does one thing; EL2 carries out what traps there, too.
    fn follow(&mut self, program: Program, choice: Choice) {
        while self.alone.advance(program, choice) == Event::ExitedToEl2 {
            let retried = self.alone.esr_el2.class == Class::Stage2;
            if retried {
                self.alone.is_mapped = true;
            } else {
                if self.alone.esr_el2.class != Class::Hvc {
                    self.alone.elr_el2 = self.alone.elr_el2.saturating_add(1);
                }
                // The instruction counts as executed: the guest's own step sees it.
                self.alone.spsr_el2.ss &= !self.alone.mdscr.ss;
            }
            let ss = self.alone.spsr_el2.ss;
            self.alone.exception_return();
            if !self.is_ss_alive() {
                self.alone.pstate.ss = ss;
            }
            if !retried {
                break;
            }
        }
        // What only the saved copies in EL2's registers differ in is no difference.
        self.alone.spsr_el2 = ProcState::at(El::El0);
        self.alone.elr_el2 = 0;
        self.alone.stepped = None;
    }

    fn advance(&mut self, program: Program, choice: Choice) {
        let stores = program.fetch(self.machine.pc) == Letter::StoreExclusive;
        match self.machine.advance(program, choice) {
            Event::ExitedToEl2 => self.exited(program),
            Event::Executed(_) if stores && self.machine.status => {
                self.happened(program, Choice::StoreFails);
            }
            Event::Executed(_) | Event::EnteredEl1(_) => self.happened(program, choice),
        }
    }

    fn actions_of_the_adversary(&self, actions: &mut Vec<Action>) {
        use Action::{
            DebuggerWritesMdscr, DebuggerWritesPc, DebuggerWritesSs, OtherRewrites, OtherWrites,
            StepOff, StepOn, ToggleInterrupt, Unmap,
        };
        actions.push(if self.is_stepping() { StepOff } else { StepOn });
        actions.extend([ToggleInterrupt, OtherWrites]);
        // A write that changes nothing is one that a compare-and-swap does not see: not while the
        // engine needs the others to stand.
        let next = plan(programs::instruction(self.look.letter));
        if !self.is_stepping() || !self.monitor.needs_others_stopped(next) {
            actions.push(OtherRewrites);
        }
        // Where SS is part of what is pending, in a guest that steps itself or has just entered or
        // left an exception, EL2 settles it before it lets a debugger near.
        let is_part = self.alone.mdscr.ss
            || self.machine.elr_el2 >= SYNCHRONOUS_VECTOR
            || self.look.letter == Letter::Eret;
        if !self.is_pending() || !is_part {
            actions.push(DebuggerWritesSs(!self.saved().ss()));
        }
        if !self.is_pending() {
            actions.extend([DebuggerWritesPc, DebuggerWritesMdscr, Unmap]);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::StepOn => {
                self.switch_on();
                self.was_stepping = true;
            }
            Action::StepOff => {
                self.switch_off();
                self.unreported = 0;
            }
            Action::ToggleInterrupt => {
                self.machine.virq = !self.machine.virq;
                self.alone.virq = self.machine.virq;
            }
            Action::OtherWrites | Action::OtherRewrites => {
                let line = self.machine.line + u8::from(action == Action::OtherWrites);
                for machine in [&mut self.machine, &mut self.alone] {
                    machine.line = line % 4;
                    machine.monitor = false;
                }
            }
            Action::DebuggerWritesSs(ss) => {
                self.machine.spsr_el2.ss = ss;
                self.alone.pstate.ss = ss;
            }
            Action::DebuggerWritesPc => {
                self.machine.elr_el2 = 0;
                self.alone.pc = 0;
                self.monitor.clear();
            }
            Action::DebuggerWritesMdscr => {
                self.alone.mdscr.ss = !self.alone.mdscr.ss;
                if self.is_stepping() {
                    self.mdscr.ss = !self.mdscr.ss;
                    self.engine.set_guest_mdscr(bits::mdscr(self.mdscr));
                } else {
                    self.machine.mdscr.ss = !self.machine.mdscr.ss;
                }
            }
            Action::Unmap => {
                self.machine.is_mapped = false;
                self.alone.is_mapped = false;
            }
            Action::Enter
            | Action::Proceed
            | Action::PhysicalInterrupt
            | Action::VirtualInterrupt
            | Action::Deliver => {}
        }
    }
}

impl Exploration {
    /// Every program with the real engine.
    #[must_use]
    pub const fn new(programs: &'static [Program], budget: u8) -> Self {
        Self { programs, budget }
    }

    /// The program of this state.
    #[must_use]
    pub fn program(&self, world: &World) -> Program {
        self.programs.get(usize::from(world.program)).copied().unwrap_or(Program(&[]))
    }

    fn initial(&self, program: u8) -> impl Iterator<Item = World> {
        let budget = self.budget;
        let own = Mdscr { ss: true, kde: false, mde: false };
        let kernel = Mdscr { kde: true, ..own };
        let starts = [
            (El::El1, Mdscr::default(), false),
            (El::El0, Mdscr::default(), false),
            (El::El0, own, false),
            (El::El0, own, true),
            (El::El1, kernel, false),
        ];
        starts.into_iter().flat_map(move |(el, mdscr, os_lock)| {
            [false, true].map(|isv_kept| {
                let pstate = ProcState { ss: mdscr.ss, ..ProcState::at(el) };
                let mut machine = Machine::new(pstate);
                machine.mdscr = mdscr;
                machine.os_lock = os_lock;
                machine.isv_kept = isv_kept;
                // Somewhere to return to with ERET: the guest's EL0, stepped if it is.
                machine.spsr_el1.ss = true;
                machine.elr_el1 = 2;
                World::new(program, machine, budget)
            })
        })
    }
}

impl Model for Exploration {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        (0..self.programs.len())
            .filter_map(|program| u8::try_from(program).ok())
            .flat_map(|program| self.initial(program))
            .collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.is_in_guest {
            actions.extend([Action::Proceed, Action::PhysicalInterrupt]);
            if world.machine.can_take_virtual_interrupt() {
                actions.push(Action::VirtualInterrupt);
            }
            return;
        }
        actions.push(Action::Enter);
        if world.engine.state() == StepState::ActiveNotPending
            && world.machine.virq
            && !world.machine.spsr_el2.i
        {
            actions.push(Action::Deliver);
        }
        if world.budget > 0 {
            world.actions_of_the_adversary(actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let program = self.program(world);
        match action {
            Action::Enter => next.enter(program),
            Action::Deliver => next.inject(Class::Irq, program),
            Action::Proceed => next.advance(program, Choice::Proceed),
            Action::PhysicalInterrupt => {
                next.advance(program, Choice::PhysicalInterrupt);
            }
            Action::VirtualInterrupt => {
                next.advance(program, Choice::VirtualInterrupt);
            }
            _ => {
                next.budget = next.budget.checked_sub(1)?;
                next.act(action);
            }
        }
        (&next != world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
