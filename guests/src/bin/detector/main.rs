//! Looks for whatever tells a guest that it is debugged, with the rights of EL1 and nothing else.
//!
//! A *value* is what every board of this CPU has alike: `value NAME 0x…`, and the test that runs this
//! compares it with plain QEMU's. A *tell* is what this program judges itself, because it is about time,
//! which is never the same: `tell NAME` where it looks as on no board. Nothing that is right is said
//! twice: no line, no tell.
//!
//! All of it is done as often as the word behind `DETECTNOTE` says; each round begins at `loop_start`,
//! where the test changes what the debugger does. Behind that label lie instructions that nobody
//! executes, for its hidden breakpoints, and words that are read and stored like any data.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

mod clock;
mod cpus;
mod debug;
mod devices;
mod exclusives;
mod interrupts;
mod memory;
mod registers;
mod speed;

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{Frame, class, unexpected};
use stepwell_guests::hardware::{gic, psci, timer, uart};
use stepwell_guests::report::{self, line};
use stepwell_guests::write_register;

global_asm!(
    r#"
    .text
    .balign 4096
    .globl  loop_start, loop_end, beside_decoys
loop_start:
    ret
    .rept   64
    nop
    .endr
loop_end:
    .balign 16
beside_decoys:
    .quad   0, 0, 0, 0
    .balign 4096

    .section .data
    .ascii  "DETECTNOTE"
    .balign 8
    .globl  rounds
rounds:
    .quad   1
    .text
"#
);

unsafe extern "C" {
    safe fn loop_start();
    static rounds: u64;
    static beside_decoys: u64;
}

/// Exceptions are expected, and skipped.
static EXPECTS: AtomicU64 = AtomicU64::new(0);
static ESR: AtomicU64 = AtomicU64::new(0);

/// Says what every board of this CPU has alike.
fn value(name: &str, value: u64) {
    uart::write("value ");
    uart::write(name);
    uart::put(b' ');
    report::number(value);
    line("");
}

/// Says what is as on no board.
fn tell(name: &str, is_told: bool) {
    if is_told {
        uart::write("tell ");
        line(name);
    }
}

/// ESR_EL1 of the exceptions that an instruction leads to: the last one, or 0.
fn syndrome(act: impl FnOnce()) -> u64 {
    ESR.store(0, Relaxed);
    EXPECTS.store(1, Relaxed);
    act();
    EXPECTS.store(0, Relaxed);
    ESR.load(Relaxed)
}

/// Words in the page of the hidden breakpoints, aligned to 16 bytes.
fn words_beside_breakpoints() -> *mut u64 {
    (&raw const beside_decoys).cast_mut()
}

fn handle(frame: &mut Frame) {
    if frame.wants_to_leave() {
        return frame.leave_el0();
    }
    if frame.vector % 4 == 1 {
        return interrupts::take();
    }
    if debug::take(frame) {
        return;
    }
    if EXPECTS.load(Relaxed) == 0 {
        unexpected(frame);
    }
    ESR.store(frame.esr, Relaxed);
    // SVC's return address is behind it.
    if frame.class() != class::SVC {
        frame.elr += 4;
    }
}

#[unsafe(no_mangle)]
extern "C" fn guest_main(tree: u64) -> ! {
    // What an EL2 might have left there.
    registers::at_reset();
    clock::begin();
    gic::start(0);
    gic::enable(0, timer::INTID);
    for intid in interrupts::SGIS {
        gic::enable(0, intid);
    }
    write_register!("oslar_el1", 0);
    // SAFETY: a word of this image, which is written before it runs.
    let count = unsafe { (&raw const rounds).read_volatile() };
    for round in 0..count {
        loop_start();
        value("round", round);
        registers::look();
        exclusives::look();
        interrupts::look();
        debug::look();
        cpus::look();
        devices::look();
        memory::look(tree);
        speed::look();
        clock::look();
    }
    line("detector: ok 0x0");
    psci::system_off()
}

#[unsafe(no_mangle)]
extern "C" fn guest_exception(frame: &mut Frame) {
    handle(frame);
}

#[unsafe(no_mangle)]
extern "C" fn guest_panicked() -> ! {
    line("detector: FAIL panic");
    psci::system_off()
}
