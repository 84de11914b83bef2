//! Corner cases, one line each with what the machine did.
//!
//! A line has the case's name, the exception level, what it left in four registers, how many of its words
//! of memory are what, and each exception: ESR_EL1, where, SPSR_EL1, and FAR_EL1 where that is defined.
//! Nothing here decides what is right: the test compares the lines with those of other machines, so a
//! line has nothing of time in it.
//!
//! From `loop_start` to `loop_end` nobody executes anything: a debugger may have its own breakpoints
//! there, in a page whose words the exclusives are about, and whose borders other accesses cross.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

mod cases;
mod crossings;
mod debug;
mod exclusives;
mod firmware;
mod interrupts;
mod timers;

use core::arch::global_asm;
use core::cell::UnsafeCell;

use stepwell_guests::exception::{Frame, IL, class};
use stepwell_guests::hardware::{gic, uart};
use stepwell_guests::report::{Outcome, line, number};
use stepwell_guests::{translation, write_register};

global_asm!(
    r#"
    .text
    .balign 4096
    .skip   4096
    .globl  loop_start, loop_end, words_beside, behind_loop_page
loop_start:
    .rept   64
    nop
    .endr
loop_end:
    .balign 64
words_beside:
    .skip   256
    .balign 4096
behind_loop_page:
    .skip   4096
"#
);

unsafe extern "C" {
    fn loop_start();
    fn behind_loop_page();
}

/// What is remembered of an exception.
#[derive(Clone, Copy)]
struct Taken {
    esr: u64,
    elr: u64,
    spsr: u64,
    far: u64,
}

/// Exceptions since they were shown last.
struct Log {
    taken: [Taken; 64],
    count: usize,
}

struct Shared(UnsafeCell<Log>);
// SAFETY: one CPU, which looks at it while no exception is expected.
unsafe impl Sync for Shared {}
const NOTHING: Taken = Taken { esr: 0, elr: 0, spsr: 0, far: 0 };
static LOG: Shared = Shared(UnsafeCell::new(Log { taken: [NOTHING; 64], count: 0 }));

const PC_OFFSETS: u64 = 0xffff;

fn log() -> &'static mut Log {
    // SAFETY: as for Sync.
    unsafe { &mut *LOG.0.get() }
}

fn has_far(class: u64) -> bool {
    matches!(class, 0x20..=0x25 | 0x34 | 0x35)
}

fn handle(frame: &mut Frame) {
    if frame.wants_to_leave() {
        return frame.leave_el0();
    }
    let far = if has_far(frame.class()) { frame.far } else { 0 };
    let log = log();
    if let Some(taken) = log.taken.get_mut(log.count) {
        *taken = Taken { esr: frame.esr, elr: frame.elr, spsr: frame.spsr, far };
    }
    log.count += 1;
    match frame.class() {
        class::SVC => {}
        class::ILLEGAL_STATE => frame.spsr &= !IL,
        // To where the call came from.
        class::INSTRUCTION_ABORT | class::INSTRUCTION_ABORT_LOWER | class::PC_ALIGNMENT => {
            frame.elr = frame.x[30];
        }
        _ => frame.elr += 4,
    }
}

/// Prints a line, with the exceptions since the last one.
fn show(name: &str, values: &[u64]) {
    uart::write(name);
    for &value in values {
        uart::put(b' ');
        number(value);
    }
    let log = log();
    for taken in log.taken.iter().take(log.count) {
        uart::write(" |");
        for value in [taken.esr, taken.elr & PC_OFFSETS, taken.spsr, taken.far] {
            uart::put(b' ');
            number(value);
        }
    }
    log.count = 0;
    line("");
}

fn run() -> Outcome {
    write_register!("oslar_el1", 0);
    gic::start(0);
    firmware::look();
    timers::look();
    interrupts::look();
    debug::look();
    exclusives::look();
    translation::start();
    translation::let_el0_read();
    exclusives::look_translated();
    crossings::look_translated();
    translation::stop();
    Ok(0)
}

stepwell_guests::guest!("corner_cases", run, handle);
