//! Whether a guest that ends unstepped ends stepped.
//!
//! Safety properties do not see a livelock: a stepped loop around a store-exclusive that always
//! fails reports every instruction of it, for ever. So each guest is run to its end, stepped and
//! not, by a schedule that leaves nothing to chance: that decides, because states are finite.

use crate::adversary::{Action, Order};
use crate::exploration::Exploration;
use crate::world::World;
use stateright::Model;
use stepwell_protocol::InterruptPolicy;
use stepwell_vm::vcpu::advance::Needs;

/// More actions than any of the programs needs.
const ACTIONS_MAX: u32 = 500;

/// Who interferes with the guest while it is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Nobody.
    Quiet,
    /// A physical interrupt between every instruction and its step exception.
    Interrupted,
    /// A virtual interrupt at the first boundary, and what the policy does with it.
    Interrupting(InterruptPolicy),
}

impl Schedule {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Quiet,
        Self::Interrupted,
        Self::Interrupting(InterruptPolicy::Hold),
        Self::Interrupting(InterruptPolicy::Into),
        Self::Interrupting(InterruptPolicy::Over),
    ];

    fn choose(self, world: &World) -> Action {
        let Some((n, vcpu)) = (0_u8..).zip(&world.vcpus).find(|&(n, _)| world.is_running(n.into()))
        else {
            return Action::Again;
        };
        if vcpu.needs != Some(Needs::Entry) {
            return if world.kicks & 1 << n != 0 { Action::Wake(n) } else { Action::Arrive(n) };
        }
        let machine = world.machine(n.into());
        let has_executed = vcpu.is_stepping() && !machine.pstate.ss;
        let interrupts = self == Self::Interrupted && has_executed && !vcpu.is_pending();
        if interrupts && machine.can_be_interrupted() {
            Action::PhysicalInterrupt(n)
        } else if machine.can_take_virtual_interrupt() && machine.can_be_interrupted() {
            Action::VirtualInterrupt(n)
        } else {
            Action::Proceed(n)
        }
    }
}

/// Runs on from `world` until the program's end is reached.
fn ends(exploration: &Exploration, mut world: World, schedule: Schedule) -> bool {
    let end = exploration.program(&world).0.len();
    for _ in 0..ACTIONS_MAX {
        if world.vcpus.first().is_some_and(|vcpu| usize::from(vcpu.alone.pc) == end) {
            return true;
        }
        // What changes nothing never ends.
        let next = exploration.next_state(&world, schedule.choose(&world));
        let Some(next) = next.filter(|next| next.wrong.is_none()) else { return false };
        world = next;
    }
    false
}

fn begin(exploration: &Exploration, world: &World, schedule: Schedule, order: Order) -> World {
    let mut world = world.clone();
    let mut act = |action| {
        if let Some(next) = exploration.next_state(&world, action) {
            world = next;
        }
    };
    if let Schedule::Interrupting(policy) = schedule {
        act(Action::SetPolicy(policy));
        act(Action::ToggleInterrupt);
    }
    act(Action::Command(order));
    world
}

/// The first initial state that, by some schedule, ends unstepped and not stepped.
///
/// An interrupt may well keep a guest from its end that is not made for one: what counts is whether
/// it does so unstepped, too.
#[must_use]
pub fn first_without(exploration: &Exploration) -> Option<(World, Schedule)> {
    let exploration = &Exploration { budget: 3, ..*exploration };
    let worlds = exploration.init_states().into_iter();
    let mut pairs = worlds.flat_map(|world| Schedule::ALL.map(|s| (world.clone(), s)));
    pairs.find(|(world, schedule)| {
        let ends_by =
            |order| ends(exploration, begin(exploration, world, *schedule, order), *schedule);
        ends_by(Order::Continue) && !ends_by(Order::Steps)
    })
}
