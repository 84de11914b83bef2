//! The other CPUs: started through PSCI, each with a stack of its own.

use core::cell::UnsafeCell;

use super::psci::{CPU_OFF, CPU_ON, call};
use crate::read_register;

/// Most CPUs that there are stacks for.
pub const CPUS_MAX: usize = 8;

/// What a stack holds, in 64-bit words.
const STACK: usize = 512;

#[repr(align(16))]
struct Stacks(UnsafeCell<[[u64; STACK]; CPUS_MAX]>);

// SAFETY: each CPU has its own, which is written only before that CPU is on.
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK]; CPUS_MAX]));

unsafe extern "C" {
    // In boot.rs: takes the top of its stack in x0, and calls the function whose address is there.
    fn secondary_start();
}

/// The number of the CPU that executes this.
#[must_use]
pub fn number() -> usize {
    read_register!("mpidr_el1") as usize & 0xff
}

/// The top of a CPU's stack, which nobody but that CPU uses while it is on.
///
/// # Panics
/// Where there is no such stack.
#[must_use]
pub fn stack_top(cpu: usize) -> *mut u64 {
    assert!(cpu < CPUS_MAX);
    // SAFETY: the CPU's number was checked, and one past a stack's end is part of its object.
    unsafe { STACKS.0.get().cast::<u64>().add((cpu + 1) * STACK) }
}

/// Starts a CPU that is off, in `main`, without translation. Returns what CPU_ON does: 0 if it goes.
pub fn start(cpu: usize, main: extern "C" fn() -> !) -> u64 {
    if cpu >= CPUS_MAX {
        return super::psci::INVALID_PARAMETERS as u64;
    }
    let top = stack_top(cpu);
    // SAFETY: the highest word of that stack, which nobody uses: the CPU is off.
    unsafe { top.sub(1).write_volatile(main as *const () as u64) };
    call(CPU_ON, cpu as u64, secondary_start as *const () as u64, top as u64)
}

/// Switches the CPU that executes this off.
pub fn off() -> ! {
    call(CPU_OFF, 0, 0, 0);
    // Only where it was refused.
    loop {
        crate::instruction!("wfi");
    }
}
