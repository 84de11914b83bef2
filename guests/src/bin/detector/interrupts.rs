//! Interrupts: what is pending is so for whoever asks, what is withdrawn is gone, and what is neither
//! masked nor held back comes.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{EL0, enter_el0};
use stepwell_guests::hardware::{gic, read32, timer};
use stepwell_guests::{instruction, read_register, write_register};

use crate::clock::{now, ticks};
use crate::{speed, syndrome, tell, value};

/// The SGIs that this program sends itself.
pub const SGIS: [u32; 2] = [2, 3];
const PHYSICAL_TIMER: u32 = 30;
const ENABLE: u64 = 1;
const IMASK: u64 = 2;
const ISTATUS: u64 = 4;
/// A deadline that never comes.
const FAR: u64 = 1 << 60;
/// How long anything is waited for.
const PATIENCE_US: u64 = 10_000_000;

core::arch::global_asm!(
    r#"
    .text
    .globl  detect_wfi, detect_wfe, detect_counter
detect_wfi:
    wfi
    svc     #0xff
detect_wfe:
    wfe
    svc     #0xff
detect_counter:
    mrs     x0, cntvct_el0
    svc     #0xff
"#
);

unsafe extern "C" {
    fn detect_wfi();
    fn detect_wfe();
    fn detect_counter();
}

/// Interrupts that were taken, and the last one's INTID.
pub static TAKEN: AtomicU64 = AtomicU64::new(0);
static INTID: AtomicU64 = AtomicU64::new(0);
/// The handler is to see how fast it is.
pub static MEASURES: AtomicU64 = AtomicU64::new(0);

/// A timer's interrupt came before its deadline.
static IS_EARLY: AtomicU64 = AtomicU64::new(0);

static mut STACK: [u128; 16] = [0; 16];

/// The handler.
pub fn take() {
    let measures = MEASURES.load(Relaxed) != 0;
    if measures {
        speed::before_acknowledge();
    }
    let intid = gic::acknowledge();
    if intid == gic::SPURIOUS {
        return;
    }
    if measures {
        speed::in_handler();
    }
    if intid == u64::from(timer::INTID) {
        IS_EARLY.fetch_or(u64::from(now() < read_register!("cntv_cval_el0")), Relaxed);
        timer::stop();
    }
    gic::end(intid);
    INTID.store(intid, Relaxed);
    TAKEN.store(TAKEN.load(Relaxed) + 1, Relaxed);
}

/// What tells of an interrupt: one bit each. ISR, HPPIR and ISPENDR.
fn who_has(intid: u32) -> u64 {
    instruction!("isb");
    u64::from(read_register!("isr_el1") >> 7 & 1 != 0)
        | u64::from(read_register!("icc_hppir1_el1") == u64::from(intid)) << 1
        | u64::from(read32(gic::GICR_SGI + gic::ISPENDR) >> intid & 1) << 2
}

/// Notes four bits more.
fn note(all: &mut u64, bits: u64) {
    *all = *all << 4 | bits;
}

macro_rules! timer {
    ($name:literal, $intid:expr, $ctl:literal, $cval:literal, $counter:literal) => {{
        let due = || {
            write_register!($cval, read_register!($counter) + ticks(20));
            write_register!($ctl, ENABLE);
            let start = now();
            while read_register!($ctl) & ISTATUS == 0 && now() - start < ticks(PATIENCE_US) {}
        };
        let mut seen = 0;
        due();
        note(&mut seen, who_has($intid));
        write_register!($ctl, 0);
        note(&mut seen, who_has($intid));
        due();
        write_register!($ctl, ENABLE | IMASK);
        note(&mut seen, who_has($intid));
        note(&mut seen, read_register!($ctl));
        write_register!($ctl, ENABLE);
        note(&mut seen, who_has($intid));
        write_register!($cval, FAR);
        note(&mut seen, who_has($intid));
        note(&mut seen, read_register!($ctl));
        due();
        note(&mut seen, u64::from(gic::acknowledge() == u64::from($intid)));
        note(&mut seen, who_has($intid));
        write_register!($ctl, 0);
        gic::end($intid.into());
        note(&mut seen, who_has($intid));
        value($name, seen);
    }};
}

fn sgis() {
    let mut seen = 0;
    for intid in SGIS {
        gic::send_sgi(intid.into(), 1);
        note(&mut seen, who_has(intid));
        instruction!("wfi"); // does not wait
        note(&mut seen, who_has(intid));
        note(&mut seen, gic::acknowledge());
        note(&mut seen, who_has(intid));
        gic::end(intid.into());
    }
    value("interrupts.sgi", seen);
}

/// Sends itself one that nothing masks. Returns how many came at once.
fn unmasked() -> u64 {
    TAKEN.store(0, Relaxed);
    instruction!("msr daifclr, #2");
    gic::send_sgi(SGIS[0].into(), 1);
    instruction!("isb");
    let taken = TAKEN.load(Relaxed);
    instruction!("msr daifset, #2");
    if taken == 0 {
        // Whoever holds it back makes it look as if it were masked.
        tell("held-interrupts-are-not-pending", who_has(SGIS[0]) != 7);
        gic::end(gic::acknowledge());
    }
    taken
}

fn traps() {
    let stack = (&raw mut STACK) as u64 + 256;
    let at_el0 = |code: unsafe extern "C" fn()| {
        syndrome(|| {
            enter_el0(code as *const () as u64, 0, EL0, stack);
        })
    };
    let sctlr = read_register!("sctlr_el1");
    // nTWI and nTWE clear.
    write_register!("sctlr_el1", sctlr & !(1 << 16 | 1 << 18));
    value("interrupts.wfi-at-el0", at_el0(detect_wfi));
    value("interrupts.wfe-at-el0", at_el0(detect_wfe));
    write_register!("sctlr_el1", sctlr);
    write_register!("cntkctl_el1", 0);
    value("interrupts.counter-at-el0", at_el0(detect_counter));
}

pub fn look() {
    gic::enable(0, PHYSICAL_TIMER);
    sgis();
    timer!("interrupts.virtual-timer", timer::INTID, "cntv_ctl_el0", "cntv_cval_el0", "cntvct_el0");
    timer!(
        "interrupts.physical-timer",
        PHYSICAL_TIMER,
        "cntp_ctl_el0",
        "cntp_cval_el0",
        "cntpct_el0"
    );
    traps();
    let taken = (0..8).map(|_| unmasked()).sum();
    tell("interrupts-are-held", taken == 0);
    tell("timers-are-early", IS_EARLY.swap(0, Relaxed) != 0);
    value("interrupts.taken", if taken == 0 { 8 } else { taken });
}
