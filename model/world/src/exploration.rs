//! What is explored: where it begins, and what may happen in each state.

use crate::adversary::{Action, Order};
use crate::board::Board;
use crate::pe::{self};
use crate::pool::Pooled;
use crate::world::{PeState, SharedCpu, VcpuState, World, at_el2};
use crate::{programs, properties};
use stateright::{Model, Property};
use std::rc::Rc;
use stepwell_protocol::{InterruptPolicy, OthersPolicy, TimePolicy};
use stepwell_spec::{
    Choice, Class, El, Implementation, Mdscr, Op, ProcState, Program, SpecMachine,
};
use stepwell_vm::vcpu::sharing;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Exploration {
    /// The guests, one initial state and more for each.
    pub programs: &'static [Program],
    /// How often the adversary may act in one run. Physical interrupts are not counted.
    pub budget: u8,
    /// What the virtual interrupt is taken as: IRQ, FIQ or SError.
    pub interrupt: Class,
    /// Where each vCPU begins.
    pub starts: &'static [u8],
    /// What the others do while the first one is stepped.
    pub others: OthersPolicy,
    /// How time goes.
    pub time: TimePolicy,
    /// All vCPUs are on one CPU.
    pub shares_cpu: bool,
}

impl Exploration {
    /// Every program with the real loop, on one vCPU.
    #[must_use]
    pub const fn new(programs: &'static [Program], budget: u8) -> Self {
        Self {
            programs,
            budget,
            interrupt: Class::Irq,
            starts: &[0],
            others: OthersPolicy::Stop,
            time: TimePolicy::Stopped,
            shares_cpu: false,
        }
    }

    /// With another kind of interrupt.
    #[must_use]
    pub const fn interrupted_by(self, interrupt: Class) -> Self {
        Self { interrupt, ..self }
    }

    /// By the machine's clock: handlers that are stepped over run freely.
    #[must_use]
    pub const fn in_real_time(self) -> Self {
        Self { time: TimePolicy::Real, ..self }
    }

    /// Of two vCPUs, which begin here, and of which the first is stepped while the others do this.
    #[must_use]
    pub const fn beside(self, starts: &'static [u8], others: OthersPolicy) -> Self {
        Self { starts, others, ..self }
    }

    /// With all vCPUs on one CPU, in turns.
    #[must_use]
    pub const fn on_one_cpu(self) -> Self {
        Self { shares_cpu: true, ..self }
    }

    /// The program of this state.
    #[must_use]
    pub fn program(&self, world: &World) -> Program {
        self.programs.get(usize::from(world.program)).copied().unwrap_or(Program(&[]))
    }

    /// Whether there is one vCPU.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.starts.len() == 1
    }

    /// This thread's board of the kind that is explored.
    pub(crate) fn board(&self, program: Program) -> Rc<Board> {
        let has_views = program.0.contains(&Op::Stage2);
        Board::of(self.starts.len(), self.shares_cpu, has_views)
    }

    fn initial(&self, number: u8) -> impl Iterator<Item = World> {
        let machines = STARTS.iter().flat_map(move |&(el, mdscr, lock)| {
            IMPLEMENTATIONS.iter().filter_map(move |&implementation| {
                // Where QEMU departs a locked guest steps itself all the same: not to be kept up.
                let departs = implementation.ignores_os_lock && lock != Lock::None;
                let is_plain = implementation == Implementation::STRICT && mdscr == NOBODY;
                (!departs && (self.is_alone() || is_plain && el == El::El1))
                    .then(|| start(el, mdscr, lock, implementation))
            })
        });
        machines.map(move |machine| {
            self.world(number, SpecMachine { virq_class: self.interrupt, ..machine })
        })
    }

    fn world(&self, program: u8, machine: SpecMachine) -> World {
        let text = self.programs.get(usize::from(program)).copied().unwrap_or(Program(&[]));
        let board = self.board(text);
        let machines: Vec<_> =
            self.starts.iter().map(|&pc| SpecMachine { pc, ..machine }).collect();
        let (values, shared, vgic) = board.first(&machines, self);
        let vcpus = machines.iter().zip(values).map(|(&alone, values)| VcpuState {
            values,
            needs: None,
            virq: false,
            alone,
            happened: 0,
            unrecorded: Vec::new(),
            may_pass: None,
            told: None,
        });
        let pe = PeState { machine: at_el2(machine), has_acknowledged: false };
        let pes = if self.shares_cpu { 1 } else { self.starts.len() };
        let none = sharing::Shared::default();
        World {
            program,
            pes: vec![pe; pes],
            vcpus: vcpus.collect(),
            shared,
            vgic,
            turn: self.shares_cpu.then(|| SharedCpu {
                kept: Pooled::of(&none),
                on: None,
                is_late: false,
            }),
            kicks: 0,
            last: None,
            stop: None,
            wrong: None,
            budget: self.budget,
        }
    }

    /// What may be done from outside while vCPUs move.
    fn outside(&self, world: &World, actions: &mut Vec<Action>) {
        if world.shared.control.stop.is_none() {
            actions.push(Action::Pause);
        }
        // What is in a list register already is the guest's.
        if !world.vcpus[0].is_in_guest() || !world.machine(0).virq_signalled {
            actions.push(Action::ToggleInterrupt);
        }
        self.on_the_line(world, actions);
    }

    /// Writes of the line by somebody else: of another domain's device, where there is one vCPU, or in
    /// the place of what another one executes.
    ///
    /// A write that changes nothing is one that a compare-and-swap does not see: not while this vCPU
    /// has the others quiesced, or all are stopped within its sequence.
    fn on_the_line(&self, world: &World, actions: &mut Vec<Action>) {
        if !self.is_alone() {
            if world.vcpus[1].is_in_guest() {
                actions.push(Action::OtherRewrites);
            }
            return;
        }
        actions.push(Action::OtherWrites);
        let vcpu = &world.vcpus[0];
        // It may have executed already, and not be reported.
        let next = vcpu.values.flow.as_ref().map_or_else(
            || {
                let op = self.program(world).fetch(pe::number_of(vcpu.values.hot.elr));
                stepwell_engine::plan(stepwell_arch::Instruction::decode(programs::word(op)))
            },
            |flow| flow.plan_in_hand(),
        );
        let is_free = world.is_running(0) && !vcpu.is_stepping();
        if is_free || !vcpu.values.hot.monitor.needs_others_stopped(next) {
            actions.push(Action::OtherRewrites);
        }
    }

    /// What the tool may do while all is stopped.
    fn of_the_tool(&self, world: &World, actions: &mut Vec<Action>) {
        let orders = [Order::Step, Order::Steps, Order::Continue];
        let others = orders.into_iter().filter(|&order| world.last != Some(order));
        actions.extend(others.map(Action::Command));
        let policies = [InterruptPolicy::Hold, InterruptPolicy::Into, InterruptPolicy::Over];
        let now = world.shared.control.interrupts;
        let others = policies.into_iter().filter(|&policy| policy != now);
        actions.extend(others.map(Action::SetPolicy));
        actions.extend([Action::ToggleInterrupt, Action::ToggleBreakpoint(1)]);
        if !self.is_alone() {
            return;
        }
        self.on_the_line(world, actions);
        if self.program(world).0.contains(&Op::Smc) {
            actions.push(Action::ToggleMonitor);
        }
        actions.extend([
            Action::DebuggerWritesSs,
            Action::DebuggerWritesMasks,
            Action::DebuggerWritesPc,
            Action::DebuggerWritesMdscr,
        ]);
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
        if world.wrong.is_some() {
            return;
        }
        world.moves(actions);
        let is_stopped = world.is_stopped();
        if is_stopped && world.last.is_some() {
            actions.push(Action::Again);
        }
        if world.budget > 0 {
            match is_stopped {
                true => self.of_the_tool(world, actions),
                false => self.outside(world, actions),
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Proceed(n) => next.proceed(self, n.into(), Choice::Proceed),
            Action::PhysicalInterrupt(n) => {
                next.proceed(self, n.into(), Choice::PhysicalInterrupt);
            }
            Action::TurnIsOver(n) => {
                next.turn.as_mut()?.is_late = true;
                next.proceed(self, n.into(), Choice::PhysicalInterrupt);
            }
            Action::VirtualInterrupt(n) => next.proceed(self, n.into(), Choice::VirtualInterrupt),
            Action::Begin(n) => next.begin(self, n.into()),
            Action::NextTurn => next.next_turn(self),
            Action::Wake(n) => next.wake(self, n.into()),
            Action::Arrive(n) => {
                next.set_interrupt(self, n.into(), Some(true));
                next.wake(self, n.into());
            }
            Action::Again => next.command(self, world.last?),
            _ => {
                next.budget = next.budget.checked_sub(1)?;
                next.act(self, action);
            }
        }
        (&next != world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
