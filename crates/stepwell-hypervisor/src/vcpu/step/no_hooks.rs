//! Where the test mode would act, in an image without it: nothing happens there.

use super::look::Next;
use super::{Stepper, step};
use crate::domain::StepOrder;
use crate::hw::world::Vector;
use crate::vcpu::{End, Running};

/// As [`step`].
pub fn steps(running: &mut Running<'_>, order: StepOrder) -> (End, u64) {
    step(running, order)
}

/// Nothing to report.
pub fn report(_: &Running<'_>) {}

/// No page is ever withdrawn.
pub fn was_withdrawn(_: &mut Running<'_>) -> bool {
    false
}

impl Stepper<'_, '_> {
    pub(super) fn cross(&mut self, _limit: u64) -> Vector {
        self.running.core.context.enter()
    }

    pub(super) fn at_boundary(&mut self) -> Option<End> {
        None
    }

    pub(super) fn note_virtual(&mut self) {}

    pub(super) fn has_carried_out(&mut self) {}

    pub(super) fn meet(&mut self, _next: &Next) -> Option<End> {
        None
    }

    pub(super) fn has_given_store_back(&mut self) -> bool {
        false
    }

    pub(super) fn hooked_limit(&mut self, limit: u64) -> u64 {
        limit
    }
}
