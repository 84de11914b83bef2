//! Whether a guest that ends unstepped ends stepped.
//!
//! Safety properties do not see a livelock: a stepped loop around a store-exclusive that always
//! fails reports every instruction of it, for ever. So each guest is run to its end, stepped and
//! not, by a schedule that leaves nothing to chance: that decides, because states are finite.

use crate::adversary::Action;
use crate::over::Policy;
use crate::world::{Exploration, World};
use stateright::Model;

/// More actions than any of the programs needs.
const ACTIONS_MAX: u32 = 500;

/// What happens to the guest while it is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Nobody.
    Nothing,
    /// A physical interrupt between every instruction and its step exception.
    Interrupted,
    /// A virtual interrupt at the first boundary, and what the policy does with it.
    Interrupting(Policy),
}

impl Schedule {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Nothing,
        Self::Interrupted,
        Self::Interrupting(Policy::Hold),
        Self::Interrupting(Policy::Into),
        Self::Interrupting(Policy::Over),
    ];

    fn choose(self, world: &World) -> Action {
        if !world.is_in_guest {
            return if world.can_deliver() { Action::Deliver } else { Action::Enter };
        }
        let has_executed = world.is_stepping() && !world.machine.pstate.ss;
        let interrupts = self == Self::Interrupted && has_executed && !world.is_pending();
        if interrupts && world.machine.can_be_interrupted() {
            Action::PhysicalInterrupt
        } else if world.machine.can_take_virtual_interrupt() && world.machine.can_be_interrupted() {
            Action::VirtualInterrupt
        } else {
            Action::Proceed
        }
    }
}

/// Runs on from `world` until the program's end is reached.
fn ends(exploration: &Exploration, mut world: World, schedule: Schedule) -> bool {
    let end = exploration.program(&world).0.len();
    for _ in 0..ACTIONS_MAX {
        if usize::from(world.alone.pc) == end {
            return true;
        }
        // What changes nothing never ends.
        let Some(next) = exploration.next_state(&world, schedule.choose(&world)) else {
            return false;
        };
        world = next;
    }
    false
}

/// The first initial state that, by some schedule, ends unstepped and not stepped.
///
/// An interrupt may well keep a guest from its end that is not made for one: what counts is whether
/// it does so unstepped, too.
#[must_use]
pub fn first_without(exploration: &Exploration) -> Option<(World, Schedule)> {
    let worlds = exploration.init_states().into_iter();
    let mut pairs = worlds.flat_map(|world| Schedule::ALL.map(|s| (world.clone(), s)));
    pairs.find(|(world, schedule)| {
        let mut alone = world.clone();
        if let Schedule::Interrupting(policy) = *schedule {
            alone.act(Action::SetPolicy(policy));
            alone.act(Action::ToggleInterrupt);
        }
        let mut stepped = alone.clone();
        stepped.act(Action::StepOn);
        ends(exploration, alone, *schedule) && !ends(exploration, stepped, *schedule)
    })
}
