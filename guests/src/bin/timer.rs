//! The counters and the virtual timer.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::report::{Outcome, check, require};
use stepwell_guests::{instruction, read_register, write_register};

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

fn counters() -> Outcome {
    let mut virtual_before = read_register!("cntvct_el0");
    let mut physical_before = read_register!("cntpct_el0");
    for _ in 0..1000 {
        instruction!("isb");
        let virtual_now = read_register!("cntvct_el0");
        instruction!("isb");
        let physical_now = read_register!("cntpct_el0");
        require("CNTVCT monotonic", virtual_now >= virtual_before)?;
        require("CNTPCT monotonic", physical_now >= physical_before)?;
        virtual_before = virtual_now;
        physical_before = physical_now;
    }
    Ok(0)
}

fn registers() -> Outcome {
    let frequency = read_register!("cntfrq_el0");
    require("CNTFRQ plausible", (1_000_000..=4_000_000_000).contains(&frequency))?;
    timer::stop();
    check("CTL off", read_register!("cntv_ctl_el0") & 3, 0)?;
    write_register!("cntv_cval_el0", 0x0123_4567_89ab_cdef);
    check("CVAL", read_register!("cntv_cval_el0"), 0x0123_4567_89ab_cdef)?;
    write_register!("cntv_ctl_el0", 3);
    check("far deadline, masked", read_register!("cntv_ctl_el0"), 3)?;
    write_register!("cntv_cval_el0", 0);
    check("past deadline, masked", read_register!("cntv_ctl_el0"), 7)?;
    write_register!("cntv_tval_el0", 0x4000_0000);
    require("TVAL counts down", read_register!("cntv_tval_el0") as u32 <= 0x4000_0000)?;
    let now = read_register!("cntvct_el0");
    require("TVAL sets CVAL", read_register!("cntv_cval_el0") >= now)?;
    check("ISTATUS clear again", read_register!("cntv_ctl_el0"), 3)?;
    // All ones: never. It must neither fire nor wedge anything.
    write_register!("cntv_cval_el0", u64::MAX);
    check("CVAL all ones", read_register!("cntv_cval_el0"), u64::MAX)?;
    write_register!("cntv_ctl_el0", 1);
    check("never due", read_register!("cntv_ctl_el0"), 1)?;
    timer::stop();
    write_register!("cntv_cval_el0", 1 << 62);
    Ok(0)
}

fn run() -> Outcome {
    counters()?;
    registers()?;
    exact_end();
    gic::start(0);
    gic::enable(0, timer::INTID);
    instruction!("msr daifclr, #2");
    for round in 1..=20 {
        let start = read_register!("cntvct_el0");
        timer::start(timer::ticks_of_us(200));
        require("fires", timer::wait_for(&TAKEN, round, timer::ticks_of_us(2_000_000)))?;
        instruction!("isb");
        let passed = read_register!("cntvct_el0") - start;
        require("not early", passed >= timer::ticks_of_us(200))?;
    }
    timer::spin(timer::ticks_of_us(1000));
    check("no more than asked for", TAKEN.load(Relaxed), 20)?;
    Ok(20)
}

stepwell_guests::guest!("timer", run, handle);
