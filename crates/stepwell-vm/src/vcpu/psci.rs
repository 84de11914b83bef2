//! PSCI for the guest, over HVC: what QEMU's `virt` board answers without EL2.

use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::device::psci::{PsciCall, ReturnCode};
use crate::domain::{Control, Domain, Order, Power, bit};
use crate::machine::Machine;
use crate::vcpu::handled::Handled;
use crate::vcpu::running::Running;
use stepwell_protocol::DomainEnding;

/// Carries out an HVC. The PC is past it already.
#[inline(never)]
pub fn call<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    let context = &running.core.context;
    let call = PsciCall::decode(core::array::from_fn(|n| context.register(n as u8)));
    if let Some(answer) = call.answer() {
        running.core.context.set_register(0, answer);
        return Handled::Emulated;
    }
    let answer = match call {
        PsciCall::CpuOn { target, entry, context } => cpu_on(running, target, entry, context),
        PsciCall::CpuOff => return Handled::SwitchedOff,
        PsciCall::AffinityInfo { target, .. } => affinity_info(running, target),
        PsciCall::SystemOff => {
            running.domain.end(running.cpu, DomainEnding::PoweredOff);
            return Handled::SwitchedOff;
        }
        PsciCall::SystemReset => {
            running.domain.end(running.cpu, DomainEnding::Reset);
            return Handled::SwitchedOff;
        }
        // The call returns when an interrupt is pending: see [`super::free`]. No other is left.
        _ => {
            running.core.is_suspended = true;
            ReturnCode::Success
        }
    };
    running.core.context.set_register(0, answer.x0());
    Handled::Emulated
}

fn vcpu_at<C: Cpu>(running: &Running<'_, C>, target: u64) -> Option<usize> {
    let index = usize::try_from(target).ok()?;
    (index < running.domain.vcpus.len()).then_some(index)
}

fn affinity_info<C: Cpu>(running: &Running<'_, C>, target: u64) -> ReturnCode {
    let Some(index) = vcpu_at(running, target) else { return ReturnCode::InvalidParameters };
    match running.domain.control.lock().power(index) {
        Power::On => ReturnCode::Success,
        Power::Off => ReturnCode::Off,
    }
}

fn cpu_on<C: Cpu>(running: &Running<'_, C>, target: u64, entry: u64, argument: u64) -> ReturnCode {
    let Some(index) = vcpu_at(running, target) else { return ReturnCode::InvalidParameters };
    switch_on(running.machine, running.domain, running.cpu, index, (entry, argument))
}

/// Switches a vCPU on, to start at an entry with an argument: for another vCPU that asks for it, or
/// where whatever executes the guest has carried the call out by itself.
pub fn switch_on<C: Cpu>(
    machine: &Machine<C>,
    domain: &Domain<C>,
    cpu: &C,
    index: usize,
    (entry, argument): (u64, u64),
) -> ReturnCode {
    let Some(vcpu) = domain.vcpus.get(index) else { return ReturnCode::InvalidParameters };
    let mut control = domain.control.lock();
    if control.power(index) == Power::On {
        return ReturnCode::AlreadyOn;
    }
    if let Some(power) = control.power.get_mut(index) {
        *power = Power::On;
    }
    // Switched off, so its CPU does not hold it, or is about to let go.
    vcpu.core.lock().reset(&machine.reset, entry, argument);
    let Control { running: mask, free, joining, stop, ending, .. } = &mut *control;
    // A domain that is stopping stays so: the vCPU starts when all of them go on.
    if stop.is_none() && ending.is_none() {
        if let Some(timeline) = &domain.timeline {
            timeline.lock().call_for_turn();
        }
        if *free {
            domain.give(cpu, mask, bit(index), Order::Run);
        } else if let Some(order) = *joining {
            domain.turns.lock().join(index);
            domain.give(cpu, mask, bit(index), order);
        }
    }
    ReturnCode::Success
}
