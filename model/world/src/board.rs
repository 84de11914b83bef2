//! The real machine, domain and loop around the PEs of [`crate::pe`], one for each thread, and how a
//! state of the exploration gets into it and out of it.
//!
//! A state holds what the loop's values are, most of them in a [`Pool`]. Taking a state out and
//! putting it in again changes nothing: what is not part of it is never written, or follows from what
//! is.

use crate::exploration::Exploration;
use crate::pe::{self, LINE, ModelContext, ModelCpu, ModelMemory, ModelRing, PES, RAM_BYTES};
use crate::pool::{Kind, Pool, Pooled};
use core::sync::atomic::Ordering;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use stepwell_arch::{Ipa, Pa, Va};
use stepwell_engine::{Engine, ExclusiveMonitor, SpinDetector, Turns, VirtualClock};
use stepwell_protocol::{Refusal, TimePolicy, WatchAccess, Watchpoint};
use stepwell_spec::{Class, SpecMachine};
use stepwell_vm::concurrency::alone::Alone;
use stepwell_vm::concurrency::counted::Counted;
use stepwell_vm::concurrency::quiescence::Quiescence;
use stepwell_vm::cpu::{Run, Vector};
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::device::peripherals::Peripherals;
use stepwell_vm::device::pl011::Pl011;
use stepwell_vm::device::virtio::Virtio;
use stepwell_vm::domain::{Control, Domain, Order, Power, Vcpu, bit};
use stepwell_vm::link::{Link, Queues, break_all};
use stepwell_vm::machine::Machine;
use stepwell_vm::recorder::Recorder;
use stepwell_vm::registers::Snapshot;
use stepwell_vm::simd::SimdRegisters;
use stepwell_vm::stage2::{MemoryKind, Permissions, Stage2};
use stepwell_vm::vcpu::acknowledged::Acknowledged;
use stepwell_vm::vcpu::advance::{Needs, advance};
use stepwell_vm::vcpu::changes::Changes;
use stepwell_vm::vcpu::flow::Flow;
use stepwell_vm::vcpu::roots::Roots;
use stepwell_vm::vcpu::running::Running;
use stepwell_vm::vcpu::sharing::{self, InTurn, Paused};
use stepwell_vm::vcpu::state::{Signalled, VcpuCore};
use stepwell_vm::vgic::{GICD_BASE, GICR_BASE, GICR_BYTES, Vgic};
use stepwell_vm::views::Views;
use stepwell_vm::{command, vcpu};
use stepwell_wire::{Answer, Command, Event};

/// The virtual interrupt: SGI 1.
const SGI: u64 = 1 << 1;
/// ICH_VMCR_EL2: both groups on, Group 0 as FIQ, as in any GICv3, every priority let through.
const VMCR: u64 = 0xf8 << 24 | 1 << 3 | 3;
/// Registers of a redistributor's frame of SGIs and PPIs.
const IGROUPR0: u64 = 0x1_0080;
const ISENABLER0: u64 = 0x1_0100;
const ISPENDR0: u64 = 0x1_0200;
const ICPENDR0: u64 = 0x1_0280;
/// List registers of a PE.
const LIST_REGISTERS: usize = 4;
/// Ticks of the counter in a second.
const HZ: u64 = 62_500_000;

/// What is kept of a vCPU that changes at nearly every event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hot {
    /// PC.
    pub elr: u64,
    /// PSTATE.
    pub spsr: u64,
    fast: (u64, Run, Option<Va>),
    /// The engine.
    pub engine: Engine,
    /// The exclusive monitor.
    pub monitor: ExclusiveMonitor,
    /// What is acknowledged.
    pub acknowledged: Option<Acknowledged>,
    is_idle: bool,
    /// The run that is not in the ring yet: where it begins, and what would lengthen it.
    run: (u64, u64),
    /// Steps that the last order came to.
    steps: u64,
    /// What a load-exclusive read last.
    pub loaded: u8,
    /// Whether a store-exclusive failed.
    pub status: bool,
}

/// A vCPU as part of a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Values {
    /// What changes.
    pub hot: Hot,
    /// What hardly does.
    pub cold: Pooled<VcpuCore<ModelCpu>>,
    /// What its loop is in the middle of.
    pub flow: Option<Pooled<Flow>>,
    /// It is to stop.
    pub is_called: bool,
    /// What it is to do next.
    pub order: Option<Order>,
}

impl Values {
    /// It is in the middle of this now.
    pub fn set_flow(&mut self, flow: Option<&Flow>) {
        self.flow = flow.map(|flow| Pooled::of_beside(self.flow.as_ref(), flow));
    }
}

/// What the vCPUs share, as part of a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shared {
    /// Who runs.
    pub control: Control,
    /// Whose turn it is.
    pub turns: Turns,
    /// Whom the others are quiesced for.
    pub holder: Option<usize>,
    /// Who is quiesced: one bit each.
    quiesced: u8,
    clock_waits: bool,
    /// Who has an order, and who has had company.
    alone: (u8, u8),
    /// Whether invalidations trap, how many there were, and how many the stepped vCPU knows of.
    invalidations: (bool, u64, u64),
}

/// Each of these has a pool.
macro_rules! pooled {
    ($($kind:ty),+) => {
        $(impl Kind for $kind {
            fn pool() -> &'static Pool<Self> {
                static POOL: Pool<$kind> = Pool::new();
                &POOL
            }
        })+
    };
}

pooled!(VcpuCore<ModelCpu>, Flow, Shared, Vgic, sharing::Shared, Paused);

/// The tool's end of the link: what it was told.
struct Tool;

/// Boards that differ in what they are made of.
const KINDS: usize = 4 * PES;

thread_local! {
    static TOLD: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
    static BOARDS: RefCell<[Option<Rc<Board>>; KINDS]> = const { RefCell::new([const { None }; KINDS]) };
}

impl Link<ModelCpu> for Tool {
    fn send(&self, event: &Event) {
        TOLD.with_borrow_mut(|told| told.push(event.clone()));
    }
    fn serve(&self, _: &ModelCpu, _: &Machine<ModelCpu>) {}
    fn pass_by(&self, _: &ModelCpu, _: &Machine<ModelCpu>) {}
    fn linger(&self, _: &ModelCpu, _: &Machine<ModelCpu>, _: &dyn Fn() -> bool) -> bool {
        false
    }
    fn serve_queues(&self, queues: &mut dyn Queues, _: bool) -> bool {
        break_all(queues)
    }
    fn has_mailbox(&self) -> bool {
        false
    }
}

/// This thread's machine of a kind.
pub struct Board {
    machine: Machine<ModelCpu>,
    root: u64,
    /// What lies in it that is in a pool, unchanged since it was put or taken.
    held: RefCell<Held>,
}

/// What of the pools lies in a board.
#[derive(Default)]
struct Held {
    cold: [Option<Pooled<VcpuCore<ModelCpu>>>; PES],
    shared: Option<Pooled<Shared>>,
    vgic: Option<Pooled<Vgic>>,
}

impl Board {
    /// The thread's board of so many vCPUs; `shares_cpu`: all on one CPU; `has_views`: the page that [`stepwell_spec::Op::Stage2`]
    /// reads is withheld, because something else in it is watched.
    ///
    /// # Panics
    ///
    /// Never: what is made here fits.
    #[must_use]
    pub fn of(vcpus: usize, shares_cpu: bool, has_views: bool) -> Rc<Self> {
        let kind =
            (vcpus - 1) % PES + usize::from(shares_cpu) * PES + usize::from(has_views) * 2 * PES;
        BOARDS.with_borrow_mut(|boards| {
            let board = &mut boards[kind];
            Rc::clone(board.get_or_insert_with(|| Rc::new(Self::new(vcpus, shares_cpu, has_views))))
        })
    }

    fn new(vcpus: usize, shares_cpu: bool, has_views: bool) -> Self {
        let mut tables = ModelMemory;
        let base = Pa(RAM_BASE.0);
        let mut stage2 = Stage2::new(&mut tables).expect("there is memory for tables");
        let kind = MemoryKind::Normal;
        stage2
            .map(&mut tables, RAM_BASE, base, RAM_BYTES, Permissions::ALL, kind)
            .expect("nothing is mapped yet");
        let vttbr = stage2.vttbr(1);
        let reset = Snapshot::default();
        let pinned = |number| {
            let simd = SimdRegisters::at_reset(None);
            let context = ModelContext::default();
            let core = VcpuCore::new(context, &reset, simd, LIST_REGISTERS, vttbr);
            Vcpu {
                cpu: if shares_cpu { 0 } else { number },
                shares_cpu,
                core: spin::Mutex::new(core),
                stop_requested: AtomicBool::new(false),
                order: spin::Mutex::new(None),
            }
        };
        let domain = Domain {
            id: 0,
            ram: ModelMemory,
            vttbr,
            roots: Roots::new(vttbr),
            views: spin::Mutex::new(Views::new(RAM_BASE, base, RAM_BYTES)),
            checkpoints: stepwell_vm::checkpoint::Checkpoints::default(),
            follow: stepwell_vm::follow::Follow::default(),
            stage2: spin::Mutex::new(stage2),
            vgic: Counted::new(Vgic::new(vcpus)),
            uart: spin::Mutex::new(Pl011::new()),
            virtio: spin::Mutex::new(Virtio::new()),
            peripherals: spin::Mutex::new(Peripherals::default()),
            console: spin::Mutex::new(heapless::Vec::new()),
            clock: spin::Mutex::new(VirtualClock::at_reset(HZ, 0)),
            clock_offset: AtomicU64::new(0),
            clock_waits: AtomicBool::new(false),
            alone: Alone::new(),
            is_asynchronous: AtomicBool::new(false),
            left_at: AtomicU64::new(0),
            real_time: AtomicBool::new(false),
            on_cpu: AtomicU8::new(u8::MAX),
            timeline: None,
            turns: spin::Mutex::new(Turns::new()),
            quiescence: Quiescence::new(),
            translation: Changes::new(),
            control: spin::Mutex::new(Control::new()),
            vcpus: (0..vcpus).map(pinned).collect(),
        };
        let domains = [domain].into_iter().collect();
        let machine = Machine {
            domains,
            ring: spin::Mutex::new(Some(ModelRing)),
            cpus: vcpus as u8,
            reset,
            link: Box::new(Tool),
        };
        let board = Self { machine, root: vttbr.bits(), held: RefCell::default() };
        pe::with(|place| place.root = board.root);
        if has_views {
            // Of a shape that no register can hold, beside what programs read.
            let watchpoint =
                Watchpoint { address: Va(LINE + 8), length: 24, access: WatchAccess::ReadWrite };
            let command = Command::SetWatchpoint { domain: 0, vcpu: 0, watchpoint };
            board.serve(command).expect("there is room for it");
        }
        board
    }

    fn domain(&self) -> &Domain<ModelCpu> {
        &self.machine.domains[0]
    }

    /// The first values of the vCPUs, which begin at these places with nothing masked, and of what
    /// they share.
    #[must_use]
    pub fn first(
        &self,
        starts: &[SpecMachine],
        exploration: &Exploration,
    ) -> (Vec<Values>, Pooled<Shared>, Pooled<Vgic>) {
        let Exploration { interrupt, others, time, .. } = *exploration;
        pe::with(|place| place.root = self.root);
        *self.held.borrow_mut() = Held::default();
        let domain = self.domain();
        *domain.vgic.lock() = Vgic::new(domain.vcpus.len());
        // What a board watches it watches in all states.
        let watchpoints = core::mem::take(&mut domain.control.lock().watchpoints);
        let mut control = Control { others, watchpoints, time, ..Control::new() };
        let mut vgic = domain.vgic.lock();
        vgic.mmio_write(0, GICD_BASE, 4, 0x13);
        for (n, vcpu) in domain.vcpus.iter().enumerate() {
            let frame = |register| Ipa(GICR_BASE.0 + n as u64 * GICR_BYTES + register);
            let group = if interrupt == Class::Fiq { 0 } else { SGI };
            vgic.mmio_write(n, frame(IGROUPR0), 4, group);
            vgic.mmio_write(n, frame(ISENABLER0), 4, SGI);
            control.power[n] = Power::On;
            let start = &starts[n];
            let mut core = vcpu.core.lock();
            let simd = SimdRegisters::at_reset(None);
            *core = VcpuCore::new(
                ModelContext::default(),
                &Snapshot::default(),
                simd,
                LIST_REGISTERS,
                domain.vttbr,
            );
            core.simd.is_written = false;
            pe::save(start, &mut core.snapshot);
            core.context.elr = pe::address_of(start.pc);
            core.context.spsr = crate::bits::pstate(start.pstate).0;
            core.interface.vmcr = VMCR;
            core.debug.set_mdscr(crate::bits::mdscr(start.mdscr));
            let cpu = ModelCpu(vcpu.cpu);
            let lock = u64::from(start.os_lock);
            let _known = core.debug.write(&cpu, stepwell_arch::SystemRegister::OSLAR_EL1, lock);
            let lock = u64::from(start.os_double_lock);
            let _known = core.debug.write(&cpu, stepwell_arch::SystemRegister::OSDLR_EL1, lock);
        }
        drop(vgic);
        for (n, vcpu) in domain.vcpus.iter().enumerate() {
            *vcpu.order.lock() = None;
            vcpu.stop_requested.store(false, Ordering::Relaxed);
            domain.quiescence.leave(n);
        }
        domain.alone.ordered.store(0, Ordering::Relaxed);
        domain.alone.accompanied.store(0, Ordering::Relaxed);
        domain.translation.watch(false);
        domain.translation.ignore();
        *domain.control.lock() = control;
        *domain.turns.lock() = Turns::new();
        *domain.clock.lock() = VirtualClock::at_reset(HZ, 0);
        domain.clock_offset.store(0, Ordering::Relaxed);
        domain.clock_waits.store(false, Ordering::Relaxed);
        domain.quiescence.resume();
        let values = (0..domain.vcpus.len()).map(|n| self.take(n, None)).collect();
        let (shared, vgic) = self.take_shared(None);
        (values, shared, vgic)
    }

    /// Puts what the vCPUs share into the machine.
    ///
    /// `on`: where vCPUs share a CPU, which of them has it.
    pub fn put_shared(
        &self,
        shared: &Pooled<Shared>,
        vgic: &Pooled<Vgic>,
        on: Option<Option<usize>>,
    ) {
        pe::with(|place| place.root = self.root);
        let domain = self.domain();
        let mut held = self.held.borrow_mut();
        if held.vgic.take().as_ref() != Some(vgic) {
            domain.vgic.lock().clone_from(vgic);
        }
        let on_cpu = on.map_or(u8::MAX, |on| on.map_or(0, bit));
        domain.on_cpu.store(on_cpu, Ordering::Relaxed);
        *domain.clock.lock() = VirtualClock::at_reset(HZ, 0);
        domain.clock_offset.store(0, Ordering::Relaxed);
        domain.left_at.store(0, Ordering::Relaxed);
        if held.shared.take().as_ref() == Some(shared) {
            return;
        }
        domain.control.lock().clone_from(&shared.control);
        domain.real_time.store(shared.control.time == TimePolicy::Real, Ordering::Relaxed);
        let (are_trapped, made, acknowledged) = shared.invalidations;
        domain.translation.are_trapped.store(are_trapped, Ordering::Relaxed);
        domain.translation.made.store(made, Ordering::Relaxed);
        domain.translation.acknowledged.store(acknowledged, Ordering::Relaxed);
        domain.turns.lock().clone_from(&shared.turns);
        domain.clock_waits.store(shared.clock_waits, Ordering::Relaxed);
        domain.alone.ordered.store(shared.alone.0, Ordering::Relaxed);
        domain.alone.accompanied.store(shared.alone.1, Ordering::Relaxed);
        for n in 0..domain.vcpus.len() {
            domain.quiescence.leave(n);
            if shared.quiesced & 1 << n != 0 {
                // As it got its mark.
                domain.quiescence.reserve(n + 1);
                let _is_marked = domain.quiescence.must_wait(n);
            }
        }
        match shared.holder {
            Some(holder) => domain.quiescence.reserve(holder),
            None => domain.quiescence.resume(),
        }
    }

    /// Puts a vCPU's values into the machine.
    pub fn put(&self, n: usize, values: &Values) {
        let domain = self.domain();
        let Some(vcpu) = domain.vcpus.get(n) else { return };
        vcpu.stop_requested.store(values.is_called, Ordering::Relaxed);
        *vcpu.order.lock() = values.order;
        let mut core = vcpu.core.lock();
        let held = self.held.borrow_mut().cold.get_mut(n).and_then(Option::take);
        if held.as_ref() != Some(&values.cold) {
            core.clone_from(&values.cold);
        }
        let hot = &values.hot;
        core.context.put_fast(hot.fast);
        pe::registers(&mut core.context, hot.loaded, hot.status);
        let context = &mut *core.context;
        (context.elr, context.spsr, context.esr) = (hot.elr, hot.spsr, 0);
        (context.far, context.hpfar) = (0, 0);
        core.engine.clone_from(&hot.engine);
        core.monitor.clone_from(&hot.monitor);
        core.recorder.resume(hot.run.0, hot.run.1);
        core.acknowledged = hot.acknowledged;
        core.steps = hot.steps;
        core.signalled = match hot.is_idle {
            true => Signalled::nothing(domain.vgic.count()),
            false => Signalled::default(),
        };
    }

    /// The values of vCPU `n` as they are now. `old`: its values before, of which it keeps what it is in
    /// the middle of.
    ///
    /// What a recorder has told already is no part of them: a reader that begins here is told all of
    /// it again. Nor is what the last exit's syndrome was, which is handled; nor what the clock shows,
    /// which goes by nothing but steps, and no program looks at; nor, of a vCPU that has nobody to wait
    /// for, how long it has been going round.
    #[must_use]
    pub fn take(&self, n: usize, old: Option<&Values>) -> Values {
        let flow = old.and_then(|old| old.flow.clone());
        let domain = self.domain();
        let vcpu = &domain.vcpus[n];
        let mut guard = vcpu.core.lock();
        let core = &mut *guard;
        let context = &*core.context;
        let hot = Hot {
            elr: context.elr,
            spsr: context.spsr,
            fast: core.context.fast(),
            engine: core::mem::take(&mut core.engine),
            monitor: core::mem::take(&mut core.monitor),
            acknowledged: core.acknowledged.take(),
            is_idle: core.signalled.is_still_nothing(domain.vgic.count()),
            run: core.recorder.run(),
            steps: core::mem::take(&mut core.steps) * u64::from(flow.is_none()),
            loaded: core.context.x[5] as u8,
            status: core.context.x[3] as u32 != 0,
        };
        if domain.vcpus.len() == 1 {
            core.spin = SpinDetector::new();
        }
        core.context = ModelContext::default();
        core.recorder = Recorder::default();
        core.signalled = Signalled::default();
        let cold = Pooled::of_beside(old.map(|old| &old.cold), core);
        if let Some(held) = self.held.borrow_mut().cold.get_mut(n) {
            *held = Some(cold.clone());
        }
        Values {
            hot,
            cold,
            flow,
            is_called: vcpu.stop_requested.load(Ordering::Relaxed),
            order: *vcpu.order.lock(),
        }
    }

    /// What the vCPUs share, as it is now, and their interrupt controller.
    #[must_use]
    pub fn take_shared(
        &self,
        old: Option<(&Pooled<Shared>, &Pooled<Vgic>)>,
    ) -> (Pooled<Shared>, Pooled<Vgic>) {
        let domain = self.domain();
        let all = (0..domain.vcpus.len()).fold(0, |mask, n| mask | 1 << n);
        let shared = Shared {
            control: domain.control.lock().clone(),
            turns: domain.turns.lock().clone(),
            holder: (0..domain.vcpus.len()).find(|&n| domain.quiescence.is_held_by(n)),
            quiesced: all & !domain.quiescence.missing(all),
            clock_waits: domain.clock_waits.load(Ordering::Relaxed),
            alone: (
                domain.alone.ordered.load(Ordering::Relaxed),
                domain.alone.accompanied.load(Ordering::Relaxed),
            ),
            invalidations: (
                domain.translation.are_trapped.load(Ordering::Relaxed),
                domain.translation.made.load(Ordering::Relaxed),
                domain.translation.acknowledged.load(Ordering::Relaxed),
            ),
        };
        let shared = Pooled::of_beside(old.map(|(shared, _)| shared), &shared);
        let vgic = Pooled::of_beside(old.map(|(_, vgic)| vgic), &*domain.vgic.lock());
        let mut held = self.held.borrow_mut();
        (held.shared, held.vgic) = (Some(shared.clone()), Some(vgic.clone()));
        (shared, vgic)
    }

    /// Gives a command.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn serve(&self, command: Command) -> Result<Answer, Refusal> {
        command::serve(&ModelCpu(0), &self.machine, command)
    }

    /// The order that vCPU `n` has been given and has not begun with.
    #[must_use]
    pub fn order(&self, n: usize) -> Option<Order> {
        self.domain().vcpus.get(n)?.order.lock().take()
    }

    /// Goes on with vCPU `n` to where it needs something, and lets it in or parks it.
    pub fn go_on(&self, n: usize, flow: &mut Flow, left: Option<Vector>) -> Needs {
        let (domain, cpu) = (self.domain(), ModelCpu(n));
        let vcpu = &domain.vcpus[n];
        let mut core = vcpu.core.lock();
        let machine = &self.machine;
        let mut running = Running { machine, domain, index: n, vcpu, cpu: &cpu, core: &mut core };
        let needs = advance(&mut running, flow, left);
        cpu.registers_are(&core.context);
        match needs {
            Needs::Entry => cpu.enter_guest(&core.context),
            Needs::Nothing(end) => {
                vcpu::take_off_cpu(&cpu, &mut core);
                drop(core);
                vcpu::park(machine, domain, n, &cpu, end);
            }
            Needs::Interrupt | Needs::Others | Needs::Turn => {}
        }
        needs
    }

    /// Begins with an order.
    pub fn begin(&self, n: usize, order: Order) -> Flow {
        let domain = self.domain();
        vcpu::put_on_cpu(&ModelCpu(n), domain, &mut domain.vcpus[n].core.lock(), order);
        Flow::new(order)
    }

    /// The turn on the CPU that all share, of the vCPU that has it, or of the next one. It is that one's
    /// from here on.
    pub fn in_turn<'a>(
        &'a self,
        on: Option<usize>,
        kept: &'a mut sharing::Shared,
    ) -> Option<InTurn<'a, ModelCpu>> {
        static CPU: ModelCpu = ModelCpu(0);
        let (machine, domain) = (&self.machine, self.domain());
        match on {
            Some(n) => InTurn::of(machine, &CPU, domain, n, kept),
            None => InTurn::begin(machine, &CPU, domain, u8::MAX, kept),
        }
    }

    /// Goes on in a turn to where its vCPU needs something, and lets it in.
    pub fn advance_in_turn(&self, turn: &mut InTurn<'_, ModelCpu>, left: Option<Vector>) -> Needs {
        let needs = turn.go_on(left);
        ModelCpu(0).registers_are(&turn.core.context);
        if needs == Needs::Entry {
            ModelCpu(0).enter_guest(&turn.core.context);
        }
        needs
    }

    /// What the exit saves by which vCPU `n` has left its CPU; nothing where the fast path takes it.
    pub fn leave(&self, n: usize, cpu: usize, program: stepwell_spec::Program) -> Option<Vector> {
        let cpu = ModelCpu(cpu);
        let context = &mut self.domain().vcpus[n].core.lock().context;
        let vector = cpu.leave_guest(context, program);
        if !context.goes_fast(cpu.syndrome(), program) {
            return Some(vector);
        }
        context.spsr |= stepwell_arch::Pstate::SS;
        cpu.enter_guest(context);
        None
    }

    /// Makes the virtual interrupt of vCPU `n` pending, or not.
    pub fn set_interrupt(&self, n: usize, is_pending: bool) {
        let register = if is_pending { ISPENDR0 } else { ICPENDR0 };
        let frame = Ipa(GICR_BASE.0 + n as u64 * GICR_BYTES + register);
        self.domain().vgic.change().mmio_write(n, frame, 4, SGI);
    }

    /// Does something with the core of vCPU `n`.
    pub fn with_core<T>(&self, n: usize, act: impl FnOnce(&mut VcpuCore<ModelCpu>) -> T) -> T {
        act(&mut self.domain().vcpus[n].core.lock())
    }
}

/// What the tool was told since this was asked last.
#[must_use]
pub fn told() -> Vec<Event> {
    TOLD.with_borrow_mut(std::mem::take)
}
