//! Whether a vCPU has had the guest's memory to itself since it entered the guest.
//!
//! What a load-exclusive has read is what lies there now only if nobody else has run since. That no
//! other vCPU has an order when it comes out of the guest does not tell: one may have been running
//! until a moment ago, and have stopped. So whoever enters the guest takes his mark back, and whoever
//! is given an order leaves one with all that run.

use super::sync::{AtomicU8, Ordering};
use stepwell_protocol::vcpu_bit as bit;

/// Which vCPUs have orders, and which have had company.
#[derive(Debug)]
pub struct Alone {
    /// Those that have an order: one bit each.
    pub ordered: AtomicU8,
    /// Those beside which another one has had an order since they entered the guest.
    pub accompanied: AtomicU8,
}

impl Alone {
    /// Makes one where nobody has an order.
    #[must_use]
    pub fn new() -> Self {
        Self { ordered: AtomicU8::new(0), accompanied: AtomicU8::new(0) }
    }

    /// Takes note of who has an order: before any more are given, and after one is carried out.
    pub fn set_ordered(&self, vcpus: u8) {
        self.ordered.store(vcpus, Ordering::SeqCst);
        if vcpus.count_ones() > 1 {
            self.accompanied.fetch_or(vcpus, Ordering::SeqCst);
        }
    }

    /// Tells whether no more than one vCPU has an order.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.ordered.load(Ordering::SeqCst).count_ones() <= 1
    }

    /// `vcpu` is about to enter the guest.
    pub fn enter(&self, vcpu: usize) {
        self.accompanied.fetch_and(!bit(vcpu), Ordering::SeqCst);
        // Whoever is given an order after this leaves a mark.
        if !self.is_one() {
            self.accompanied.fetch_or(bit(vcpu), Ordering::SeqCst);
        }
    }

    /// A device is about to write: nobody has the memory to itself.
    pub fn device_writes(&self) {
        self.accompanied.store(u8::MAX, Ordering::SeqCst);
    }

    /// Tells whether neither another vCPU has had an order nor a device has written since `vcpu` entered
    /// the guest.
    #[must_use]
    pub fn has_been(&self, vcpu: usize) -> bool {
        self.is_one() && self.accompanied.load(Ordering::SeqCst) & bit(vcpu) == 0
    }
}

impl Default for Alone {
    fn default() -> Self {
        Self::new()
    }
}
