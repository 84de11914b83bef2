//! What is explored: the engine and its monitor, or one of the mistakes that others have made.
//!
//! Each mistake changes one thing of what the real engine says, or of what is done with it. A model
//! that does not tell it from the real one is worth nothing.

use stepwell_arch::Pstate;
use stepwell_arch::debug::mdscr_el1;
use stepwell_engine::{DebugControls, Engine, ExclusiveMonitor, Exit, Outcome, StepState};

/// A mistake known to have been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// SS is set on every entry, though the last exit left an unreported instruction.
    SsOnEveryEntry,
    /// SS is written to the live SPSR_EL2, and the saved one overwrites it.
    SsOverwritten,
    /// KDE is set and PSTATE.D clear at EL2.
    DebugExceptionsAtEl2,
    /// SS stays in the saved PSTATE when stepping is switched off.
    SsLeftOnDisable,
    /// Pending is told by the SS of the saved PSTATE, which the debugger writes.
    PendingInSavedPstate,
    /// SMC trapped, and the PC not advanced.
    SmcNotAdvanced,
    /// A trapped instruction is carried out and neither reported nor entered with SS = 0.
    EmulatedNotReported,
    /// An exception injected with SS left 1.
    InjectedKeepsSs,
    /// Interrupts held back by masking the guest's PSTATE.I.
    InterruptsMasked,
    /// Exclusives left to the CPU.
    ExclusivesLeft,
    /// The monitor is kept over an exception that the guest took to EL2.
    MonitorKeptOverTrap,
    /// The SS that the CPU put into SPSR_EL1 stays there.
    SsLeaksIntoSpsrEl1,
    /// The step bits of the guest's MDSCR_EL1 are dropped on disable.
    MdscrForgotten,
    /// The guest's write of MDSCR_EL1 takes effect before SSAdvance of the instruction itself.
    MdscrBeforeAdvance,
    /// An SVC advances the guest's own step only where that is enabled, not wherever
    /// MDSCR_EL1.SS is 1.
    SvcAdvancesWhereEnabled,
    /// A trap carried out while stepping is off moves the PC and leaves the guest's own SS at 1.
    UnsteppedTrapKeepsSs,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SsOnEveryEntry,
        Self::SsOverwritten,
        Self::DebugExceptionsAtEl2,
        Self::SsLeftOnDisable,
        Self::PendingInSavedPstate,
        Self::SmcNotAdvanced,
        Self::EmulatedNotReported,
        Self::InjectedKeepsSs,
        Self::InterruptsMasked,
        Self::ExclusivesLeft,
        Self::MonitorKeptOverTrap,
        Self::SsLeaksIntoSpsrEl1,
        Self::MdscrForgotten,
        Self::MdscrBeforeAdvance,
        Self::SvcAdvancesWhereEnabled,
        Self::UnsteppedTrapKeepsSs,
    ];
}

/// The engine and the monitor, as one vCPU has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The engine.
    pub engine: Engine,
    /// The monitor.
    pub monitor: ExclusiveMonitor,
    /// PSTATE.I of the guest while [`Mistake::InterruptsMasked`] holds it.
    held_i: bool,
}

impl Subject {
    /// [`Engine::on_entry`].
    pub fn on_entry(&mut self, pstate: Pstate, mistake: Option<Mistake>) -> DebugControls {
        let mut controls = self.engine.on_entry(pstate);
        if !self.engine.is_enabled() {
            return controls;
        }
        match mistake {
            Some(Mistake::SsOnEveryEntry) => controls.spsr = controls.spsr.with_ss(true),
            Some(Mistake::SsOverwritten) => controls.spsr = pstate,
            Some(Mistake::DebugExceptionsAtEl2) => controls.mdscr |= mdscr_el1::KDE,
            Some(Mistake::PendingInSavedPstate) => {
                let armed = self.engine.state() != StepState::ActivePending || pstate.ss();
                controls.spsr = controls.spsr.with_ss(armed);
            }
            Some(Mistake::InterruptsMasked) => {
                self.held_i = pstate.irq_masked();
                controls.spsr = controls.spsr.with(Pstate::I, true);
            }
            _ => {}
        }
        controls
    }

    /// [`Engine::on_exit`].
    pub fn on_exit(&mut self, exit: Exit, spsr: &mut Pstate, mistake: Option<Mistake>) -> Outcome {
        let was_enabled = self.engine.is_enabled();
        let outcome = self.engine.on_exit(exit, spsr);
        if was_enabled && mistake == Some(Mistake::InterruptsMasked) {
            *spsr = spsr.with(Pstate::I, self.held_i);
        }
        outcome
    }

    /// [`Engine::disable`].
    pub fn disable(&mut self, pstate: &mut Pstate, mistake: Option<Mistake>) -> (u64, bool) {
        let armed = self.engine.state() == StepState::ActiveNotPending;
        let (mut mdscr, unreported) = self.engine.disable();
        match mistake {
            Some(Mistake::SsLeftOnDisable) => *pstate = pstate.with_ss(armed),
            Some(Mistake::MdscrForgotten) => mdscr &= !(mdscr_el1::SS | mdscr_el1::KDE),
            _ => {}
        }
        (mdscr, unreported)
    }
}
