//! Where the test mode would act, in an image without it: nothing happens there.

use super::step;
use super::stepper::{Next, Stepper};
use crate::cpu::{Cpu, Vector};
use crate::domain::StepOrder;
use crate::vcpu::running::{End, Running};

/// As [`step`].
pub fn steps<C: Cpu>(running: &mut Running<'_, C>, order: StepOrder) -> (End, u64) {
    step(running, order)
}

/// Nothing to report.
pub fn report<C: Cpu>(_: &Running<'_, C>) {}

impl<C: Cpu> Stepper<'_, '_, C> {
    pub(super) fn cross(&mut self, _limit: u64) -> Vector {
        self.running.cpu.enter(&mut self.running.core.context)
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
