//! The virtual timer.
//!
//! Whatever loops on the clock lies in `.text.timed`: how often it turns is no property of the
//! program, and the tests leave those instructions out of a comparison.

use core::arch::asm;

/// The virtual timer's PPI.
pub const INTID: u32 = 27;

/// Programs a deadline so many ticks from now and enables the timer with its interrupt.
pub fn start(ticks: u64) {
    crate::write_register!("cntv_tval_el0", ticks);
    crate::write_register!("cntv_ctl_el0", 1);
}

/// Switches it off.
pub fn stop() {
    crate::write_register!("cntv_ctl_el0", 0);
}

/// Ticks of so many microseconds.
#[must_use]
pub fn ticks_of_us(us: u64) -> u64 {
    crate::read_register!("cntfrq_el0") / 1_000_000 * us
}

/// Spins until the virtual counter is so many ticks on.
#[inline(never)]
#[unsafe(link_section = ".text.timed.spin")]
pub extern "C" fn spin(ticks: u64) {
    // SAFETY: reads the counter, and clobbers what it says.
    unsafe {
        asm!("isb", "mrs {s}, cntvct_el0",
            "2: isb", "mrs {n}, cntvct_el0", "sub {n}, {n}, {s}", "cmp {n}, {t}", "b.lo 2b",
            s = out(reg) _, n = out(reg) _, t = in(reg) ticks, options(nostack));
    }
}

/// Spins until the word is at least `wanted`; false if so many ticks went by before.
#[inline(never)]
#[unsafe(link_section = ".text.timed.wait")]
pub fn wait_for(word: &core::sync::atomic::AtomicU64, wanted: u64, ticks: u64) -> bool {
    let result: u64;
    // SAFETY: reads the word, which lives as long as the reference, and the counter.
    unsafe {
        asm!("isb", "mrs {s}, cntvct_el0",
            "2: ldr {n}, [{w}]", "cmp {n}, {v}", "cset {r}, hs", "b.hs 3f",
            "isb", "mrs {n}, cntvct_el0", "sub {n}, {n}, {s}", "cmp {n}, {t}", "b.lo 2b", "3:",
            s = out(reg) _, n = out(reg) _, r = out(reg) result, w = in(reg) word.as_ptr(),
            v = in(reg) wanted, t = in(reg) ticks, options(nostack));
    }
    result != 0
}
