//! What tells of a pending interrupt, and of one that is withdrawn: every register agrees, at once.
//!
//! All of it with interrupts masked, and once more unmasked, which is for a stepper that holds them
//! back: there each looks as pending as if PSTATE masked it. Where the first one is taken instead,
//! nobody holds anything, and the result says 0 rather than 1.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::{gic, read32, timer, write32};
use stepwell_guests::report::{Outcome, check, require};
use stepwell_guests::{instruction, read_register, write_register};

const PHYSICAL_TIMER: u32 = 30;
const SGI: u32 = 2;
const FAST_SGI: u32 = 3;
const ISR_I: u64 = 1 << 7;
const ISR_F: u64 = 1 << 6;
const ENABLE: u64 = 1;
const IMASK: u64 = 2;
const ISTATUS: u64 = 4;
/// A deadline that never comes.
const FAR: u64 = 1 << 60;

static TAKEN: AtomicU64 = AtomicU64::new(0);

fn handle(frame: &mut Frame) {
    match frame.vector % 4 {
        1 => gic::end(gic::acknowledge()),
        2 => write_register!("icc_eoir0_el1", read_register!("icc_iar0_el1")),
        _ => exception::unexpected(frame),
    }
    TAKEN.store(TAKEN.load(Relaxed) + 1, Relaxed);
}

fn is_pending(intid: u32) -> u64 {
    u64::from(read32(gic::GICR_SGI + gic::ISPENDR) >> intid & 1)
}

/// Nothing is pending, whoever is asked.
fn nothing(intid: u32) -> Outcome {
    check("ISR, nothing pending", read_register!("isr_el1"), 0)?;
    check("HPPIR1, nothing pending", read_register!("icc_hppir1_el1"), gic::SPURIOUS)?;
    check("HPPIR0, nothing pending", read_register!("icc_hppir0_el1"), gic::SPURIOUS)?;
    check("ISPENDR, nothing pending", is_pending(intid), 0)?;
    check("IAR1, nothing pending", gic::acknowledge(), gic::SPURIOUS)?;
    Ok(0)
}

/// An interrupt of Group 1 is pending, whoever is asked.
fn pending(intid: u32) -> Outcome {
    check("ISR", read_register!("isr_el1"), ISR_I)?;
    check("HPPIR1", read_register!("icc_hppir1_el1"), intid.into())?;
    check("ISPENDR", is_pending(intid), 1)?;
    instruction!("wfi"); // does not wait
    check("ISR after WFI", read_register!("isr_el1"), ISR_I)?;
    Ok(0)
}

fn sgis() -> Outcome {
    gic::send_sgi(SGI.into(), 1);
    pending(SGI)?;
    check("IAR1", gic::acknowledge(), SGI.into())?;
    nothing(SGI)?;
    gic::end(SGI.into());
    nothing(SGI)?;
    write_register!("icc_sgi0r_el1", u64::from(FAST_SGI) << 24 | 1);
    check("ISR, Group 0", read_register!("isr_el1"), ISR_F)?;
    check("HPPIR0", read_register!("icc_hppir0_el1"), FAST_SGI.into())?;
    check("HPPIR1, Group 0", read_register!("icc_hppir1_el1"), gic::SPURIOUS)?;
    check("ISPENDR, Group 0", is_pending(FAST_SGI), 1)?;
    check("IAR1, Group 0", gic::acknowledge(), gic::SPURIOUS)?;
    check("IAR0", read_register!("icc_iar0_el1"), FAST_SGI.into())?;
    write_register!("icc_eoir0_el1", u64::from(FAST_SGI));
    nothing(FAST_SGI)
}

macro_rules! timer_agrees {
    ($intid:expr, $ctl:literal, $cval:literal, $counter:literal) => {{
        let now = || {
            instruction!("isb");
            read_register!($counter)
        };
        let due = || {
            write_register!($cval, now() + timer::ticks_of_us(20));
            write_register!($ctl, ENABLE);
            // Bounded, whatever the clock does: QEMU tells it once its main thread has come to it.
            (0..100_000_000).any(|_| read_register!($ctl) & ISTATUS != 0)
        };
        write_register!($ctl, 0);
        nothing($intid)?;
        for _ in 0..3 {
            require("due by time alone", due())?;
            pending($intid)?;
            write_register!($ctl, 0);
            nothing($intid)?;
            require("due, to be masked", due())?;
            pending($intid)?;
            write_register!($ctl, ENABLE | IMASK);
            nothing($intid)?;
            check("ISTATUS of a masked one", read_register!($ctl), ENABLE | IMASK | ISTATUS)?;
            write_register!($ctl, ENABLE);
            pending($intid)?;
            write_register!($cval, FAR);
            nothing($intid)?;
            check("ISTATUS of a moved one", read_register!($ctl), ENABLE)?;
            require("due, to be moved a little", due())?;
            pending($intid)?;
            let deadline = now() + timer::ticks_of_us(2_000);
            write_register!($cval, deadline);
            // It may end early, by the architecture; one for which something is pending always does.
            let waits = (1..=100).find(|_| {
                instruction!("wfi");
                now() >= deadline
            });
            require(concat!("WFI waits for a deadline moved in ", $cval), waits.is_some())?;
            pending($intid)?;
            check("IAR1 of the timer", gic::acknowledge(), u64::from($intid))?;
            write_register!($ctl, 0);
            gic::end(u64::from($intid));
            nothing($intid)?;
        }
    }};
}

fn timers() -> Outcome {
    timer_agrees!(timer::INTID, "cntv_ctl_el0", "cntv_cval_el0", "cntvct_el0");
    timer_agrees!(PHYSICAL_TIMER, "cntp_ctl_el0", "cntp_cval_el0", "cntpct_el0");
    Ok(0)
}

fn run() -> Outcome {
    gic::start(0);
    gic::enable_group_0();
    for intid in [SGI, FAST_SGI, timer::INTID, PHYSICAL_TIMER] {
        gic::enable(0, intid);
    }
    gic::set_group_1(0, FAST_SGI, false);
    write32(gic::GICR_SGI + gic::ICPENDR, u32::MAX);
    sgis()?;
    timers()?;
    instruction!("msr daifclr, #3");
    gic::send_sgi(SGI.into(), 1);
    instruction!("isb");
    if TAKEN.load(Relaxed) == 1 {
        return Ok(0);
    }
    check("IAR1, held", gic::acknowledge(), SGI.into())?;
    gic::end(SGI.into());
    sgis()?;
    timers()?;
    check("taken where all are held", TAKEN.load(Relaxed), 0)?;
    Ok(1)
}

stepwell_guests::guest!("pending", run, handle);
