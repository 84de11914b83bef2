//! Which vCPUs are quiesced at EL2, and for whom: see [`crate::vcpu::quiesce`] for why.
//!
//! A holder takes the quiescence and then waits until all others have marked themselves as
//! quiesced. One that is about to leave takes its mark back *and then looks again*: a new holder
//! may have counted on the mark in between.

use super::sync::{AtomicU8, Ordering};
use stepwell_protocol::vcpu_bit as bit;

/// No vCPU's number.
const NOBODY: u8 = u8::MAX;

/// Which vCPUs are quiesced, and for whom.
#[derive(Debug)]
pub struct Quiescence {
    holder: AtomicU8,
    quiesced: AtomicU8,
}

impl Quiescence {
    /// Makes one that nobody holds.
    #[must_use]
    pub fn new() -> Self {
        Self { holder: AtomicU8::new(NOBODY), quiesced: AtomicU8::new(0) }
    }

    /// Has those that are about to run quiesce for `vcpu`. Who runs is not waited for.
    pub fn reserve(&self, vcpu: usize) {
        self.holder.store(vcpu as u8, Ordering::SeqCst);
    }

    /// Lets everybody go on.
    pub fn resume(&self) {
        self.holder.store(NOBODY, Ordering::SeqCst);
    }

    /// Tells whether `vcpu` is the one that all others are to quiesce for.
    #[must_use]
    pub fn is_held_by(&self, vcpu: usize) -> bool {
        self.holder.load(Ordering::SeqCst) == vcpu as u8
    }

    /// Tells whether `vcpu` is to quiesce.
    #[must_use]
    pub fn must_quiesce(&self, vcpu: usize) -> bool {
        let holder = self.holder.load(Ordering::SeqCst);
        holder != NOBODY && holder != vcpu as u8
    }

    /// Becomes the one that the others quiesce for, unless another is.
    #[must_use]
    pub fn take(&self, vcpu: usize) -> bool {
        let (own, order) = (vcpu as u8, Ordering::SeqCst);
        let taken = self.holder.compare_exchange(NOBODY, own, order, order);
        taken.is_ok() || taken == Err(own)
    }

    /// Those of `vcpus` that are not quiesced.
    #[must_use]
    pub fn missing(&self, vcpus: u8) -> u8 {
        vcpus & !self.quiesced.load(Ordering::SeqCst)
    }

    /// Marks `vcpu` as quiesced for as long as another holds this, and as one that is not, once nobody
    /// does. Tells whether it is to wait until somebody calls its CPU, and to ask again.
    #[must_use]
    pub fn must_wait(&self, vcpu: usize) -> bool {
        while !self.must_quiesce(vcpu) {
            if self.quiesced.load(Ordering::SeqCst) & bit(vcpu) == 0 {
                return false;
            }
            // A new holder may have counted on the mark: once it is gone, it is looked again.
            self.leave(vcpu);
        }
        self.quiesced.fetch_or(bit(vcpu), Ordering::SeqCst);
        true
    }

    /// Is not quiesced, whoever asks for it: for one that is called.
    pub fn leave(&self, vcpu: usize) {
        self.quiesced.fetch_and(!bit(vcpu), Ordering::SeqCst);
    }

    /// Is quiesced for as long as another holds this, or until `is_called`. `wait` waits until
    /// somebody calls this CPU, or for any shorter time.
    ///
    /// Returns whether it was quiesced at all.
    pub fn wait_if_quiesced(
        &self,
        vcpu: usize,
        is_called: impl Fn() -> bool,
        mut wait: impl FnMut(),
    ) -> bool {
        let mut was_quiesced = false;
        while !is_called() && self.must_wait(vcpu) {
            was_quiesced = true;
            wait();
        }
        self.leave(vcpu);
        was_quiesced
    }
}

impl Default for Quiescence {
    fn default() -> Self {
        Self::new()
    }
}
