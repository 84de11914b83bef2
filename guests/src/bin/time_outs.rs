//! Waits for another CPU with a time-out: loops that count, and loops that look at the clock. Where
//! only this CPU is stepped and the others are stopped, none of them would ever end well.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use stepwell_guests::hardware::psci::{AFFINITY_INFO, call};
use stepwell_guests::hardware::{cpus, timer};
use stepwell_guests::report::{Outcome, check, require};
use stepwell_guests::{instruction, read_register};

const TRIES: u64 = 1 << 28;
const PINGS: u64 = 20;
const OFF: u64 = 1;

static IS_UP: AtomicU64 = AtomicU64::new(0);
static PING: AtomicU64 = AtomicU64::new(0);
static PONG: AtomicU64 = AtomicU64::new(0);

extern "C" fn other() -> ! {
    IS_UP.store(1, SeqCst);
    for ping in 1..=PINGS {
        while PING.load(SeqCst) != ping {
            core::hint::spin_loop();
        }
        PONG.store(ping, SeqCst);
    }
    cpus::off()
}

/// Counts down until a word has a value.
fn counts_until(word: &AtomicU64, wanted: u64) -> bool {
    let mut tries = TRIES;
    while word.load(SeqCst) != wanted && tries > 0 {
        core::hint::spin_loop();
        tries -= 1;
    }
    tries > 0
}

/// Looks at nothing but the clock for so long.
fn delay(ticks: u64) {
    let start = read_register!("cntvct_el0");
    loop {
        instruction!("isb");
        if read_register!("cntvct_el0") - start >= ticks {
            return;
        }
    }
}

fn run() -> Outcome {
    check("CPU_ON", cpus::start(1, other), 0)?;
    require("CPU 1 comes up", counts_until(&IS_UP, 1))?;
    for ping in 1..=PINGS {
        PING.store(ping, SeqCst);
        require("an answer", counts_until(&PONG, ping))?;
    }
    // As a kernel waits for a CPU to go: ten milliseconds at a time.
    let is_off = (0..100).any(|_| {
        delay(timer::ticks_of_us(10_000));
        call(AFFINITY_INFO, 1, 0, 0) == OFF
    });
    require("CPU 1 goes", is_off)?;
    Ok(PINGS)
}

stepwell_guests::guest!("time_outs", run);
