//! The scenario that Stepwell comes from: single-stepping a counting loop while a timer ticks fast.
//!
//! Interrupts are enabled, the virtual timer fires every 50 µs and is programmed anew by its
//! handler. Two SMCs are back to back, as a privileged-call monitor's user would place them: on a
//! machine without EL3 they are undefined and skipped, and KVM answers them in X0. Then a loop counts to 100,000. A stepper
//! that loses to the interrupt sees only the handler, one that mishandles the SMC never gets past
//! it, one that re-arms wrongly loses counts.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame, class};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::instruction;
use stepwell_guests::report::{Outcome, check, require};

stepwell_guests::define_exact_end!();

const COUNT: u64 = 100_000;
const PERIOD_US: u64 = 50;

static TICKS: AtomicU64 = AtomicU64::new(0);
static SKIPPED: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .text
    .globl first_smc, loop_start, loop_end
calls_and_loop:
    mov     x9, x0
first_smc:
    smc     #0
    smc     #1
    mov     x0, x9
    mov     x1, #0
loop_start:
    add     x1, x1, #1
    subs    x0, x0, #1
    b.ne    loop_start
loop_end:
    mov     x0, x1
    ret
"#
);

unsafe extern "C" {
    safe fn calls_and_loop(n: u64) -> u64;
    safe static first_smc: u32;
}

fn handle(frame: &mut Frame) {
    if frame.is_interrupt() {
        let intid = gic::acknowledge();
        if intid == u64::from(timer::INTID) {
            TICKS.store(TICKS.load(Relaxed) + 1, Relaxed);
            timer::start(timer::ticks_of_us(PERIOD_US));
        }
        if intid != gic::SPURIOUS {
            gic::end(intid);
        }
    } else if frame.class() == class::UNKNOWN && is_smc(frame.elr) {
        SKIPPED.store(SKIPPED.load(Relaxed) + 1, Relaxed);
        frame.elr += 4;
    } else {
        exception::unexpected(frame);
    }
}

fn is_smc(pc: u64) -> bool {
    let first = (&raw const first_smc) as u64;
    pc == first || pc == first + 4
}

fn run() -> Outcome {
    gic::start(0);
    gic::enable(0, timer::INTID);
    timer::start(timer::ticks_of_us(PERIOD_US));
    instruction!("msr daifclr, #2");
    let count = calls_and_loop(COUNT);
    exact_end();
    check("count", count, COUNT)?;
    let ticked = timer::wait_for(&TICKS, 1, timer::ticks_of_us(2_000_000));
    instruction!("msr daifset, #2");
    timer::stop();
    require("ticks came", ticked)?;
    let skipped = SKIPPED.load(Relaxed);
    require("both SMCs undefined, or none", skipped == 0 || skipped == 2)?;
    Ok(count)
}

stepwell_guests::guest!("seed", run, handle);
