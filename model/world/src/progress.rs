//! Whether a guest that ends unstepped ends stepped.
//!
//! Safety properties do not see a livelock: a stepped loop around a store-exclusive that always
//! fails reports every instruction of it, for ever. So each guest is run to its end twice, by
//! nobody disturbed: that decides, because nothing is left to chance then and states are finite.

use crate::world::{Action, Exploration, World};
use stateright::Model;

/// More actions than any of the programs needs.
const ACTIONS_MAX: u32 = 500;

/// Runs on from `world` until the program's end is reached.
fn ends(exploration: &Exploration, mut world: World) -> bool {
    let end = exploration.program(&world).0.len();
    for _ in 0..ACTIONS_MAX {
        if usize::from(world.alone.pc) == end {
            return true;
        }
        let action = if world.is_in_guest { Action::Proceed } else { Action::Enter };
        // What changes nothing never ends.
        let Some(next) = exploration.next_state(&world, action) else { return false };
        world = next;
    }
    false
}

/// The first initial state that ends unstepped and not stepped.
#[must_use]
pub fn first_without(exploration: &Exploration) -> Option<World> {
    exploration.init_states().into_iter().find(|world| {
        let stepped = exploration.next_state(world, Action::StepOn);
        ends(exploration, world.clone())
            && stepped.is_none_or(|stepped| !ends(exploration, stepped))
    })
}
