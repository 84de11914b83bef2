//! The state that is explored, and what may happen next in it.

use crate::adversary::Action;
use crate::el2::{Look, Shadow};
use crate::over::Policy;
use crate::properties;
use stateright::{Model, Property};
use stepwell_engine::{Engine, ExclusiveMonitor, InterruptedContext, StepState};
use stepwell_spec::{
    Choice, Class, El, Event, Implementation, Mdscr, Op, ProcState, Program, SpecMachine,
};

/// What is explored.
#[derive(Clone, Debug)]
pub struct Exploration {
    /// The guests, one initial state and more for each.
    pub programs: &'static [Program],
    /// How often the adversary may act in one run. Physical interrupts are not counted.
    pub budget: u8,
    /// What the virtual interrupt is taken as: IRQ, FIQ or SError.
    pub interrupt: Class,
}

/// The pair of machines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Which of the programs the guest executes.
    pub program: u8,
    /// The machine that is stepped.
    pub machine: SpecMachine,
    /// It is below EL2.
    pub is_in_guest: bool,
    /// The engine.
    pub engine: Engine,
    /// Its exclusive monitor.
    pub monitor: ExclusiveMonitor,
    /// The guest's debug registers while EL2 has its own in the machine.
    pub shadow: Shadow,
    /// What happens to interrupts while stepping.
    pub policy: Policy,
    /// What a handler that is run over is to return to.
    pub over: Option<InterruptedContext>,
    /// What EL2 saw of the instruction that is executing.
    pub look: Look,
    /// The same guest, stepped by nobody.
    pub alone: SpecMachine,
    /// Things that have happened while stepping, less reports of them.
    pub unreported: i8,
    /// A store-exclusive succeeded that could not have.
    pub stored_wrongly: bool,
    /// Stepping was on before.
    pub was_stepping: bool,
    /// What is left of the adversary's budget.
    pub budget: u8,
}

impl World {
    fn new(program: u8, machine: SpecMachine, budget: u8) -> Self {
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
            shadow: Shadow::of(&machine),
            policy: Policy::default(),
            over: None,
            look: Look { pc: 0, op: Op::Plain, pstate: machine.pstate, spsr_el1: machine.spsr_el1 },
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

    /// Whether the guest's debug registers are at EL2: while it is stepped, and while a handler is
    /// run over.
    #[must_use]
    pub fn holds_debug(&self) -> bool {
        self.is_stepping() || self.over.is_some()
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
        let could_store = self.alone.exclusive_monitors_pass();
        let stores = choice == Choice::Proceed
            && program.fetch(self.alone.pc) == Op::StoreExclusive
            && !self.alone.check_software_step();
        self.follow(program, choice);
        self.stored_wrongly |= stores && !could_store;
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
        // EL2 carried out what writes a debug register, and synchronized.
        if self.holds_debug() {
            self.alone.synchronize_context();
        }
        // What only the saved copies in EL2's registers differ in is no difference.
        self.alone.spsr_el2 = ProcState::at(El::El0);
        self.alone.elr_el2 = 0;
        self.alone.stepped = None;
    }

    fn advance(&mut self, program: Program, choice: Choice) {
        let stores = program.fetch(self.machine.pc) == Op::StoreExclusive;
        match self.machine.advance(program, choice) {
            Event::ExitedToEl2 => self.exited(program),
            Event::Executed(_) if stores && self.machine.status => {
                self.happened(program, Choice::StoreFails);
            }
            Event::Executed(_) | Event::EnteredEl1(_) => self.happened(program, choice),
        }
    }
}

impl Exploration {
    /// Every program with the real engine.
    #[must_use]
    pub const fn new(programs: &'static [Program], budget: u8) -> Self {
        Self { programs, budget, interrupt: Class::Irq }
    }

    /// With another kind of interrupt.
    #[must_use]
    pub const fn interrupted_by(self, interrupt: Class) -> Self {
        Self { interrupt, ..self }
    }

    /// The program of this state.
    #[must_use]
    pub fn program(&self, world: &World) -> Program {
        self.programs.get(usize::from(world.program)).copied().unwrap_or(Program(&[]))
    }

    fn initial(&self, program: u8) -> impl Iterator<Item = World> {
        let budget = self.budget;
        let machines = STARTS.iter().flat_map(|&(el, mdscr, lock)| {
            IMPLEMENTATIONS.iter().filter_map(move |&implementation| {
                // Where QEMU departs a locked guest steps itself all the same: not to be kept up.
                let departs = implementation.ignores_os_lock && lock != Lock::None;
                (!departs).then(|| start(el, mdscr, lock, implementation))
            })
        });
        let virq_class = self.interrupt;
        machines
            .map(move |machine| World::new(program, SpecMachine { virq_class, ..machine }, budget))
    }
}

/// Which of its locks a guest has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    None,
    Os,
    Double,
}

const IMPLEMENTATIONS: [Implementation; 3] =
    [Implementation::STRICT, Implementation::LOOSE, Implementation::QEMU];

const NOBODY: Mdscr = Mdscr { ss: false, kde: false, mde: false };
/// The guest steps its EL0.
const OWN: Mdscr = Mdscr { ss: true, ..NOBODY };
/// The guest steps its kernel.
const KERNEL: Mdscr = Mdscr { kde: true, ..OWN };

const STARTS: [(El, Mdscr, Lock); 6] = [
    (El::El1, NOBODY, Lock::None),
    (El::El0, NOBODY, Lock::None),
    (El::El0, OWN, Lock::None),
    (El::El0, OWN, Lock::Os),
    (El::El0, OWN, Lock::Double),
    (El::El1, KERNEL, Lock::None),
];

fn start(el: El, mdscr: Mdscr, lock: Lock, implementation: Implementation) -> SpecMachine {
    let pstate = ProcState { ss: mdscr.ss, ..ProcState::at(el) };
    let mut machine = SpecMachine::new(pstate);
    machine.mdscr = mdscr;
    machine.synchronize_context();
    machine.os_lock = lock == Lock::Os;
    machine.os_double_lock = lock == Lock::Double;
    machine.implementation = implementation;
    // What the traps of EL2 are goes with the implementation: either way is met.
    let traps_smc = implementation != Implementation::LOOSE;
    (machine.tsc, machine.twi, machine.twe) = (traps_smc, !traps_smc, !traps_smc);
    // Somewhere to return to with ERET: the guest's EL0, stepped if it is.
    machine.spsr_el1.ss = true;
    machine.elr_el1 = 2;
    machine
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
        if !world.is_in_guest {
            actions.push(Action::Enter);
            if world.can_deliver() {
                actions.push(Action::Deliver);
            }
            if world.budget > 0 {
                world.actions_of_the_adversary(actions);
            }
            return;
        }
        actions.push(Action::Proceed);
        if world.machine.can_be_interrupted() {
            actions.push(Action::PhysicalInterrupt);
            if world.machine.can_take_virtual_interrupt() {
                actions.push(Action::VirtualInterrupt);
            }
        }
        if world.machine.mdscr_seen != world.machine.mdscr {
            actions.push(Action::Synchronize);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let program = self.program(world);
        match action {
            Action::Enter => next.enter(program),
            Action::Deliver => next.deliver(program),
            Action::Synchronize => {
                next.machine.synchronize_context();
                next.alone.synchronize_context();
            }
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
