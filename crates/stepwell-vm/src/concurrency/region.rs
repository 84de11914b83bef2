//! Who stands aside at EL2, and for whom: see [`crate::vcpu::region`] for what it is good for.
//!
//! A holder takes the region and then waits until all others have marked themselves as standing
//! aside. One that is about to leave takes its mark back *and then looks again*: a new holder may
//! have counted on the mark in between.

use super::sync::{AtomicU8, Ordering};

/// No vCPU's number.
const NOBODY: u8 = u8::MAX;

/// Who stands aside, and for whom.
#[derive(Debug)]
pub struct Region {
    holder: AtomicU8,
    aside: AtomicU8,
}

impl Region {
    /// Makes a region in which nobody is.
    #[must_use]
    pub fn new() -> Self {
        Self { holder: AtomicU8::new(NOBODY), aside: AtomicU8::new(0) }
    }

    /// Has those that are about to run stand aside for `vcpu`. Who runs is not waited for.
    pub fn close(&self, vcpu: usize) {
        self.holder.store(vcpu as u8, Ordering::SeqCst);
    }

    /// Lets everybody go on.
    pub fn open(&self) {
        self.holder.store(NOBODY, Ordering::SeqCst);
    }

    /// Tells whether `vcpu` is the one that all others are to stand aside for.
    #[must_use]
    pub fn is_held_by(&self, vcpu: usize) -> bool {
        self.holder.load(Ordering::SeqCst) == vcpu as u8
    }

    /// Tells whether `vcpu` is to stand aside.
    #[must_use]
    pub fn excludes(&self, vcpu: usize) -> bool {
        let holder = self.holder.load(Ordering::SeqCst);
        holder != NOBODY && holder != vcpu as u8
    }

    /// Becomes the one that the others stand aside for, unless another is.
    #[must_use]
    pub fn take(&self, vcpu: usize) -> bool {
        let (own, order) = (vcpu as u8, Ordering::SeqCst);
        let taken = self.holder.compare_exchange(NOBODY, own, order, order);
        taken.is_ok() || taken == Err(own)
    }

    /// Those of `vcpus` that do not stand aside.
    #[must_use]
    pub fn missing(&self, vcpus: u8) -> u8 {
        vcpus & !self.aside.load(Ordering::SeqCst)
    }

    /// Stands aside for as long as another holds the region, or until `is_called`. `wait` waits
    /// until somebody calls this CPU, or for any shorter time.
    ///
    /// Returns whether it stood aside at all.
    pub fn stand_aside(
        &self,
        vcpu: usize,
        is_called: impl Fn() -> bool,
        mut wait: impl FnMut(),
    ) -> bool {
        let bit = bit(vcpu);
        let mut has_stood = false;
        // Again, where the next one has taken it for aside that was about to go.
        while self.excludes(vcpu) && !is_called() {
            has_stood = true;
            self.aside.fetch_or(bit, Ordering::SeqCst);
            while self.excludes(vcpu) && !is_called() {
                wait();
            }
            self.aside.fetch_and(!bit, Ordering::SeqCst);
        }
        has_stood
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::new()
    }
}

/// The mark of a vCPU.
const fn bit(vcpu: usize) -> u8 {
    match vcpu {
        0..=7 => 1 << vcpu,
        _ => 0,
    }
}
