//! From the boot loader to the first idle CPU.
//!
//! The order matters: the log before anything that can fail ([`early`]), EL2's own tables before
//! memory is handed out, the GIC before the other CPUs ([`secondary`]), the link before any domain
//! may speak.

#![expect(unsafe_code, reason = "entered by assembly, and hands raw memory out")]

pub mod builder;
mod early;
mod secondary;

use crate::devicetree::host::{self, HostTree, Range, VirtioSlot};
use crate::hw::{gic, link, log, power, registers, reset_registers, system_registers, timer};
use crate::loop_cpu::{self, LoopCpu, this_cpu};
use crate::mem::mailbox::{DeviceChannelMemory, MailboxMemory};
use crate::mem::ring::TraceRing;
use crate::mem::{checkpoints, el2, heap};
use crate::{memory_plan, server};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::arch::global_asm;
use spin::{Mutex, Once};
use stepwell_arch::Pa;
use stepwell_engine::Attention;
use stepwell_vm::checkpoint::Checkpoints;
use stepwell_vm::command;
use stepwell_vm::machine::Machine;
use stepwell_vm::registers::Snapshot;
use stepwell_vm::vcpu;

/// Stack of each CPU but the first.
const SECONDARY_STACK_BYTES: usize = 0x4_0000;
/// Stack of the boot CPU.
const BOOT_STACK_BYTES: usize = 0x20_0000;
/// Its stack before it is known that there is RAM for that one.
const EARLY_STACK_BYTES: usize = 0x8000;
/// What is looked at of the device tree before its length is known.
const TREE_HEADER_BYTES: usize = 8;
const PAGE: u64 = 4096;
const MAX_TREE_BYTES: usize = 4 << 20;

global_asm!(
    ".set BOOT_STACK_BYTES, {stack}",
    ".set EARLY_STACK_BYTES, {early_stack}",
    include_str!("start.S"),
    stack = const BOOT_STACK_BYTES,
    early_stack = const EARLY_STACK_BYTES,
);

/// Known to all CPUs once it is built.
static MACHINE: Once<Machine<LoopCpu>> = Once::new();

/// Called by `start.S` on the boot CPU. `tree` is where the boot loader put the device tree.
#[unsafe(no_mangle)]
extern "C" fn primary_main(tree: u64) -> ! {
    registers::set_cpu_number(0);
    heap::setup();
    if let Err(reason) = start(tree) {
        log::unlocked_line(format_args!("cannot start: {reason}"));
        power::machine_off();
    }
    match MACHINE.get() {
        Some(machine) => {
            if !link::is_up() {
                run_unattended(machine);
            }
            vcpu::serve_cpu(machine, &this_cpu(machine), 0)
        }
        None => power::machine_off(),
    }
}

/// Lets every domain run: on a board there may be nobody who would say "go on".
fn run_unattended(machine: &'static Machine<LoopCpu>) {
    let cpu = this_cpu(machine);
    for domain in &machine.domains {
        if let Err(refusal) = command::run_freely(&cpu, domain) {
            log::line(format_args!("domain {} does not run: {refusal}", domain.id));
        }
    }
}

/// Called by `world.S` for an exception that EL2 itself took.
#[unsafe(no_mangle)]
extern "C" fn el2_fault(esr: u64, elr: u64, far: u64, vector: u64) -> ! {
    let base = el2::image().base.0;
    log::unlocked_line(format_args!(
        "bug at EL2 on CPU {}: vector {vector}, ESR {esr:#x}, ELR {elr:#x} (image + {:#x}), \
         FAR {far:#x}",
        registers::cpu_number(),
        elr.wrapping_sub(base),
    ));
    power::machine_off()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    log::unlocked_line(format_args!("bug at EL2 on CPU {}: {info}", registers::cpu_number()));
    power::machine_off()
}

fn start(tree: u64) -> Result<(), String> {
    // SAFETY: `early` has read it there, and nothing has been handed out since.
    let found = unsafe { early::tree_at(tree) }.ok_or("the device tree is gone")?;
    let place = Range { base: Pa(tree), bytes: found.len() as u64 };
    // The blob's own memory is handed out below: keep a copy.
    let blob: &'static [u8] = Box::leak(found.to_vec().into_boxed_slice());
    let host: &'static HostTree<'static> =
        Box::leak(Box::new(host::parse(blob).map_err(|error| error.to_string())?));
    let devices = memory_plan::devices(host).map_err(|error| error.to_string())?;
    // SAFETY: RAM and devices are where the device tree says, which is all that anybody knows of the
    // board; this is the boot CPU, and the only one yet.
    unsafe { el2::setup(&host.memory, &host.reserved, &devices) }
        .map_err(|error| error.to_string())?;
    loop_cpu::configure(host.test_mode).map_err(|error| error.to_string())?;
    // What EL1's registers hold before any guest has run is what the CPU resets them to.
    let mut reset = Snapshot::default();
    system_registers::save(&mut reset);
    let _this_cpu = crate::hw::setup::control_registers(0);
    reset_registers::remember();
    // Found out before there is a guest whose timer it is.
    let _known = timer::counter_at_reset();
    let slot = find_link(&host.virtio);
    let link = slot.map(|slot| slot.intid);
    // SAFETY: the device tree says that this is the machine's GIC, and `el2::setup` mapped it as a
    // device.
    unsafe { gic::setup_distributor(&host.gic, host.intids, link) }
        .map_err(|error| error.to_string())?;
    gic::setup_cpu(0).map_err(|error| error.to_string())?;
    if host.domains.iter().any(|domain| domain.schedule.is_some()) && !timer::get_ahead() {
        return Err(builder::BuildError::NotCounted.to_string());
    }
    let boot_cpu = registers::affinity();
    let others = host.cpus.iter().copied().filter(|&affinity| affinity != boot_cpu);
    let wanted: usize =
        host.domains.iter().map(|domain| domain.cpus).fold(0, usize::saturating_add);
    let cpus = secondary::start_others(others.take(wanted.saturating_sub(1)));
    let machine = build_machine(host, place, cpus, reset)?;
    log::line(format_args!(
        "{} of {} CPUs, {} domains, link {}",
        cpus,
        host.cpus.len(),
        machine.domains.len(),
        if slot.is_some() { "up" } else { "missing" },
    ));
    MACHINE.call_once(|| machine);
    Ok(())
}

fn find_link(slots: &[VirtioSlot]) -> Option<VirtioSlot> {
    slots.iter().copied().find(|slot| {
        let bytes = usize::try_from(slot.registers.bytes).unwrap_or(0);
        // SAFETY: the device tree says that the slot is there, `el2::setup` mapped it as a device, and
        // no driver has it: this is the only one, and takes the first that answers.
        unsafe { link::try_slot(slot.registers.base.0, bytes) }
    })
}

/// Too large for a stack, so made where it stays.
static ATTENTION: Mutex<Attention> = Mutex::new(Attention::empty());

fn attention() -> &'static Attention {
    let table = spin::MutexGuard::leak(ATTENTION.lock());
    table.fill();
    table
}

fn build_machine(
    host: &HostTree<'_>,
    tree: Range,
    cpus: u8,
    reset: Snapshot,
) -> Result<Machine<LoopCpu>, String> {
    if host.domains.is_empty() {
        return Err(
            "the device tree has no domain under /chosen (compatible \"xen,domain\", with a \
                    \"multiboot,kernel\"): add one, as docs/boards.md shows"
                .into(),
        );
    }
    let mut plan =
        memory_plan::Memory::new(host, el2::image()).map_err(|error| error.to_string())?;
    let mut domains = heapless::Vec::new();
    let attention = attention();
    // The first domain that can make use of it has it.
    let mut set_aside = host.checkpoints;
    let mut cpu = 0;
    for (id, config) in (0_u8..).zip(host.domains.iter()) {
        let left = usize::from(cpus).saturating_sub(cpu);
        let own = builder::Cpus { first: cpu, count: config.cpus.min(left) };
        if own.count == 0 {
            return Err(builder::BuildError::NoCpu.to_string());
        }
        if config.schedule.is_some() && cpus != 1 {
            return Err(builder::BuildError::SeveralCpusCount(cpus).to_string());
        }
        let missing = builder::BuildError::NoMemory(config.memory_bytes >> 20);
        let ram = plan.take(config.memory_bytes).ok_or_else(|| missing.to_string())?;
        let stale = memory_plan::stale(host, tree, ram);
        // SAFETY: the plan hands every byte out once and keeps modules, ring and image out; of the
        // tree there is a copy.
        unsafe { builder::clear(ram, &stale) }.map_err(|error| error.to_string())?;
        // SAFETY: as above.
        let domain = unsafe { builder::build(id, config, host, ram, own, attention, &reset) };
        let mut domain = domain.map_err(|error| error.to_string())?;
        if domain.timeline.is_some()
            && let Some(range) = set_aside.take()
        {
            let pages = (domain.ram.bytes() / PAGE) as usize;
            // SAFETY: the tool set this range aside, and the plan hands it to nobody.
            let memory = unsafe { checkpoints::memory(range, pages) };
            domain.checkpoints = memory.map(Checkpoints::new).unwrap_or_default();
        }
        domains.push(domain).map_err(|_| "too many domains")?;
        cpu += own.count;
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
    // SAFETY: as for the ring.
    let channel = host
        .device_channel
        .and_then(|Range { base, bytes }| unsafe { DeviceChannelMemory::new(base.0, bytes) });
    if let Some(channel) = channel {
        server::devices::setup(channel);
    }
    Ok(Machine { domains, ring: Mutex::new(ring), cpus, reset, link: Box::new(server::Server) })
}
