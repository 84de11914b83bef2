//! Changes of page tables by vCPUs that run beside a stepped one, as a value: see
//! [`super::translation`].

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// What the stepped vCPU of a domain knows of the others' changes.
#[derive(Debug)]
pub struct Changes {
    /// Invalidations of the vCPUs that run beside a stepped one trap.
    pub are_trapped: AtomicBool,
    /// How many there have been.
    pub made: AtomicU64,
    /// How many the stepped vCPU has acknowledged; all where it has no pages.
    pub acknowledged: AtomicU64,
}

impl Changes {
    /// Makes one for a domain in which nobody is stepped beside others.
    #[must_use]
    pub const fn new() -> Self {
        let (made, acknowledged) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self { are_trapped: AtomicBool::new(false), made, acknowledged }
    }

    /// Before vCPUs are let go: whether one of them is stepped while others run.
    pub fn watch(&self, on: bool) {
        self.are_trapped.store(on, SeqCst);
    }

    /// In the stepped vCPU: tells whether it has to forget its pages, and takes it that it does.
    #[must_use]
    pub fn take(&self) -> bool {
        let made = self.made.load(SeqCst);
        self.acknowledged.swap(made, SeqCst) != made
    }

    /// In the stepped vCPU: it has no pages, and whoever changes them need not wait.
    pub fn ignore(&self) {
        self.acknowledged.store(u64::MAX, SeqCst);
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}
