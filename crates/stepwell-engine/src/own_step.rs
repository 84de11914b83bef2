//! The guest's own Software Step, while Stepwell steps it too.
//!
//! A guest kernel steps its EL0 with the same bits that we use: MDSCR_EL1.SS and PSTATE.SS. While
//! stepping is on, those bits in the machine are ours, so the guest's state machine is run here on
//! its shadow: the SS of the saved PSTATE and the MDSCR_EL1 that [`crate::Engine`] keeps. Both
//! debuggers then see their steps.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions"; the functions bear the names of the
//! shared pseudocode.

use stepwell_arch::Pstate;
use stepwell_arch::debug::mdscr_el1;

/// The state that decides over the guest's debug exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestDebug {
    /// The guest's own MDSCR_EL1.
    pub mdscr: u64,
    /// The guest's own OS Lock or OS Double Lock, OSLSR_EL1.OSLK or OSDLR_EL1.DLK.
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

/// `SSAdvance`: PSTATE after an instruction has executed, or has been carried out at EL2. An
/// exception that is taken instead of executing (a trap, an abort, an interrupt) advances nothing.
#[must_use]
pub fn ss_advance(debug: GuestDebug, pstate: Pstate) -> Pstate {
    if debug.mdscr & mdscr_el1::SS != 0 { pstate.with_ss(false) } else { pstate }
}

/// What a Software Step exception of the guest's own would say of an instruction that has just
/// executed, or been carried out, in `pstate`: nothing where it was not stepped itself
/// (`SoftwareStep_DidNotStep`), or whether it was a load-exclusive (`SoftwareStep_SteppedEX`).
///
/// An instruction is stepped that executes in the active-not-pending state, whatever state it
/// leaves: one that masks debug exceptions is, and the next one, which is not, takes its place.
#[must_use]
pub fn stepped(debug: GuestDebug, pstate: Pstate, load_exclusive: bool) -> Option<bool> {
    (is_stepping(debug, pstate) && pstate.ss()).then_some(load_exclusive)
}

/// `DebugExceptionReturnSS`: the SS that an ERET from `source` with `spsr` leaves in PSTATE.
///
/// After an illegal return `spsr` must name the exception level that the CPU is at, which is
/// `source`'s, and not the one that it was asked for.
#[must_use]
pub fn debug_exception_return_ss(debug: GuestDebug, source: Pstate, spsr: Pstate) -> bool {
    debug.mdscr & mdscr_el1::SS != 0
        && !generate_debug_exceptions_from(debug, source)
        && generate_debug_exceptions_from(debug, spsr)
        && spsr.ss()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_arch::Pstate;

    const BOOLS: [bool; 2] = [false, true];

    fn debugs() -> impl Iterator<Item = GuestDebug> {
        (0..8_u64).map(|bits| GuestDebug {
            mdscr: ((bits & 1) * mdscr_el1::SS) | ((bits >> 1 & 1) * mdscr_el1::KDE),
            os_lock: bits >> 2 != 0,
        })
    }

    /// EL0t, EL1t and EL1h with every D and SS.
    fn states() -> impl Iterator<Item = Pstate> {
        [Pstate::M_EL0T, Pstate::M_EL1T, Pstate::M_EL1H].into_iter().flat_map(|mode| {
            (0..4_u64).map(move |bits| {
                Pstate(mode).with(Pstate::D, bits & 1 != 0).with_ss(bits >> 1 != 0)
            })
        })
    }

    /// The manual's table, written out: (OS Lock, EL, KDE, D) for which debug exceptions that
    /// target EL1 are enabled.
    fn enabled_by_the_table(debug: GuestDebug, pstate: Pstate) -> bool {
        let kde = debug.mdscr & mdscr_el1::KDE != 0;
        let masked = pstate.0 & Pstate::D != 0;
        match (debug.os_lock, pstate.el(), kde, masked) {
            (true, ..) => false,
            (false, 0, ..) => true,
            (false, _, true, false) => true,
            (false, _, false, _) | (false, _, true, true) => false,
        }
    }

    #[test]
    fn debug_exceptions_are_enabled_as_the_manual_says() {
        for debug in debugs() {
            for pstate in states() {
                let got = generate_debug_exceptions_from(debug, pstate);
                assert_eq!(got, enabled_by_the_table(debug, pstate), "{debug:?} {pstate:?}");
            }
        }
    }

    #[test]
    fn el0_cannot_mask_debug_exceptions_with_d() {
        let debug = GuestDebug { mdscr: mdscr_el1::SS, os_lock: false };
        assert!(check_software_step(debug, Pstate(Pstate::M_EL0T | Pstate::D)));
    }

    #[test]
    fn nothing_steps_with_the_os_lock_set() {
        // Mistake 12, on the guest's side of it.
        let debug = GuestDebug { mdscr: mdscr_el1::SS | mdscr_el1::KDE, os_lock: true };
        assert!(states().all(|pstate| !is_stepping(debug, pstate)));
    }

    #[test]
    fn the_three_states_of_the_guests_own_step() {
        for debug in debugs() {
            for pstate in states() {
                let active =
                    debug.mdscr & mdscr_el1::SS != 0 && enabled_by_the_table(debug, pstate);
                assert_eq!(is_stepping(debug, pstate), active, "{debug:?} {pstate:?}");
                let pending = active && !pstate.ss();
                assert_eq!(check_software_step(debug, pstate), pending, "{debug:?} {pstate:?}");
            }
        }
    }

    #[test]
    fn only_what_executes_active_not_pending_is_stepped() {
        for debug in debugs() {
            for pstate in states() {
                let is_active = is_stepping(debug, pstate) && pstate.ss();
                for load_exclusive in BOOLS {
                    let expected = is_active.then_some(load_exclusive);
                    assert_eq!(stepped(debug, pstate, load_exclusive), expected, "{pstate:?}");
                }
            }
        }
    }

    #[test]
    fn an_advance_makes_the_guests_step_pending() {
        for debug in debugs() {
            for pstate in states() {
                let advanced = ss_advance(debug, pstate);
                let steps = debug.mdscr & mdscr_el1::SS != 0;
                assert_eq!(advanced.ss(), pstate.ss() && !steps, "{debug:?} {pstate:?}");
                assert_eq!(advanced.with_ss(false), pstate.with_ss(false), "nothing else");
                if is_stepping(debug, pstate) {
                    assert!(check_software_step(debug, advanced), "{debug:?} {pstate:?}");
                }
            }
        }
    }

    #[test]
    fn an_exception_return_sets_ss_exactly_as_the_manual_says() {
        for debug in debugs() {
            for source in states().filter(|source| source.el() == 1) {
                for spsr in states() {
                    let got = debug_exception_return_ss(debug, source, spsr);
                    let steps = debug.mdscr & mdscr_el1::SS != 0;
                    let from_source = enabled_by_the_table(debug, source);
                    let from_target = enabled_by_the_table(debug, spsr);
                    let expected = match (steps, from_source, from_target) {
                        (true, false, true) => spsr.ss(),
                        _ => false,
                    };
                    assert_eq!(got, expected, "{debug:?} {source:?} {spsr:?}");
                }
            }
        }
    }

    #[test]
    fn a_kernel_that_steps_its_el0_moves_by_one_instruction() {
        // Mistake 11: both debuggers see their steps.
        let debug = GuestDebug { mdscr: mdscr_el1::SS, os_lock: false };
        for d in BOOLS {
            let kernel = Pstate(Pstate::M_EL1H).with(Pstate::D, d);
            assert!(!is_stepping(debug, kernel), "never the kernel itself");
            let user = Pstate(Pstate::M_EL0T).with_ss(true);
            let ss = debug_exception_return_ss(debug, kernel, user);
            assert!(ss, "armed by the ERET");
            let user = user.with_ss(ss);
            assert!(!check_software_step(debug, user), "one instruction");
            assert!(check_software_step(debug, ss_advance(debug, user)), "then its exception");
        }
    }

    #[test]
    fn an_exception_return_from_where_steps_are_enabled_discards_ss() {
        // Mistake 3, on the guest's side of it.
        let debug = GuestDebug { mdscr: mdscr_el1::SS | mdscr_el1::KDE, os_lock: false };
        let user = Pstate(Pstate::M_EL0T).with_ss(true);
        assert!(!debug_exception_return_ss(debug, Pstate(Pstate::M_EL1H), user));
        assert!(debug_exception_return_ss(debug, Pstate(Pstate::M_EL1H | Pstate::D), user));
    }
}
