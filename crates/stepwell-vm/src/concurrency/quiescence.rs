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
        let bit = bit(vcpu);
        let mut was_quiesced = false;
        // Again, where the next one has taken it for quiesced that was about to go.
        while self.must_quiesce(vcpu) && !is_called() {
            was_quiesced = true;
            self.quiesced.fetch_or(bit, Ordering::SeqCst);
            while self.must_quiesce(vcpu) && !is_called() {
                wait();
            }
            self.quiesced.fetch_and(!bit, Ordering::SeqCst);
        }
        was_quiesced
    }
}

impl Default for Quiescence {
    fn default() -> Self {
        Self::new()
    }
}
