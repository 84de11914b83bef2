//! The guest's own Software Step, while Stepwell steps it too.
//!
//! A guest kernel steps its EL0 with the same bits that we use: MDSCR_EL1.SS and PSTATE.SS. While
//! stepping is on, those bits in the machine are ours, so the guest's state machine is run here on
//! its shadow: the SS of the saved PSTATE and the MDSCR_EL1 that [`crate::Engine`] keeps. Both
//! debuggers then see their steps.
//!
//! Source: Arm ARM, section "Software Step exceptions"; the functions bear the names of the
//! shared pseudocode.

use stepwell_arch::Pstate;
use stepwell_arch::debug::mdscr_el1;

/// The state that decides over the guest's debug exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestDebug {
    /// The guest's own MDSCR_EL1.
    pub mdscr: u64,
    /// The guest's own OS Lock, OSLSR_EL1.OSLK.
    pub os_lock: bool,
}

/// `GenerateDebugExceptionsFrom`, for debug exceptions that target EL1.
#[must_use]
pub fn generate_debug_exceptions_from(debug: GuestDebug, pstate: Pstate) -> bool {
    if debug.os_lock {
        return false;
    }
    pstate.el() == 0 || (debug.mdscr & mdscr_el1::KDE != 0 && !pstate.debug_masked())
}

/// `CheckSoftwareStep`: tells whether the guest's own step exception is to be taken now, before
/// the instruction at the saved PC executes.
#[must_use]
pub fn check_software_step(debug: GuestDebug, pstate: Pstate) -> bool {
    is_stepping(debug, pstate) && !pstate.ss()
}

/// Tells whether the guest is stepping what it is executing.
#[must_use]
pub fn is_stepping(debug: GuestDebug, pstate: Pstate) -> bool {
    debug.mdscr & mdscr_el1::SS != 0 && generate_debug_exceptions_from(debug, pstate)
}

/// `DebugExceptionReturnSS`: the SS that an ERET from `source` with `spsr` leaves in PSTATE.
#[must_use]
pub fn debug_exception_return_ss(debug: GuestDebug, source: Pstate, spsr: Pstate) -> bool {
    debug.mdscr & mdscr_el1::SS != 0
        && !generate_debug_exceptions_from(debug, source)
        && generate_debug_exceptions_from(debug, spsr)
        && spsr.ss()
}
