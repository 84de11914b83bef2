//! A panic whose cause is long past, on another CPU: for going back from the one to the other.
//!
//! A scribe keeps a log of sixteen words, and writes a seventeenth: over the pointer behind it. A
//! courier follows that pointer much later, and finds no parcel there. Two more CPUs count meanwhile.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::cell::UnsafeCell;
use core::ptr::{addr_of, addr_of_mut};

use stepwell_guests::hardware::cpus;
use stepwell_guests::report::{Outcome, check, line};

const ENTRIES: usize = 16;
/// Rounds of the courier before it goes.
const PATIENCE: u64 = 100_000;
const PARCEL: u64 = 0x7061_7263_656c;

/// What the CPUs share.
#[repr(C)]
struct Desk {
    log: [u64; ENTRIES],
    /// Where the parcel is.
    route: *const u64,
    parcel: u64,
    counts: [u64; cpus::CPUS_MAX],
}

struct Shared(UnsafeCell<Desk>);

// SAFETY: that CPUs write over each other's words is this guest's topic; all accesses are volatile.
unsafe impl Sync for Shared {}

// A debugger's scripts ask for it by name, as for the functions below.
#[unsafe(no_mangle)]
static DESK: Shared = Shared(UnsafeCell::new(Desk {
    log: [0; ENTRIES],
    route: core::ptr::null(),
    parcel: PARCEL,
    counts: [0; cpus::CPUS_MAX],
}));

/// Writes an entry of the log: one too many.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note(entry: usize) {
    let log = DESK.0.get().cast::<u64>();
    // SAFETY: the word behind the log is part of the same object. That is the bug.
    unsafe { log.add(entry % (ENTRIES + 1)).write_volatile(entry as u64 * 8) };
}

/// Fetches the parcel.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn deliver() -> u64 {
    // SAFETY: a word of the desk, and where that leads to, if nobody has written over it.
    unsafe { addr_of!((*DESK.0.get()).route).read_volatile().read_volatile() }
}

/// Counts for so many rounds.
#[inline(never)]
fn count(rounds: u64) {
    let cpu = cpus::number() % cpus::CPUS_MAX;
    for _ in 0..rounds {
        // SAFETY: a word of the desk that this CPU alone writes.
        unsafe {
            let own = addr_of_mut!((*DESK.0.get()).counts).cast::<u64>().add(cpu);
            own.write_volatile(own.read_volatile().wrapping_add(1));
        }
    }
}

extern "C" fn scribe() -> ! {
    count(100);
    for entry in 0..=ENTRIES {
        note(entry);
    }
    count(u64::MAX);
    cpus::off()
}

extern "C" fn counter() -> ! {
    count(u64::MAX);
    cpus::off()
}

fn run() -> Outcome {
    // SAFETY: nobody else is on.
    unsafe {
        let desk = DESK.0.get();
        addr_of_mut!((*desk).route).write_volatile(addr_of!((*desk).parcel));
    }
    check("the parcel is there", deliver(), PARCEL)?;
    check("CPU_ON", cpus::start(1, counter), 0)?;
    check("CPU_ON", cpus::start(2, scribe), 0)?;
    check("CPU_ON", cpus::start(3, counter), 0)?;
    count(PATIENCE);
    if deliver() != PARCEL {
        line("panic: no parcel is where the route leads");
        count(u64::MAX);
    }
    Ok(0)
}

stepwell_guests::guest!("hunt", run);
