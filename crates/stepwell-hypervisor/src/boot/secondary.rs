//! The other CPUs: switched on one after the other, each with a stack of its own.

use super::MACHINE;
use super::SECONDARY_STACK_BYTES;
use crate::hw::{gic, log, power, registers, timer};
use crate::loop_cpu::this_cpu;
use crate::mem::el2;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use stepwell_vm::domain::MAX_VCPUS;
use stepwell_vm::vcpu;

/// What a CPU reads with its MMU off.
#[repr(C, align(64))]
struct SecondaryStart {
    tables: AtomicU64,
    stack: AtomicU64,
    cpu: AtomicU64,
}

global_asm!(
    ".set SECONDARY_TABLES, {tables}",
    ".set SECONDARY_STACK, {stack}",
    ".set SECONDARY_CPU, {cpu}",
    tables = const offset_of!(SecondaryStart, tables),
    stack = const offset_of!(SecondaryStart, stack),
    cpu = const offset_of!(SecondaryStart, cpu),
);

#[repr(C, align(4096))]
struct Stacks([[u8; SECONDARY_STACK_BYTES]; MAX_VCPUS - 1]);

static mut STACKS: Stacks = Stacks([[0; SECONDARY_STACK_BYTES]; MAX_VCPUS - 1]);
/// By CPU number less one. They stay, for a CPU that comes late.
static STARTS: [SecondaryStart; MAX_VCPUS - 1] = [const {
    SecondaryStart { tables: AtomicU64::new(0), stack: AtomicU64::new(0), cpu: AtomicU64::new(0) }
}; MAX_VCPUS - 1];
static CPUS_UP: AtomicU8 = AtomicU8::new(0);

/// A CPU of a busy emulator may take seconds; one that never comes must not keep the others.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Switches CPUs on, by their affinities, as many as there is room for beside the boot CPU. Returns
/// how many are up: they are numbered without a gap.
pub(super) fn start_others(affinities: impl Iterator<Item = u64>) -> u8 {
    CPUS_UP.store(1, Ordering::Release);
    for affinity in affinities {
        let cpu = usize::from(CPUS_UP.load(Ordering::Acquire));
        let Some(start) = cpu.checked_sub(1).and_then(|index| STARTS.get(index)) else { break };
        match switch_on(start, cpu, affinity) {
            Ok(()) => {}
            Err(reason @ StartError::Power(_)) => {
                log::line(format_args!("CPU {affinity:#x} stays off: {reason}"));
            }
            Err(reason @ StartError::Late) => {
                // Its number is its own, should it come after all.
                log::line(format_args!("CPU {affinity:#x} and those after it stay out: {reason}"));
                break;
            }
        }
    }
    CPUS_UP.load(Ordering::Acquire)
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{0}")]
    Power(#[from] power::PowerError),
    #[error("it was switched on, and has not come within 10 s")]
    Late,
}

fn switch_on(start: &SecondaryStart, cpu: usize, affinity: u64) -> Result<(), StartError> {
    let stacks = core::ptr::addr_of!(STACKS) as u64;
    start.tables.store(el2::root(), Ordering::Relaxed);
    start.stack.store(stacks + (cpu * SECONDARY_STACK_BYTES) as u64, Ordering::Relaxed);
    start.cpu.store(cpu as u64, Ordering::Relaxed);
    let at = core::ptr::from_ref(start) as u64;
    registers::clean_data_cache(at, size_of::<SecondaryStart>() as u64);
    // SAFETY: `start` is static, its tables are those that this CPU runs on, its stack is that of its
    // CPU number alone, and it was cleaned just now. Nobody else writes it.
    unsafe { power::start_cpu(affinity, at) }?;
    let begun = timer::counter();
    let patience = u128::from(PATIENCE_NS) * u128::from(timer::frequency_hz()) / 1_000_000_000;
    while usize::from(CPUS_UP.load(Ordering::Acquire)) <= cpu {
        if u128::from(timer::counter().saturating_sub(begun)) > patience {
            return Err(StartError::Late);
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// Called by `start.S` on the other CPUs.
#[unsafe(no_mangle)]
extern "C" fn secondary_main(cpu: u64) -> ! {
    let cpu = cpu as usize;
    registers::set_cpu_number(cpu);
    let _this_cpu = crate::hw::setup::control_registers(0);
    if let Err(reason) = gic::setup_cpu(cpu) {
        log::line(format_args!("CPU {cpu} stays out: {reason}"));
        power::park();
    }
    CPUS_UP.fetch_add(1, Ordering::AcqRel);
    loop {
        if let Some(machine) = MACHINE.get() {
            vcpu::serve_cpu(machine, &this_cpu(machine), cpu);
        }
        core::hint::spin_loop();
    }
}
