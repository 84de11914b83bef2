//! Running a vCPU freely: every exit handled, nothing reported, until something stops it.

use super::exit::handle;
use super::pages;
use super::step::{self, TimerSteps};
use super::{debug, interrupt, psci, quiesce, time};
use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::vcpu::handled::Handled;
use crate::vcpu::roots::Root;
use crate::vcpu::running::{End, Running};
use crate::vcpu::shadow::Breakpoints;
use stepwell_arch::esr::{EsrEl2, ec};
use stepwell_protocol::StopReason;

/// How long a vCPU runs freely at a time while its timer's interrupt is pending, where it cannot be
/// stepped: see [`step::while_timer_is_pending`].
const SEQUENCE_NS: u64 = 20_000;

/// Runs until the vCPU has a reason to stop or is asked to.
pub fn run<C: Cpu>(running: &mut Running<'_, C>) -> End {
    time::begin_run(running);
    running.core.context.forget_pages();
    // It may be stopped within an exclusive sequence, with its load executed under a step.
    let mut is_armed = running.core.monitor.armed().is_some();
    loop {
        quiesce::wait_if_quiesced(running);
        if running.is_called() {
            return End::Asked;
        }
        // What is at the PC may have been reported: then the first instruction goes past it.
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

/// Goes on within an exclusive sequence, the others quiesced.
fn finish_sequence<C: Cpu>(running: &mut Running<'_, C>, is_reported: bool) -> Option<End> {
    if is_reported || debug::breakpoint_at_pc(running).is_none() {
        return step::past_breakpoint(running);
    }
    // A breakpoint that is to be reported first: its store fails then.
    running.core.monitor.clear();
    quiesce::resume_others(running);
    None
}

/// Enters the guest once, with breakpoints as told, and handles the exit.
pub fn once<C: Cpu>(running: &mut Running<'_, C>, breakpoints: &mut Breakpoints) -> Option<End> {
    if *breakpoints == Breakpoints::PastFirst && debug::is_reported_at_pc(running) {
        *breakpoints = Breakpoints::On;
        return with_its_sequence(running, step::past_breakpoint);
    }
    *breakpoints = Breakpoints::On;
    if psci::suspend(running) {
        return None;
    }
    if debug::must_step_for_guest(running) {
        return step::guests_own_step(running);
    }
    if time::is_virtual_timer_offered(running) {
        match step::while_timer_is_pending(running) {
            TimerSteps::Ended(end) => return Some(end),
            TimerSteps::Settled => return None,
            TimerSteps::Freely => running.cpu.interrupt_in(SEQUENCE_NS),
        }
    }
    enter(running)
}

/// Enters the guest, and does what the exit asks for.
fn enter<C: Cpu>(running: &mut Running<'_, C>) -> Option<End> {
    pages::select(running, Root::Running);
    interrupt::load(running, false);
    debug::load(running);
    time::enter(running);
    let vector = running.cpu.enter(&mut running.core.context);
    time::exit(running);
    interrupt::sync(running);
    // What the guest asks for is answered from what its timers are now, and may change them.
    time::update_lines(running);
    let pc = running.core.pc();
    let handled = handle(running, vector);
    time::update_lines(running);
    match handled {
        Handled::Resume | Handled::Injected => None,
        // A call to EL2 clears the monitor on every machine.
        Handled::Emulated if EsrEl2(running.core.context.esr).ec() == ec::HVC64 => None,
        Handled::Emulated => {
            // One that began at a device is stepped to its store.
            let is_armed = running.core.monitor.armed().is_some();
            if is_armed || pages::is_in_sequence(running, pc) {
                step::repeat_sequence(running)
            } else {
                None
            }
        }
        Handled::Past => with_its_sequence(running, step::past_breakpoint),
        Handled::Unrestricted => with_its_sequence(running, step::with_nothing_withheld),
        // The exception has cleared the monitor: this store could not succeed, however often it is
        // tried. The one that is tried next, under a step, can.
        Handled::Stop(StopReason::Watchpoint { .. }) if pages::is_store_exclusive(running) => {
            step::repeat_sequence(running)
        }
        Handled::Stop(reason) => Some(End::Stop(reason)),
        Handled::SwitchedOff => Some(End::SwitchedOff),
    }
}

/// Has the instruction at the PC executed under a step, and what is left of an exclusive sequence
/// around it, which the exit broke.
fn with_its_sequence<C: Cpu>(
    running: &mut Running<'_, C>,
    step: impl FnOnce(&mut Running<'_, C>) -> Option<End>,
) -> Option<End> {
    let is_broken = pages::is_in_sequence(running, running.core.pc());
    let end = step(running);
    if end.is_none() && is_broken { step::repeat_sequence(running) } else { end }
}
