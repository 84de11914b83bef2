//! From the boot loader to the first idle CPU.
//!
//! The order matters: the log before anything that can fail, EL2's own tables before memory is
//! handed out, the GIC before the other CPUs, the link before any domain may speak.

#![expect(unsafe_code, reason = "entered by assembly, and hands raw memory out")]

pub mod builder;

use crate::devicetree::host::{self, Machine as HostTree, Range, VirtioSlot};
use crate::hw::gic::GicAddresses;
use crate::hw::{gic, link, log, power, registers, reset_registers, timer};
use crate::machine::{self, Machine};
use crate::mem::mailbox::MailboxMemory;
use crate::mem::ring::TraceRing;
use crate::mem::{el2, heap};
use crate::{memory_plan, reset, server, vcpu};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU8, Ordering};
use spin::Mutex;
use stepwell_engine::Attention;

/// Stack of each CPU but the first.
const SECONDARY_STACK_BYTES: usize = 0x4_0000;
/// INTID of SPI 0.
const FIRST_SPI: u32 = 32;
/// What is looked at of the device tree before its length is known.
const TREE_HEADER_BYTES: usize = 8;
const MAX_TREE_BYTES: usize = 4 << 20;

global_asm!(
    ".set SECONDARY_STACK_BYTES, {stack}",
    include_str!("start.S"),
    stack = const SECONDARY_STACK_BYTES,
);

static CPUS_UP: AtomicU8 = AtomicU8::new(0);

/// Called by `start.S` on the boot CPU. `tree` is where the boot loader put the device tree.
#[unsafe(no_mangle)]
extern "C" fn primary_main(tree: u64) -> ! {
    heap::setup();
    if let Err(reason) = start(tree) {
        log::last_words(format_args!("cannot start: {reason}"));
        power::machine_off();
    }
    match machine::machine() {
        Some(machine) => vcpu::serve_cpu(machine, 0),
        None => power::machine_off(),
    }
}

/// Called by `start.S` on the other CPUs.
#[unsafe(no_mangle)]
extern "C" fn secondary_main(cpu: u64) -> ! {
    el2::activate();
    let cpu = cpu as usize;
    crate::hw::setup::control_registers(0);
    if let Err(reason) = gic::setup_cpu(cpu) {
        log::line(format_args!("CPU {cpu} stays out: {reason}"));
        loop {
            registers::wfi();
        }
    }
    CPUS_UP.fetch_add(1, Ordering::AcqRel);
    loop {
        if let Some(machine) = machine::machine() {
            vcpu::serve_cpu(machine, cpu);
        }
        core::hint::spin_loop();
    }
}

/// Called by `world.S` for an exception that EL2 itself took.
#[unsafe(no_mangle)]
extern "C" fn el2_fault(esr: u64, elr: u64, far: u64, vector: u64) -> ! {
    log::last_words(format_args!(
        "bug at EL2 on CPU {}: vector {vector}, ESR {esr:#x}, ELR {elr:#x}, FAR {far:#x}",
        registers::cpu_number(),
    ));
    power::machine_off()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    log::last_words(format_args!("bug at EL2 on CPU {}: {info}", registers::cpu_number()));
    power::machine_off()
}

fn start(tree: u64) -> Result<(), String> {
    let blob = tree_at(tree)?;
    // The blob's own memory may be handed out below: keep a copy.
    let blob: &'static [u8] = Box::leak(blob.to_vec().into_boxed_slice());
    let host: &'static HostTree<'static> =
        Box::leak(Box::new(host::parse(blob).map_err(|error| error.to_string())?));
    let devices = memory_plan::devices(host);
    el2::setup(&host.memory, &devices).map_err(|error| error.to_string())?;
    if let Some(pl011) = host.pl011 {
        log::setup(pl011.base.0);
    }
    if host.test_mode.is_some() && cfg!(not(feature = "test-mode")) {
        return Err(
            "this hypervisor has no test mode: use stepwell-hypervisor-test-mode.bin".into()
        );
    }
    reset::remember();
    crate::hw::setup::control_registers(0);
    reset_registers::remember();
    // Found out before there is a guest whose timer it is.
    let _known = timer::counter_at_reset();
    let slot = find_link(&host.virtio);
    gic::setup_distributor(GicAddresses {
        distributor: host.distributor.base.0,
        redistributors: host.redistributors.base.0,
        link: slot.map(|slot| slot.intid - FIRST_SPI),
    })
    .map_err(|error| error.to_string())?;
    gic::setup_cpu(0).map_err(|error| error.to_string())?;
    let cpus = start_others(host.cpus.len());
    let machine = build_machine(host, cpus)?;
    log::line(format_args!(
        "{} CPUs, {} domains, link {}",
        cpus,
        machine.domains.len(),
        if slot.is_some() { "up" } else { "missing" },
    ));
    machine::publish(machine);
    Ok(())
}

fn tree_at(address: u64) -> Result<&'static [u8], String> {
    if address == 0 || !address.is_multiple_of(8) {
        return Err("no device tree in X0: start the image with the arm64 boot protocol".into());
    }
    // SAFETY: the boot protocol puts a device tree there; the early tables map it.
    let header = unsafe { core::slice::from_raw_parts(address as *const u8, TREE_HEADER_BYTES) };
    let bytes = host::total_bytes(header).filter(|&bytes| bytes <= MAX_TREE_BYTES);
    let bytes = bytes.ok_or("X0 points to no device tree")?;
    // SAFETY: as above, for as long as the tree itself says.
    Ok(unsafe { core::slice::from_raw_parts(address as *const u8, bytes) })
}

fn find_link(slots: &[VirtioSlot]) -> Option<VirtioSlot> {
    slots.iter().copied().find(|slot| {
        let bytes = usize::try_from(slot.registers.bytes).unwrap_or(0);
        slot.intid >= FIRST_SPI && link::try_slot(slot.registers.base.0, bytes)
    })
}

fn start_others(count: usize) -> u8 {
    CPUS_UP.store(1, Ordering::Release);
    for cpu in 1..count {
        let expected = CPUS_UP.load(Ordering::Acquire) + 1;
        if power::start_cpu(cpu).is_err() {
            log::line(format_args!("CPU {cpu} does not start"));
            break;
        }
        while CPUS_UP.load(Ordering::Acquire) < expected {
            core::hint::spin_loop();
        }
    }
    CPUS_UP.load(Ordering::Acquire)
}

/// Too large for a stack, so made where it stays.
static ATTENTION: Mutex<Attention> = Mutex::new(Attention::empty());

fn attention() -> &'static Attention {
    let table = spin::MutexGuard::leak(ATTENTION.lock());
    table.fill();
    table
}

fn build_machine(host: &HostTree<'_>, cpus: u8) -> Result<Machine, String> {
    let mut plan = memory_plan::Memory::new(host, el2::image());
    let mut domains = heapless::Vec::new();
    let attention = attention();
    let mut cpu = 0;
    for (id, config) in (0_u8..).zip(host.domains.iter()) {
        let left = usize::from(cpus).saturating_sub(cpu);
        if config.cpus == 0 || config.cpus > left {
            return Err(builder::BuildError::TooFewCpus(config.cpus, left).to_string());
        }
        let missing = builder::BuildError::NoMemory(config.memory_bytes >> 20);
        let ram = plan.take(config.memory_bytes).ok_or_else(|| missing.to_string())?;
        // SAFETY: the plan hands every byte out once and keeps modules, ring and image out.
        let domain = unsafe { builder::build(id, config, host, ram, cpu, attention) };
        let domain = domain.map_err(|error| error.to_string())?;
        domains.push(domain).map_err(|_| "too many domains")?;
        cpu += config.cpus;
    }
    if domains.is_empty() {
        return Err("the device tree has no domain under /chosen".into());
    }
    // SAFETY: the tool set this range aside, and the plan hands it to nobody.
    let ring =
        host.trace_ring.and_then(|Range { base, bytes }| unsafe { TraceRing::new(base.0, bytes) });
    // SAFETY: as for the ring.
    let mailbox =
        host.mailbox.and_then(|Range { base, bytes }| unsafe { MailboxMemory::new(base.0, bytes) });
    if let Some(mailbox) = mailbox {
        server::mailbox::setup(mailbox);
    }
    Ok(Machine { domains, ring: Mutex::new(ring), cpus })
}
