//! Stepping a vCPU that otherwise runs freely past something that is in its way.
//!
//! A breakpoint that is come to at full speed breaks an exclusive sequence, as any exception does:
//! its store fails, and the guest tries again and comes to the breakpoint again, for ever. So a
//! hidden one has the load-exclusive before it stop the guest, too ([`crate::views`]), and from
//! there on the sequence is stepped, with the monitor kept at EL2, while the other vCPUs are
//! quiesced ([`crate::vcpu::quiesce`]). A breakpoint in it stops the domain with the monitor kept,
//! and the sequence goes on from there when the domain does: the others are stopped in between, and
//! quiesced again before they are let go. So no store of theirs falls between the load and the
//! store, and values that come back (ABA) cannot deceive the compare-and-swap.
//!
//! A breakpoint by virtual address has no such load. Nor has what traps between a load-exclusive
//! and its store because of us: a register, a device, a page that is withheld. All of these break
//! the sequence once. Then the rest of it is stepped, round its loop and to its store, which
//! succeeds ([`repeat_sequence`]): on the guest's board nothing would have come in between.

use super::debug;
use super::stepper::Stepper;
use super::switch::{disable, enable};
use crate::cpu::Cpu;
use crate::vcpu::pages;
use crate::vcpu::quiesce::{self, SEQUENCE_MAX};
use crate::vcpu::roots::Root;
use crate::vcpu::running::{End, Running};
use crate::vcpu::time;
use stepwell_protocol::{InterruptPolicy, StopReason};

/// Executes the instruction at the PC with breakpoints off, in a vCPU that otherwise runs freely;
/// an exclusive sequence to its end, because a step in the middle would break it, or to a
/// breakpoint in it. Where it stops there the monitor is kept, and the sequence goes on from there.
pub fn past_breakpoint<C: Cpu>(running: &mut Running<'_, C>) -> Option<End> {
    step_past(running, Root::Guarded)
}

/// As [`past_breakpoint`], with nothing withheld in stage 2 while the instruction executes.
pub fn with_nothing_withheld<C: Cpu>(running: &mut Running<'_, C>) -> Option<End> {
    step_past(running, Root::Unrestricted)
}

fn step_past<C: Cpu>(running: &mut Running<'_, C>, root: Root) -> Option<End> {
    if enable(running).is_err() {
        // No guest comes here: AArch32 above EL0 does not step.
        return None;
    }
    let mut stepper = free_stepper(running);
    stepper.root = root;
    let mut end = None;
    for _ in 0..SEQUENCE_MAX {
        if stepper.is_own_step_pending() {
            break;
        }
        end = stepper.one(1);
        if end.is_some() || stepper.running.core.monitor.armed().is_none() {
            break;
        }
        if stepper.has_breakpoints && debug::breakpoint_at_pc(stepper.running).is_some() {
            end = Some(End::Stop(StopReason::Breakpoint));
            break;
        }
        (stepper.past_first, stepper.root) = (true, Root::Guarded);
    }
    finish(running, end)
}

/// A stepper of a vCPU that otherwise runs freely.
fn free_stepper<'a, 'b, C: Cpu>(running: &'a mut Running<'b, C>) -> Stepper<'a, 'b, C> {
    let time = time::go_by_steps(running);
    let mut stepper = Stepper::new(running, InterruptPolicy::Hold, time);
    stepper.is_stepping_past = true;
    let control = stepper.running.domain.control.lock();
    stepper.quiesces_others = control.free && !control.by_turns;
    drop(control);
    stepper
}

fn finish<C: Cpu>(running: &mut Running<'_, C>, end: Option<End>) -> Option<End> {
    pages::settle(running);
    disable(running);
    time::go_on(running);
    if end.is_none() {
        // Where it stops, this waits until the domain is stopped.
        quiesce::resume_others(running);
        running.core.monitor.clear();
    }
    end
}

/// Steps from within an exclusive sequence that an exit of ours has broken, until its store has
/// succeeded, or so far that there is none. A guest that steps itself keeps its monitor anyway.
pub fn repeat_sequence<C: Cpu>(running: &mut Running<'_, C>) -> Option<End> {
    if debug::must_step_for_guest(running) || enable(running).is_err() {
        return None;
    }
    let level = running.core.pstate().el();
    let mut stepper = free_stepper(running);
    stepper.past_first = false;
    let mut end = None;
    let (mut left, mut is_armed) = (SEQUENCE_MAX, false);
    while left > 0 && !stepper.running.is_called() {
        // An exception leads out of it, and so does a return.
        if stepper.is_own_step_pending() || stepper.running.core.pstate().el() != level {
            break;
        }
        if stepper.has_breakpoints && debug::breakpoint_at_pc(stepper.running).is_some() {
            end = Some(End::Stop(StopReason::Breakpoint));
            break;
        }
        stepper.has_stored = false;
        end = stepper.one(1);
        if end.is_some() || stepper.has_stored {
            break;
        }
        left -= 1;
        if !is_armed && stepper.running.core.monitor.armed().is_some() {
            // Round its loop.
            (left, is_armed) = (SEQUENCE_MAX, true);
        }
    }
    finish(running, end)
}
