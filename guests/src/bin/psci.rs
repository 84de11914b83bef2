//! PSCI over HVC: what is there, what is refused, and starting every other CPU.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::hardware::cpus::{self, CPUS_MAX};
use stepwell_guests::hardware::psci::{
    AFFINITY_INFO, ALREADY_ON, CPU_ON, FEATURES, INVALID_PARAMETERS, NOT_SUPPORTED, SYSTEM_OFF,
    VERSION, call,
};
use stepwell_guests::hardware::timer;
use stepwell_guests::report::{Outcome, check, require};

stepwell_guests::define_exact_end!();

const ROUNDS: u64 = 10_000;

static COUNTS: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];

/// What each other CPU does: count, switch itself off.
extern "C" fn secondary() -> ! {
    let cpu = cpus::number();
    for _ in 0..ROUNDS {
        COUNTS[cpu].store(COUNTS[cpu].load(Relaxed) + 1, Relaxed);
    }
    cpus::off()
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
    let mut there = 1;
    while (there as usize) < CPUS_MAX && call(AFFINITY_INFO, there, 0, 0) == 1 {
        for _ in 0..2 {
            COUNTS[there as usize].store(0, Relaxed);
            check("CPU_ON", cpus::start(there as usize, secondary), 0)?;
            let second = timer::ticks_of_us(5_000_000);
            require("it counts", timer::wait_for(&COUNTS[there as usize], ROUNDS, second))?;
            require("it goes off", wait_off(there))?;
        }
        there += 1;
    }
    // All at once.
    for cpu in 1..there {
        COUNTS[cpu as usize].store(0, Relaxed);
        check("CPU_ON again", cpus::start(cpu as usize, secondary), 0)?;
    }
    for cpu in 1..there {
        // Its count first: a CPU that is on its way may still be told to be off.
        let seconds = timer::ticks_of_us(5_000_000);
        require("it counts again", timer::wait_for(&COUNTS[cpu as usize], ROUNDS, seconds))?;
        require("it goes off again", wait_off(cpu))?;
        check("its count", COUNTS[cpu as usize].load(Relaxed), ROUNDS)?;
    }
    Ok(there)
}

stepwell_guests::guest!("psci", run);
