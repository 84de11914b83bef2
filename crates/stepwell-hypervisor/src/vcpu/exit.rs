//! Why a guest came to EL2, and what the machine would have done about it.

use super::{Running, coprocessor, debug, inject, interrupt, memory, psci, system};
use crate::hw::world::Vector;
use stepwell_arch::esr::{EsrEl1, EsrEl2, ec};
use stepwell_engine::MdscrAround;
use stepwell_engine::completion::carried_out;
use stepwell_engine::own_step::{self, GuestDebug};
use stepwell_wire::{DomainEnding, FaultKind, GuestFault, StopReason};

/// What became of an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The guest goes on where it was; the instruction at its PC has not executed.
    Resume,
    /// The instruction was carried out and the PC moved past it.
    Emulated,
    /// The guest entered an exception.
    Injected,
    /// The instruction at the PC is to execute this once with breakpoints off.
    Past,
    /// The instruction at the PC is to execute this once with nothing withheld in stage 2.
    Open,
    /// The domain is to stop; the instruction at the PC has not executed.
    Stop(StopReason),
    /// The guest switched the vCPU off, or its domain ended.
    SwitchedOff,
}

/// Handles an exit that is no step.
pub fn handle(running: &mut Running<'_>, vector: Vector) -> Handled {
    match vector {
        Vector::Irq | Vector::Fiq => {
            interrupt::take_all(running);
            Handled::Resume
        }
        Vector::SError => system_error(running),
        Vector::Synchronous => synchronous(running),
    }
}

fn synchronous(running: &mut Running<'_>) -> Handled {
    let esr = EsrEl2(running.core.context.esr);
    match esr.ec() {
        ec::DABT_LOWER => memory::data_abort(running, esr),
        ec::IABT_LOWER => memory::instruction_abort(running, esr),
        ec::HVC64 => hypervisor_call(running),
        ec::SMC64 => privileged_call(running, esr),
        ec::SYSTEM_REGISTER => system::access(running, esr.system_register()),
        ec::BREAKPOINT_LOWER => debug::breakpoint(running),
        ec::WATCHPOINT_LOWER => debug::watchpoint(running, esr),
        // Only a guest that steps itself has these, and then it is stepped for; see `run`.
        ec::SOFTWARE_STEP_LOWER => Handled::Past,
        ec::BKPT32 => {
            // IL is as the instruction is: T32's has 2 bytes.
            inject::synchronous(running, EsrEl1(esr.0), None)
        }
        ec::BRK64 => debug::brk(running, esr),
        // FP and SVE are not trapped, and the rest has no business at EL2 from a guest that we
        // configured: what the CPU does not have is undefined.
        ec::UNKNOWN | ec::FP | ec::SVE => inject::undefined(running),
        ec::CP15_MCR_MRC | ec::CP14_MCR_MRC => coprocessor::transfer(running, esr),
        ec::CP15_MCRR_MRRC | ec::CP14_MRRC => coprocessor::transfer_pair(running, esr),
        ec::CP14_LDC_STC => coprocessor::transfer_memory(running, esr),
        _ => fault(running, FaultKind::UnknownException, 0),
    }
}

/// Moves the PC past the trapped instruction that was carried out.
pub fn advance(running: &mut Running<'_>) {
    let guest = running.core.debug.guest();
    advance_under(running, guest);
}

/// As [`advance`], where the instruction may have changed debug registers: `guest` is from before it.
pub fn advance_under(running: &mut Running<'_>, guest: GuestDebug) {
    let bytes = EsrEl2(running.core.context.esr).instruction_bytes();
    advance_by(running, guest, bytes);
}

/// As [`advance_under`], by `bytes`, where there may have been no exception.
pub fn advance_by(running: &mut Running<'_>, guest: GuestDebug, bytes: u64) {
    let core = &mut *running.core;
    let around = MdscrAround { before: guest.mdscr, after: core.debug.mdscr() };
    let before = core.pstate();
    let (pc, pstate) = carried_out(around, core.pc(), before, bytes);
    core.debug.own_stepped = own_step::stepped(guest, before, false);
    (core.context.elr, core.context.spsr) = (pc.0, pstate.0);
}

/// An SError that came while the guest ran is the guest's: pending until its PSTATE.A is 0, or, under
/// a step, as the policy says. One that nobody can contain ends the domain.
fn system_error(running: &mut Running<'_>) -> Handled {
    let syndrome = EsrEl2(running.core.context.esr).serror();
    if syndrome.is_uncontainable() {
        return fault(running, FaultKind::SystemError, 0);
    }
    // Errors that come while one is pending are one error, as in VSESR_EL2.
    running.core.serror.get_or_insert(syndrome.0);
    Handled::Resume
}

/// HVC: the CPU has moved the PC past it.
fn hypervisor_call(running: &mut Running<'_>) -> Handled {
    let handled = psci::call(running);
    if handled == Handled::Emulated {
        let guest = running.core.debug.guest();
        advance_by(running, guest, 0);
    }
    handled
}

fn privileged_call(running: &mut Running<'_>, esr: EsrEl2) -> Handled {
    let pc = running.core.context.elr;
    let is_reported = running.core.reported_call.take() == Some(pc);
    let monitored =
        running.domain.control.lock().privileged_call & crate::domain::bit(running.index);
    if monitored != 0 && !is_reported {
        running.core.reported_call = Some(pc);
        return Handled::Stop(StopReason::PrivilegedCall { immediate: esr.call().immediate() });
    }
    // A board without EL3, whose PSCI is called by HVC: SMC is undefined.
    inject::undefined(running)
}

/// Ends the domain for what its guest did.
pub fn fault(running: &mut Running<'_>, kind: FaultKind, address: u64) -> Handled {
    let context = &running.core.context;
    let fault =
        GuestFault { vcpu: running.index as u8, pc: context.elr, esr: context.esr, address, kind };
    running.domain.end(DomainEnding::Fault(fault));
    Handled::SwitchedOff
}
