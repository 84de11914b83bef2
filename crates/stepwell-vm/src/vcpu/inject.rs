//! Entering an exception in the guest, as its CPU would have.

use super::interrupt::Asynchronous;
use crate::cpu::Cpu;
use crate::vcpu::handled::Handled;
use crate::vcpu::running::Running;
use crate::vgic::Signal;
use stepwell_arch::Pstate;
use stepwell_arch::SystemRegister;
use stepwell_arch::Va;
use stepwell_arch::esr::EsrEl1;
use stepwell_arch::exception::{
    ExceptionFeatures, ExceptionKind, ExceptionSource, TakenException, take_to_el1,
};

fn features<C: Cpu>(cpu: &C) -> ExceptionFeatures {
    ExceptionFeatures {
        pan: cpu.read(SystemRegister::ID_AA64MMFR1_EL1) >> 20 & 0xf != 0,
        ssbs: cpu.read(SystemRegister::ID_AA64PFR1_EL1) >> 4 & 0xf != 0,
        mte: cpu.read(SystemRegister::ID_AA64PFR1_EL1) >> 8 & 0xf >= 2,
        nmi: cpu.read(SystemRegister::ID_AA64PFR1_EL1) >> 36 & 0xf != 0,
    }
}

fn enter<C: Cpu>(running: &mut Running<'_, C>, kind: ExceptionKind) {
    let source = ExceptionSource {
        pstate: running.core.pstate(),
        return_address: running.core.pc(),
        vbar_el1: running.cpu.read(SystemRegister::VBAR_EL1),
        sctlr_el1: running.cpu.read(SystemRegister::SCTLR_EL1),
        features: features(running.cpu),
    };
    let TakenException { pc, pstate, spsr_el1, elr_el1 } = take_to_el1(&source, kind);
    running.cpu.write(SystemRegister::SPSR_EL1, spsr_el1.0);
    running.cpu.write(SystemRegister::ELR_EL1, elr_el1.0);
    running.core.context.elr = pc.0;
    running.core.context.spsr = pstate.0;
    if running.domain.timeline.is_some() {
        // Instructions are counted by QEMU, whose own entries clear these (docs/qemu.md): what EL2 enters
        // under a step is to leave what the CPU does where the guest runs.
        running.core.context.spsr &= !(Pstate::NZCV | Pstate::DIT);
    }
    running.core.monitor.clear();
}

/// Enters a synchronous exception at the PC.
#[inline(never)]
pub fn synchronous<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl1, far: Option<Va>) -> Handled {
    running.cpu.write(SystemRegister::ESR_EL1, esr.0);
    if let Some(far) = far {
        running.cpu.write(SystemRegister::FAR_EL1, far.0);
    }
    enter(running, ExceptionKind::Synchronous);
    Handled::Injected
}

/// Enters the exception of an undefined instruction.
#[inline(never)]
pub fn undefined<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    synchronous(running, EsrEl1::undefined(), None)
}

/// Enters an asynchronous exception.
pub fn asynchronous<C: Cpu>(running: &mut Running<'_, C>, what: Asynchronous) {
    let kind = match what {
        Asynchronous::Interrupt(Signal::Irq, _) => ExceptionKind::Irq,
        Asynchronous::Interrupt(Signal::Fiq, _) => ExceptionKind::Fiq,
        Asynchronous::SError => {
            // Taken: no longer pending.
            let iss = running.core.serror.take().unwrap_or(0);
            running.cpu.write(SystemRegister::ESR_EL1, EsrEl1::serror(iss).0);
            ExceptionKind::SError
        }
    };
    enter(running, kind);
}
