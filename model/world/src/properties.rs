//! What holds in every state, and what must be seen to happen in some.
//!
//! Progress, that a program which ends unstepped ends stepped, is no property of a state; see
//! [`crate::progress`].

use crate::over::Policy;
use crate::world::{Exploration, World};
use stateright::Property;
use stepwell_engine::own_step;
use stepwell_spec::exception::vector_of;
use stepwell_spec::{Class, El, Mdcr, SpecMachine};

type Condition = fn(&Exploration, &World) -> bool;

/// What holds always: its name, the condition, and the witnesses that keep it from being empty.
///
/// A witness fails where the space has silently shrunk.
type Row = (&'static str, Condition, &'static [(&'static str, Condition)]);

/// All properties.
#[must_use]
pub fn all() -> Vec<Property<Exploration>> {
    let rows = REPORTS.iter().chain(GUEST);
    rows.flat_map(|&(name, holds, witnesses)| {
        let witnesses = witnesses.iter().map(|&(name, seen)| Property::sometimes(name, seen));
        core::iter::once(Property::always(name, holds)).chain(witnesses)
    })
    .collect()
}

/// One report for each instruction executed or exception entered.
const REPORTS: &[Row] = &[
    // Each thing that happens adds one, each report takes one away: never two before a report.
    (
        "no instruction between two reports",
        |_, world| world.unreported <= 1,
        &[("something has happened and is not reported yet", |_, world| world.unreported == 1)],
    ),
    (
        "no report without an instruction",
        |_, world| world.unreported >= 0,
        &[("everything is reported", |_, world| {
            world.is_stepping() && world.unreported == 0 && world.alone.pc != 0
        })],
    ),
    // At EL2 the engine knows whether something is unreported.
    (
        "pending exactly while something is unreported",
        |_, world| {
            world.is_in_guest
                || !world.is_stepping()
                || world.is_pending() == (world.unreported == 1)
        },
        &[("a step is pending at EL2", |_, world| world.is_pending() && !world.is_in_guest)],
    ),
    // What is pending is entered with SS = 0, as often as it takes.
    (
        "pending survives any run of asynchronous exits",
        |_, world| {
            let enters_pending = world.is_in_guest && world.is_pending();
            !enters_pending || (!world.machine.pstate.ss && world.machine.check_software_step())
        },
        &[("a pending step is entered again", |_, world| world.is_pending() && world.is_in_guest)],
    ),
    (
        "a handler that is run over is not reported",
        |_, world| world.over.is_none() || world.unreported == 0,
        &[
            ("a handler is run over", |_, world| {
                world.over.is_some() && world.is_in_guest && is_at_interrupt(&world.machine)
            }),
            ("an interrupt is held", |_, world| {
                world.is_stepping() && world.policy == Policy::Hold && world.machine.virq
            }),
        ],
    ),
];

/// The guest cannot tell, and a debugger sees the guest.
const GUEST: &[Row] = &[
    (
        "the guest is where it would be alone",
        |_, world| is_settled(world).is_none_or(|guest| same_but_debug(&guest, &world.alone)),
        &[
            ("a program ends under a step", |model, world| {
                world.is_stepping() && usize::from(world.alone.pc) == model.program(world).0.len()
            }),
            ("an interrupt is entered under a step", |_, world| {
                world.is_stepping() && is_at_interrupt(&world.alone)
            }),
            ("an illegal return is stepped", |_, world| {
                world.is_stepping() && world.alone.pstate.il
            }),
        ],
    ),
    (
        "a debugger reads the guest's own SS and MDSCR_EL1",
        |_, world| {
            let registers = world.guests_registers();
            is_settled(world).is_none_or(|guest| {
                guest.pstate.ss == world.alone.pstate.ss
                    && guest.spsr_el1.ss == world.alone.spsr_el1.ss
                    && registers.mdscr == world.alone.mdscr
                    && registers.os_lock == world.alone.os_lock
                    && registers.os_double_lock == world.alone.os_double_lock
            })
        },
        &[
            ("a debugger reads an SS of 1 under a step", |_, world| {
                world.is_stepping() && !world.is_in_guest && world.machine.spsr_el2.ss
            }),
            ("the guest has its OS Lock set under a step", |_, world| {
                world.is_stepping() && world.shadow.os_lock
            }),
            ("the guest has its OS Double Lock set under a step", |_, world| {
                world.is_stepping() && world.shadow.os_double_lock
            }),
        ],
    ),
    (
        "stepping that is off leaves nothing behind",
        |_, world| {
            let machine = &world.machine;
            world.holds_debug()
                || (machine.mdcr == Mdcr::default()
                    && machine.breakpoint.is_none()
                    && machine.virq_signalled
                    && machine.mdscr == world.alone.mdscr
                    && (!world.is_in_guest || machine.mdscr_seen == world.alone.mdscr_seen)
                    && machine.os_lock == world.alone.os_lock
                    && machine.os_double_lock == world.alone.os_double_lock
                    && guest_pstate(world) == world.alone.pstate)
        },
        &[
            ("stepping goes off", |_, world| world.was_stepping && !world.holds_debug()),
            ("a write of MDSCR_EL1 is not seen yet", |_, world| {
                world.machine.mdscr != world.machine.mdscr_seen && world.is_in_guest
            }),
        ],
    ),
    // Before an instruction the shadow says that the guest's own step is due exactly where the
    // machine that runs alone takes it.
    (
        "the guest's own step makes the exceptions that it makes alone",
        |_, world| {
            is_settled(world).is_none_or(|guest| {
                let is_due = own_step::check_software_step(world.guest_debug(), world.saved());
                let ignores = world.alone.implementation.ignores_os_lock;
                guest.esr_el1.class == world.alone.esr_el1.class
                    && (ignores || is_due == world.alone.check_software_step())
            })
        },
        &[
            ("the guest steps itself under a step", |_, world| {
                world.is_stepping() && world.alone.esr_el1.class == Class::SoftwareStep
            }),
            ("the guest steps its kernel under a step", |_, world| {
                world.is_stepping()
                    && world.alone.check_software_step()
                    && world.alone.pstate.el == El::El1
            }),
        ],
    ),
    (
        "a store-exclusive succeeds only where it could have",
        |_, world| !world.stored_wrongly,
        &[
            ("a store-exclusive succeeds under a step", |_, world| {
                world.is_stepping() && world.machine.loaded != world.machine.line
            }),
            ("a store-exclusive fails under a step", |_, world| {
                world.is_stepping() && world.machine.status
            }),
        ],
    ),
    (
        "EL2 is never stepped",
        |_, world| {
            world.is_in_guest
                || world.machine.pstate.el == El::El2 && !world.machine.check_software_step()
        },
        &[("EL2 has MDSCR_EL1.SS set", |_, world| {
            !world.is_in_guest && world.machine.mdscr_seen.ss && world.machine.mdcr.tde
        })],
    ),
];

/// Whether the interrupt has just been entered.
fn is_at_interrupt(machine: &SpecMachine) -> bool {
    machine.pc == vector_of(machine.virq_class)
}

fn guest_pstate(world: &World) -> stepwell_spec::ProcState {
    if world.is_in_guest { world.machine.pstate } else { world.machine.spsr_el2 }
}

/// The guest as a debugger sees it, at EL2 with everything reported.
fn is_settled(world: &World) -> Option<SpecMachine> {
    if world.is_in_guest || world.is_pending() {
        return None;
    }
    let mut guest = world.machine;
    (guest.pstate, guest.pc) = (guest.spsr_el2, guest.elr_el2);
    Some(guest)
}

/// Everything that a guest can observe, but what the debug properties compare.
fn same_but_debug(guest: &SpecMachine, alone: &SpecMachine) -> bool {
    let view = |machine: &SpecMachine| {
        let (mut pstate, mut spsr_el1) = (machine.pstate, machine.spsr_el1);
        (pstate.ss, spsr_el1.ss) = (false, false);
        let exception = (machine.elr_el1, spsr_el1, machine.esr_el1.class);
        let exclusive = (machine.line, machine.loaded, machine.status);
        (machine.pc, pstate, exception, exclusive, machine.virq)
    };
    view(guest) == view(alone)
}
