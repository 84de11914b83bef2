//! Another vCPU's changes of page tables, while one is stepped beside it.
//!
//! A stepped vCPU keeps the translation of the code pages that it looks into, and forgets them where
//! it executes something that changes translations. With `--others run` another vCPU may do that: a
//! new page at an old address, and the stepped one would look at an instruction in the old page and
//! plan for that while its CPU executes the one in the new, or carry the old one out itself.
//!
//! By the architecture a stale translation may be used until a TLB invalidation of whoever changed
//! the table has completed, and not after. So these trap in the vCPUs that run beside (HCR_EL2.TTLB).
//! EL2 invalidates in the guest's place, and does not let it go on before the stepped vCPU has
//! forgotten its pages. That vCPU looks at every instruction that it has not looked at yet; one that
//! waits, stands, or runs a handler freely has no pages to forget.
//!
//! Source: Arm ARM, DDI 0487 L.b, "TLB maintenance instructions", and HCR_EL2, TTLB.

use super::region;
use super::{Running, interrupt};
use crate::domain::{Domain, Order};
use crate::hw::registers::invalidate_guests_stage1;
use crate::hw::{gic, setup};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// What the stepped vCPU of a domain knows of the others' changes.
#[derive(Debug)]
pub struct Changes {
    /// Invalidations of the vCPUs that run beside a stepped one trap.
    are_trapped: AtomicBool,
    /// How many there have been.
    made: AtomicU64,
    /// How many the stepped vCPU has heeded; all where it has no pages.
    heeded: AtomicU64,
}

impl Changes {
    /// Makes one for a domain in which nobody is stepped beside others.
    #[must_use]
    pub const fn new() -> Self {
        let (made, heeded) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self { are_trapped: AtomicBool::new(false), made, heeded }
    }

    /// Before vCPUs are let go: whether one of them is stepped while others run.
    pub fn watch(&self, on: bool) {
        self.are_trapped.store(on, SeqCst);
    }

    /// In the stepped vCPU: tells whether it has to forget its pages, and takes it that it does.
    #[must_use]
    pub fn take(&self) -> bool {
        let made = self.made.load(SeqCst);
        self.heeded.swap(made, SeqCst) != made
    }

    /// In the stepped vCPU: it has no pages, and whoever changes them need not wait.
    pub fn ignore(&self) {
        self.heeded.store(u64::MAX, SeqCst);
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}

/// Before a vCPU moves: what it invalidates traps if it is to run beside a stepped one.
pub fn load(domain: &Domain, order: Order) {
    let runs_beside = order == Order::Run && domain.translation.are_trapped.load(SeqCst);
    setup::trap_invalidations(runs_beside);
}

/// Carries out a TLB invalidation of the guest's: all of stage 1, on all CPUs, whatever it names.
/// Returns when the stepped vCPU does not use what is gone.
pub fn invalidate(running: &mut Running<'_>) {
    invalidate_guests_stage1();
    let changes = &running.domain.translation;
    let made = changes.made.fetch_add(1, SeqCst).wrapping_add(1);
    let focus = running.domain.turns.lock().focus();
    if let Some(vcpu) = running.domain.vcpus.get(focus) {
        gic::kick(1 << vcpu.cpu);
    }
    while changes.heeded.load(SeqCst) < made && !running.is_called() {
        // It may be about to have this one stand aside.
        region::stand_aside(running);
        interrupt::take_all(running);
        core::hint::spin_loop();
    }
}
