//! A machine of one domain around these CPUs, and a tool that gives commands to it.

use crate::cpu::{FakeContext, FakeCpu, FakeRing};
use crate::memory::{BASE, BYTES, FLASH, Ram};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex};
use stepwell_arch::{Ipa, Pstate, SystemRegister};
use stepwell_engine::{Turns, VirtualClock};
use stepwell_protocol::TraceRecord;
use stepwell_protocol::{Refusal, Registers, StopReason};
use stepwell_vm::checkpoint::Checkpoints;
use stepwell_vm::checkpoint::versions::Memory;
use stepwell_vm::command;
use stepwell_vm::concurrency::alone::Alone;
use stepwell_vm::concurrency::counted::Counted;
use stepwell_vm::concurrency::quiescence::Quiescence;
use stepwell_vm::cpu::Cpu;
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::device::flash::FLASH_BYTES;
use stepwell_vm::device::peripherals::Peripherals;
use stepwell_vm::device::pl011::Pl011;
use stepwell_vm::device::virtio::Virtio;
use stepwell_vm::domain::{Control, Domain, Power, Vcpu};
use stepwell_vm::link::{Link, Queues};
use stepwell_vm::machine::Machine;
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::registers::Snapshot;
use stepwell_vm::simd::SimdRegisters;
use stepwell_vm::stage2::{MemoryKind, Permissions, Stage2};
use stepwell_vm::timeline::Timeline;
use stepwell_vm::vcpu;
use stepwell_vm::vcpu::changes::Changes;
use stepwell_vm::vcpu::roots::Roots;
use stepwell_vm::vcpu::sharing::{self, Shared};
use stepwell_vm::vcpu::state::VcpuCore;
use stepwell_vm::vgic::Vgic;
use stepwell_vm::views::Views;
use stepwell_wire::devices::{Bytes, QueueRequest, Served};
use stepwell_wire::ring::Decoder;
use stepwell_wire::{Answer, Command, Event};

/// Where programs begin.
pub const ENTRY: u64 = RAM_BASE.0;
/// Where they may keep data.
pub const DATA: u64 = RAM_BASE.0 + 0x1_0000;

pub const NOP: u32 = 0xd503_201f;
pub const WFI: u32 = 0xd503_207f;
pub const SVC: u32 = 0xd400_0001;
pub const HVC: u32 = 0xd400_0002;
pub const SMC: u32 = 0xd400_0003;
pub const ERET: u32 = 0xd69f_03e0;

pub const fn add(rd: u32, rn: u32, value: u32) -> u32 {
    0x9100_0000 | value << 10 | rn << 5 | rd
}
pub const fn sub(rd: u32, rn: u32, value: u32) -> u32 {
    0xd100_0000 | value << 10 | rn << 5 | rd
}
pub const fn ldr(rt: u32, rn: u32) -> u32 {
    0xf940_0000 | rn << 5 | rt
}
pub const fn str(rt: u32, rn: u32) -> u32 {
    0xf900_0000 | rn << 5 | rt
}
pub const fn ldxr(rt: u32, rn: u32) -> u32 {
    0xc85f_7c00 | rn << 5 | rt
}
pub const fn stxr(rs: u32, rt: u32, rn: u32) -> u32 {
    0xc800_7c00 | rs << 16 | rn << 5 | rt
}
pub const fn b(instructions: i32) -> u32 {
    0x1400_0000 | instructions as u32 & 0x03ff_ffff
}
pub const fn cbnz(rt: u32, instructions: i32) -> u32 {
    0xb500_0000 | (instructions as u32 & 0x7_ffff) << 5 | rt
}
pub const fn bl(instructions: i32) -> u32 {
    0x9400_0000 | (instructions as u32 & 0x3ff_ffff)
}
pub const fn cbz(rt: u32, instructions: i32) -> u32 {
    0xb400_0000 | (instructions as u32 & 0x7_ffff) << 5 | rt
}
pub const fn wfit(rt: u32) -> u32 {
    0xd503_1020 | rt
}
pub const fn brk(n: u32) -> u32 {
    0xd420_0000 | n << 5
}

/// Copies of pages that a domain has room for.
const COPIES: usize = 64;

/// Room for so many copies of pages.
pub fn checkpoints(copies: usize) -> Checkpoints {
    let pages = BYTES as usize / 4096;
    // Doublewords of a page, what is kept of a copy, and of a page of RAM.
    let words = copies * (512 + 2) + pages * 4;
    let words = Box::leak(vec![0; words].into_boxed_slice());
    Checkpoints::new(Memory::new(words, pages).expect("there is room"))
}

/// The tool's side of the link.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Event>>>, Arc<Mutex<Devices>>);

/// Who serves queues.
#[derive(Default)]
pub struct Devices {
    /// What was to be served.
    asked: Vec<QueueRequest>,
    in_hand: Option<QueueRequest>,
    /// Looks before the next answer is there.
    pub looks_in_vain: usize,
    /// Slots that have something by themselves.
    pub wanted: u32,
    /// Somebody left without an answer.
    pub was_left: bool,
}

impl Events {
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().expect("no test panics with it"))
    }

    /// The queues that were to be served.
    pub fn take_queues(&self) -> Vec<QueueRequest> {
        std::mem::take(&mut self.devices().asked)
    }

    pub fn devices(&self) -> std::sync::MutexGuard<'_, Devices> {
        self.1.lock().expect("no test panics with it")
    }
}

/// What is written for each queue that is served, from the last bytes of a page on.
pub const SERVED: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
pub const SERVED_AT: u64 = DATA + 0xffd;

impl<C: Cpu> Link<C> for Events {
    fn send(&self, event: &Event) {
        self.0.lock().expect("no test panics with it").push(event.clone());
    }
    fn serve(&self, _: &C, _: &Machine<C>) {}
    fn pass_by(&self, _: &C, _: &Machine<C>) {}
    fn linger(&self, _: &C, _: &Machine<C>, _: &dyn Fn() -> bool) -> bool {
        false
    }
    fn serve_queues(&self, queues: &mut dyn Queues, leaving: bool) -> bool {
        let mut devices = self.devices();
        loop {
            let Some(request) = devices.in_hand else {
                if devices.wanted != 0 && queues.wanted(0, devices.wanted) {
                    devices.wanted = 0;
                }
                let Some(request) = queues.next() else { return false };
                devices.asked.push(request);
                devices.in_hand = Some(request);
                continue;
            };
            if devices.looks_in_vain > 0 {
                devices.looks_in_vain -= 1;
                devices.was_left |= leaving;
                return true;
            }
            let words = [AtomicU64::new(u64::from_le_bytes(SERVED))];
            // From the last bytes of a page on, and nowhere.
            queues.write(0, Ipa(SERVED_AT), Bytes::new(&words, SERVED.len()));
            queues.write(0, Ipa(0), Bytes::new(&words, SERVED.len()));
            let QueueRequest { next_available, next_used, .. } = request;
            let (next_available, next_used) = (next_available + 1, next_used + 1);
            devices.in_hand = None;
            queues.served(&request, Served::Done { next_available, next_used });
        }
    }
    fn has_mailbox(&self) -> bool {
        false
    }
}

/// Makes the tables of a domain that has all of this memory, and what a debugger sees of them.
fn map_memory(ram: &Ram, has_copies: bool) -> (Stage2, Views) {
    let mut tables = ram.tables();
    let mut stage2 = Stage2::new(&mut tables).expect("there is memory for tables");
    stage2
        .map(&mut tables, RAM_BASE, BASE, BYTES, Permissions::ALL, MemoryKind::Normal)
        .expect("nothing is mapped yet");
    let mut views = Views::new(RAM_BASE, BASE, BYTES);
    if !has_copies {
        views = views.without_copies();
    }
    if ram.locate(Ipa(0), 1).is_ok() {
        let (flash, as_memory) = (Ipa(0), Permissions::of_flash(true));
        stage2
            .map(&mut tables, flash, FLASH, FLASH_BYTES, as_memory, MemoryKind::Normal)
            .expect("nothing is mapped yet");
        views = views.with_flash(FLASH);
    }
    (stage2, views)
}

/// Whether all vCPUs are on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each has its own.
    None,
    /// In turns of some time.
    ByTime,
    /// In turns of so many instructions.
    Counted(u64),
}

impl Sharing {
    fn timeline(self) -> Option<Timeline> {
        match self {
            Self::Counted(turn) => Some(Timeline::new(62_500_000, turn)),
            Self::None | Self::ByTime => None,
        }
    }
}

/// The machine, and what its tool sees.
pub struct Board<C: Cpu = FakeCpu> {
    pub machine: Machine<C>,
    pub events: Events,
    pub ram: Ram,
    kicks: Arc<AtomicU8>,
    /// What the CPU that all share keeps of them.
    shared: Mutex<Shared>,
}

impl<C: Cpu<Context = FakeContext, Memory = Ram, Ring = FakeRing>> Board<C> {
    /// Makes one whose vCPUs find this program, each pinned to a CPU of its own; only the first one
    /// is on.
    pub fn around(vcpus: usize, program: &[u32]) -> Self {
        Self::with(vcpus, program, Sharing::None)
    }

    /// Makes one whose vCPUs are as told.
    pub fn with(vcpus: usize, program: &[u32], sharing: Sharing) -> Self {
        Self::on(Ram::new(), vcpus, program, sharing)
    }

    /// Makes one in this memory.
    pub fn on(ram: Ram, vcpus: usize, program: &[u32], sharing: Sharing) -> Self {
        let is_shared = sharing != Sharing::None;
        let (kicks, events) = (Arc::new(AtomicU8::new(0)), Events::default());
        for (n, word) in (0..).zip(program) {
            ram.write(Ipa(ENTRY + 4 * n), &word.to_le_bytes()).expect("the program is short");
        }
        let (stage2, views) = map_memory(&ram, C::CAN.copies);
        let vttbr = stage2.vttbr(1);
        let mut reset = Snapshot::default();
        <FakeCpu>::new(0, ram.clone(), kicks.clone()).save(&mut reset);
        let pinned = |number| {
            let context = FakeContext::default();
            let simd = SimdRegisters::at_reset(None);
            let mut core = VcpuCore::new(context, &reset, simd, 4, vttbr);
            if number == 0 {
                core.reset(&reset, ENTRY, 0);
                core.acknowledge_pc();
            }
            Vcpu {
                cpu: if is_shared { 0 } else { number },
                shares_cpu: is_shared,
                core: spin::Mutex::new(core),
                stop_requested: AtomicBool::new(false),
                order: spin::Mutex::new(None),
            }
        };
        let domain = Domain {
            id: 0,
            ram: ram.clone(),
            vttbr,
            roots: Roots::new(vttbr),
            follow: stepwell_vm::follow::Follow::default(),
            views: spin::Mutex::new(views),
            stage2: spin::Mutex::new(stage2),
            vgic: Counted::new(Vgic::new(vcpus)),
            uart: spin::Mutex::new(Pl011::new()),
            virtio: spin::Mutex::new(Virtio::new()),
            peripherals: spin::Mutex::new(Peripherals::default()),
            console: spin::Mutex::new(heapless::Vec::new()),
            clock: spin::Mutex::new(VirtualClock::at_reset(62_500_000, 0)),
            clock_offset: AtomicU64::new(0),
            clock_waits: AtomicBool::new(false),
            alone: Alone::new(),
            is_asynchronous: AtomicBool::new(false),
            left_at: AtomicU64::new(0),
            real_time: AtomicBool::new(false),
            on_cpu: AtomicU8::new(if is_shared { 0 } else { u8::MAX }),
            checkpoints: checkpoints(COPIES),
            timeline: sharing.timeline().map(spin::Mutex::new),
            turns: spin::Mutex::new(Turns::new()),
            quiescence: Quiescence::new(),
            translation: Changes::new(),
            control: spin::Mutex::new(Control::new()),
            vcpus: (0..vcpus).map(pinned).collect(),
        };
        let domains = [domain].into_iter().collect();
        let ring = FakeRing { words: Vec::new(), capacity: 1 << 16 };
        let machine = Machine {
            domains,
            ring: spin::Mutex::new(Some(ring)),
            cpus: vcpus as u8,
            reset,
            link: Box::new(events.clone()),
        };
        Self { machine, events, ram, kicks, shared: Mutex::default() }
    }

    /// The CPU of a number, with nothing around it.
    pub fn cpu(&self, number: usize) -> FakeCpu {
        self.cpu_of_kind(number)
    }

    /// The same, of either kind.
    pub fn cpu_of_kind<const COPIES: bool>(&self, number: usize) -> FakeCpu<COPIES> {
        FakeCpu::new(number, self.ram.clone(), self.kicks.clone())
    }

    /// Gives a command.
    pub fn try_to(&self, cpu: &C, command: Command) -> Result<Answer, Refusal> {
        command::serve(cpu, &self.machine, command)
    }

    /// Gives a command that is not refused.
    pub fn serve(&self, cpu: &C, command: Command) -> Answer {
        self.try_to(cpu, command).expect("this is not refused")
    }

    /// Has a CPU carry out the order that its vCPU has; tells whether there was one.
    pub fn carry_out(&self, cpu: &C) -> bool {
        let domain = &self.machine.domains[0];
        let vcpu = &domain.vcpus[cpu.number()];
        let Some(order) = vcpu.order.lock().take() else { return false };
        cpu.prepare(0, domain.vttbr);
        vcpu.core.lock().vttbr = domain.vttbr;
        vcpu::carry_out_and_park(&self.machine, domain, cpu.number(), vcpu, cpu, order);
        true
    }

    /// Has the CPU that all vCPUs share go on for some turns, as long as any of them can move.
    pub fn share(&self, cpu: &C, turns: usize) {
        let domain = &self.machine.domains[0];
        let mut shared = self.shared.lock().expect("no test panics with it");
        for _ in 0..turns {
            if !sharing::serve_once(&self.machine, cpu, domain, u8::MAX, &mut shared) {
                if domain.control.lock().running == 0 {
                    break;
                }
                sharing::idle(&self.machine, cpu, domain, u8::MAX);
            }
        }
    }

    /// Switches a vCPU on, as CPU_ON does, while all are stopped.
    pub fn switch_on(&self, vcpu: usize, entry: u64) {
        let domain = &self.machine.domains[0];
        domain.vcpus[vcpu].core.lock().reset(&self.machine.reset, entry, 0);
        domain.control.lock().power[vcpu] = Power::On;
    }

    /// Gives a command to vCPU 0 and carries it out: the stop that it came to.
    pub fn go(&self, cpu: &C, command: Command) -> Stop {
        self.serve(cpu, command);
        assert!(self.carry_out(cpu), "the command gives an order");
        self.stop()
    }

    /// The stop that was told.
    pub fn stop(&self) -> Stop {
        let events = self.events.take();
        let stops: Vec<_> = events
            .into_iter()
            .filter_map(|event| match event {
                Event::Stopped { vcpu, reason, steps, registers, .. } => {
                    Some(Stop { vcpu, reason, steps, registers })
                }
                _ => None,
            })
            .collect();
        let [stop] = &stops[..] else { panic!("one stop is told, not {stops:?}") };
        stop.clone()
    }

    /// Where the recorded instructions were, in order.
    pub fn recorded(&self) -> Vec<u64> {
        let mut ring = self.machine.ring.lock();
        let words = std::mem::take(&mut ring.as_mut().expect("there is one").words);
        let mut decoder = Decoder::default();
        let mut pcs = Vec::new();
        for word in words {
            if let Some(TraceRecord::Run { pc, length, .. }) =
                decoder.push(word).expect("it is one")
            {
                pcs.extend((0..u64::from(length)).map(|n| pc.0 + 4 * n));
            }
        }
        pcs
    }
}

impl Board {
    /// As [`Board::around`], with these CPUs as they are.
    pub fn new(vcpus: usize, program: &[u32]) -> Self {
        Self::around(vcpus, program)
    }

    /// Has the guest's own debugger on: debug exceptions unmasked, the OS Lock off, MDSCR_EL1 and these
    /// registers as they are told.
    pub fn debug_itself(&self, cpu: &FakeCpu, mdscr: u64, registers: &[(SystemRegister, u64)]) {
        let mut core = self.machine.domains[0].vcpus[0].core.lock();
        core.context.spsr &= !Pstate::D;
        let controls = [(SystemRegister::OSLAR_EL1, 0), (SystemRegister::MDSCR_EL1, mdscr)];
        for &(register, value) in controls.iter().chain(registers) {
            core.debug.write(cpu, register, value).expect("the guest may");
        }
        let mdscr = core.debug.mdscr();
        core.engine.set_guest_mdscr(mdscr);
    }
}

/// A stop, as the tool is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub vcpu: u8,
    pub reason: StopReason,
    pub steps: u64,
    pub registers: Registers,
}

/// A step command.
pub fn step(count: u64, record: bool) -> Command {
    Command::Step { domain: 0, vcpu: 0, count, until: None, record, all: false, within: None }
}

/// A continue command.
pub const CONTINUE: Command = Command::Continue { domain: 0, vcpu: None };
