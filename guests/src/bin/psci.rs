//! PSCI over HVC: what is there, what is refused, and starting every other CPU.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::hardware::psci::{
    AFFINITY_INFO, ALREADY_ON, CPU_OFF, CPU_ON, FEATURES, INVALID_PARAMETERS, NOT_SUPPORTED,
    SYSTEM_OFF, VERSION, call,
};
use stepwell_guests::hardware::timer;
use stepwell_guests::read_register;
use stepwell_guests::report::{Outcome, check, require};

stepwell_guests::define_exact_end!();

const CPUS_MAX: usize = 8;
/// What a CPU's stack holds, in 64-bit words.
const STACK: usize = 512;
const ROUNDS: u64 = 10_000;

static COUNTS: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];
static mut STACKS: [[u64; STACK]; CPUS_MAX] = [[0; STACK]; CPUS_MAX];

unsafe extern "C" {
    fn secondary_start();
}

/// What each other CPU does: count, switch itself off.
extern "C" fn secondary() -> ! {
    let cpu = read_register!("mpidr_el1") as usize & 0xff;
    for _ in 0..ROUNDS {
        COUNTS[cpu].store(COUNTS[cpu].load(Relaxed) + 1, Relaxed);
    }
    call(CPU_OFF, 0, 0, 0);
    loop {
        stepwell_guests::instruction!("wfi");
    }
}

/// Waits until a CPU is off, by AFFINITY_INFO; false if it takes a second.
fn wait_off(cpu: u64) -> bool {
    for _ in 0..10_000 {
        if call(AFFINITY_INFO, cpu, 0, 0) == 1 {
            return true;
        }
        timer::spin(timer::ticks_of_us(100));
    }
    false
}

fn start_cpu(cpu: u64) -> u64 {
    // SAFETY: the CPU is off, so nobody else uses its stack.
    let top = unsafe {
        let stack = &mut STACKS[cpu as usize];
        stack[STACK - 1] = secondary as *const () as u64;
        stack.as_ptr().add(STACK) as u64
    };
    call(CPU_ON, cpu, secondary_start as *const () as u64, top)
}

fn run() -> Outcome {
    let version = call(VERSION, 0, 0, 0);
    require("version 0.2 or later", (2..=0x1_ffff).contains(&version))?;
    check("SYSTEM_OFF is a feature", call(FEATURES, SYSTEM_OFF, 0, 0) as i32 as u64, 0)?;
    check(
        "garbage is none",
        call(FEATURES, 0x8400_dead, 0, 0) as i32 as u64,
        NOT_SUPPORTED as u64,
    )?;
    check("self is on", call(AFFINITY_INFO, 0, 0, 0), 0)?;
    check("CPU_ON of self", call(CPU_ON, 0, 0x4020_0000, 0) as i32 as u64, ALREADY_ON as u64)?;
    let nobody = call(CPU_ON, 0x00ff_0000, 0x4020_0000, 0) as i32;
    check("CPU_ON of nobody", nobody as u64, INVALID_PARAMETERS as u64)?;
    exact_end();
    let mut cpus = 1;
    while (cpus as usize) < CPUS_MAX && call(AFFINITY_INFO, cpus, 0, 0) == 1 {
        for _ in 0..2 {
            COUNTS[cpus as usize].store(0, Relaxed);
            check("CPU_ON", start_cpu(cpus), 0)?;
            let second = timer::ticks_of_us(5_000_000);
            require("it counts", timer::wait_for(&COUNTS[cpus as usize], ROUNDS, second))?;
            require("it goes off", wait_off(cpus))?;
        }
        cpus += 1;
    }
    // All at once.
    for cpu in 1..cpus {
        COUNTS[cpu as usize].store(0, Relaxed);
        check("CPU_ON again", start_cpu(cpu), 0)?;
    }
    for cpu in 1..cpus {
        // Its count first: a CPU that is on its way may still be told to be off.
        let seconds = timer::ticks_of_us(5_000_000);
        require("it counts again", timer::wait_for(&COUNTS[cpu as usize], ROUNDS, seconds))?;
        require("it goes off again", wait_off(cpu))?;
        check("its count", COUNTS[cpu as usize].load(Relaxed), ROUNDS)?;
    }
    Ok(cpus)
}

stepwell_guests::guest!("psci", run);
