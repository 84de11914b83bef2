//! The Software Step state machine, as seen from EL2.
//!
//! Sources: Arm ARM (DDI 0487, issue L.b), sections "Software Step exceptions" and "Rules for
//! setting MDSCR_EL1.SS and PSTATE.SS"; the names `ActiveNotPending` and `ActivePending` are the
//! manual's. *Pending* speaks of the exception, not of the instruction.
//!
//! ```text
//!                     enable                     on_exit(SoftwareStep): boundary
//!   +----------+ ----------------> +------------------+ <-------------------------+
//!   | Inactive |                   | ActiveNotPending | ---+                      |
//!   +----------+ <---------------- +------------------+    | on_exit(Asynchronous,|
//!        ^           disable         |    ^       ^  |     |   SPSR.SS = 1): the  |
//!        |                           |    |       |  +-----+   instruction has    |
//!        |     on_exit(Asynchronous, |    |       |              not executed     |
//!        |     SPSR.SS = 0): it has, |    |       | emulated, injected: boundary  |
//!        |     and nobody saw        v    |       |                               |
//!        |                  +---------------+     +-- on_exit(Synchronous)        |
//!        +----------------- | ActivePending | ------------------------------------+
//!              disable      +---------------+   entered with SS = 0, so that the
//!                                               exception is delivered first
//! ```
//!
//! One rule carries the whole machine: **the order of a pending step against an asynchronous
//! exception is not defined by the architecture**, so SS = 0 at an asynchronous exit says that an
//! instruction has executed which nobody has reported. Entering with SS = 1 then, as shipped
//! hypervisors did for years, executes a second one and loses the first.
//!
//! The saved PSTATE that everyone else reads and writes always holds *the guest's own* SS; ours
//! exists only between [`Engine::on_entry`] and [`Engine::on_exit`]. A debugger that writes PSTATE
//! in between therefore cannot desynchronise the two.

use crate::mutation::{self, Mutant};
use stepwell_arch::Pstate;
use stepwell_arch::debug::{mdcr_el2, mdscr_el1};
use stepwell_arch::esr::StepIss;

/// State of Software Step for one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StepState {
    /// Not stepping.
    #[default]
    Inactive,
    /// The next entry executes one instruction.
    ActiveNotPending,
    /// An instruction has executed and has not been reported; the next entry delivers the
    /// exception and executes nothing.
    ActivePending,
}

/// Why stepping cannot be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableError {
    /// It is on.
    AlreadyEnabled,
    /// The vCPU is in AArch32 state above EL0, which no guest of ours can be.
    AArch32,
}

/// How the guest left for EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Software Step exception (EC 0x32).
    SoftwareStep(StepIss),
    /// IRQ, FIQ or SError.
    Asynchronous,
    /// Breakpoint exception (EC 0x30). The manual gives Software Step the higher priority; QEMU
    /// takes the breakpoint first, and then the step before it is still unreported.
    Breakpoint,
    /// Any other synchronous exception: a trap, an abort, a call.
    Synchronous,
}

/// What a boundary between two instructions tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// The syndrome says that a load-exclusive was stepped (ISS.EX).
    pub load_exclusive: bool,
    /// The syndrome is valid (ISS.ISV). Where it is not, an exception came in between, or the
    /// step was delivered on a later entry: the caller must look for itself.
    pub syndrome_valid: bool,
}

/// What an exit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One instruction has executed, or one exception has been entered, since the last boundary.
    Boundary(Boundary),
    /// Nothing to report: handle the exit and enter again.
    Continue,
    /// The instruction at the exit's PC trapped. Emulate it and call [`Engine::emulated`], inject
    /// an exception and call [`Engine::injected`], or enter again to retry it.
    Trapped,
}

/// What the debug registers must hold at the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugControls {
    /// SPSR_EL2, guest PSTATE with the right SS.
    pub spsr: Pstate,
    /// MDSCR_EL1.
    pub mdscr: u64,
    /// MDCR_EL2 bits to set beside the caller's own.
    pub mdcr: u64,
    /// PSTATE.D at EL2 until the ERET. Always 1: were it 0 with KDE set, EL2 would step itself.
    pub debug_masked: bool,
}

/// What the guest has back when stepping is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// The guest's PSTATE.
    pub pstate: Pstate,
    /// The guest's MDSCR_EL1.
    pub mdscr: u64,
    /// An instruction has executed that was never reported.
    pub unreported: bool,
}

/// The engine of one vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Engine {
    state: StepState,
    /// The guest's own PSTATE.SS while ours is in the register.
    guest_ss: bool,
    /// The guest's own MDSCR_EL1 while stepping is on.
    guest_mdscr: u64,
    /// The guest's own PSTATE.I while [`Mutant::InterruptsMaskedInDaif`] has its own there.
    #[cfg(feature = "mutants")]
    guest_i: bool,
}

impl Engine {
    /// Makes an engine that is not stepping.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: StepState::Inactive,
            guest_ss: false,
            guest_mdscr: 0,
            #[cfg(feature = "mutants")]
            guest_i: false,
        }
    }

    /// Returns the state.
    #[must_use]
    pub const fn state(&self) -> StepState {
        self.state
    }

    /// Tells whether stepping is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.state != StepState::Inactive
    }

    /// Switches stepping on for a vCPU that is out of the guest.
    ///
    /// `mdscr` is the guest's MDSCR_EL1, which the engine keeps until [`Engine::disable`].
    ///
    /// # Errors
    ///
    /// [`EnableError`]; nothing has changed then.
    pub fn enable(&mut self, pstate: Pstate, mdscr: u64) -> Result<(), EnableError> {
        if self.is_enabled() {
            return Err(EnableError::AlreadyEnabled);
        }
        if pstate.is_aarch32() && pstate.el() > 0 {
            return Err(EnableError::AArch32);
        }
        self.state = StepState::ActiveNotPending;
        self.guest_mdscr = mdscr;
        Ok(())
    }

    /// Switches stepping off for a vCPU whose saved PSTATE is `pstate`, and returns what is to be
    /// put back: that PSTATE, which holds the guest's own SS already, and the guest's MDSCR_EL1.
    pub fn disable(&mut self, pstate: Pstate) -> Disabled {
        let unreported = self.state == StepState::ActivePending;
        let armed = self.state == StepState::ActiveNotPending;
        self.state = StepState::Inactive;
        let left = mutation::is(Mutant::SsLeftOnDisable) && armed;
        let forgotten =
            if mutation::is(Mutant::MdscrForgotten) { mdscr_el1::SS | mdscr_el1::KDE } else { 0 };
        Disabled {
            pstate: pstate.with_ss(pstate.ss() || left),
            mdscr: self.guest_mdscr & !forgotten,
            unreported,
        }
    }

    /// Takes the guest's write to MDSCR_EL1, or the debugger's, while stepping is on.
    pub fn set_guest_mdscr(&mut self, value: u64) {
        self.guest_mdscr = value;
    }

    /// Tells what to load before the ERET to the guest whose saved PSTATE is `pstate`.
    ///
    /// While stepping: MDSCR_EL1.SS = 1; KDE = 0, so that nothing at EL2 is ever stepped, whatever
    /// PSTATE.D is there; MDE as the guest has it, so that its own breakpoints go on working;
    /// MDCR_EL2.TDE = 1, so that debug exceptions of the guest come to EL2, and TDA and its kin,
    /// so that the guest reads its own debug registers and not ours.
    pub fn on_entry(&mut self, pstate: Pstate) -> DebugControls {
        self.guest_ss = pstate.ss();
        let armed = match self.state {
            StepState::Inactive => {
                return DebugControls {
                    spsr: pstate,
                    mdscr: self.guest_mdscr,
                    mdcr: 0,
                    debug_masked: true,
                };
            }
            StepState::ActiveNotPending => true,
            StepState::ActivePending => {
                mutation::is(Mutant::SsOnEveryEntry)
                    || mutation::is(Mutant::PendingInSavedPstate) && pstate.ss()
            }
        };
        let debug_masked = !mutation::is(Mutant::DebugUnmaskedAtEl2);
        let kde = if debug_masked { 0 } else { mdscr_el1::KDE };
        let spsr =
            if mutation::is(Mutant::SsWrittenToLiveSpsr) { pstate } else { pstate.with_ss(armed) };
        DebugControls {
            spsr: self.hold_by_mask(spsr),
            mdscr: mdscr_el1::SS | kde | self.guest_mdscr & mdscr_el1::MDE,
            mdcr: mdcr_el2::TDE | mdcr_el2::TDA | mdcr_el2::TDOSA | mdcr_el2::TDRA,
            debug_masked,
        }
    }

    /// Takes an exit. `spsr` is SPSR_EL2 as the machine left it; on return it is the guest's
    /// PSTATE with the guest's own SS.
    pub fn on_exit(&mut self, exit: Exit, spsr: &mut Pstate) -> Outcome {
        if !self.is_enabled() {
            return match exit {
                Exit::Synchronous | Exit::Breakpoint => Outcome::Trapped,
                // A step exception while nobody steps can only be the guest's own, and those are
                // not routed to EL2 then: nothing to do but to go on.
                Exit::SoftwareStep(_) | Exit::Asynchronous => Outcome::Continue,
            };
        }
        let armed = spsr.ss();
        *spsr = self.let_go_by_mask(spsr.with_ss(self.guest_ss));
        match exit {
            Exit::SoftwareStep(iss) => {
                self.state = StepState::ActiveNotPending;
                Outcome::Boundary(Boundary {
                    load_exclusive: iss.isv() && iss.ex(),
                    syndrome_valid: iss.isv(),
                })
            }
            Exit::Asynchronous => {
                self.state =
                    if armed { StepState::ActiveNotPending } else { StepState::ActivePending };
                Outcome::Continue
            }
            Exit::Breakpoint if !armed => {
                self.state = StepState::ActiveNotPending;
                Outcome::Boundary(Boundary { load_exclusive: false, syndrome_valid: false })
            }
            // The trapped instruction has not executed, or (HVC) counts as executed with what the
            // emulation does: either way the boundary comes from `emulated` or `injected`, and
            // until then an entry retries.
            Exit::Synchronous | Exit::Breakpoint => {
                self.state = StepState::ActiveNotPending;
                Outcome::Trapped
            }
        }
    }

    /// Tells the engine that the hypervisor carried out the instruction and moved the PC.
    ///
    /// Returns the boundary to report. Reported at once and entered with SS = 1 next, so that it
    /// is reported exactly once.
    #[must_use]
    pub fn emulated(&mut self) -> Option<Boundary> {
        if mutation::is(Mutant::TrapKeepsSs) { None } else { self.boundary_at_el2() }
    }

    /// Tells the engine that the hypervisor entered an exception on the guest's behalf. `pstate` is
    /// the new PSTATE, which has SS = 0; the SPSR_EL1 that the guest sees has the guest's own SS,
    /// which is what the saved PSTATE held outside of the guest.
    ///
    /// Returns the boundary to report.
    #[must_use]
    pub fn injected(&mut self, pstate: &mut Pstate) -> Option<Boundary> {
        let boundary = self.boundary_at_el2()?;
        *pstate = pstate.with_ss(mutation::is(Mutant::InjectedKeepsSs));
        Some(boundary)
    }

    fn boundary_at_el2(&mut self) -> Option<Boundary> {
        if !self.is_enabled() {
            return None;
        }
        self.state = StepState::ActiveNotPending;
        Some(Boundary { load_exclusive: false, syndrome_valid: true })
    }

    /// The guest's interrupts are held in the virtual GIC: its mask is its own.
    #[cfg(not(feature = "mutants"))]
    const fn hold_by_mask(&mut self, spsr: Pstate) -> Pstate {
        spsr
    }

    #[cfg(not(feature = "mutants"))]
    const fn let_go_by_mask(&self, spsr: Pstate) -> Pstate {
        spsr
    }

    #[cfg(feature = "mutants")]
    fn hold_by_mask(&mut self, spsr: Pstate) -> Pstate {
        self.guest_i = spsr.irq_masked();
        let is_held = mutation::is(Mutant::InterruptsMaskedInDaif);
        spsr.with(Pstate::I, self.guest_i || is_held)
    }

    #[cfg(feature = "mutants")]
    fn let_go_by_mask(&self, spsr: Pstate) -> Pstate {
        let is_held = mutation::is(Mutant::InterruptsMaskedInDaif);
        if is_held { spsr.with(Pstate::I, self.guest_i) } else { spsr }
    }
}
