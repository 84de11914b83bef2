//! WFI, WFE, SEV and SEVL.
//!
//! A WFI may end early by the architecture, so it is in a loop that asks for what it waits for.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::instruction;
use stepwell_guests::report::{Outcome, require};

stepwell_guests::define_exact_end!();

static TAKEN: AtomicU64 = AtomicU64::new(0);

fn handle(frame: &mut Frame) {
    if !frame.is_interrupt() {
        exception::unexpected(frame);
    }
    let intid = gic::acknowledge();
    if intid == u64::from(timer::INTID) {
        timer::stop();
        TAKEN.store(TAKEN.load(Relaxed) + 1, Relaxed);
    }
    if intid != gic::SPURIOUS {
        gic::end(intid);
    }
}

/// Waits, interrupts masked, until the timer's deadline has come.
#[inline(never)]
#[unsafe(link_section = ".text.timed.wfi")]
fn wait_masked() {
    // SAFETY: reads the timer's status.
    unsafe { asm!("2: wfi", "mrs {s}, cntv_ctl_el0", "tbz {s}, #2, 2b", s = out(reg) _) };
}

/// Waits, interrupts live, until the handler ran so many times.
#[inline(never)]
#[unsafe(link_section = ".text.timed.wfi")]
fn wait_live(times: u64) {
    while TAKEN.load(Relaxed) < times {
        // Masked between the check and the WFI, or the interrupt could come between them.
        // SAFETY: PSTATE.I is as before in the end.
        unsafe { asm!("msr daifset, #2") };
        if TAKEN.load(Relaxed) < times {
            // SAFETY: a hint.
            unsafe { asm!("wfi") };
        }
        // SAFETY: as above.
        unsafe { asm!("msr daifclr, #2", "isb") };
    }
}

fn run() -> Outcome {
    for _ in 0..3 {
        instruction!("sevl");
        instruction!("wfe");
        instruction!("sev");
        instruction!("wfe");
    }
    gic::start(0);
    gic::enable(0, timer::INTID);
    for _ in 0..5 {
        timer::start(timer::ticks_of_us(500));
        wait_masked();
        timer::stop();
    }
    require("masked", TAKEN.load(Relaxed) == 0)?;
    exact_end();
    instruction!("msr daifclr, #2");
    for round in 1..=20 {
        timer::start(timer::ticks_of_us(500));
        wait_live(round);
    }
    require("no more than asked for", TAKEN.load(Relaxed) == 20)?;
    Ok(20)
}

stepwell_guests::guest!("wfx", run, handle);
