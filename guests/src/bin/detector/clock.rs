//! The clock itself: it neither jumps nor goes back, and both counters are one.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::{instruction, read_register};

use crate::tell;

/// Longer than anything here takes, on a busy host too.
const JUMP_US: u64 = 1_300_000;

static BEGIN: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);
static HAS_JUMPED: AtomicU64 = AtomicU64::new(0);
static IS_WRONG: AtomicU64 = AtomicU64::new(0);

/// Ticks of so many microseconds.
pub fn ticks(us: u64) -> u64 {
    read_register!("cntfrq_el0") / 1_000_000 * us
}

/// The counter, minding how far it has gone since it was read last: this program never does anything
/// for a tenth of that without reading it.
pub fn now() -> u64 {
    // Before the counter: an interrupt's handler may come here in between.
    let last = LAST.load(Relaxed);
    instruction!("isb");
    let now = read_register!("cntvct_el0");
    LAST.fetch_max(now, Relaxed);
    if now < last {
        IS_WRONG.store(1, Relaxed);
    } else if now - last > ticks(JUMP_US) {
        HAS_JUMPED.store(1, Relaxed);
    }
    now
}

/// At reset.
pub fn begin() {
    let now = read_register!("cntvct_el0");
    BEGIN.store(now, Relaxed);
    LAST.store(now, Relaxed);
}

/// Ticks that something takes.
pub fn measure(act: impl FnOnce()) -> u64 {
    let start = now();
    act();
    now() - start
}

/// The least of several measurements of each: what the machine does besides makes them longer. They are made
/// in turns, so that all have their share of that.
pub fn least_each<const N: usize>(mut acts: [&mut dyn FnMut(); N]) -> [u64; N] {
    let mut least = [u64::MAX; N];
    for _ in 0..8 {
        for (least, act) in least.iter_mut().zip(&mut acts) {
            *least = measure(act).max(1).min(*least);
        }
    }
    least
}

pub fn look() {
    for _ in 0..500 {
        let first = now();
        instruction!("isb");
        let physical = read_register!("cntpct_el0");
        if physical < first || now() < physical {
            IS_WRONG.store(1, Relaxed);
        }
    }
    tell("clock-goes-back", IS_WRONG.swap(0, Relaxed) != 0);
    tell("clock-jumps", HAS_JUMPED.swap(0, Relaxed) != 0);
    // Nobody waits minutes for a board without firmware.
    tell("clock-begins-late", BEGIN.load(Relaxed) > ticks(300_000_000));
}
