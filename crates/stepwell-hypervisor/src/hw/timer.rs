//! The generic timer: the machine's counter, EL2's own timer, and the guest's virtual one.

use super::registers::{isb, mrs, msr};
use stepwell_engine::clock::deadline_wraps;

const ENABLE: u64 = 1;

/// The counter's frequency in Hz.
#[must_use]
pub fn frequency_hz() -> u64 {
    mrs!("cntfrq_el0")
}

/// The machine's counter.
#[must_use]
pub fn counter() -> u64 {
    isb();
    mrs!("cntpct_el0")
}

/// Has EL2's timer interrupt this CPU in `ns` nanoseconds, or before if that was asked for.
pub fn interrupt_in(ns: u64) {
    let ticks = u128::from(ns) * u128::from(frequency_hz()) / 1_000_000_000;
    let deadline = counter().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
    let is_on = mrs!("cnthp_ctl_el2") & ENABLE != 0;
    if !is_on || deadline < mrs!("cnthp_cval_el2") {
        msr!("cnthp_cval_el2", deadline);
        msr!("cnthp_ctl_el2", ENABLE);
    }
}

/// Switches EL2's timer off.
pub fn cancel_interrupt() {
    msr!("cnthp_ctl_el2", 0);
}

/// CNTVOFF_EL2: what the guest's virtual counter lags behind the machine's.
pub fn set_offset(offset: u64) {
    let compare = mrs!("cntv_cval_el0");
    if deadline_wraps(compare, offset) {
        // As far away as one can be told; the guest may read it, but QEMU does not hang.
        msr!("cntv_cval_el0", i64::MAX as u64);
    }
    msr!("cntvoff_el2", offset);
    isb();
}

/// CNTVOFF_EL2.
#[must_use]
pub fn offset() -> u64 {
    mrs!("cntvoff_el2")
}
