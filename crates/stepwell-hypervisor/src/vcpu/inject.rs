//! Entering an exception in the guest, as its CPU would have.

use super::Running;
use super::exit::Handled;
use super::interrupt::Asynchronous;
use crate::hw::registers::{mrs, msr};
use crate::vgic::Signal;
use stepwell_arch::Va;
use stepwell_arch::esr::EsrEl1;
use stepwell_arch::exception::{
    ExceptionFeatures, ExceptionKind, ExceptionSource, TakenException, take_to_el1,
};

fn features() -> ExceptionFeatures {
    ExceptionFeatures {
        pan: mrs!("id_aa64mmfr1_el1") >> 20 & 0xf != 0,
        ssbs: mrs!("id_aa64pfr1_el1") >> 4 & 0xf != 0,
        mte: mrs!("id_aa64pfr1_el1") >> 8 & 0xf >= 2,
        nmi: mrs!("id_aa64pfr1_el1") >> 36 & 0xf != 0,
    }
}

fn enter(running: &mut Running<'_>, kind: ExceptionKind) {
    let source = ExceptionSource {
        pstate: running.core.pstate(),
        return_address: running.core.pc(),
        vbar_el1: mrs!("vbar_el1"),
        sctlr_el1: mrs!("sctlr_el1"),
        features: features(),
    };
    let TakenException { pc, pstate, spsr_el1, elr_el1 } = take_to_el1(&source, kind);
    msr!("spsr_el1", spsr_el1.0);
    msr!("elr_el1", elr_el1.0);
    running.core.context.elr = pc.0;
    running.core.context.spsr = pstate.0;
    running.core.monitor.clear();
}

/// Enters a synchronous exception at the PC.
pub fn synchronous(running: &mut Running<'_>, esr: EsrEl1, far: Option<Va>) -> Handled {
    msr!("esr_el1", esr.0);
    if let Some(far) = far {
        msr!("far_el1", far.0);
    }
    enter(running, ExceptionKind::Synchronous);
    Handled::Injected
}

/// Enters the exception of an undefined instruction.
pub fn undefined(running: &mut Running<'_>) -> Handled {
    synchronous(running, EsrEl1::undefined(), None)
}

/// Enters an asynchronous exception.
pub fn asynchronous(running: &mut Running<'_>, what: Asynchronous) {
    let kind = match what {
        Asynchronous::Interrupt(Signal::Irq, _) => ExceptionKind::Irq,
        Asynchronous::Interrupt(Signal::Fiq, _) => ExceptionKind::Fiq,
        Asynchronous::SError => {
            // Taken: no longer pending.
            let iss = running.core.serror.take().unwrap_or(0);
            msr!("esr_el1", EsrEl1::serror(iss).0);
            ExceptionKind::SError
        }
    };
    enter(running, kind);
}
