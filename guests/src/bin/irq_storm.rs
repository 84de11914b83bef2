//! An interrupt that is pending at every instruction.
//!
//! The virtual timer's deadline lies in the past, and the handler leaves it so for its first 1,000
//! entries. Unstepped, the counting loop starts after them; with interrupts held, each of its
//! steps is taken over a pending interrupt.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::report::{Outcome, check, require};
use stepwell_guests::{instruction, write_register};

stepwell_guests::define_exact_end!();

const ENTRIES: u64 = 1_000;
const COUNT: u64 = 5_000;

static TAKEN: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .text
    .globl loop_start, loop_end
count:
    mov     x1, #0
    msr     daifclr, #2
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
    safe fn count(n: u64) -> u64;
}

fn handle(frame: &mut Frame) {
    if !frame.is_interrupt() {
        exception::unexpected(frame);
    }
    let intid = gic::acknowledge();
    if intid == u64::from(timer::INTID) {
        TAKEN.store(TAKEN.load(Relaxed) + 1, Relaxed);
        if TAKEN.load(Relaxed) >= ENTRIES {
            timer::stop();
        }
    }
    if intid != gic::SPURIOUS {
        gic::end(intid);
    }
}

fn run() -> Outcome {
    gic::start(0);
    gic::enable(0, timer::INTID);
    write_register!("cntv_cval_el0", 0);
    write_register!("cntv_ctl_el0", 1);
    let counted = count(COUNT);
    exact_end();
    check("count", counted, COUNT)?;
    // They come only now if they were held until here.
    let taken = timer::wait_for(&TAKEN, ENTRIES, timer::ticks_of_us(2_000_000));
    instruction!("msr daifset, #2");
    require("entries", taken)?;
    Ok(counted)
}

stepwell_guests::guest!("irq_storm", run, handle);
