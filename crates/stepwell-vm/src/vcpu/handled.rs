//! What becomes of an exit, and what all who handle one have in common.

use super::count;
use super::running::Running;
use crate::cpu::Cpu;
use stepwell_arch::Va;
use stepwell_arch::esr::EsrEl2;
use stepwell_engine::MdscrAround;
use stepwell_engine::completion::carried_out;
use stepwell_engine::own_step::{self, GuestDebug};
use stepwell_protocol::{DomainEnding, FaultKind, GuestFault, StopReason};

/// What became of an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)] // copied by words where unaligned accesses are not to be had
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
    Unrestricted,
    /// The domain is to stop; the instruction at the PC has not executed.
    Stop(StopReason),
    /// The guest switched the vCPU off, or its domain ended.
    SwitchedOff,
}

/// Moves the PC past the trapped instruction that was carried out.
pub fn advance<C: Cpu>(running: &mut Running<'_, C>) {
    let guest = running.core.debug.guest();
    advance_under(running, guest);
}

/// As [`advance`], where the instruction may have changed debug registers: `guest` is from before it.
pub fn advance_under<C: Cpu>(running: &mut Running<'_, C>, guest: GuestDebug) {
    let bytes = EsrEl2(running.core.context.esr).instruction_bytes();
    advance_by(running, guest, bytes);
}

/// As [`advance_under`], by `bytes`, where there may have been no exception.
pub fn advance_by<C: Cpu>(running: &mut Running<'_, C>, guest: GuestDebug, bytes: u64) {
    let core = &mut *running.core;
    let around = MdscrAround { before: guest.mdscr, after: core.debug.mdscr() };
    let before = core.pstate();
    let (pc, pstate) = carried_out(around, core.pc(), before, bytes);
    core.debug.own_stepped = own_step::stepped(guest, before, false);
    (core.context.elr, core.context.spsr) = (pc.0, pstate.0);
    // The CPU has counted one that it has moved past.
    if bytes > 0 {
        count::count(running);
    }
}

/// Ends the domain for what its guest did.
#[inline(never)]
pub fn fault<C: Cpu>(running: &mut Running<'_, C>, kind: FaultKind, address: u64) -> Handled {
    let context = &running.core.context;
    let (vcpu, pc, esr) = (running.index as u8, Va(context.elr), context.esr);
    let fault = GuestFault { vcpu, pc, esr, address, kind };
    running.domain.end(running.cpu, DomainEnding::Fault(fault));
    Handled::SwitchedOff
}
