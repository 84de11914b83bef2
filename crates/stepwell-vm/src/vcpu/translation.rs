//! Another vCPU's changes of page tables, while one is stepped beside it.
//!
//! A stepped vCPU keeps the translation of the code pages that it looks into, and forgets them
//! where it executes something that changes translations. With `--others run` another vCPU may do
//! that: a new page at an old address, and the stepped one would look at an instruction in the old
//! page and plan for that while its CPU executes the one in the new, or carry the old one out
//! itself.
//!
//! By the architecture a stale translation may be used until a TLB invalidation of whoever changed
//! the table has completed, and not after. So these trap in the vCPUs that run beside
//! (HCR_EL2.TTLB). EL2 invalidates in the guest's place, and does not let it go on before the
//! stepped vCPU has forgotten its pages. That vCPU looks at every instruction that it has not
//! looked at yet; one that waits, is stopped, or runs a handler freely has no pages to forget.
//!
//! Source: Arm ARM, DDI 0487 L.b, "TLB maintenance instructions", and HCR_EL2, TTLB.

use super::interrupt;
use super::quiesce;
use crate::cpu::Cpu;
use crate::domain::{Domain, Order};
use crate::vcpu::running::Running;
use core::sync::atomic::Ordering::SeqCst;

/// Before a vCPU moves: what it invalidates traps if it is to run beside a stepped one.
pub fn load<C: Cpu>(cpu: &C, domain: &Domain<C>, order: Order) {
    let runs_beside = order == Order::Run && domain.translation.are_trapped.load(SeqCst);
    cpu.trap_invalidations(runs_beside);
}

/// Carries out a TLB invalidation of the guest's: all of stage 1, on all CPUs, whatever it names.
/// Returns when the stepped vCPU does not use what is gone.
pub fn invalidate<C: Cpu>(running: &mut Running<'_, C>) {
    running.cpu.invalidate_guest_stage1();
    let changes = &running.domain.translation;
    let made = changes.made.fetch_add(1, SeqCst).wrapping_add(1);
    let focus = running.domain.turns.lock().focus();
    if let Some(vcpu) = running.domain.vcpus.get(focus) {
        running.cpu.kick(1 << vcpu.cpu);
    }
    while changes.acknowledged.load(SeqCst) < made && !running.is_called() {
        // It may be about to quiesce this one.
        quiesce::wait_if_quiesced(running);
        interrupt::take_all(running);
        core::hint::spin_loop();
    }
}
