//! The position of a running vCPU's domain, where its machine counts instructions: see
//! [`super::counted`].

use crate::cpu::Cpu;
use crate::domain::bit;
use crate::vcpu::running::Running;

/// At a boundary: whether a stop is due that was asked for, and whether the turn is over.
#[must_use]
pub fn what_is_due<C: Cpu>(running: &Running<'_, C>) -> (bool, bool) {
    let Some(timeline) = &running.domain.timeline else { return (false, false) };
    let mut timeline = timeline.lock();
    timeline.heed_call();
    (timeline.is_reached(), timeline.is_turn_over())
}

/// The vCPU, which alone can move, begins its next turn: as if it had been chosen, which it is where it
/// was stopped here.
pub fn begin_turn<C: Cpu>(running: &Running<'_, C>) {
    if let Some(timeline) = &running.domain.timeline {
        let _itself = timeline.lock().next_turn(bit(running.index), None);
    }
}

/// EL2 has carried an instruction out that the CPU has not counted.
#[inline]
pub fn count<C: Cpu>(running: &mut Running<'_, C>) {
    if let Some(timeline) = &running.domain.timeline {
        timeline.lock().count();
        running.core.executed += 1;
    }
}

/// The CPU has counted an instruction that EL2 carries out and counts.
pub fn uncount<C: Cpu>(running: &mut Running<'_, C>) {
    if let Some(timeline) = &running.domain.timeline {
        timeline.lock().uncount(1);
        running.core.executed = running.core.executed.saturating_sub(1);
    }
}

/// The guest's counter, where it counts instructions.
#[inline]
pub fn clock<C: Cpu>(running: &Running<'_, C>) -> Option<u64> {
    running.domain.timeline.as_ref().map(|timeline| timeline.lock().clock())
}

/// Puts the counter back to where it was before an instruction was tried.
pub fn set_clock<C: Cpu>(running: &Running<'_, C>, clock: Option<u64>) {
    if let (Some(timeline), Some(clock)) = (&running.domain.timeline, clock) {
        timeline.lock().set_clock(clock);
    }
}

/// Tells whether a timer's interrupt that waits to be acknowledged is not to be withdrawn here.
///
/// The guest may withdraw it by switching the timer off, masking or moving it, which does not trap. A
/// vCPU whose machine does not count is stepped until then ([`super::step::while_timer_is_pending`]);
/// here that would be seen only where something else has it exit, and an exit for a stop would then make
/// a difference. So it is withdrawn at positions that [`crate::timeline::Timeline::next_look`] has, where
/// the guest accesses a device, which is part of the run, and nowhere else.
#[must_use]
pub fn keeps_interrupt<C: Cpu>(running: &Running<'_, C>) -> bool {
    let due = running.core.lines.virtual_timer_due;
    let timeline = running.domain.timeline.as_ref();
    timeline.is_some_and(|timeline| !timeline.lock().is_look_due(due))
}
