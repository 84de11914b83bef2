//! Which exceptions come before an instruction that EL2 is to carry out in the CPU's place.
//!
//! An instruction that EL2 carries out has not executed: nobody has looked whether an exception
//! comes first. The order is the manual's, of synchronous exceptions taken to AArch64 state:
//!
//! | what comes first, in this order | who finds it |
//! | --- | --- |
//! | the guest's own Software Step | [`crate::own_step`], at the boundary |
//! | PC alignment, instruction abort, Breakpoint, Illegal Execution state, Branch Target | the CPU |
//! | undefined instruction, trap to EL1 (CNTKCTL_EL1, SCTLR_EL1.nTWI, MDSCR_EL1.TDCC) | the CPU |
//! | SP alignment | the CPU |
//! | alignment of the data address | EL2: [`is_aligned`] |
//! | MMU fault of stage 1, PSTATE.PAN included | EL2, by the guest's translation |
//! | Watchpoint | EL2, by the guest's registers |
//!
//! The CPU finds them by being *asked*: it executes the instruction under the step, and if that
//! comes to an end, everything that it changed is put back and EL2 carries the instruction out. A
//! store-exclusive fails there, as the CPU's monitor is open, and a WFI does not wait. So there is no
//! second writing of the CPU's checks, and the guest gets the CPU's own exceptions, whatever it
//! implements. What of data accesses a failing store-exclusive checks is IMPLEMENTATION DEFINED, and
//! for a device there is nothing to ask, hence the last three rows.
//!
//! Asking costs an entry. It is left out where the answer is known ([`is_certain`]).
//!
//! An access that comes to EL2 by a stage-2 abort (a device, a page that is withheld) has all of it
//! behind it but the Watchpoint, which comes after MMU faults and is looked for here likewise.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Synchronous exception types, routing and priorities";
//! pseudocode `AArch64.ExclusiveMonitorsPass` and `AArch64.TranslateAddress`.

use crate::own_step::{self, GuestDebug};
use stepwell_arch::debug::mdscr_el1;
use stepwell_arch::{Pstate, Va};

/// SCTLR_EL1.SA0 and SA: the stack pointer is checked at EL0, and at EL1.
const SCTLR_SA0: u64 = 1 << 4;
const SCTLR_SA: u64 = 1 << 3;
/// SCTLR_EL1.A: whatever is not aligned faults.
const SCTLR_A: u64 = 1 << 1;
/// SCTLR_EL1.nTWI: WFI at EL0 is not trapped to EL1.
const SCTLR_NTWI: u64 = 1 << 16;

/// What decides over a store-exclusive that pairs with a load that the CPU has executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// The guest's debug state.
    pub guest: GuestDebug,
    /// Its PSTATE.
    pub pstate: Pstate,
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// The stack pointer, if the address is made from it.
    pub stack: Option<u64>,
    /// The CPU has executed an instruction of this page since the guest's translation or exception
    /// level changed last.
    pub is_page_executed: bool,
}

/// Tells whether nothing of what only the CPU finds can come before a store-exclusive, so that it
/// need not be asked. Of AArch32 there is too much that can.
#[must_use]
pub const fn is_certain(circumstances: Circumstances) -> bool {
    let Circumstances { guest, pstate, sctlr, stack, is_page_executed } = circumstances;
    let checked = if pstate.el() == 0 { SCTLR_SA0 } else { SCTLR_SA };
    let is_stack_sound = match stack {
        Some(stack) => sctlr & checked == 0 || stack & 0xf == 0,
        None => true,
    };
    is_page_executed
        && is_stack_sound
        && guest.mdscr & mdscr_el1::MDE == 0
        && !pstate.is_aarch32()
        && !pstate.il()
        && pstate.btype() == 0
}

/// Tells whether the guest's own breakpoints and watchpoints may hit here.
#[must_use]
pub fn may_hit(guest: GuestDebug, pstate: Pstate) -> bool {
    guest.mdscr & mdscr_el1::MDE != 0 && own_step::generate_debug_exceptions_from(guest, pstate)
}

/// Tells whether a WFI that would wait is trapped to the guest's EL1 instead.
///
/// A CPU that is asked may not say so: the step that it executes it under is a reason not to wait,
/// and only what would wait is trapped.
#[must_use]
pub const fn traps_wait(pstate: Pstate, sctlr: u64) -> bool {
    pstate.el() == 0 && sctlr & SCTLR_NTWI == 0
}

/// Tells whether an exclusive access of `bytes` bytes at `address` is aligned as it has to be, so
/// that it does not fault. With FEAT_LSE2 it may lie anywhere within 16 bytes that are, unless
/// SCTLR_EL1.A is set.
///
/// Source: Arm ARM, DDI 0487 L.b, pseudocode `AArch64.UnalignedAccessFaults`.
#[must_use]
pub const fn is_aligned(address: Va, bytes: u64, sctlr: u64, has_lse2: bool) -> bool {
    let is_within_16 = (address.0 & 15).saturating_add(bytes) <= 16;
    address.0 & bytes.wrapping_sub(1) == 0 || has_lse2 && is_within_16 && sctlr & SCTLR_A == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: GuestDebug = GuestDebug { mdscr: 0, os_lock: false };
    const KERNEL: Pstate = Pstate(Pstate::M_EL1H);
    const USER: Pstate = Pstate(Pstate::M_EL0T);
    const PLAIN: Circumstances = Circumstances {
        guest: NOBODY,
        pstate: KERNEL,
        sctlr: SCTLR_SA | SCTLR_SA0,
        stack: None,
        is_page_executed: true,
    };

    #[test]
    fn most_store_exclusives_need_no_answer() {
        assert!(is_certain(PLAIN));
        assert!(is_certain(Circumstances { pstate: USER, ..PLAIN }));
        assert!(is_certain(Circumstances { stack: Some(0x1010), ..PLAIN }));
    }

    #[test]
    fn whatever_may_come_first_is_asked_for() {
        let debugs = GuestDebug { mdscr: mdscr_el1::MDE, os_lock: false };
        let rows = [
            (Circumstances { guest: debugs, ..PLAIN }, "a breakpoint of its own"),
            (Circumstances { pstate: Pstate(KERNEL.0 | Pstate::IL), ..PLAIN }, "illegal state"),
            (Circumstances { pstate: Pstate(KERNEL.0 | 1 << 10), ..PLAIN }, "branch target"),
            (Circumstances { pstate: Pstate(Pstate::M_USER), ..PLAIN }, "AArch32"),
            (Circumstances { stack: Some(0x1008), ..PLAIN }, "SP alignment"),
            (Circumstances { is_page_executed: false, ..PLAIN }, "instruction abort"),
        ];
        for (circumstances, what) in rows {
            assert!(!is_certain(circumstances), "{what}");
        }
    }

    #[test]
    fn each_level_has_its_own_check_of_the_stack() {
        let odd = Circumstances { stack: Some(8), ..PLAIN };
        let rows = [
            (KERNEL, SCTLR_SA0, true),
            (KERNEL, SCTLR_SA, false),
            (USER, SCTLR_SA, true),
            (USER, SCTLR_SA0, false),
        ];
        for (pstate, sctlr, certain) in rows {
            assert_eq!(is_certain(Circumstances { pstate, sctlr, ..odd }), certain, "{sctlr:#x}");
        }
    }

    #[test]
    fn watchpoints_hit_where_debug_exceptions_are_enabled() {
        let kernel = GuestDebug { mdscr: mdscr_el1::MDE | mdscr_el1::KDE, os_lock: false };
        let user = GuestDebug { mdscr: mdscr_el1::MDE, os_lock: false };
        assert!(may_hit(kernel, KERNEL) && may_hit(user, USER));
        assert!(!may_hit(user, KERNEL) && !may_hit(NOBODY, USER));
        assert!(!may_hit(kernel, Pstate(KERNEL.0 | Pstate::D)));
        assert!(!may_hit(GuestDebug { os_lock: true, ..kernel }, USER));
    }

    #[test]
    fn a_wait_at_el0_is_the_kernels_to_allow() {
        assert!(traps_wait(USER, 0) && traps_wait(Pstate(Pstate::M_USER), 0));
        assert!(!traps_wait(USER, SCTLR_NTWI) && !traps_wait(KERNEL, 0));
    }

    #[test]
    fn exclusives_are_aligned_to_all_that_they_transfer() {
        for has_lse2 in [false, true] {
            assert!(is_aligned(Va(0x1010), 16, SCTLR_A, has_lse2));
            assert!(is_aligned(Va(0x1001), 1, SCTLR_A, has_lse2));
            assert!(!is_aligned(Va(0x1008), 16, 0, has_lse2));
            assert!(!is_aligned(Va(0x1004), 8, SCTLR_A, has_lse2));
            assert_eq!(is_aligned(Va(0x1004), 8, 0, has_lse2), has_lse2);
            assert!(is_aligned(Va(0x1008), 8, 0, has_lse2));
        }
    }

    #[test]
    fn with_lse2_they_lie_anywhere_within_sixteen_bytes() {
        for (offset, bytes, aligned) in [(8, 8, true), (9, 8, false), (13, 4, false), (12, 4, true)]
        {
            assert_eq!(is_aligned(Va(0x1000 + offset), bytes, 0, true), aligned, "{offset}");
        }
        assert!(is_aligned(Va(0x1003), 4, 0, true) && !is_aligned(Va(0x100f), 2, 0, true));
    }
}
