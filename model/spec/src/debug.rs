//! When debug exceptions are generated, and what becomes of PSTATE.SS.

use crate::state::{El, ProcState, SpecMachine};

impl SpecMachine {
    /// `DebugTargetFrom`: ELd, where debug exceptions of EL1 and EL0 go.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Routing debug exceptions".
    #[must_use]
    pub const fn debug_target_from(&self) -> El {
        if self.mdcr.tde { El::El2 } else { El::El1 }
    }

    /// `GenerateDebugExceptionsFrom`: whether debug exceptions are enabled from `from`, with
    /// PSTATE.D being `mask` there.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Enabling debug exceptions from the current Exception level".
    #[must_use]
    pub fn generate_debug_exceptions_from(&self, from: El, mask: bool) -> bool {
        if self.os_lock_status() || self.double_lock_status() {
            return false;
        }
        let target = self.debug_target_from();
        if from == target { self.mdscr_seen.kde && !mask } else { target > from }
    }

    /// Whether the OS Lock disables debug exceptions, OSLSR_EL1.OSLK.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "The effect of the OS Lock on debug exceptions". A switch
    /// for where QEMU departs.
    #[must_use]
    pub const fn os_lock_status(&self) -> bool {
        self.os_lock && !self.implementation.ignores_os_lock
    }

    /// `DoubleLockStatus`.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "OSDLR_EL1, OS Double Lock Register". A switch for where QEMU
    /// departs.
    #[must_use]
    pub const fn double_lock_status(&self) -> bool {
        self.os_double_lock && !self.implementation.ignores_os_lock
    }

    /// `GenerateDebugExceptions`: the same, from the current state.
    #[must_use]
    pub fn generate_debug_exceptions(&self) -> bool {
        self.generate_debug_exceptions_from(self.pstate.el, self.pstate.d)
    }

    /// `CheckSoftwareStep`: whether a Software Step exception is pending before the instruction
    /// at the PC.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions".
    #[must_use]
    pub fn check_software_step(&self) -> bool {
        self.generate_debug_exceptions() && self.mdscr_seen.ss && !self.pstate.ss
    }

    /// `AArch64.BreakpointMatch`, for the breakpoints that there are: whether a Breakpoint
    /// exception comes before the instruction at the PC. Software Step has the higher priority.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Breakpoint exceptions".
    #[must_use]
    pub fn breakpoint_match(&self) -> bool {
        self.generate_debug_exceptions()
            && self.mdscr_seen.mde
            && self.breakpoints.contains(&Some(self.pc))
    }

    /// `SSAdvance`: an instruction, or an exception that counts as one, was executed.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions".
    pub fn ss_advance(&mut self) {
        if self.mdscr_seen.ss && self.pstate.ss {
            self.pstate.ss = false;
        }
    }

    /// `DebugExceptionReturnSS`: PSTATE.SS after an exception return with `spsr`.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Entering the active-not-pending state".
    #[must_use]
    pub fn debug_exception_return_ss(&self, spsr: ProcState) -> bool {
        if !self.mdscr_seen.ss {
            return false;
        }
        // An illegal return stays where it is.
        let dest = if self.illegal_exception_return(spsr) { self.pstate.el } else { spsr.el };
        let enabled_at_source = self.generate_debug_exceptions();
        let enabled_at_dest = self.generate_debug_exceptions_from(dest, spsr.d);
        !enabled_at_source && enabled_at_dest && spsr.ss
    }
}

#[cfg(test)]
mod tests {
    use crate::state::{El, Mdcr, Mdscr, ProcState, SpecMachine};

    fn at(el: El) -> SpecMachine {
        let mut machine = SpecMachine::new(ProcState::at(el));
        machine.mdscr_seen = Mdscr { ss: true, kde: false, mde: false };
        machine
    }

    #[test]
    fn tde_routes_to_el2_and_then_d_does_not_mask() {
        let mut machine = at(El::El1);
        assert!(!machine.generate_debug_exceptions(), "ELd is EL1, KDE is clear");
        machine.mdcr = Mdcr { tde: true, tda: false };
        machine.pstate.d = true;
        assert_eq!(machine.debug_target_from(), El::El2);
        assert!(machine.check_software_step());
    }

    #[test]
    fn either_os_lock_disables_all() {
        for (lock, double) in [(true, false), (false, true)] {
            let mut machine = at(El::El0);
            (machine.os_lock, machine.os_double_lock) = (lock, double);
            assert!(!machine.check_software_step());
        }
    }

    #[test]
    fn eld_itself_steps_only_with_kde_and_d_clear() {
        for (kde, d) in [(false, false), (false, true), (true, true), (true, false)] {
            let mut machine = at(El::El1);
            (machine.mdscr_seen.kde, machine.pstate.d) = (kde, d);
            assert_eq!(machine.check_software_step(), kde && !d);
        }
    }

    #[test]
    fn a_return_takes_ss_only_from_disabled_to_enabled() {
        let mut machine = at(El::El2);
        machine.mdcr.tde = true;
        let spsr = ProcState { ss: true, ..ProcState::at(El::El1) };
        assert!(machine.debug_exception_return_ss(spsr));
        assert!(!machine.debug_exception_return_ss(ProcState { ss: false, ..spsr }));
        machine.mdscr_seen.kde = true;
        assert!(!machine.debug_exception_return_ss(spsr), "EL2 steps itself: SS is discarded");
        machine.pstate.d = true;
        assert!(machine.debug_exception_return_ss(spsr));
        machine.mdscr_seen.ss = false;
        assert!(!machine.debug_exception_return_ss(spsr));
    }

    #[test]
    fn an_advance_ends_active_not_pending_alone() {
        let mut machine = at(El::El1);
        machine.pstate.ss = true;
        machine.mdscr_seen.ss = false;
        machine.ss_advance();
        assert!(machine.pstate.ss, "not enabled: nothing to advance");
        machine.mdscr_seen.ss = true;
        machine.ss_advance();
        assert!(!machine.pstate.ss);
    }
}
