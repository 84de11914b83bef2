//! What holds in every state, and what must be seen to happen in some.

use crate::world::{Exploration, World};
use stateright::Property;
use stepwell_spec::exception::IRQ_VECTOR;
use stepwell_spec::{Class, El, Machine, Mdcr};

/// All properties.
///
/// A witness (`sometimes`) fails where the space has silently shrunk.
#[must_use]
pub fn all() -> Vec<Property<Exploration>> {
    let mut properties = always();
    properties.extend(sometimes());
    properties
}

fn always() -> Vec<Property<Exploration>> {
    vec![
        Property::always("no instruction between two reports", |_, world: &World| {
            world.unreported <= 1
        }),
        Property::always("no report without an instruction", |_, world: &World| {
            world.unreported >= 0
        }),
        Property::always("pending exactly while something is unreported", |_, world: &World| {
            knows_what_is_pending(world)
        }),
        Property::always("pending survives any run of asynchronous exits", |_, world: &World| {
            let enters_pending = world.is_in_guest && world.is_pending();
            !enters_pending || (!world.machine.pstate.ss && world.machine.check_software_step())
        }),
        Property::always("the guest is where it would be alone", |_, world: &World| {
            is_settled(world).is_none_or(|settled| same_but_debug(&settled, &world.alone))
        }),
        Property::always(
            "a debugger reads the guest's own SS and MDSCR_EL1",
            |_, world: &World| {
                is_settled(world).is_none_or(|settled| {
                    settled.pstate.ss == world.alone.pstate.ss
                        && settled.spsr_el1.ss == world.alone.spsr_el1.ss
                        && settled.mdscr == world.alone.mdscr
                        && settled.os_lock == world.alone.os_lock
                })
            },
        ),
        Property::always("stepping that is off leaves nothing behind", |_, world: &World| {
            world.is_stepping()
                || (world.machine.mdcr == Mdcr::default()
                    && world.machine.mdscr == world.alone.mdscr
                    && world.machine.os_lock == world.alone.os_lock
                    && guest_pstate(world) == world.alone.pstate)
        }),
        Property::always(
            "a store-exclusive succeeds only where it could have",
            |_, world: &World| !world.stored_wrongly,
        ),
        Property::always("EL2 is never stepped", |_, world: &World| {
            world.is_in_guest
                || world.machine.pstate.el == El::El2 && !world.machine.check_software_step()
        }),
    ]
}

fn sometimes() -> Vec<Property<Exploration>> {
    vec![
        Property::sometimes("a step is pending at EL2", |_, world: &World| {
            world.is_pending() && !world.is_in_guest
        }),
        Property::sometimes("a pending step is entered again", |_, world: &World| {
            world.is_pending() && world.is_in_guest
        }),
        Property::sometimes("a store-exclusive succeeds under a step", |_, world: &World| {
            world.is_stepping() && world.machine.loaded != world.machine.line
        }),
        Property::sometimes("an interrupt is entered under a step", |_, world: &World| {
            world.is_stepping() && world.alone.pc == IRQ_VECTOR
        }),
        Property::sometimes("the guest steps itself under a step", |_, world: &World| {
            world.is_stepping() && world.alone.esr_el1.class == Class::SoftwareStep
        }),
        Property::sometimes("the guest has its OS Lock set under a step", |_, world: &World| {
            world.is_stepping() && world.os_lock
        }),
        Property::sometimes("stepping goes off", |_, world: &World| {
            world.was_stepping && !world.is_stepping()
        }),
        Property::sometimes("a program ends under a step", |model: &Exploration, world: &World| {
            let length = model.program(world).0.len();
            world.is_stepping() && usize::from(world.alone.pc) == length
        }),
    ]
}

/// At EL2 the engine knows whether something is unreported.
fn knows_what_is_pending(world: &World) -> bool {
    if world.is_in_guest || !world.is_stepping() {
        return true;
    }
    world.is_pending() == (world.unreported == 1)
}

fn guest_pstate(world: &World) -> stepwell_spec::ProcState {
    if world.is_in_guest { world.machine.pstate } else { world.machine.spsr_el2 }
}

/// The guest as a debugger sees it, at EL2 with everything reported.
fn is_settled(world: &World) -> Option<Machine> {
    if world.is_in_guest || world.is_pending() {
        return None;
    }
    let mut guest = world.machine;
    (guest.pstate, guest.pc) = (guest.spsr_el2, guest.elr_el2);
    if world.is_stepping() {
        (guest.mdscr, guest.os_lock) = (world.mdscr, world.os_lock);
    }
    Some(guest)
}

/// Everything that a guest can observe, but what the debug properties compare.
fn same_but_debug(guest: &Machine, alone: &Machine) -> bool {
    let view = |machine: &Machine| {
        let (mut pstate, mut spsr_el1) = (machine.pstate, machine.spsr_el1);
        (pstate.ss, spsr_el1.ss) = (false, false);
        let exception = (machine.elr_el1, spsr_el1, machine.esr_el1.class);
        let exclusive = (machine.line, machine.loaded, machine.status);
        (machine.pc, pstate, exception, exclusive, machine.virq)
    };
    view(guest) == view(alone)
}
