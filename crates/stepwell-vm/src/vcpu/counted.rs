//! A vCPU on a machine that counts instructions: what it does at which position is the same each time.
//!
//! Each entry says what the guest's counter shows before its first instruction and when EL2's own timer
//! is to interrupt it, and each exit what it shows after the last: see [`crate::timeline`]. So a vCPU
//! stops at a position to the instruction, at full speed. Two rules make that repeatable.
//!
//! *Nothing interrupts the guest but what is a function of its position*: the end of its turn, a stop
//! that was asked for, its own timers. The link is served between turns.
//!
//! *A stop that is not part of the run leaves no trace.* An exit clears the CPU's exclusive monitor, and
//! a store-exclusive that comes next would fail. So where an exit that the guest did not ask for falls
//! between a load-exclusive and its store, the monitor is made up from what the load has read, and the
//! sequence is stepped to its end as any stepped one ([`super::step`]). The end of a turn is part of the
//! run, and clears the monitor each time.
//!
//! What an exit itself costs is a matter of the machine. On QEMU a load or store that traps before it
//! executes is not counted by the CPU, and is by EL2 once it has been carried out; WFI and HVC are; and
//! what is counted of a system register's access is [`super::block`]'s to say (docs/qemu.md,
//! "Instruction counting").

use super::count;
use super::{block, time};
use crate::cpu::{Cpu, Vector};
use crate::vcpu::running::Running;
use stepwell_arch::esr::{EsrEl2, ec};

/// As long as no guest executes at a time.
const FAR: u64 = 1 << 40;

/// Enters the guest. `steps`: for one instruction, which EL2's timer is not to come before or after.
pub fn enter<C: Cpu>(running: &mut Running<'_, C>, steps: bool) -> Vector {
    let Some(timeline) = &running.domain.timeline else {
        return running.cpu.enter(&mut running.core.context);
    };
    let (clock, due, next_look) = {
        let timeline = timeline.lock();
        let since = running.core.lines.virtual_timer_due;
        (timeline.clock(), timeline.due_at(), timeline.next_look(since))
    };
    let mut until = due;
    if steps {
        until = clock.saturating_add(FAR);
    } else {
        if let Some(deadline) = time::physical_deadline(running) {
            until = until.min(deadline.max(clock));
        }
        if time::is_virtual_timer_offered(running) {
            until = until.min(next_look);
        }
    }
    // The guest's own timer ends QEMU's block as EL2's does.
    let ends_at = time::virtual_deadline(running).map_or(until, |deadline| until.min(deadline));
    running.core.entered_at = running.core.context.elr;
    let (vector, after) = running.cpu.enter_counted(&mut running.core.context, clock, until);
    let mut timeline = timeline.lock();
    let after = if steps && has_not_stepped(running, vector) {
        after.saturating_sub(timeline.ticks_per_instruction())
    } else {
        after
    };
    timeline.set_clock(after);
    running.core.executed_all = after >= ends_at;
    running.core.executed = after.wrapping_sub(clock) / timeline.ticks_per_instruction().max(1);
    drop(timeline);
    if vector == Vector::Synchronous {
        uncount(running, steps);
    }
    vector
}

/// Takes back what has been counted of an instruction that came to EL2 instead of executing. That is
/// done before anything else, since a timer that is looked at by too late a position goes off too early.
fn uncount<C: Cpu>(running: &mut Running<'_, C>, steps: bool) {
    match EsrEl2(running.core.context.esr).ec() {
        ec::SYSTEM_REGISTER | ec::SMC64 => block::uncount(running, steps),
        // It may be in the place of the guest's instruction, which has not executed.
        ec::BRK64 => count::uncount(running),
        _ => {}
    }
}

/// Tells whether the step's exception was pending before an instruction: the one before it has taken an
/// exception to EL1. QEMU counts the instruction that the step's exception came in the place of.
fn has_not_stepped<C: Cpu>(running: &Running<'_, C>, vector: Vector) -> bool {
    let esr = EsrEl2(running.core.context.esr);
    vector == Vector::Synchronous && esr.ec() == ec::SOFTWARE_STEP_LOWER && !esr.step().isv()
}
