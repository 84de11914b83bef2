//! Ways through the world that are worth a name, replayed action by action.

use stateright::{Expectation, Model};
use stepwell_model::{Action, Exploration, Order, World};
use stepwell_protocol::{InterruptPolicy, OthersPolicy, StopReason};
use stepwell_spec::{El, Implementation, Op, Program};

use Action::{
    Again, Begin, Command, NextTurn, Pause, PhysicalInterrupt, Proceed, SetPolicy, ToggleInterrupt,
    TurnIsOver, Wake,
};

/// More than any of the ways needs.
const BUDGET: u8 = 9;
const STEP: Action = Command(Order::Step);

fn at_el1(exploration: &Exploration) -> World {
    let strict = |world: &World| world.vcpus[0].alone.implementation == Implementation::STRICT;
    exploration
        .init_states()
        .into_iter()
        .find(|world| strict(world) && world.vcpus[0].alone.pstate.el == El::El1)
        .expect("the exploration begins there, too")
}

fn replay_in(exploration: &Exploration, actions: &[Action]) -> World {
    let mut world = at_el1(exploration);
    for &action in actions {
        let mut possible = Vec::new();
        exploration.actions(&world, &mut possible);
        assert!(possible.contains(&action), "{action:?} is none of {possible:?}");
        if let Some(next) = exploration.next_state(&world, action) {
            world = next;
        }
        for property in exploration.properties() {
            let is_always = property.expectation == Expectation::Always;
            assert!(!is_always || (property.condition)(exploration, &world), "{}", property.name);
        }
    }
    world
}

fn replay(programs: &'static [Program], actions: &[Action]) -> World {
    replay_in(&Exploration::new(programs, BUDGET), actions)
}

#[test]
fn five_asynchronous_exits_in_a_row_and_one_report() {
    const PROGRAMS: &[Program] = &[Program(&[Op::Isb, Op::Plain])];
    let mut actions = vec![STEP, Proceed(0)];
    actions.extend([PhysicalInterrupt(0); 5]);
    let pending = replay(PROGRAMS, &actions);
    assert!(pending.vcpus[0].is_pending());
    assert_eq!((pending.vcpus[0].alone.pc, pending.vcpus[0].happened), (1, 1));
    actions.push(Proceed(0));
    let reported = replay(PROGRAMS, &actions);
    assert!(!reported.vcpus[0].is_pending() && reported.is_stopped());
    assert_eq!(reported.stop, Some(StopReason::Stepped));
}

#[test]
fn five_asynchronous_exits_before_an_instruction_report_nothing() {
    const PROGRAMS: &[Program] = &[Program(&[Op::Plain])];
    let mut actions = vec![STEP];
    actions.extend([PhysicalInterrupt(0); 5]);
    let world = replay(PROGRAMS, &actions);
    assert_eq!((world.vcpus[0].alone.pc, world.vcpus[0].happened, world.stop), (0, 0, None));
}

#[test]
fn a_pause_reports_what_has_executed_at_once() {
    const PROGRAMS: &[Program] = &[Program(&[Op::LoadExclusive])];
    let world = replay(PROGRAMS, &[STEP, Proceed(0), Pause, PhysicalInterrupt(0)]);
    let vcpu = &world.vcpus[0];
    assert!(!vcpu.is_pending() && vcpu.values.hot.monitor.armed().is_some());
    assert_eq!((vcpu.alone.pc, world.stop), (1, Some(StopReason::Paused)));
}

#[test]
fn a_handler_is_stepped_over_and_its_guest_steps_on() {
    const PROGRAMS: &[Program] = &[Program(&[Op::Plain])];
    for exploration in
        [Exploration::new(PROGRAMS, BUDGET), Exploration::new(PROGRAMS, BUDGET).in_real_time()]
    {
        let mut actions = vec![ToggleInterrupt, STEP];
        let over = replay_in(&exploration, &actions);
        assert!(!over.vcpus[0].is_counting() && over.vcpus[0].alone.pc == 0x50);
        while !replay_in(&exploration, &actions).is_stopped() {
            actions.push(Proceed(0));
        }
        let stepped = replay_in(&exploration, &actions);
        assert_eq!((stepped.vcpus[0].alone.pc, stepped.stop), (1, Some(StopReason::Stepped)));
    }
}

#[test]
fn an_interrupt_that_is_held_stays_pending() {
    const PROGRAMS: &[Program] = &[Program(&[Op::Isb, Op::Isb])];
    let hold = SetPolicy(InterruptPolicy::Hold);
    let way = [hold, ToggleInterrupt, STEP, Proceed(0), Proceed(0), Again, Proceed(0), Proceed(0)];
    let world = replay(PROGRAMS, &way);
    assert!(world.vcpus[0].alone.virq);
    assert_eq!(world.vcpus[0].alone.pc, 2);
}

/// The other one comes out of its guest for the sequence, is quiesced, and called when it is over.
#[test]
fn an_exclusive_sequence_has_the_other_vcpu_quiesced() {
    const PROGRAMS: &[Program] = &[Program(&[Op::LoadExclusive, Op::StoreExclusive])];
    let exploration = Exploration::new(PROGRAMS, BUDGET).beside(&[0, 0], OthersPolicy::Run);
    let way = [Command(Order::Steps), Begin(1), Begin(0)];
    let waiting = replay_in(&exploration, &way);
    assert_eq!(waiting.shared.holder, Some(0));
    assert!(waiting.vcpus[1].is_in_guest() && !waiting.vcpus[0].is_in_guest());
    let way = [&way[..], &[PhysicalInterrupt(1), Wake(0)]].concat();
    let quiesced = replay_in(&exploration, &way);
    assert!(quiesced.vcpus[0].is_in_guest() && !quiesced.vcpus[1].is_in_guest());
    let mut way = way;
    while replay_in(&exploration, &way).shared.holder.is_some() {
        way.push(Proceed(0));
    }
    let way = [&way[..], &[Wake(1)]].concat();
    assert!(replay_in(&exploration, &way).vcpus[1].is_in_guest());
}

#[test]
fn a_turn_on_a_shared_cpu_is_over_after_the_step() {
    const PROGRAMS: &[Program] = &[Program(&[Op::Isb, Op::Isb])];
    let exploration =
        Exploration::new(PROGRAMS, BUDGET).beside(&[0, 1], OthersPolicy::Run).on_one_cpu();
    let way = [Command(Order::Steps), NextTurn, TurnIsOver(1), NextTurn, Proceed(0), TurnIsOver(0)];
    let pending = replay_in(&exploration, &way);
    assert!(pending.vcpus[0].is_pending() && pending.is_on_cpu(0), "it is to be reported first");
    let reported = replay_in(&exploration, &[&way[..], &[Proceed(0)]].concat());
    assert!(!reported.is_on_cpu(0) && !reported.is_stopped());
    assert_eq!(reported.vcpus[0].happened, 1);
}
