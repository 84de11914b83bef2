//! Building a domain from what the device tree asks for: its memory, its images, its own tree.
//!
//! Where things lie in guest memory is QEMU's choice for `virt`, so that a guest that was made for
//! that board, or is compared with a run there, finds the same.

use crate::devicetree::host::{DomainConfig, HostTree, Range};
use crate::hw::setup;
use crate::hw::simd;
use crate::hw::timer;
use crate::hw::world::GuestContext;
use crate::loop_cpu::LoopCpu;
use crate::mem::guest::GuestRam;
use crate::mem::tables::HeapTables;
use alloc::vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use heapless::Vec;
use spin::Mutex;
use stepwell_arch::{Ipa, Pa};
use stepwell_engine::{Attention, Turns, VirtualClock};
use stepwell_protocol::Schedule;
use stepwell_vm::checkpoint::Checkpoints;
use stepwell_vm::concurrency::alone::Alone;
use stepwell_vm::concurrency::counted::Counted;
use stepwell_vm::concurrency::quiescence::Quiescence;
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::device::flash::FLASH_BYTES;
use stepwell_vm::device::fw_cfg::FwCfg;
use stepwell_vm::device::peripherals::{Peripherals, Registers};
use stepwell_vm::device::pl011::Pl011;
use stepwell_vm::device::pl031::Pl031;
use stepwell_vm::device::virtio::Virtio;
use stepwell_vm::devicetree::GuestTree;
use stepwell_vm::domain::{Control, Domain, MAX_VCPUS, Vcpu, bit};
use stepwell_vm::image_layout::{Images, Layout, layout};
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::registers::Snapshot;
use stepwell_vm::stage2::{MemoryKind, Permissions, Stage2, Vttbr};
use stepwell_vm::timeline::Timeline;
use stepwell_vm::vcpu::changes::Changes;
use stepwell_vm::vcpu::roots::Roots;
use stepwell_vm::vcpu::state::VcpuCore;
use stepwell_vm::vgic::Vgic;
use stepwell_vm::views::Views;

const MIB: u64 = 1 << 20;
const TREE_BYTES: usize = 64 << 10;

/// Why a domain cannot be built: the tool asked for what the machine, or the images, do not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No RAM is left for it.
    #[error(
        "no {0} MiB of RAM in one piece are left for the domain: give it less, or load things \
            closer together"
    )]
    NoMemory(u64),
    /// Its kernel, ramdisk and device tree do not fit.
    #[error("kernel, ramdisk and device tree do not fit into the domain's {0} MiB: give it more")]
    DoesNotFit(u64),
    /// No CPU is left.
    #[error("the domains before this one have all of the machine's CPUs: give them fewer")]
    NoCpu,
    /// More vCPUs than there can be.
    #[error("the domain wants {0} CPUs, and {1} is the most that one can have: give it fewer")]
    TooManyVcpus(usize, usize),
    /// Instructions are counted for one CPU.
    #[error("the domain is to run by instructions, and the machine has {0} CPUs: give it one")]
    SeveralCpusCount(u8),
    /// The counter shows real time.
    #[error(
        "the domain is to run by instructions, and the machine does not count them: start it with \
         `-icount shift=4,sleep=off`"
    )]
    NotCounted,
    /// Its tables could not be built.
    #[error("the domain's stage-2 tables could not be built")]
    Tables,
    /// Its device tree could not be written.
    #[error("the domain's device tree could not be written")]
    Tree,
}

/// Clears what the boot loader left in a domain's memory.
///
/// # Errors
///
/// [`BuildError::NoMemory`] where `stale` is not within `ram`.
///
/// # Safety
///
/// `ram` must be RAM that nothing else uses.
pub unsafe fn clear(ram: Range, stale: &[Range]) -> Result<(), BuildError> {
    // SAFETY: the caller's promise.
    let memory = unsafe { GuestRam::new(ram.base, ram.bytes) };
    for range in stale {
        memory.clear(range.base, range.bytes).map_err(|_| BuildError::NoMemory(ram.bytes / MIB))?;
    }
    Ok(())
}

/// The physical CPUs of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// The number of the first.
    pub first: usize,
    /// How many there are, at least one. vCPUs that have none for themselves share one in turns.
    pub count: usize,
}

/// The time of a domain whose machine counts instructions.
fn timeline(schedule: Schedule) -> Timeline {
    match schedule {
        Schedule::Turns { instructions } => {
            Timeline::new(timer::frequency_hz(), u64::from(instructions))
        }
        Schedule::Random { seed } => Timeline::drawn(timer::frequency_hz(), seed),
    }
}

/// Builds the domain number `id`. `ram` is where its memory is, `cpu` its physical CPUs.
///
/// # Errors
///
/// [`BuildError`].
///
/// # Safety
///
/// `ram` must be RAM that nothing else uses, the modules of `config` RAM that is mapped at EL2.
pub unsafe fn build(
    id: u8,
    config: &DomainConfig<'_>,
    host: &HostTree<'_>,
    ram: Range,
    cpu: Cpus,
    attention: &'static Attention,
    reset: &Snapshot,
) -> Result<Domain<LoopCpu>, BuildError> {
    // SAFETY: the caller's promise.
    let mut memory = unsafe { GuestRam::new(ram.base, ram.bytes) };
    if config.has_firmware {
        // SAFETY: the caller's promise: it is all of a module, which nobody reads any more.
        memory = unsafe { memory.with_flash(config.kernel.base) };
    }
    // SAFETY: the caller's promise.
    let places = unsafe { load_images(config, host, &memory)? };
    let mut tables = memory.tables();
    let (stage2, views) = map_memory(config, ram, &mut tables)?;
    let vttbr = stage2.vttbr(id + 1);
    let mut vcpus = Vec::new();
    for index in 0..config.cpus {
        let core = new_core(attention, index == 0, places, vttbr, reset);
        let vcpu = Vcpu {
            cpu: cpu.first + index % cpu.count,
            shares_cpu: cpu.count < config.cpus || config.schedule.is_some(),
            core: Mutex::new(core),
            stop_requested: AtomicBool::new(false),
            order: Mutex::new(None),
        };
        vcpus.push(vcpu).map_err(|_| BuildError::TooManyVcpus(config.cpus, MAX_VCPUS))?;
    }
    let alone = vcpus.iter().enumerate().filter(|(_, vcpu)| !vcpu.shares_cpu);
    let on_cpu = alone.fold(0, |mask, (index, _)| mask | bit(index));
    Ok(Domain {
        id,
        ram: memory,
        vttbr,
        roots: Roots::new(vttbr),
        follow: stepwell_vm::follow::Follow::default(),
        views: Mutex::new(views),
        stage2: Mutex::new(stage2),
        vgic: Counted::new(Vgic::new(config.cpus)),
        uart: Mutex::new(Pl011::new()),
        virtio: Mutex::new(Virtio::new()),
        // SAFETY: the caller's promise.
        peripherals: Mutex::new(unsafe { peripherals(config) }),
        console: Mutex::new(Vec::new()),
        clock: Mutex::new(VirtualClock::at_reset(timer::frequency_hz(), timer::counter_at_reset())),
        clock_offset: AtomicU64::new(0),
        clock_waits: AtomicBool::new(false),
        alone: Alone::new(),
        is_asynchronous: AtomicBool::new(false),
        left_at: AtomicU64::new(0),
        real_time: AtomicBool::new(false),
        on_cpu: AtomicU8::new(on_cpu),
        checkpoints: Checkpoints::default(),
        timeline: config.schedule.map(|schedule| Mutex::new(timeline(schedule))),
        turns: Mutex::new(Turns::new()),
        quiescence: Quiescence::new(),
        translation: Changes::new(),
        control: Mutex::new(Control::new()),
        vcpus,
    })
}

/// Makes a domain's tables: RAM, and flash where it has firmware; and what a debugger sees of them.
fn map_memory(
    config: &DomainConfig<'_>,
    ram: Range,
    tables: &mut HeapTables,
) -> Result<(Stage2, Views), BuildError> {
    let failed = |_| BuildError::Tables;
    let mut stage2 = Stage2::new(tables).map_err(failed)?;
    let (all, normal) = (Permissions::ALL, MemoryKind::Normal);
    stage2.map(tables, RAM_BASE, ram.base, ram.bytes, all, normal).map_err(failed)?;
    let views = Views::new(RAM_BASE, ram.base, ram.bytes);
    if !config.has_firmware {
        return Ok((stage2, views));
    }
    let (pa, as_memory) = (config.kernel.base, Permissions::of_flash(true));
    stage2.map(tables, Ipa(0), pa, FLASH_BYTES, as_memory, normal).map_err(failed)?;
    Ok((stage2, views.with_flash(pa)))
}

/// What firmware finds beside the console.
///
/// # Safety
///
/// As [`build`], and what fw_cfg hands out stays as it is.
unsafe fn peripherals(config: &DomainConfig<'_>) -> Peripherals {
    let items: &'static [u8] = match config.fw_cfg {
        Some(Range { base, bytes }) => {
            let length = usize::try_from(bytes).unwrap_or(0);
            // SAFETY: the caller's promise.
            unsafe { core::slice::from_raw_parts(base.0 as *const u8, length) }
        }
        None => &[],
    };
    let (seconds, nanoseconds) = config.time_of_day;
    let rtc = Pl031::new(seconds, nanoseconds);
    let registers = Registers { fw_cfg: FwCfg::new(items), rtc, ..Registers::default() };
    Peripherals { registers, ..Peripherals::default() }
}

fn new_core(
    attention: &'static Attention,
    is_first: bool,
    places: Layout,
    vttbr: Vttbr,
    reset: &Snapshot,
) -> VcpuCore<LoopCpu> {
    let context = GuestContext::new(attention);
    let lists = setup::facts().list_registers;
    let mut core = VcpuCore::new(context, reset, simd::at_reset(), lists, vttbr);
    if is_first {
        core.begin(reset, &places);
    }
    core
}

/// # Safety
///
/// As [`build`].
unsafe fn load_images(
    config: &DomainConfig<'_>,
    host: &HostTree<'_>,
    memory: &GuestRam,
) -> Result<Layout, BuildError> {
    let too_small = BuildError::DoesNotFit(memory.bytes() / MIB);
    let header_bytes = usize::try_from(config.kernel.bytes.min(64)).map_err(|_| too_small)?;
    // SAFETY: the caller's promise.
    let header =
        unsafe { core::slice::from_raw_parts(config.kernel.base.0 as *const u8, header_bytes) };
    let ramdisk = config.ramdisk.unwrap_or(Range { base: Pa(0), bytes: 0 });
    let images = Images {
        header,
        kernel_bytes: config.kernel.bytes,
        ramdisk_bytes: ramdisk.bytes,
        linked: config.linked,
        has_firmware: config.has_firmware,
    };
    let places = layout(images, memory.bytes());
    // Firmware lies where it is executed.
    let kernel = (!config.has_firmware).then_some((places.kernel, config.kernel));
    let ramdisk = config.ramdisk.map(|ramdisk| (places.ramdisk, ramdisk));
    // SAFETY: the caller's promise.
    unsafe {
        for (place, module) in kernel.into_iter().chain(ramdisk) {
            memory.load(place, module.base, module.bytes).map_err(|_| too_small)?;
        }
        if let Some(tree) = config.devicetree {
            for place in places.trees.into_iter().flatten() {
                memory.load(place, tree.base, tree.bytes).map_err(|_| too_small)?;
            }
            return Ok(places);
        }
    }
    let mut buffer = vec![0; TREE_BYTES];
    let tree = GuestTree {
        vcpus: config.cpus,
        cpu_compatible: host.cpu_compatible,
        memory_bytes: memory.bytes(),
        bootargs: config.bootargs,
        initrd: config.ramdisk.map(|ramdisk| (places.ramdisk, ramdisk.bytes)),
        has_gicv2: false,
        has_firmware: config.has_firmware,
    };
    let length = tree.write(&mut buffer).map_err(|_| BuildError::Tree)?;
    let bytes = buffer.get(..length).ok_or(BuildError::Tree)?;
    for place in places.trees.into_iter().flatten() {
        memory.write(place, bytes).map_err(|_| too_small)?;
    }
    Ok(places)
}
