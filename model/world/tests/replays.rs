//! Ways through the world that are worth a name, replayed action by action.

use stateright::Model;
use stepwell_model::over::Policy;
use stepwell_model::{Action, Exploration, World};
use stepwell_spec::{El, Implementation, Op, Program};

use Action::{
    Deliver, Enter, Pause, PhysicalInterrupt, Proceed, SetPolicy, StepOn, Synchronize,
    ToggleInterrupt,
};

/// More than any of the ways needs.
const BUDGET: u8 = 9;

fn at_el1(programs: &'static [Program]) -> (Exploration, World) {
    let exploration = Exploration::new(programs, BUDGET);
    let strict = |world: &World| world.alone.implementation == Implementation::STRICT;
    let world = exploration
        .init_states()
        .into_iter()
        .find(|world| strict(world) && world.alone.pstate.el == El::El1)
        .expect("the exploration begins there, too");
    (exploration, world)
}

fn replay(programs: &'static [Program], actions: &[Action]) -> World {
    let (exploration, mut world) = at_el1(programs);
    for &action in actions {
        let mut possible = Vec::new();
        exploration.actions(&world, &mut possible);
        assert!(possible.contains(&action), "{action:?} is none of {possible:?}");
        if let Some(next) = exploration.next_state(&world, action) {
            world = next;
        }
        for property in exploration.properties() {
            let is_always = property.expectation == stateright::Expectation::Always;
            assert!(!is_always || (property.condition)(&exploration, &world), "{}", property.name);
        }
    }
    world
}

#[test]
fn five_asynchronous_exits_in_a_row_and_one_report() {
    const PROGRAMS: &[Program] = &[Program(&[Op::Plain, Op::Plain])];
    let mut actions = vec![StepOn, Enter, Proceed];
    for _ in 0..5 {
        actions.extend([PhysicalInterrupt, Enter]);
    }
    let pending = replay(PROGRAMS, &actions);
    assert!(pending.is_pending());
    assert_eq!((pending.alone.pc, pending.unreported), (1, 1));
    actions.push(Proceed);
    let reported = replay(PROGRAMS, &actions);
    assert!(!reported.is_pending());
    assert_eq!((reported.alone.pc, reported.unreported), (1, 0));
}

#[test]
fn five_asynchronous_exits_before_an_instruction_report_nothing() {
    const PROGRAMS: &[Program] = &[Program(&[Op::Plain])];
    let mut actions = vec![StepOn, Enter];
    for _ in 0..5 {
        actions.extend([PhysicalInterrupt, Enter]);
    }
    let world = replay(PROGRAMS, &actions);
    assert_eq!((world.alone.pc, world.unreported), (0, 0));
}

#[test]
fn a_pause_reports_what_has_executed_at_once() {
    const PROGRAMS: &[Program] = &[Program(&[Op::LoadExclusive])];
    let world = replay(PROGRAMS, &[StepOn, Enter, Proceed, PhysicalInterrupt, Pause]);
    assert!(!world.is_pending() && world.monitor.armed().is_some());
    assert_eq!((world.alone.pc, world.unreported), (1, 0));
}

#[test]
fn a_handler_is_run_over_and_its_guest_steps_on() {
    const PROGRAMS: &[Program] = &[Program(&[Op::Plain])];
    let start = [StepOn, SetPolicy(Policy::Over), ToggleInterrupt, Deliver];
    // The handler's acknowledgement and return, the hidden breakpoint, then a step.
    let way = [&start[..], &[Enter, Proceed, Proceed, Proceed, Enter, Proceed, Proceed]].concat();
    let over = replay(PROGRAMS, &way[..5]);
    assert!(over.over.is_some() && !over.is_stepping());
    let back = replay(PROGRAMS, &way[..8]);
    assert!(back.over.is_none() && back.is_stepping());
    assert_eq!(back.alone.pc, 0);
    let stepped = replay(PROGRAMS, &way);
    assert_eq!((stepped.alone.pc, stepped.unreported), (1, 0));
}

#[test]
fn a_write_of_mdscr_may_be_seen_late_and_an_exit_ends_that() {
    const OWN: stepwell_spec::Mdscr = stepwell_spec::Mdscr { ss: true, kde: true, mde: false };
    const PROGRAMS: &[Program] = &[Program(&[Op::WriteMdscr(OWN), Op::Plain])];
    let late = replay(PROGRAMS, &[Enter, Proceed, Proceed]);
    assert_eq!(late.machine.pc, 2, "by the old value nothing is stepped");
    let early = replay(PROGRAMS, &[Enter, Proceed, Synchronize, Proceed]);
    assert_eq!(early.machine.elr_el1, 1, "by the new one it is");
    let exited = replay(PROGRAMS, &[Enter, Proceed, PhysicalInterrupt, Enter, Proceed]);
    assert_eq!(exited.machine.elr_el1, 1);
}
