//! What is left to do when an instruction is done with: executed under a step, taken to EL1, or
//! carried out at EL2.
//!
//! The machine ran with our SS in PSTATE and MDSCR_EL1, so the guest's own step, its monitor and
//! what an exception saved of PSTATE are put right here, from what was looked at before the
//! instruction and what the machine shows after it.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions".

use crate::exclusive::LoadExclusive;
use crate::mutation::{self, Mutant};
use crate::own_step::{self, GuestDebug};
use crate::plan::Plan;
use crate::step::Boundary;
use stepwell_arch::aarch32::it_advance;
use stepwell_arch::debug::mdscr_el1;
use stepwell_arch::{InstructionSet, Pstate, Va};

/// Bytes of an SVC: T32 has it as a 2-byte instruction only.
fn bytes_of_call(pstate: Pstate) -> u64 {
    if InstructionSet::of(pstate) == InstructionSet::T32 { 2 } else { 4 }
}

/// The instruction at the PC, looked at before it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Where it is; not known of one in a run of plain instructions that the fast path began.
    pub pc: Option<Va>,
    /// What it needs.
    pub plan: Plan,
    /// It is an SVC.
    pub is_svc: bool,
    /// The guest's PSTATE.
    pub pstate: Pstate,
    /// SPSR_EL1. Only needed of an exception return.
    pub spsr_el1: Pstate,
}

/// What the machine shows at the boundary after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// What the exit said.
    pub boundary: Boundary,
    /// The guest's PSTATE, with its own SS from before.
    pub pstate: Pstate,
    /// If the PC is one of the guest's vectors: what an exception would have saved.
    pub vector: Option<Saved>,
}

/// What an exception to EL1 saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// SPSR_EL1.
    pub spsr_el1: Pstate,
    /// ELR_EL1.
    pub elr_el1: Va,
}

/// What becomes of the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorChange {
    /// It stays as it is.
    Keep,
    /// It is cleared.
    Clear,
    /// This was executed: arm it with what it read.
    Arm(LoadExclusive),
}

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The guest's PSTATE.
    pub pstate: Pstate,
    /// SPSR_EL1, where it must be written.
    pub spsr_el1: Option<Pstate>,
    /// What becomes of the monitor.
    pub monitor: MonitorChange,
    /// The CPU says that it executed something else than what was looked at.
    pub is_other: bool,
}

/// Tells that [`complete`] would find nothing to do, of the boundary that most steps come to: a
/// plain instruction executed, the guest does not step itself, and the PC is none of its vectors.
#[inline]
#[must_use]
pub const fn leaves_nothing(guest: GuestDebug, plan: Plan, boundary: Boundary) -> bool {
    matches!(plan, Plan::Execute)
        && guest.mdscr & mdscr_el1::SS == 0
        && !(boundary.syndrome_valid && boundary.load_exclusive)
}

/// The load-exclusive that is to arm the monitor, where [`complete`] would find nothing else to do, of
/// the boundary that most of them come to: it executed, the guest does not step itself, and the PC is
/// none of its vectors.
#[inline]
#[must_use]
pub const fn only_arms(guest: GuestDebug, plan: Plan, boundary: Boundary) -> Option<LoadExclusive> {
    match plan {
        Plan::LoadExclusive(load)
            if guest.mdscr & mdscr_el1::SS == 0
                && boundary.syndrome_valid
                && boundary.load_exclusive =>
        {
            Some(load)
        }
        _ => None,
    }
}

/// Tells what is left to do at a boundary that the machine came to.
///
/// Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions"; `SSAdvance` comes before the
/// exception of an SVC and after no other exception to EL1.
#[must_use]
pub fn complete(guest: GuestDebug, before: Before, after: After) -> Completion {
    let pstate = after.pstate;
    if let Some((saved, is_call)) = entered_exception(before, after) {
        let advances = own_step::is_stepping(guest, before.pstate)
            || !mutation::is(Mutant::SvcAdvancesWhereEnabled);
        let at_entry =
            if is_call && advances { own_step::ss_advance(guest, pstate) } else { pstate };
        // The SS that the CPU saved was ours.
        let spsr_el1 = saved.spsr_el1.with_ss(at_entry.ss());
        return Completion {
            pstate: pstate.with_ss(false),
            spsr_el1: (!mutation::is(Mutant::SsLeaksIntoSpsrEl1)).then_some(spsr_el1),
            monitor: MonitorChange::Clear,
            is_other: false,
        };
    }
    let advanced = own_step::ss_advance(guest, pstate);
    let was_load_exclusive = matches!(before.plan, Plan::LoadExclusive(_));
    let is_other = after.boundary.syndrome_valid
        && after.boundary.load_exclusive != was_load_exclusive
        && !matches!(before.plan, Plan::SkippedLoadExclusive);
    let done = |pstate, monitor| Completion { pstate, spsr_el1: None, monitor, is_other };
    match before.plan {
        _ if is_other => done(advanced, MonitorChange::Clear),
        Plan::LoadExclusive(load) => done(advanced, MonitorChange::Arm(load)),
        Plan::ClearExclusive => done(advanced, MonitorChange::Clear),
        Plan::ExceptionReturn => {
            let spsr = pstate.with_ss(before.spsr_el1.ss());
            let ss = own_step::debug_exception_return_ss(guest, before.pstate, spsr);
            done(pstate.with_ss(ss), MonitorChange::Clear)
        }
        _ => done(advanced, MonitorChange::Keep),
    }
}

/// Tells whether an instruction of `bytes` bytes that the CPU was asked about has executed: the PC is
/// past it, and no exception has led there.
///
/// See [`crate::precedence`].
#[must_use]
pub fn has_executed(before: Before, after: After, pc: Va, bytes: u64) -> bool {
    let is_past = before.pc.is_some_and(|begun| begun.0.wrapping_add(bytes) == pc.0);
    is_past && entered_exception(before, after).is_none()
}

/// What an exception saved that has just led to the vector at the boundary, if one has, and whether
/// it was the call of an SVC.
///
/// A branch or an exception return may lead to a vector, too. An exception masks everything and
/// returns to the instruction, or to behind an SVC. The syndrome of the step that follows it may or
/// may not be valid; where it is, the SS that was saved still gives the exception away if it differs
/// from the guest's own, and where that does not differ either there is nothing to put right but an
/// SVC's advance. What is left is a branch to a vector, with everything masked, from where ELR_EL1
/// points: it is taken for an exception if SPSR_EL1.SS differs from the guest's SS.
fn entered_exception(before: Before, after: After) -> Option<(Saved, bool)> {
    let saved = after.vector?;
    let returns_to =
        |pc: u64| before.pc.is_none_or(|begun| saved.elr_el1.0 == begun.0.wrapping_add(pc));
    let is_call = before.is_svc && returns_to(bytes_of_call(before.pstate));
    let is_masked = after.pstate.0 & Pstate::DAIF == Pstate::DAIF;
    if !is_masked || !is_call && !returns_to(0) {
        return None;
    }
    let has_leaked = saved.spsr_el1.ss() != after.pstate.ss();
    (!after.boundary.syndrome_valid || has_leaked || is_call).then_some((saved, is_call))
}

/// MDSCR_EL1 of the guest around an instruction that EL2 carries out, which may write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MdscrAround {
    /// Before the instruction.
    pub before: u64,
    /// After it.
    pub after: u64,
}

/// PC and PSTATE after an instruction at `pc` that EL2 carried out in the guest's place: past it
/// by `bytes`, which is 0 for an HVC, and advanced for the guest's own step and in its IT block.
///
/// What the instruction itself writes to MDSCR_EL1 counts from the next one on.
///
/// Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions" (`SSAdvance`) and "Synchronization and
/// debug exceptions".
#[must_use]
pub fn carried_out(mdscr: MdscrAround, pc: Va, pstate: Pstate, bytes: u64) -> (Va, Pstate) {
    let is_late = mutation::is(Mutant::MdscrBeforeAdvance);
    let decisive = if is_late { mdscr.after } else { mdscr.before };
    let advances = decisive & mdscr_el1::SS != 0 && !mutation::is(Mutant::TrapKeepsGuestsSs);
    // Where AArch64 has BTYPE, AArch32 has some of IT.
    let pstate =
        if pstate.is_aarch32() { it_advance(pstate) } else { Pstate(pstate.0 & !Pstate::BTYPE) };
    let moved = if mutation::is(Mutant::TrapNotAdvanced) { 0 } else { bytes };
    (Va(pc.0.wrapping_add(moved)), pstate.with_ss(pstate.ss() && !advances))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Pstate = Pstate(Pstate::M_EL1H);
    const USER: Pstate = Pstate(Pstate::M_EL0T);
    const MASKED: Pstate = Pstate::EL1H_MASKED;
    const PC: Va = Va(0x1000);
    const STEPPED: Boundary = Boundary { load_exclusive: false, syndrome_valid: true };
    const UNKNOWN: Boundary = Boundary { load_exclusive: false, syndrome_valid: false };
    const NOBODY: GuestDebug = GuestDebug { mdscr: 0, os_lock: false };
    const ITSELF: GuestDebug = GuestDebug { mdscr: mdscr_el1::SS, os_lock: false };
    const LOAD: LoadExclusive = LoadExclusive { bytes: 8, pair: false, rn: 1, rt: 0, rt2: 31 };

    const fn before(plan: Plan, pstate: Pstate) -> Before {
        Before { pc: Some(PC), plan, is_svc: false, pstate, spsr_el1: Pstate(0) }
    }

    const fn after(boundary: Boundary, pstate: Pstate) -> After {
        After { boundary, pstate, vector: None }
    }

    #[test]
    fn a_plain_instruction_advances_the_guests_own_step_and_nothing_else() {
        let user = USER.with_ss(true);
        for (guest, ss) in [(NOBODY, true), (ITSELF, false)] {
            let done = complete(guest, before(Plan::Execute, user), after(STEPPED, user));
            let expected = Completion {
                pstate: USER.with_ss(ss),
                spsr_el1: None,
                monitor: MonitorChange::Keep,
                is_other: false,
            };
            assert_eq!(done, expected);
        }
    }

    #[test]
    fn what_is_not_completed_would_be_completed_by_nothing_else() {
        let flags = [false, true];
        let locked = GuestDebug { os_lock: true, ..NOBODY };
        let boundaries = flags.into_iter().flat_map(|load_exclusive| {
            flags.map(|syndrome_valid| Boundary { load_exclusive, syndrome_valid })
        });
        let (mut seen, mut armed) = (0, 0);
        for boundary in boundaries {
            for (guest, ss) in
                [NOBODY, ITSELF, locked].into_iter().flat_map(|g| flags.map(|f| (g, f)))
            {
                for plan in [Plan::Execute, Plan::LoadExclusive(LOAD), Plan::ExceptionReturn] {
                    let pstate = USER.with_ss(ss);
                    if leaves_nothing(guest, plan, boundary) {
                        let done = complete(guest, before(plan, USER), after(boundary, pstate));
                        let monitor = MonitorChange::Keep;
                        let nothing =
                            Completion { pstate, spsr_el1: None, monitor, is_other: false };
                        assert_eq!(done, nothing, "{guest:?} {boundary:?}");
                        seen += 1;
                    }
                    if let Some(load) = only_arms(guest, plan, boundary) {
                        let done = complete(guest, before(plan, USER), after(boundary, pstate));
                        let monitor = MonitorChange::Arm(load);
                        let arms = Completion { pstate, spsr_el1: None, monitor, is_other: false };
                        assert_eq!(done, arms, "{guest:?} {boundary:?}");
                        armed += 1;
                    }
                }
            }
        }
        // Of four boundaries one says that it was a load-exclusive; two guests step nothing.
        assert_eq!((seen, armed), (3 * 2 * 2, 2 * 2));
    }

    #[test]
    fn a_load_exclusive_arms_and_clrex_clears() {
        let armed = Boundary { load_exclusive: true, syndrome_valid: true };
        for boundary in [armed, UNKNOWN] {
            let load = before(Plan::LoadExclusive(LOAD), USER);
            let done = complete(NOBODY, load, after(boundary, USER));
            assert_eq!(done.monitor, MonitorChange::Arm(LOAD), "{boundary:?}");
        }
        let clear = before(Plan::ClearExclusive, USER);
        assert_eq!(complete(NOBODY, clear, after(STEPPED, USER)).monitor, MonitorChange::Clear);
    }

    #[test]
    fn a_syndrome_that_does_not_fit_says_that_something_else_was_executed() {
        let armed = Boundary { load_exclusive: true, syndrome_valid: true };
        for (plan, boundary) in [(Plan::LoadExclusive(LOAD), STEPPED), (Plan::Execute, armed)] {
            let done = complete(ITSELF, before(plan, USER), after(boundary, USER.with_ss(true)));
            assert!(done.is_other, "{plan:?}");
            assert_eq!(done.monitor, MonitorChange::Clear);
            assert!(!done.pstate.ss(), "it counts for the guest's step all the same");
        }
    }

    const fn saved(spsr_el1: Pstate, elr_el1: Va) -> Option<Saved> {
        Some(Saved { spsr_el1, elr_el1 })
    }

    #[test]
    fn what_an_exception_saved_is_the_guests_ss_and_not_ours() {
        let vector = saved(USER.with_ss(true), PC);
        let entered = |ss| After { vector, ..after(UNKNOWN, MASKED.with_ss(ss)) };
        let run = Before { pc: None, ..before(Plan::Execute, USER) };
        for begun in [before(Plan::Execute, USER), run] {
            for ss in [false, true] {
                let done = complete(NOBODY, begun, entered(ss));
                assert_eq!(done.spsr_el1, Some(USER.with_ss(ss)));
                assert_eq!(done.pstate, MASKED, "SS is 0 after every exception");
                assert_eq!(done.monitor, MonitorChange::Clear);
            }
        }
        let done = complete(ITSELF, before(Plan::Execute, USER), entered(true));
        assert_eq!(done.spsr_el1, Some(USER.with_ss(true)), "a fault advances nothing");
    }

    #[test]
    fn an_svc_advances_before_its_exception_wherever_mdscr_says_so() {
        // The syndrome is valid and nothing differs: that it was an SVC is enough.
        let locked = GuestDebug { os_lock: true, ..ITSELF };
        for guest in [ITSELF, locked] {
            let svc = Before { is_svc: true, ..before(Plan::Execute, USER.with_ss(true)) };
            let vector = saved(USER.with_ss(true), Va(PC.0 + 4));
            let entered = After { vector, ..after(STEPPED, MASKED.with_ss(true)) };
            assert_eq!(complete(guest, svc, entered).spsr_el1, Some(USER));
            // Its fetch aborted, or an interrupt came first.
            let vector = saved(USER.with_ss(true), PC);
            let entered = After { vector, ..after(UNKNOWN, MASKED.with_ss(true)) };
            assert_eq!(complete(guest, svc, entered).spsr_el1, Some(USER.with_ss(true)));
        }
    }

    #[test]
    fn what_goes_to_a_vector_by_itself_is_no_exception() {
        let elsewhere = saved(USER.with_ss(true), Va(0x2000));
        let here = saved(USER.with_ss(true), PC);
        let rows = [
            (Plan::Execute, STEPPED, elsewhere, MASKED, MonitorChange::Keep),
            (Plan::Execute, UNKNOWN, elsewhere, MASKED, MonitorChange::Keep),
            (Plan::Execute, UNKNOWN, here, KERNEL, MonitorChange::Keep),
            (Plan::Execute, STEPPED, saved(USER, PC), MASKED, MonitorChange::Keep),
            (Plan::ExceptionReturn, STEPPED, elsewhere, MASKED, MonitorChange::Clear),
        ];
        for (plan, boundary, vector, pstate, monitor) in rows {
            let arrived = After { vector, ..after(boundary, pstate) };
            let done = complete(NOBODY, before(plan, MASKED), arrived);
            assert_eq!((done.spsr_el1, done.monitor), (None, monitor), "{plan:?} {boundary:?}");
        }
    }

    #[test]
    fn what_the_cpu_was_asked_about_has_executed_where_the_pc_is_past_it() {
        let asked = before(Plan::WaitForInterrupt { until: None }, USER);
        let executed = after(STEPPED, USER);
        assert!(has_executed(asked, executed, Va(PC.0 + 4), 4));
        assert!(has_executed(asked, executed, Va(PC.0 + 2), 2));
        assert!(!has_executed(asked, executed, Va(PC.0 + 2), 4), "elsewhere");
        assert!(!has_executed(Before { pc: None, ..asked }, executed, Va(4), 4));
        // The next address may be a vector.
        let entered = After { vector: saved(USER.with_ss(true), PC), ..after(UNKNOWN, MASKED) };
        assert!(!has_executed(asked, entered, Va(PC.0 + 4), 4));
    }

    #[test]
    fn an_exception_return_arms_the_guests_step_of_its_el0() {
        for (guest, ss) in [(ITSELF, true), (NOBODY, false)] {
            let eret =
                Before { spsr_el1: USER.with_ss(true), ..before(Plan::ExceptionReturn, KERNEL) };
            let done = complete(guest, eret, after(STEPPED, USER));
            assert_eq!((done.pstate, done.monitor), (USER.with_ss(ss), MonitorChange::Clear));
        }
    }

    #[test]
    fn what_is_carried_out_at_el2_moves_the_pc_and_advances() {
        let landing = Pstate(USER.0 | Pstate::BTYPE).with_ss(true);
        let around = |before, after| MdscrAround { before, after };
        let rows = [
            (around(0, 0), 4, true),
            (around(mdscr_el1::SS, mdscr_el1::SS), 4, false),
            (around(mdscr_el1::SS, 0), 4, false),
            (around(0, mdscr_el1::SS), 2, true),
            (around(mdscr_el1::SS, mdscr_el1::SS), 0, false),
        ];
        for (mdscr, bytes, ss) in rows {
            let (pc, pstate) = carried_out(mdscr, Va(0x1000), landing, bytes);
            assert_eq!((pc, pstate), (Va(0x1000 + bytes), USER.with_ss(ss)), "{mdscr:?}");
        }
    }

    /// User mode of AArch32, in T32, in the last two of an IT block.
    const USER32: Pstate = Pstate(Pstate::M_USER | Pstate::T | 0x400);

    #[test]
    fn a_call_of_t32_returns_behind_its_two_bytes() {
        for (pstate, bytes) in [(USER32, 2), (Pstate(Pstate::M_USER), 4)] {
            let svc = Before { is_svc: true, ..before(Plan::Execute, pstate.with_ss(true)) };
            let vector = saved(pstate.with_ss(true), Va(PC.0 + bytes));
            let entered = After { vector, ..after(UNKNOWN, MASKED.with_ss(true)) };
            assert_eq!(complete(ITSELF, svc, entered).spsr_el1, Some(pstate));
        }
    }

    #[test]
    fn the_cpu_may_say_that_a_skipped_load_exclusive_was_one() {
        for said in [false, true] {
            let boundary = Boundary { load_exclusive: said, syndrome_valid: true };
            let skipped = before(Plan::SkippedLoadExclusive, USER32);
            let done = complete(NOBODY, skipped, after(boundary, USER32));
            assert_eq!((done.is_other, done.monitor), (false, MonitorChange::Keep));
        }
    }

    #[test]
    fn what_is_carried_out_in_an_it_block_advances_it() {
        let nobody = MdscrAround { before: 0, after: 0 };
        let (pc, pstate) = carried_out(nobody, Va(0x1002), USER32, 2);
        assert_eq!((pc, pstate), (Va(0x1004), Pstate(USER32.0 & !0x400 | 0x800)));
        let (pc, pstate) = carried_out(nobody, pc, pstate, 4);
        assert_eq!((pc, pstate), (Va(0x1008), Pstate(USER32.0 & !0x400)));
    }
}
