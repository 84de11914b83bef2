//! A vCPU as a value: what is kept of it while it is not on a CPU, and what its loop works with.

use super::acknowledged::Acknowledged;
use super::roots::WriteSet;
use super::shadow::DebugShadow;
use super::timers::{OffsetWrite, PhysicalTimer, TimerLines};
use crate::concurrency::counted::Count;
use crate::cpu::Context as _;
use crate::cpu::{Cpu, GENERAL};
use crate::image_layout::Layout;
use crate::memory::GuestMemory;
use crate::recorder::Recorder;
use crate::registers::{GuestRegisters, PrivateRegisters, Snapshot};
use crate::simd::SimdRegisters;
use crate::stage2::Vttbr;
use crate::vgic::CpuInterface;
use stepwell_arch::{Pstate, SystemRegister, Va};
use stepwell_engine::{Engine, ExclusiveMonitor, InterruptedContext, SpinDetector};
use stepwell_protocol::StopReason;

/// SP_usr of AArch32, R13, is X13.
pub(super) const SP_USR: u8 = 13;

/// PSTATE after reset. NZCV is UNKNOWN by the manual; QEMU's CPUs have Z.
const AT_RESET: Pstate = Pstate(Pstate::EL1H_MASKED.0 | Pstate::Z);
/// X4: see [`Layout::branched_by`].
const BRANCHES_BY: u8 = 4;

/// Everything that belongs to a vCPU.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VcpuCore<C: Cpu> {
    /// General-purpose registers, PC and PSTATE.
    pub context: C::Context,
    /// System registers while the vCPU is stopped.
    pub snapshot: Snapshot,
    /// Registers that nobody else looks at, while another vCPU is on its CPU.
    pub private: PrivateRegisters,
    /// It was reset, and its CPU's other registers are to be before it goes on.
    pub is_reset: bool,
    /// FP/SIMD registers while the vCPU is stopped.
    pub simd: SimdRegisters,
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
    /// What of the instruction at its PC has been reported, and does not stop it again.
    pub acknowledged: Option<Acknowledged>,
    /// Steps that its last order came to.
    pub steps: u64,
    /// VTTBR_EL2 of its CPU.
    pub vttbr: Vttbr,
    /// What the instruction that executes with nothing withheld may write.
    pub write_set: WriteSet,
    /// Whether it goes round and gets nowhere, as far as it was stepped.
    pub spin: SpinDetector,
    /// The range that steps stay in, if they are to stay in one.
    pub within: Option<(u64, u64)>,
    /// What a handler that is being stepped over, unseen, is to return to.
    pub handler_of: Option<InterruptedContext>,
    /// The guest waits for an interrupt, in what has executed and has not returned: CPU_SUSPEND, or,
    /// where another vCPU may have the CPU meanwhile, WFI.
    pub is_suspended: bool,
    /// The guest's counter when it waits no longer, in a WFIT: else all ones.
    pub wakes_at: u64,
    /// The machine's counter when its turn on a shared CPU is over.
    pub turn_end: u64,
    /// Instructions that it has executed since it entered the guest last, where these are counted.
    pub executed: u64,
    /// It has executed up to the moment at which it was to be interrupted, or its timer is due.
    pub executed_all: bool,
    /// Where an interrupt has broken an exclusive sequence, and its handler has not returned yet: the
    /// guest is stepped until it has. Only where instructions are counted.
    pub broken_at: Option<u64>,
    /// The PC at which it entered the guest last, where it runs freely or instructions are counted.
    pub entered_at: u64,
    /// What the machine's counter showed when it came out of the guest, where it runs freely.
    pub left_at: Option<u64>,
    /// What the write takes that has its clock go on.
    pub offset_write: OffsetWrite,
    /// Its clock stopped then: what EL2 does until the next entry is not to be seen.
    pub is_hidden: bool,
    /// The guest's clock is the virtual one, and not the CPU's counter.
    pub virtual_clock: bool,
    /// The guest's physical timer.
    pub physical_timer: PhysicalTimer,
    /// The timers' interrupt lines.
    pub lines: TimerLines,
    /// An SError that is pending for the guest: ISS of its syndrome.
    pub serror: Option<u32>,
    /// What is known of what the GIC signals.
    pub signalled: Signalled,
    /// The page of code that was looked up last of those that the fast path is not to know.
    pub(super) slow_page: Option<(Va, <C::Memory as GuestMemory>::Page)>,
}

impl<C: Cpu> VcpuCore<C> {
    /// Makes one that has never run and is switched off. `context` is empty, `simd` what the CPU
    /// resets FP/SIMD registers to.
    #[must_use]
    pub fn new(
        context: C::Context,
        reset: &Snapshot,
        simd: SimdRegisters,
        list_registers: usize,
        vttbr: Vttbr,
    ) -> Self {
        Self {
            context,
            snapshot: reset.clone(),
            simd,
            engine: Engine::new(),
            monitor: ExclusiveMonitor::new(),
            interface: CpuInterface::new(list_registers),
            debug: DebugShadow::default(),
            spin: SpinDetector::new(),
            recorder: Recorder::default(),
            serror: None,
            is_reset: false,
            handler_of: None,
            is_suspended: false,
            wakes_at: u64::MAX,
            turn_end: 0,
            executed: 0,
            executed_all: false,
            broken_at: None,
            entered_at: 0,
            private: PrivateRegisters::new(),
            left_at: None,
            offset_write: OffsetWrite::default(),
            is_hidden: false,
            acknowledged: None,
            steps: 0,
            vttbr,
            write_set: WriteSet::Empty,
            within: None,
            virtual_clock: false,
            physical_timer: PhysicalTimer::default(),
            lines: TimerLines::default(),
            signalled: Signalled::default(),
            slow_page: None,
        }
    }

    /// What of the instruction at the PC is acknowledged.
    #[inline]
    #[must_use]
    pub fn acknowledged_here(&self) -> Option<Acknowledged> {
        self.acknowledged.filter(|acknowledged| acknowledged.pc == self.context.elr)
    }

    /// That the vCPU is at its PC does not stop it.
    pub fn acknowledge_pc(&mut self) {
        let act = self.acknowledged_here().is_some_and(|acknowledged| acknowledged.act);
        self.acknowledged = Some(Acknowledged { pc: self.context.elr, act });
    }

    /// The vCPU stops at its PC for a reason that is reported.
    pub fn acknowledge(&mut self, reason: StopReason) {
        self.acknowledge_pc();
        if let Some(acknowledged) = &mut self.acknowledged {
            acknowledged.act |=
                matches!(reason, StopReason::Watchpoint { .. } | StopReason::PrivilegedCall { .. });
        }
    }

    /// What the instruction at the PC does has been reported, and does not stop the vCPU.
    #[inline]
    #[must_use]
    pub fn is_act_acknowledged(&self) -> bool {
        self.acknowledged_here().is_some_and(|acknowledged| acknowledged.act)
    }

    /// Forgets every page of code: the guest's translation may have changed.
    pub fn forget_pages(&mut self) {
        self.context.forget_pages();
        self.slow_page = None;
    }

    /// The guest's PC.
    #[must_use]
    pub fn pc(&self) -> Va {
        Va(self.context.elr)
    }

    /// The guest's PSTATE, with its own SS.
    #[must_use]
    pub fn pstate(&self) -> Pstate {
        Pstate(self.context.spsr)
    }

    /// Makes a vCPU as it is where its guest begins. The tool is told that it is stopped there.
    pub fn begin(&mut self, reset: &Snapshot, places: &Layout) {
        self.reset(reset, places.entry.0, places.argument);
        self.context.set_register(BRANCHES_BY, places.branched_by);
        self.acknowledge_pc();
    }

    /// Makes a vCPU as it is after reset, at `entry` with `argument` in X0.
    pub fn reset(&mut self, reset: &Snapshot, entry: u64, argument: u64) {
        *self.context = GuestRegisters::default();
        self.context.set_general(&[0; GENERAL]);
        self.context.set_register(0, argument);
        self.context.elr = entry;
        self.context.spsr = AT_RESET.0;
        self.forget_pages();
        self.snapshot = reset.clone();
        self.simd.reset();
        self.is_reset = true;
        self.monitor.clear();
        self.interface = CpuInterface::new(self.interface.lr_count);
        self.acknowledged = None;
        self.within = None;
        self.handler_of = None;
        self.is_suspended = false;
        (self.wakes_at, self.broken_at) = (u64::MAX, None);
        self.left_at = None;
        self.is_hidden = false;
        self.virtual_clock = false;
        self.debug = DebugShadow::default();
        self.physical_timer = PhysicalTimer::default();
        self.serror = None;
        self.spin = SpinDetector::new();
        self.signalled = Signalled::default();
    }

    /// Copies what a vCPU is for its guest, while it is stopped.
    #[must_use]
    pub fn values(&self) -> VcpuValues {
        VcpuValues {
            registers: GuestRegisters { x: self.context.general(), ..self.context.clone() },
            snapshot: self.snapshot.clone(),
            private: self.private.clone(),
            is_reset: self.is_reset,
            simd: self.simd.clone(),
            engine: self.engine.clone(),
            monitor: self.monitor.clone(),
            interface: self.interface.clone(),
            debug: self.debug.clone(),
            is_suspended: self.is_suspended,
            wakes_at: self.wakes_at,
            broken_at: self.broken_at,
            virtual_clock: self.virtual_clock,
            physical_timer: self.physical_timer,
            lines: self.lines,
            serror: self.serror,
        }
    }

    /// Makes a stopped vCPU what it was for its guest. What is a debugger's stays, but that it had been
    /// told of anything.
    pub fn restore(&mut self, was: &VcpuValues) {
        (*self.context).clone_from(&was.registers);
        self.context.set_general(&was.registers.x);
        self.snapshot.clone_from(&was.snapshot);
        self.private.clone_from(&was.private);
        self.is_reset = was.is_reset;
        self.simd.clone_from(&was.simd);
        self.simd.is_written = true;
        self.engine.clone_from(&was.engine);
        self.monitor.clone_from(&was.monitor);
        self.interface.clone_from(&was.interface);
        self.debug.restore(&was.debug);
        self.is_suspended = was.is_suspended;
        (self.wakes_at, self.broken_at) = (was.wakes_at, was.broken_at);
        self.virtual_clock = was.virtual_clock;
        self.physical_timer = was.physical_timer;
        self.lines = was.lines;
        self.serror = was.serror;
        (self.acknowledged, self.within, self.handler_of) = (None, None, None);
        (self.left_at, self.is_hidden) = (None, false);
        self.spin = SpinDetector::new();
        self.signalled = Signalled::default();
        self.forget_pages();
    }

    /// The stack pointer in use.
    #[must_use]
    pub fn sp(&self) -> u64 {
        if self.pstate().is_aarch32() {
            self.context.register(SP_USR)
        } else if self.pstate().uses_sp_elx() {
            self.snapshot.read(SystemRegister::SP_EL1).unwrap_or(0)
        } else {
            self.context.sp_el0
        }
    }

    /// The core registers, as the guest has them.
    #[must_use]
    pub fn registers(&self) -> stepwell_protocol::Registers {
        stepwell_protocol::Registers {
            x: self.context.general(),
            sp: self.sp(),
            pc: self.context.elr,
            pstate: self.context.spsr,
        }
    }
}

/// What a stopped vCPU is for its guest: see [`VcpuCore`].
#[derive(Clone)]
pub struct VcpuValues {
    registers: GuestRegisters,
    snapshot: Snapshot,
    private: PrivateRegisters,
    is_reset: bool,
    simd: SimdRegisters,
    engine: Engine,
    monitor: ExclusiveMonitor,
    interface: CpuInterface,
    debug: DebugShadow,
    is_suspended: bool,
    wakes_at: u64,
    broken_at: Option<u64>,
    virtual_clock: bool,
    physical_timer: PhysicalTimer,
    lines: TimerLines,
    serror: Option<u32>,
}

/// What is known of what the GIC signals to a stepped vCPU, whatever its PSTATE masks: that it had
/// nothing to signal, so many changes ago. The vCPU's own CPU interface counts no change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Signalled {
    is_nothing: bool,
    seen: Count,
}

impl Signalled {
    /// Takes down that it had nothing to signal when so many changes had been made.
    #[must_use]
    pub const fn nothing(seen: Count) -> Self {
        Self { is_nothing: true, seen }
    }

    /// Tells whether it had nothing to signal, and nothing has changed since.
    #[inline]
    #[must_use]
    pub fn is_still_nothing(self, now: Count) -> bool {
        self.is_nothing && self.seen == now
    }
}

/// MPIDR_EL1 as the guest reads it: affinity 0 is the vCPU's number, bit 31 is RES1.
#[must_use]
pub const fn vmpidr(index: usize) -> u64 {
    1 << 31 | index as u64
}
