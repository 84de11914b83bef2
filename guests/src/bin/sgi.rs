//! Software-generated interrupts that a CPU sends to itself.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::instruction;
use stepwell_guests::report::{Outcome, check, require};

stepwell_guests::define_exact_end!();

static TAKEN: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);

fn handle(frame: &mut Frame) {
    if !frame.is_interrupt() {
        exception::unexpected(frame);
    }
    let intid = gic::acknowledge();
    if intid != gic::SPURIOUS {
        LAST.store(intid, Relaxed);
        gic::end(intid);
        TAKEN.store(TAKEN.load(Relaxed) + 1, Relaxed);
    }
}

fn run() -> Outcome {
    gic::start(0);
    for intid in 0..16 {
        gic::enable(0, intid);
    }
    // Masked: pending, not taken.
    gic::send_sgi(3, 1);
    check("masked SGI", TAKEN.load(Relaxed), 0)?;
    exact_end();
    instruction!("msr daifclr, #2");
    let second = timer::ticks_of_us(1_000_000);
    require("unmasked SGI", timer::wait_for(&TAKEN, 1, second))?;
    check("its INTID", LAST.load(Relaxed), 3)?;
    for intid in 0..16 {
        gic::send_sgi(intid, 1);
        require("each SGI", timer::wait_for(&TAKEN, intid + 2, second))?;
        check("each INTID", LAST.load(Relaxed), intid)?;
    }
    // To all but self, of whom there are none: nothing arrives.
    gic::send_sgi(5 | 1 << 16, 0);
    timer::spin(timer::ticks_of_us(100));
    check("SGI to the others", TAKEN.load(Relaxed), 17)?;
    Ok(17)
}

stepwell_guests::guest!("sgi", run, handle);
