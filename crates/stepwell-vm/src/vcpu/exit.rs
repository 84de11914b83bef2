//! Why a guest came to EL2, and what the machine would have done about it.
//!
//! Those who handle a class are functions of their own also in machine code: merged into one, each exit
//! would save the registers of all.

use super::{coprocessor, count, debug, fetch, inject, interrupt, memory, operand, psci, system};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Vector};
use crate::vcpu::handled::{Handled, advance, advance_by, fault};
use crate::vcpu::running::Running;
use stepwell_arch::Instruction;
use stepwell_arch::esr::{EsrEl1, EsrEl2, ec};
use stepwell_protocol::{FaultKind, StopReason};

/// Handles an exit that is no step.
pub fn handle<C: Cpu>(running: &mut Running<'_, C>, vector: Vector) -> Handled {
    match vector {
        Vector::Irq | Vector::Fiq => {
            interrupt::take_all(running);
            Handled::Resume
        }
        Vector::SError => system_error(running),
        Vector::Synchronous => synchronous(running),
    }
}

fn synchronous<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    let esr = EsrEl2(running.core.context.esr);
    match esr.ec() {
        ec::WFX => wait(running),
        ec::DABT_LOWER => memory::data_abort(running, esr),
        ec::IABT_LOWER => instruction_abort(running, esr),
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

#[inline(never)]
fn instruction_abort<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    let iss = esr.instruction_abort();
    let is_withheld = iss.ifsc().is_permission() && !iss.s1ptw();
    if is_withheld && !C::CAN.copies {
        return fetch::abort(running);
    }
    memory::instruction_abort(running, esr)
}

/// An SError that came while the guest ran is the guest's: pending until its PSTATE.A is 0, or, under
/// a step, as the policy says. One that nobody can contain ends the domain.
#[inline(never)]
fn system_error<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    let syndrome = EsrEl2(running.core.context.esr).serror();
    if syndrome.is_uncontainable() {
        return fault(running, FaultKind::SystemError, 0);
    }
    // Errors that come while one is pending are one error, as in VSESR_EL2.
    running.core.serror.get_or_insert(syndrome.0);
    Handled::Resume
}

/// WFI or WFIT, where another vCPU may have the CPU meanwhile. It has executed, and returns when an
/// interrupt is pending or its time is up: see [`super::sharing`].
#[inline(never)]
fn wait<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    // Not by the syndrome: QEMU 10 has TI for a WFI there, and no RN.
    running.core.wakes_at = match operand::instruction(running).map(Instruction::decode) {
        Some(Instruction::Wfit { rt }) => running.core.context.register(rt),
        _ => u64::MAX,
    };
    count::uncount(running);
    advance(running);
    running.core.is_suspended = true;
    Handled::Emulated
}

/// HVC: the CPU has moved the PC past it.
#[inline(never)]
fn hypervisor_call<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    let handled = psci::call(running);
    if handled == Handled::Emulated {
        let guest = running.core.debug.guest();
        advance_by(running, guest, 0);
        // The return from here is what leaves the guest's own step pending: nothing was stepped.
        running.core.debug.own_stepped = None;
    }
    handled
}

#[inline(never)]
fn privileged_call<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    let monitored =
        running.domain.control.lock().privileged_call & crate::domain::bit(running.index);
    if monitored != 0 && !running.core.is_act_acknowledged() {
        return Handled::Stop(StopReason::PrivilegedCall { immediate: esr.call().immediate() });
    }
    // A board without EL3, whose PSCI is called by HVC: SMC is undefined.
    inject::undefined(running)
}
