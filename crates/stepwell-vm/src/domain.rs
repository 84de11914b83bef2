//! A domain: one guest machine, its vCPUs, devices and clock, and who may let it run.
//!
//! Lock order, outermost first: the link's channel to the devices, the domain's `control`, then `turns`,
//! then `peripherals`, then any one of `vgic`, `uart`, `virtio`, `console`, `clock`, `checkpoints`,
//! `stage2`, `follow`, `views` (`checkpoints` before
//! `follow`, that before `views`, and `stage2` after them), then the link
//! (ARCHITECTURE.md has it as a picture). A vCPU's CPU holds its `core` from an order to the stop
//! that answers it, and takes `control` while it does; whoever holds `control` may take the `core` of
//! a vCPU whose bit in [`Control::running`] is clear, and of no other, because its CPU has let go
//! before it clears that bit. A CPU that runs several takes the `core` of one of its own at a time.

use crate::checkpoint::Checkpoints;
use crate::concurrency::alone::Alone;
use crate::concurrency::counted::Counted;
use crate::concurrency::quiescence::Quiescence;
use crate::cpu::Cpu;
use crate::device::peripherals::Peripherals;
use crate::device::pl011::Pl011;
use crate::device::virtio::Virtio;
use crate::follow::Follow;
use crate::queue::Queue;
use crate::stage2::{Stage2, Vttbr};
use crate::timeline::Timeline;
use crate::vcpu::changes::Changes;
use crate::vcpu::roots::Roots;
use crate::vcpu::state::VcpuCore;
use crate::vcpu::watchpoint::Watch;

use crate::vgic::Vgic;
use crate::views::Views;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use heapless::Vec;
use spin::Mutex;
use stepwell_engine::{OthersPolicy, TimePolicy, Turns, VirtualClock};
use stepwell_protocol::{DomainEnding, InterruptPolicy, StopReason, TraceDetail};

pub use stepwell_protocol::{MAX_VCPUS, vcpu_bit as bit};

/// One guest machine.
pub struct Domain<C: Cpu> {
    /// Its number.
    pub id: u8,
    /// Its memory.
    pub ram: C::Memory,
    /// VTTBR_EL2 for its own stage-2 tables.
    pub vttbr: Vttbr,
    /// VTTBR_EL2 where pages of interest to a debugger are seen otherwise.
    pub roots: Roots,
    /// How these are seen. Changed while every vCPU is stopped, and [`Domain::use_views`] after
    /// that.
    pub views: Mutex<Views>,
    /// Breakpoints by virtual address that no register of the CPU holds. Locked before `views`.
    pub follow: Follow,
    /// Its own stage-2 tables.
    pub stage2: Mutex<Stage2>,
    /// Its interrupt controller. A stepped vCPU for which nothing is pending looks at it again only
    /// after a change that was counted.
    pub vgic: Counted<Vgic>,
    /// Its UART.
    pub uart: Mutex<Pl011>,
    /// Its virtio-mmio slots.
    pub virtio: Mutex<Virtio>,
    /// What firmware finds beside them: flash, fw_cfg, the clock.
    pub peripherals: Mutex<Peripherals>,
    /// What it wrote on its UART and the tool has not been sent yet.
    pub console: Mutex<Vec<u8, 512>>,
    /// Its clock while it does not run freely.
    pub clock: Mutex<VirtualClock>,
    /// CNTVOFF_EL2 while it runs freely, and in real time always.
    pub clock_offset: AtomicU64,
    /// The clock is to go on when the first vCPU enters the guest.
    pub clock_waits: AtomicBool,
    /// Who has an order, and who has had company.
    pub alone: Alone,
    /// Whoever notifies a device's queue need not wait until it was served: all of the domain runs, and
    /// nobody has asked it to stop.
    pub is_asynchronous: AtomicBool,
    /// When the last vCPU came out of the guest, by the machine's counter.
    pub left_at: AtomicU64,
    /// Its clock goes on with the machine's while it is stopped ([`TimePolicy::Real`]).
    pub real_time: AtomicBool,
    /// vCPUs that are on a CPU, or have one for themselves: one bit each. What others do not wait for.
    pub on_cpu: AtomicU8,
    /// Its time, where the machine counts instructions.
    pub timeline: Option<Mutex<Timeline>>,
    /// Moments of it that are kept. Locked before `stage2`, `follow` and `views`.
    pub checkpoints: Checkpoints,
    /// Whose turn it is while several vCPUs are stepped.
    pub turns: Mutex<Turns>,
    /// Who is quiesced during an exclusive sequence of the stepped vCPU.
    pub quiescence: Quiescence,
    /// What the stepped vCPU knows of page tables that those that run change.
    pub translation: Changes,
    /// Who runs, and how.
    pub control: Mutex<Control>,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu<C>, MAX_VCPUS>,
}

/// One virtual CPU, and the way to talk to the CPU that runs it.
pub struct Vcpu<C: Cpu> {
    /// The physical CPU.
    pub cpu: usize,
    /// That CPU runs others too, in turns; or it counts instructions, which is done in turns as well.
    pub shares_cpu: bool,
    /// Registers and all. Held by the CPU while it runs.
    pub core: Mutex<VcpuCore<C>>,
    /// The CPU is to come out of the guest and stop.
    pub stop_requested: AtomicBool,
    /// What the CPU is to do next. Set while the vCPU is stopped.
    pub order: Mutex<Option<Order>>,
}

/// What a stopped vCPU is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Run until something stops it.
    Run,
    /// Step.
    Step(StepOrder),
}

/// How a vCPU is to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepOrder {
    /// Until this virtual address is next.
    pub until: Option<u64>,
    /// Into the trace ring.
    pub record: bool,
    /// Until the next instruction is not in this range.
    pub within: Option<(u64, u64)>,
    /// Beside whom.
    pub role: Role,
}

/// A stepped vCPU's role among those of its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It steps so many instructions, whatever the others do: single-step monitoring.
    Alone(u64),
    /// The debugger steps it. How far is in [`Domain::turns`].
    Focus,
    /// It is stepped because the others are.
    Other,
}

/// Whether a vCPU is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Power {
    /// Never started, or switched off by PSCI.
    Off,
    /// On.
    On,
}

/// What stopped a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PendingStop {
    /// The vCPU that had the reason.
    pub vcpu: usize,
    /// The reason.
    pub reason: StopReason,
}

/// Who of a domain runs, and under which rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Control {
    /// vCPUs that have an order: one bit each. The domain is stopped when it is 0.
    pub running: u8,
    /// Power of each vCPU.
    pub power: [Power; MAX_VCPUS],
    /// Why the domain is stopping, until all vCPUs are stopped.
    pub stop: Option<PendingStop>,
    /// How it ended.
    pub ending: Option<DomainEnding>,
    /// SMC monitoring, one bit for each vCPU.
    pub privileged_call: u8,
    /// Single-step monitoring, one bit for each vCPU.
    pub single_step: u8,
    /// What becomes of interrupts under a step.
    pub interrupts: InterruptPolicy,
    /// How time goes.
    pub time: TimePolicy,
    /// What is recorded of each step beside its PC.
    pub detail: TraceDetail,
    /// A vCPU that has an order writes into the trace ring.
    pub recording: bool,
    /// What the other vCPUs do while one is stepped.
    pub others: OthersPolicy,
    /// The whole domain runs freely: a vCPU that is switched on joins in.
    pub free: bool,
    /// All vCPUs are stepped: one that is switched on joins in with this.
    pub joining: Option<Order>,
    /// The domain is stepped by turns, which count the steps.
    pub by_turns: bool,
    /// Breakpoints by virtual address.
    pub breakpoints: Vec<u64, 16>,
    /// vCPUs that had a reason to stop when another's was told. Who has waited for longest comes first.
    pub overlooked: Queue,
    /// vCPUs that could not execute the instruction that they are owed, since another held the quiescence
    /// until the domain was stopped.
    pub owed: Queue,
    /// The vCPU that went on within an exclusive sequence when the domain was let go, as long as it is in that.
    pub kept: Option<usize>,
    /// One that did, and stopped at the sequence's load again, or behind it, without a store in between.
    pub has_gone_round: Option<usize>,
    /// Watchpoints.
    pub watchpoints: alloc::vec::Vec<Watch>,
}

impl Control {
    /// Makes the control of a domain at reset: stopped, vCPU 0 on.
    #[must_use]
    pub fn new() -> Self {
        let mut power = [Power::Off; MAX_VCPUS];
        power[0] = Power::On;
        Self {
            running: 0,
            power,
            stop: None,
            ending: None,
            privileged_call: 0,
            single_step: 0,
            interrupts: InterruptPolicy::Over,
            time: TimePolicy::Stopped,
            detail: TraceDetail::default(),
            recording: false,
            others: OthersPolicy::Stop,
            free: false,
            joining: None,
            by_turns: false,
            breakpoints: Vec::new(),
            overlooked: Queue::default(),
            owed: Queue::default(),
            kept: None,
            has_gone_round: None,
            watchpoints: alloc::vec::Vec::new(),
        }
    }

    /// vCPUs that are on and have no order: one bit each.
    #[must_use]
    pub fn stopped(&self) -> u8 {
        let on = (0..MAX_VCPUS).filter(|&index| self.power(index) == Power::On);
        on.fold(0, |mask, index| mask | bit(index)) & !self.running
    }

    /// Power of a vCPU; off where there is none.
    #[must_use]
    pub fn power(&self, vcpu: usize) -> Power {
        self.power.get(vcpu).copied().unwrap_or(Power::Off)
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}
