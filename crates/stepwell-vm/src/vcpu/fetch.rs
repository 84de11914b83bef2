//! Fetches from pages that are withheld whole: where a page cannot be executed without being read, there
//! is no copy of it with BRKs ([`crate::views`]).

use super::{debug, operand, pages, watch};
use crate::cpu::Cpu;
use crate::vcpu::handled::Handled;
use crate::vcpu::roots::WriteSet;
use crate::vcpu::running::Running;
use stepwell_protocol::StopReason;

/// Tells whether the page of the instruction at the PC is withheld from fetches of a vCPU that runs.
#[inline]
#[must_use]
pub fn is_withheld<C: Cpu>(running: &Running<'_, C>) -> bool {
    !C::CAN.copies && running.domain.has_views() && {
        let ipa = operand::to_ipa(running, running.core.context.elr);
        ipa.is_some_and(|ipa| running.domain.views.lock().is_fetch_withheld(ipa))
    }
}

/// Handles a fetch from a page that is withheld because of what is in it: breakpoints, or watched bytes
/// where a page that is not to be read cannot be executed either.
#[inline(never)]
pub fn abort<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    if running.core.vttbr == running.domain.roots.of_running() {
        return match debug::breakpoint_at_pc(running) {
            Some(_) => Handled::Stop(StopReason::Breakpoint),
            None => Handled::Past,
        };
    }
    // Nothing is withheld from it then: what it accesses is looked at before.
    let operand = operand::decoded(running);
    if !running.core.is_act_acknowledged()
        && let Some(operand::Operand { address, bytes, read, write, .. }) = operand
        && let Some(reason) = watch::accesses(running, address, bytes, read, write)
    {
        return Handled::Stop(reason);
    }
    running.core.write_set =
        operand.map_or(WriteSet::Unknown, |operand| pages::write_set(running, operand));
    Handled::Unrestricted
}
