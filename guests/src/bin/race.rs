//! Two races that hardly ever show: for schedules that are drawn from a seed.
//!
//! Two CPUs add under a lock whose test and whose set are two instructions: an update is lost where one
//! is preempted between them. Two others share an object that one of them frees once nobody has it, and
//! looks a few instructions before.
//!
//! In turns of many instructions each, every one of them does its work alone.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::cell::UnsafeCell;
use core::ptr::addr_of_mut;

use stepwell_guests::hardware::cpus;
use stepwell_guests::report::{Outcome, check, line};

/// Updates of each CPU.
const UPDATES: u64 = 1000;
/// Uses of the object, and times that it is freed.
const USES: u64 = 1000;
/// What the object holds while it is there, and when it is not.
const ALIVE: u64 = 1;
const POISON: u64 = 0x6b6b_6b6b;

#[repr(C)]
struct Words {
    lock: u64,
    total: u64,
    users: u64,
    object: u64,
    was_poisoned: u64,
    done: [u64; cpus::CPUS_MAX],
}

struct Shared(UnsafeCell<Words>);

// SAFETY: that the CPUs race is this guest's topic; all accesses are volatile.
unsafe impl Sync for Shared {}

static WORDS: Shared = Shared(UnsafeCell::new(Words {
    lock: 0,
    total: 0,
    users: 0,
    object: ALIVE,
    was_poisoned: 0,
    done: [0; cpus::CPUS_MAX],
}));

/// A word of those that are shared, by name.
macro_rules! word {
    ($name:ident) => {
        // SAFETY: a place in an object that lives for ever; nothing is read or written.
        unsafe { addr_of_mut!((*WORDS.0.get()).$name).cast::<u64>() }
    };
}

fn get(word: *mut u64) -> u64 {
    // SAFETY: a word of `WORDS`.
    unsafe { word.read_volatile() }
}

fn set(word: *mut u64, value: u64) {
    // SAFETY: as above.
    unsafe { word.write_volatile(value) };
}

/// Adds one under the lock.
#[inline(never)]
fn update() {
    while get(word!(lock)) != 0 {}
    set(word!(lock), 1);
    set(word!(total), get(word!(total)).wrapping_add(1));
    set(word!(lock), 0);
}

/// Uses the object.
#[inline(never)]
fn use_object() {
    set(word!(users), get(word!(users)).wrapping_add(1));
    if get(word!(object)) == POISON {
        set(word!(was_poisoned), 1);
    }
    set(word!(users), get(word!(users)).wrapping_sub(1));
}

/// Frees the object, unless it is used, and makes a new one.
#[inline(never)]
fn renew() {
    if get(word!(users)) == 0 {
        set(word!(object), POISON);
        set(word!(object), ALIVE);
    }
}

fn done(cpu: usize) -> *mut u64 {
    let first = word!(done);
    // SAFETY: a place in the array.
    unsafe { first.add(cpu % cpus::CPUS_MAX) }
}

fn work(cpu: usize) {
    match cpu {
        0 | 1 => (0..UPDATES).for_each(|_| update()),
        2 => (0..USES).for_each(|_| use_object()),
        _ => (0..USES).for_each(|_| renew()),
    }
    set(done(cpu), 1);
}

extern "C" fn other() -> ! {
    work(cpus::number());
    cpus::off()
}

fn run() -> Outcome {
    for cpu in 1..4 {
        check("CPU_ON", cpus::start(cpu, other), 0)?;
    }
    work(0);
    while (1..4).any(|cpu| get(done(cpu)) == 0) {}
    if get(word!(was_poisoned)) != 0 {
        line("panic: the object was used when it was freed");
    }
    if get(word!(total)) != 2 * UPDATES {
        line("panic: an update is lost");
    }
    Ok(get(word!(total)))
}

stepwell_guests::guest!("race", run);
