//! One CPU executes a page that the other puts another page in place of, again and again.
//!
//! The two pages differ in an instruction that a stepper carries out itself: a store-exclusive here,
//! a move there. Who goes by the page that was there before does the other one's.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use stepwell_guests::exception;
use stepwell_guests::hardware::cpus;
use stepwell_guests::instruction;
use stepwell_guests::report::{Outcome, check};
use stepwell_guests::translation::{self, UNMAPPED};

const ROUNDS: u64 = 24;
/// What the page with the move leaves for a status.
const MOVED: u64 = 7;

global_asm!(
    r#"
    .section .text.remap, "ax"
    .balign 4096
    .globl page_with_store, page_with_move
page_with_store:
    stxr    w2, x1, [x0]
    mov     w0, w2
    ret
    .balign 4096
page_with_move:
    mov     w2, #7
    mov     w0, w2
    ret
    .balign 4096
    .text

    .globl load_and_call
load_and_call:                   // x0: a word, x1: where to go
    mov     x3, x1
    ldxr    x1, [x0]
    br      x3
"#
);

unsafe extern "C" {
    static page_with_store: u32;
    static page_with_move: u32;
    fn load_and_call(word: *const u64, page: u64) -> u64;
}

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: written by one CPU at a time: the first before the other is on, then that one.
unsafe impl Sync for Table {}

static LEVEL2: Table = Table(UnsafeCell::new([0; 512]));
static LEVEL3: Table = Table(UnsafeCell::new([0; 512]));
static WANTED: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);
static WORD: AtomicU64 = AtomicU64::new(0);

/// Puts a page at [`UNMAPPED`]: that of the store in even rounds.
fn map(round: u64) {
    // Valid page, normal memory, inner shareable, accessed.
    const PAGE: u64 = 3 | 1 << 2 | 3 << 8 | 1 << 10;
    let store = (&raw const page_with_store) as u64;
    let moving = (&raw const page_with_move) as u64;
    let page = if round.is_multiple_of(2) { store } else { moving };
    let entry = LEVEL3.0.get().cast::<u64>();
    // Break before make.
    for value in [0, page | PAGE] {
        // SAFETY: the table's first entry, which one CPU writes at a time.
        unsafe { entry.write_volatile(value) };
        instruction!("dsb ishst");
        instruction!("tlbi vmalle1is");
        instruction!("dsb ish");
        instruction!("isb");
    }
}

extern "C" fn other() -> ! {
    translation::join();
    let mut done = 0;
    while done < ROUNDS {
        let wanted = WANTED.load(Acquire);
        if wanted != done {
            map(wanted);
            done = wanted;
            DONE.store(done, Release);
        }
    }
    cpus::off()
}

fn run() -> Outcome {
    // SAFETY: the MMU is off and this is the only CPU.
    unsafe { LEVEL2.0.get().cast::<u64>().write(LEVEL3.0.get() as u64 | 3) };
    translation::add_table(UNMAPPED, LEVEL2.0.get() as u64);
    translation::start();
    map(0);
    check("the other CPU starts", cpus::start(1, other), 0)?;
    for round in 1..=ROUNDS {
        WANTED.store(round, Release);
        while DONE.load(Acquire) != round {}
        // SAFETY: code is mapped there; it touches the word alone.
        let status = unsafe { load_and_call(WORD.as_ptr(), UNMAPPED) };
        check("what the page does", status, if round.is_multiple_of(2) { 0 } else { MOVED })?;
    }
    Ok(ROUNDS)
}

stepwell_guests::guest!("remap", run, exception::unexpected);
