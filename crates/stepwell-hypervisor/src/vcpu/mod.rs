//! A vCPU on its CPU: from an order to the stop that answers it.
//!
//! Data flows one way: the guest exits, [`exit`] finds out why and does what the machine would have
//! done, and what it returns decides whether the guest goes on. Stepping is the same loop with the
//! engine in between; see [`step`].

pub mod coprocessor;
pub mod debug;
pub mod exit;
pub mod guest_view;
pub mod inject;
pub mod interrupt;
pub mod memory;
pub mod pages;
pub mod psci;
pub mod region;
pub mod run;
pub mod step;
pub mod system;
pub mod time;
pub mod translation;
pub mod watch;

use crate::domain::{Domain, Order, PendingStop, Vcpu};
use crate::hw::registers::wfi;
use crate::hw::system_registers::{Snapshot, quiet_virtual_timer};
use crate::hw::world::GuestContext;
use crate::hw::{registers, reset_registers, simd};
use crate::machine::Machine;
use crate::recorder::Recorder;
use crate::server;
use crate::vgic::CpuInterface;
use core::sync::atomic::Ordering;
use debug::DebugShadow;
use interrupt::QuietInterface;
use pages::Touched;
use stepwell_arch::{Pstate, Va};
use stepwell_engine::{Engine, ExclusiveMonitor, SpinDetector};
use stepwell_wire::StopReason;
use time::{PhysicalTimer, TimerLines};

/// Everything that belongs to a vCPU.
#[derive(Debug)]
pub struct VcpuCore {
    /// General-purpose registers, PC and PSTATE.
    pub context: GuestContext,
    /// System registers while the vCPU stands.
    pub snapshot: Snapshot,
    /// It was reset, and its CPU's other registers are to be before it goes on.
    pub is_reset: bool,
    /// FP/SIMD registers while the vCPU stands.
    pub simd: simd::Registers,
    /// The step engine.
    pub engine: Engine,
    /// The exclusive monitor, while it is stepped.
    pub monitor: ExclusiveMonitor,
    /// Virtual CPU interface of the GIC.
    pub interface: CpuInterface,
    /// The guest's debug registers.
    pub debug: DebugShadow,
    /// What is being written into the trace ring.
    pub recorder: Recorder,
    /// The monitored SMC at this PC has been reported: it takes effect now.
    pub reported_call: Option<u64>,
    /// VTTBR_EL2 of its CPU.
    pub vttbr: u64,
    /// What the instruction that executes with nothing withheld may write.
    pub touched: Touched,
    /// Whether it goes round and gets nowhere, as far as it was stepped.
    pub spin: SpinDetector,
    /// The range that steps stay in, if they are to stay in one.
    pub within: Option<(u64, u64)>,
    /// That it stands at this PC has been reported: what stands there does not stop it again.
    pub reported_pc: Option<u64>,
    /// The guest is within CPU_SUSPEND: what it called has executed and has not returned.
    pub is_suspended: bool,
    /// The guest's clock is the virtual one, and not the CPU's counter.
    pub virtual_clock: bool,
    /// The guest's physical timer.
    pub physical_timer: PhysicalTimer,
    /// The timers' interrupt lines.
    pub lines: TimerLines,
    /// An SError that is pending for the guest: ISS of its syndrome.
    pub serror: Option<u32>,
    /// Whether the virtual CPU interface can be left alone between steps.
    pub quiet: QuietInterface,
    /// What the test mode does to it.
    #[cfg(feature = "test-mode")]
    pub adversary: crate::adversary::Adversary,
}

impl VcpuCore {
    /// The guest's PC.
    #[must_use]
    pub const fn pc(&self) -> Va {
        Va(self.context.elr)
    }

    /// The guest's PSTATE, with its own SS.
    #[must_use]
    pub const fn pstate(&self) -> Pstate {
        Pstate(self.context.spsr)
    }

    /// Makes a vCPU as it is after reset, at `entry` with `argument` in X0.
    pub fn reset(&mut self, reset: &Snapshot, entry: u64, argument: u64) {
        self.context.x = [0; 31];
        self.context.set_register(0, argument);
        self.context.sp_el0 = 0;
        self.context.elr = entry;
        self.context.spsr = Pstate::EL1H_MASKED.0;
        self.context.forget_pages();
        self.snapshot = reset.clone();
        self.simd.reset();
        self.is_reset = true;
        self.monitor.clear();
        self.interface = CpuInterface::new(self.interface.lr_count);
        self.reported_call = None;
        self.within = None;
        self.reported_pc = None;
        self.is_suspended = false;
        self.virtual_clock = false;
        self.debug = DebugShadow::default();
        self.physical_timer = PhysicalTimer::default();
        self.serror = None;
        self.spin = SpinDetector::new();
        self.quiet = QuietInterface::default();
    }
}

/// What is at hand while a vCPU runs.
pub struct Running<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The vCPU's domain.
    pub domain: &'a Domain,
    /// The vCPU's number in its domain.
    pub index: usize,
    /// The vCPU.
    pub vcpu: &'a Vcpu,
    /// Its registers and all.
    pub core: &'a mut VcpuCore,
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// For a reason of this vCPU's: its domain stops.
    Stop(StopReason),
    /// Because somebody asked.
    Asked,
    /// The guest switched the vCPU off.
    SwitchedOff,
}

impl Running<'_> {
    /// Tells whether somebody wants this vCPU to stand.
    #[must_use]
    pub fn is_called(&self) -> bool {
        self.vcpu.stop_requested.load(Ordering::Acquire)
    }
}

/// Runs whatever vCPU is pinned to this CPU, for good.
pub fn serve_cpu(machine: &'static Machine, cpu: usize) -> ! {
    let Some((domain, index, vcpu)) = machine.vcpu_of(cpu) else {
        idle(machine, cpu);
    };
    crate::hw::setup::control_registers(vmpidr(index));
    crate::hw::setup::stage2(domain.vttbr);
    vcpu.core.lock().vttbr = domain.vttbr;
    loop {
        let order = wait_for_order(machine, vcpu, cpu);
        let (end, stop) = carry_out(machine, domain, index, vcpu, order);
        let is_reported = match end {
            End::Stop(_) => domain.request_stop(stop),
            _ => domain.control.lock().stop.is_some_and(|stop| stop.vcpu == index),
        };
        let mut core = vcpu.core.lock();
        if is_reported {
            core.reported_pc = Some(core.context.elr);
        } else if let End::Stop(_) = end {
            // Another vCPU's reason was first: this one's comes again when they go on.
            core.reported_call = None;
            core.debug.reported_watch = None;
            core.reported_pc = None;
            core.monitor.clear();
        }
        drop(core);
        domain.has_parked(stop, end == End::SwitchedOff);
    }
}

/// MPIDR_EL1 as the guest reads it: affinity 0 is the vCPU's number, bit 31 is RES1.
const fn vmpidr(index: usize) -> u64 {
    1 << 31 | index as u64
}

fn idle(machine: &Machine, cpu: usize) -> ! {
    loop {
        interrupt::take_all_at_el2(machine, cpu);
        wfi();
    }
}

fn wait_for_order(machine: &Machine, vcpu: &Vcpu, cpu: usize) -> Order {
    loop {
        interrupt::take_all_at_el2(machine, cpu);
        if let Some(order) = vcpu.order.lock().take() {
            return order;
        }
        if !server::linger(machine, || vcpu.order.lock().is_some()) {
            wfi();
        }
    }
}

fn carry_out(
    machine: &Machine,
    domain: &Domain,
    index: usize,
    vcpu: &Vcpu,
    order: Order,
) -> (End, PendingStop) {
    translation::load(domain, order);
    let mut core = vcpu.core.lock();
    if core::mem::take(&mut core.is_reset) {
        reset_registers::load();
    }
    core.snapshot.load();
    simd::load(&mut core.simd);
    let mut running = Running { machine, domain, index, vcpu, core: &mut core };
    let (end, steps) = match order {
        Order::Run => (run::run(&mut running), 0),
        Order::Step(order) => step::hooks::steps(&mut running, order),
    };
    step::hooks::report(&running);
    core.snapshot = Snapshot::save();
    simd::save(&mut core.simd);
    quiet_virtual_timer();
    registers::isb();
    let reason = match end {
        End::Stop(reason) => reason,
        End::Asked => StopReason::Paused,
        End::SwitchedOff => StopReason::SwitchedOff,
    };
    // A pause that arrived while this vCPU stepped reports what the steps came to.
    if end == End::Asked
        && let Some(stop) = domain.control.lock().stop.as_mut()
        && stop.vcpu == index
    {
        stop.steps = steps;
    }
    (end, PendingStop { vcpu: index, reason, steps })
}
