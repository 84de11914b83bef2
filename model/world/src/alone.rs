//! The machine that runs alone: the same guest, stepped by nobody.
//!
//! It does one thing each time that the first one did one. What happens below EL2 it does at once; of
//! what EL2 does in the guest's place it is found out afterwards, by [`catch_up`]: it goes on, thing by
//! thing, until it is where the guest is. Where it never gets there, the guest is somewhere that it
//! would not be alone.

use crate::world::Wrong;
use stepwell_spec::exception::SYNCHRONOUS_VECTOR;
use stepwell_spec::{Choice, Class, El, Event, Op, ProcState, Program, SpecMachine, Syndrome};

/// More than EL2 does between an exit and the next entry.
const THINGS_MAX: usize = 4;

/// One thing that the machine which runs alone did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Thing {
    /// The instruction that executed, or did not because of an exception; nothing where that was an
    /// interrupt, or the guest's own step.
    pub begun: Option<u8>,
    /// It took the virtual interrupt.
    pub is_interrupt: bool,
}

/// Does one thing.
pub fn follow(alone: &mut SpecMachine, program: Program, choice: Choice) -> Thing {
    let (pc, own_step) = (alone.pc, alone.check_software_step());
    let is_interrupt = choice == Choice::VirtualInterrupt;
    while alone.advance(program, choice) == Event::ExitedToEl2 {
        if carried_out_at_el2(alone) {
            break;
        }
    }
    // EL2 carried out what writes a debug register, and synchronized.
    alone.synchronize_context();
    // What only the saved copies in EL2's registers differ in is no difference.
    alone.spsr_el2 = ProcState::at(El::El0);
    alone.elr_el2 = 0;
    alone.stepped = None;
    Thing { begun: (!is_interrupt && !own_step).then_some(pc), is_interrupt }
}

/// What traps is carried out at EL2 there, too. Tells whether that was all.
fn carried_out_at_el2(alone: &mut SpecMachine) -> bool {
    let class = alone.esr_el2.class;
    match class {
        Class::Stage2 => alone.is_mapped = true,
        // The board has no EL3: it is undefined.
        Class::Smc => {
            (alone.spsr_el1, alone.elr_el1) = (alone.spsr_el2, alone.elr_el2);
            alone.esr_el1 = Syndrome::of(Class::Undefined);
            (alone.spsr_el2, alone.elr_el2) = (ProcState::masked(El::El1), SYNCHRONOUS_VECTOR);
        }
        _ => {
            if class != Class::Hvc {
                alone.elr_el2 = alone.elr_el2.saturating_add(1);
            }
            // The instruction counts as executed: the guest's own step sees it.
            alone.spsr_el2.ss &= !alone.mdscr.ss;
        }
    }
    let ss = alone.spsr_el2.ss;
    alone.exception_return();
    if !is_ss_alive(alone) {
        alone.pstate.ss = ss;
    }
    class != Class::Stage2
}

/// Whether the guest's own PSTATE.SS means anything where it is.
///
/// Where it does not (its step disabled, the OS Lock set) a return from EL2 makes it 0, and whether
/// there was one since is not the guest's to say: a 1 may stay, or be lost.
#[must_use]
pub fn is_ss_alive(alone: &SpecMachine) -> bool {
    alone.mdscr.ss && alone.generate_debug_exceptions()
}

/// Goes on until the machine is where the guest is: the things that it did, and it after them.
/// Nothing where it does not get there.
#[must_use]
pub fn catch_up(
    alone: &SpecMachine,
    guest: &SpecMachine,
    program: Program,
) -> Option<(SpecMachine, Vec<Thing>)> {
    (0..=THINGS_MAX).find_map(|depth| {
        let mut things = Vec::new();
        let found = search(*alone, guest, program, depth, &mut things)?;
        Some((found, things))
    })
}

/// What is wrong where the guest is not where the machine can get to from here.
#[must_use]
pub fn why_not(alone: &SpecMachine, guest: &SpecMachine, program: Program) -> Wrong {
    let stores = program.fetch(alone.pc) == Op::StoreExclusive;
    let is_stored = stores && !guest.status && guest.pc != alone.pc;
    if is_stored && !alone.exclusive_monitors_pass() { Wrong::Store } else { Wrong::Guest }
}

fn search(
    alone: SpecMachine,
    guest: &SpecMachine,
    program: Program,
    depth: usize,
    things: &mut Vec<Thing>,
) -> Option<SpecMachine> {
    if depth == 0 {
        return same_but_debug(guest, &alone).then_some(alone);
    }
    let store = if guest.status { Choice::StoreFails } else { Choice::Proceed };
    let choices = [store, Choice::VirtualInterrupt];
    choices.into_iter().find_map(|choice| {
        // A PE that delivers a pending step first does so to the guest's own, too.
        let may_come = alone.can_take_virtual_interrupt() && alone.can_be_interrupted();
        if choice == Choice::VirtualInterrupt && !may_come {
            return None;
        }
        let mut next = alone;
        things.push(follow(&mut next, program, choice));
        let found = search(next, guest, program, depth - 1, things);
        if found.is_none() {
            things.pop();
        }
        found
    })
}

/// Everything that a guest can observe, but what the debug properties compare.
#[must_use]
pub fn same_but_debug(guest: &SpecMachine, alone: &SpecMachine) -> bool {
    let view = |machine: &SpecMachine| {
        let (mut pstate, mut spsr_el1) = (machine.pstate, machine.spsr_el1);
        (pstate.ss, spsr_el1.ss) = (false, false);
        let exception = (machine.elr_el1, spsr_el1, machine.esr_el1.class);
        let exclusive = (machine.line, machine.loaded, machine.status);
        (machine.pc, pstate, exception, exclusive, machine.virq)
    };
    view(guest) == view(alone)
}
