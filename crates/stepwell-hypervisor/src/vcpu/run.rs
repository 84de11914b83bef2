//! Running a vCPU freely: every exit handled, nothing reported, until something stops it.

use super::debug::Breakpoints;
use super::exit::{Handled, handle};
use super::pages::{self, Root};
use super::{End, Running, debug, interrupt, psci, region, time};

/// Runs until the vCPU has a reason to stop or is asked to.
pub fn run(running: &mut Running<'_>) -> End {
    time::release(running);
    running.core.context.forget_pages();
    // It may stand within an exclusive sequence, with its load executed under a step.
    let mut is_armed = running.core.monitor.armed().is_some();
    loop {
        region::stand_aside(running);
        if running.is_called() {
            return End::Asked;
        }
        // What stands at the PC may have been reported: then the first instruction goes past it.
        let pc = running.core.context.elr;
        let reported = running.core.reported_pc.take() == Some(pc);
        let watch = running.core.debug.reported_watch;
        let mut breakpoints = if reported { Breakpoints::PastFirst } else { Breakpoints::On };
        let end = if core::mem::take(&mut is_armed) {
            finish_sequence(running, reported)
        } else {
            once(running, &mut breakpoints)
        };
        if let Some(end) = end {
            if reported && end == End::Asked && running.core.context.elr == pc {
                // It has not executed: nor is it to be reported anew.
                running.core.reported_pc = Some(pc);
                running.core.debug.reported_watch = watch;
            }
            return end;
        }
    }
}

/// Goes on within an exclusive sequence, the others standing aside.
fn finish_sequence(running: &mut Running<'_>, is_reported: bool) -> Option<End> {
    if is_reported || debug::breakpoint_at_pc(running).is_none() {
        return super::step::past_breakpoint(running);
    }
    // A breakpoint that is to be reported first: its store fails then.
    running.core.monitor.clear();
    region::release(running);
    None
}

/// Enters the guest once, with breakpoints as told, and handles the exit.
pub fn once(running: &mut Running<'_>, breakpoints: &mut Breakpoints) -> Option<End> {
    if *breakpoints == Breakpoints::PastFirst && debug::is_reported_at_pc(running) {
        *breakpoints = Breakpoints::On;
        return super::step::past_breakpoint(running);
    }
    *breakpoints = Breakpoints::On;
    if psci::suspend(running) {
        return None;
    }
    if debug::must_step_for_guest(running) {
        return super::step::guests_own_step(running);
    }
    pages::select(running, Root::Running);
    interrupt::load(running, false);
    debug::load(running);
    let vector = running.core.context.enter();
    interrupt::sync(running);
    let handled = handle(running, vector);
    time::update_lines(running);
    match handled {
        Handled::Resume | Handled::Emulated | Handled::Injected => None,
        Handled::Past => super::step::past_breakpoint(running),
        Handled::Open => super::step::with_nothing_withheld(running),
        Handled::Stop(reason) => Some(End::Stop(reason)),
        Handled::SwitchedOff => Some(End::SwitchedOff),
    }
}
