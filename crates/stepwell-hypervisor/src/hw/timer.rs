//! The generic timer: the machine's counter, EL2's own timer, and the guest's virtual one.

use super::gic;
use super::registers::{isb, mrs, msr, wfi};
use spin::Once;
use stepwell_engine::clock::{COUNTER_AT_RESET, deadline_wraps};
use stepwell_vm::timeline::ticks_per_instruction;

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

/// Switches EL2's timer off, unless the guest's is to be looked at by it ([`set_offset`]).
pub fn cancel_interrupt() {
    msr!("cnthp_ctl_el2", 0);
    if is_overlooked(offset()) {
        set_offset(offset());
    }
}

/// What guests' counters show at reset.
///
/// Ahead of the machine's where a timer goes off by a negative CNTVOFF_EL2. QEMU since 8.2 takes the
/// wrapping sum of such an offset and a compare value for a deadline that never comes; it survives
/// sums that wrap, so that guests may begin at 0 there.
#[must_use]
pub fn counter_at_reset() -> u64 {
    static FOUND: Once<u64> = Once::new();
    *FOUND.call_once(|| if heeds_negative_offsets() { COUNTER_AT_RESET } else { 0 })
}

/// Tries the virtual timer with a negative offset, its interrupt masked. On the boot CPU, before any
/// guest runs there.
fn heeds_negative_offsets() -> bool {
    const IMASK: u64 = 1 << 1;
    const AHEAD: u64 = 1 << 20;
    // Time enough that the deadline is to come when it is set, though another program had the CPU.
    let (soon, patience) = (frequency_hz() / 50, frequency_hz() / 5);
    let mut is_due = false;
    msr!("cntvoff_el2", AHEAD.wrapping_neg());
    isb();
    for _ in 0..3 {
        let start = counter();
        msr!("cntv_cval_el0", start.wrapping_add(AHEAD).wrapping_add(soon));
        msr!("cntv_ctl_el0", ENABLE | IMASK);
        isb();
        if is_virtual_timer_due() {
            // It was late already, which tells nothing.
            continue;
        }
        while !is_virtual_timer_due() && counter().wrapping_sub(start) < patience {}
        is_due = is_virtual_timer_due();
        break;
    }
    msr!("cntv_ctl_el0", 0);
    msr!("cntv_cval_el0", 0);
    msr!("cntvoff_el2", 0);
    isb();
    is_due
}

fn is_virtual_timer_due() -> bool {
    const ISTATUS: u64 = 1 << 2;
    mrs!("cntv_ctl_el0") & ISTATUS != 0
}

/// Whether the machine would not have the guest's timer go off by such an offset.
fn is_overlooked(offset: u64) -> bool {
    offset.cast_signed() < 0 && counter_at_reset() == 0
}

/// CNTVOFF_EL2: what the guest's virtual counter lags behind the machine's.
///
/// Where the guest's is ahead, because its steps were worth more than they took, and its timer would not go
/// off by that ([`counter_at_reset`]), EL2's timer interrupts it every millisecond: QEMU looks at the
/// guest's timer when this register is written.
pub fn set_offset(offset: u64) {
    const LOOK_NS: u64 = 1_000_000;
    let compare = mrs!("cntv_cval_el0");
    if deadline_wraps(compare, offset) && counter_at_reset() != 0 {
        // As far away as one can be told; the guest may read it, but QEMU 7.2 does not hang.
        msr!("cntv_cval_el0", i64::MAX as u64);
    }
    msr!("cntvoff_el2", offset);
    isb();
    if is_overlooked(offset) {
        interrupt_in(LOOK_NS);
    }
}

/// CNTVOFF_EL2.
#[must_use]
pub fn offset() -> u64 {
    mrs!("cntvoff_el2")
}

/// How far the machine's counter is ahead of guests' at least, where it counts instructions: some 36 years.
const AHEAD_NS: u128 = 1 << 60;

/// Has the machine's counter get ahead of what guests' show that sleep, where instructions are counted.
/// Tells whether they are. On the boot CPU, once its interrupts are set up, and before any guest runs.
///
/// While every vCPU of such a guest waits, its clock goes on by what it waits for, and the machine's
/// does not. It would overtake that, and by how much depends on what EL2 has done: CNTVOFF_EL2 would be
/// positive in one run and negative in another, and QEMU since 8.2 takes a negative one for a deadline
/// that never comes, so that a guest finds its timer not to have gone off. While this CPU waits, QEMU's
/// `-icount sleep=off` has the counter go on to EL2's timer at once.
#[must_use]
pub fn get_ahead() -> bool {
    if !counts_instructions() {
        return false;
    }
    let ticks = AHEAD_NS * u128::from(frequency_hz()) / 1_000_000_000;
    let deadline = counter().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
    gic::enable_link(false);
    msr!("cnthp_cval_el2", deadline);
    msr!("cnthp_ctl_el2", ENABLE);
    isb();
    while counter() < deadline {
        wfi();
    }
    cancel_interrupt();
    gic::enable_link(true);
    true
}

/// Tells whether some instructions take as many ticks as they do where those are counted. Where the counter
/// shows real time, they take fewer on any CPU that executes one in less than 16 ns.
fn counts_instructions() -> bool {
    const INSTRUCTIONS: u64 = 1000;
    let ticks = INSTRUCTIONS * ticks_per_instruction(frequency_hz());
    (0..3).all(|_| {
        let before = counter();
        for round in 0..INSTRUCTIONS / 2 {
            // Two instructions at least: its own, and the loop's.
            core::hint::black_box(round);
        }
        counter().wrapping_sub(before) >= ticks
    })
}

/// Before an entry of which the counter counts the instructions: lets EL2's timer interrupt.
///
/// CNTVOFF_EL2 will be positive, which QEMU 7.2 does not survive where the guest's compare value plus
/// that wraps around. Such a value becomes one as far away as can be, by a rule that does not depend on
/// the machine's own time; the guest may read it.
pub fn begin_count() {
    const FAR: u64 = i64::MAX as u64;
    if mrs!("cntv_ctl_el0") & ENABLE != 0 && mrs!("cntv_cval_el0") > FAR {
        msr!("cntv_cval_el0", FAR);
    }
    msr!("cnthp_ctl_el2", ENABLE);
}

/// After the exit: the machine's counter goes on while EL2 works, and neither timer is to take that for
/// the guest's time.
pub fn end_count() {
    msr!("cnthp_ctl_el2", 0);
    msr!("cntvoff_el2", mrs!("cntpct_el0"));
    isb();
}
