//! A busy loop under a 1 kHz tick on every CPU, and a net of SGIs: each tick tells all others. And
//! one clock: what a CPU reads is never before what another has read, on either counter.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::cpus::{self, CPUS_MAX};
use stepwell_guests::hardware::psci::{AFFINITY_INFO, call};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::report::{Outcome, check, require};
use stepwell_guests::{instruction, read_register, translation};

/// Turns of the busy loop, three instructions each.
const TURNS: u64 = 60_000;
/// Looks at the clock on each CPU, at least.
const LOOKS: u64 = 500;
const TICK_US: u64 = 1000;
const SGI: u32 = 5;

static CPUS: AtomicU64 = AtomicU64::new(1);
static READY: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
static SGIS: AtomicU64 = AtomicU64::new(0);
/// The latest time that any CPU has read.
static LATEST: AtomicU64 = AtomicU64::new(0);
/// Times that were before it, or where the two counters did not agree.
static WRONG: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .text
    .globl  busy_loop, loop_start, loop_end
busy_loop:
loop_start:
    add     x1, x1, x0
    subs    x0, x0, #1
    b.ne    loop_start
loop_end:
    mov     x0, x1
    ret
"#
);

unsafe extern "C" {
    safe fn busy_loop(turns: u64, sum: u64) -> u64;
}

fn handle(frame: &mut Frame) {
    if !frame.is_interrupt() {
        exception::unexpected(frame);
    }
    let intid = gic::acknowledge();
    if intid == gic::SPURIOUS {
        return;
    }
    if intid == u64::from(timer::INTID) {
        timer::start(timer::ticks_of_us(TICK_US));
        let cpu = cpus::number();
        let all = (1 << CPUS.load(Relaxed)) - 1;
        gic::send_sgi(u64::from(SGI), all & !(1 << cpu));
        TICKS.fetch_add(1, Relaxed);
    } else {
        SGIS.fetch_add(1, Relaxed);
    }
    gic::end(intid);
}

fn begin(cpu: u64) {
    gic::start(cpu);
    gic::enable(cpu, timer::INTID);
    gic::enable(cpu, SGI);
    timer::start(timer::ticks_of_us(TICK_US));
    instruction!("msr daifclr, #2");
}

fn look_at_the_clock() {
    let latest = LATEST.load(Acquire);
    instruction!("isb");
    let first = read_register!("cntvct_el0");
    instruction!("isb");
    let physical = read_register!("cntpct_el0");
    instruction!("isb");
    let last = read_register!("cntvct_el0");
    if first < latest || physical < first || last < physical {
        WRONG.fetch_add(1, Relaxed);
    }
    LATEST.fetch_max(last, Release);
}

extern "C" fn secondary() -> ! {
    translation::join();
    begin(cpus::number() as u64);
    READY.fetch_add(1, Release);
    let mut looks = 0;
    while STOP.load(Acquire) == 0 || looks < LOOKS {
        look_at_the_clock();
        looks += 1;
    }
    instruction!("msr daifset, #2");
    timer::stop();
    DONE.fetch_add(1, Release);
    cpus::off()
}

fn run() -> Outcome {
    translation::start();
    while CPUS.load(Relaxed) < CPUS_MAX as u64 && call(AFFINITY_INFO, CPUS.load(Relaxed), 0, 0) == 1
    {
        check("CPU_ON", cpus::start(CPUS.load(Relaxed) as usize, secondary), 0)?;
        CPUS.fetch_add(1, Relaxed);
    }
    let others = CPUS.load(Relaxed) - 1;
    while READY.load(Acquire) < others {}
    begin(0);
    check("the sum", busy_loop(TURNS, 0), TURNS * (TURNS + 1) / 2)?;
    let mut looks = 0;
    while looks < LOOKS || TICKS.load(Relaxed) < 10 {
        look_at_the_clock();
        looks += 1;
    }
    STOP.store(1, Release);
    while DONE.load(Acquire) < others {}
    instruction!("msr daifset, #2");
    check("wrong times", WRONG.load(Acquire), 0)?;
    require("SGIs", others == 0 || SGIS.load(Relaxed) > 0)?;
    Ok(others + 1)
}

stepwell_guests::guest!("ticks", run, handle);
