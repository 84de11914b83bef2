//! Switching stepping on and off.

use crate::cpu::Cpu;
use crate::vcpu::running::{End, Running};
use stepwell_engine::EnableError;
use stepwell_protocol::StopReason;

pub(super) fn enable<C: Cpu>(running: &mut Running<'_, C>) -> Result<(), End> {
    let core = &mut *running.core;
    match core.engine.enable(core.pstate(), core.debug.mdscr()) {
        Ok(()) | Err(EnableError::AlreadyEnabled) => Ok(()),
        Err(EnableError::AArch32) => Err(End::Stop(StopReason::AArch32)),
    }
}

/// Nothing is unreported: a stop between an instruction and its report reports it.
pub(super) fn disable<C: Cpu>(running: &mut Running<'_, C>) {
    let core = &mut *running.core;
    if !core.engine.is_enabled() {
        return;
    }
    let left = core.engine.disable(core.pstate());
    core.context.spsr = left.pstate.0;
    core.debug.set_mdscr(left.mdscr);
}
