//! Building the machine: the guest's memory, images and tree, and one domain.

use super::context::KvmContext;
use super::cpu::{KEPT, KvmCpu};
use super::machine_code;
use super::ring::TraceRing;
use super::vcpu::Vcpu;
use super::vm::{LIST_REGISTERS, Vm};
use crate::{Files, KvmError};
use spin::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::time::SystemTime;
use stepwell_arch::Pa;
use stepwell_engine::{Turns, VirtualClock};
use stepwell_vm::checkpoint::Checkpoints;
use stepwell_vm::concurrency::alone::Alone;
use stepwell_vm::concurrency::counted::Counted;
use stepwell_vm::concurrency::quiescence::Quiescence;
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::device::peripherals::{Peripherals, Registers};
use stepwell_vm::device::pl011::Pl011;
use stepwell_vm::device::pl031::Pl031;
use stepwell_vm::device::virtio::Virtio;
use stepwell_vm::devicetree::GuestTree;
use stepwell_vm::domain::{Control, Domain, Vcpu as DomainVcpu};
use stepwell_vm::follow::Follow;
use stepwell_vm::image_layout::{Images, Layout, layout};
use stepwell_vm::link::Link;
use stepwell_vm::machine::Machine;
use stepwell_vm::memory::GuestMemory as _;
use stepwell_vm::registers::Snapshot;
use stepwell_vm::simd::SimdRegisters;
use stepwell_vm::stage2::{MemoryKind, Permissions, Stage2, Vttbr};
use stepwell_vm::vcpu::changes::Changes;
use stepwell_vm::vcpu::roots::Roots;
use stepwell_vm::vcpu::state::VcpuCore;
use stepwell_vm::vgic::Vgic;
use stepwell_vm::views::Views;

const MIB: u64 = 1 << 20;
const TREE_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 64;
/// What the tree calls the CPU, of which it says nothing else.
const CPU_COMPATIBLE: &str = "arm,armv8";

/// Builds the machine around KVM's vCPUs, which it gives back.
///
/// # Errors
///
/// [`KvmError`].
pub fn machine(
    files: &Files<'_>,
    vm: &Vm,
    mut vcpus: Vec<Vcpu>,
    ring: TraceRing,
    link: Box<dyn Link<KvmCpu>>,
) -> Result<(Machine<KvmCpu>, Vec<Vcpu>), KvmError> {
    let places = load(files, vm)?;
    let does_not_fit = || KvmError::DoesNotFit { mib: vm.ram.bytes() / MIB };
    let mut tables = vm.ram.tables();
    let mut stage2 = Stage2::new(&mut tables).map_err(|_| does_not_fit())?;
    let (base, bytes) = (Pa(RAM_BASE.0), vm.ram.bytes());
    stage2
        .map(&mut tables, RAM_BASE, base, bytes, Permissions::ALL, MemoryKind::Normal)
        .map_err(|_| does_not_fit())?;
    let vttbr = stage2.vttbr(1);
    let reset = at_reset(&mut vcpus);
    let mut domain_vcpus = heapless::Vec::new();
    for (number, vcpu) in vcpus.iter_mut().enumerate() {
        let context = KvmContext::new(vcpu.reader()?);
        let simd = SimdRegisters::at_reset(vcpu.vector_lengths());
        let core = core((context, simd), (number == 0).then_some(places), vttbr, &reset);
        let vcpu = DomainVcpu {
            cpu: number,
            shares_cpu: false,
            core: Mutex::new(core),
            stop_requested: AtomicBool::new(false),
            order: Mutex::new(None),
        };
        // `launch` has counted them.
        domain_vcpus.push(vcpu).map_err(|_| does_not_fit())?;
    }
    let cpus = vcpus.len() as u8;
    let domain = Domain {
        id: 0,
        ram: vm.ram.clone(),
        vttbr,
        roots: Roots::new(vttbr),
        follow: Follow::default(),
        views: Mutex::new(Views::new(RAM_BASE, base, bytes).without_copies()),
        stage2: Mutex::new(stage2),
        vgic: Counted::new(Vgic::version_2(vcpus.len())),
        uart: Mutex::new(Pl011::new()),
        virtio: Mutex::new(Virtio::new()),
        peripherals: Mutex::new(peripherals()),
        console: Mutex::new(heapless::Vec::new()),
        clock: Mutex::new(VirtualClock::at_reset(machine_code::frequency_hz(), 0)),
        checkpoints: Checkpoints::default(),
        clock_offset: AtomicU64::new(0),
        clock_waits: AtomicBool::new(false),
        alone: Alone::new(),
        is_asynchronous: AtomicBool::new(false),
        left_at: AtomicU64::new(0),
        real_time: AtomicBool::new(false),
        on_cpu: AtomicU8::new(u8::MAX),
        timeline: None,
        turns: Mutex::new(Turns::new()),
        quiescence: Quiescence::new(),
        translation: Changes::new(),
        control: Mutex::new(Control::new()),
        vcpus: domain_vcpus,
    };
    let mut domains = heapless::Vec::new();
    domains.push(domain).map_err(|_| does_not_fit())?;
    let machine = Machine { domains, ring: Mutex::new(Some(ring)), cpus, reset, link };
    Ok((machine, vcpus))
}

/// What KVM resets a vCPU's registers to.
fn at_reset(vcpus: &mut [Vcpu]) -> Snapshot {
    let mut reset = Snapshot::default();
    if let Some(first) = vcpus.first_mut() {
        reset.fill(KEPT.iter().map(|&register| (register, first.read(register))));
    }
    reset
}

/// A vCPU that is off, or, where it has a guest's places, at the first instruction.
fn core(
    (context, simd): (KvmContext, SimdRegisters),
    places: Option<Layout>,
    vttbr: Vttbr,
    reset: &Snapshot,
) -> VcpuCore<KvmCpu> {
    let mut core = VcpuCore::new(context, reset, simd, LIST_REGISTERS, vttbr);
    if let Some(places) = places {
        core.begin(reset, &places);
    }
    core
}

fn load(files: &Files<'_>, vm: &Vm) -> Result<Layout, KvmError> {
    let ram = &vm.ram;
    let ramdisk_bytes = files.ramdisk.map_or(0, |ramdisk| ramdisk.len() as u64);
    let images = Images {
        header: files.kernel.get(..HEADER_BYTES).unwrap_or(files.kernel),
        kernel_bytes: files.kernel.len() as u64,
        ramdisk_bytes,
        linked: files.linked,
        has_firmware: false,
    };
    let places = layout(images, ram.bytes());
    ram.load(places.kernel, files.kernel)?;
    if let Some(ramdisk) = files.ramdisk {
        ram.load(places.ramdisk, ramdisk)?;
    }
    let own;
    let tree = match files.devicetree {
        Some(tree) => tree,
        None => {
            own = tree_of(files, places)?;
            &own
        }
    };
    for place in places.trees.into_iter().flatten() {
        ram.load(place, tree)?;
    }
    Ok(places)
}

/// What is beside the console: a clock that shows what time it is.
fn peripherals() -> Peripherals {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let rtc = Pl031::new(seconds, now.subsec_nanos());
    let registers = Registers { rtc, ..Registers::default() };
    Peripherals { registers, ..Peripherals::default() }
}

fn tree_of(files: &Files<'_>, places: Layout) -> Result<Vec<u8>, KvmError> {
    let tree = GuestTree {
        vcpus: files.vcpus,
        cpu_compatible: CPU_COMPATIBLE,
        memory_bytes: files.memory_bytes,
        bootargs: files.command_line,
        initrd: files.ramdisk.map(|ramdisk| (places.ramdisk, ramdisk.len() as u64)),
        has_gicv2: true,
        has_firmware: false,
    };
    let mut bytes = vec![0; TREE_BYTES];
    let length = tree.write(&mut bytes);
    let length = length.map_err(|_| KvmError::DoesNotFit { mib: files.memory_bytes / MIB })?;
    bytes.truncate(length);
    Ok(bytes)
}
