//! What becomes of an interrupt while stepping: held, stepped into, or run over.
//!
//! The same as `stepwell-vm`'s `vcpu/step/handler.rs`. A guest that steps itself is not run
//! over here: the hypervisor then steps the handler unseen, one instruction after another.

use crate::world::World;
use stepwell_arch::Va;
use stepwell_engine::InterruptedContext;
use stepwell_spec::Program;

/// What happens to interrupts while stepping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// None is delivered.
    Hold,
    /// The handler is stepped.
    #[default]
    Into,
    /// The handler runs, and stepping goes on where it returns to.
    Over,
}

impl World {
    /// Whether EL2 may deliver the virtual interrupt at this boundary.
    #[must_use]
    pub fn can_deliver(&self) -> bool {
        let is_deliverable =
            self.machine.virq && !self.machine.spsr_el2.masks(self.machine.virq_class);
        let is_at_boundary = self.is_stepping() && !self.is_pending();
        is_deliverable
            && is_at_boundary
            && match self.policy {
                Policy::Hold => false,
                Policy::Into => true,
                Policy::Over => !self.shadow.mdscr.ss,
            }
    }

    /// Delivers it.
    pub fn deliver(&mut self, program: Program) {
        if self.policy == Policy::Over {
            let interrupted = self.context();
            self.machine.breakpoint = Some(self.machine.elr_el2);
            self.disable();
            self.over = Some(interrupted);
            // The handler runs as it would.
            self.machine.virq_signalled = true;
        }
        self.inject(self.machine.virq_class, program);
    }

    /// The hidden breakpoint was hit: if it was by what was interrupted, stepping goes on.
    pub fn handler_returned(&mut self) {
        if self.over != Some(self.context()) {
            return;
        }
        self.forget_handler();
        self.machine.virq_signalled = false;
        self.enable();
    }

    /// Nobody waits for a handler any more.
    pub fn forget_handler(&mut self) {
        self.over = None;
        self.machine.breakpoint = None;
    }

    fn context(&self) -> InterruptedContext {
        InterruptedContext::new(Va(u64::from(self.machine.elr_el2)), self.saved(), 0, 0)
    }
}
