//! Every interleaving, with the real engine in the real loop: no property is violated, every witness
//! is seen, and the space is as large as it was.

use stateright::{Checker, Expectation, Model};
use std::time::Instant;
use stepwell_engine::mutation::{self, Mutant};
use stepwell_model::programs::{EXCLUSIVE_LOOP, INTERRUPTED, PAIRED, PAIRED_IN_TURNS, PROGRAMS};
use stepwell_model::{Exploration, progress};
use stepwell_protocol::OthersPolicy;
use stepwell_spec::{Class, Program};
use stepwell_vm::mutation::{self as loop_mutation, LoopMutant};

/// Unique states of each exploration. A change is to be explained in its commit.
const STATES: [usize; 12] = [
    272, 119_360, 2_696_956, 486_861, 493_425, 177_657, 718_230, 4_906_944, 1_136_320, 6_554_226,
    2_645_187, 1_792_929,
];

const HANDLERS: Witnesses = Some(&["a handler is stepped over"]);
const TURNS: Witnesses = Some(&["the other one moves under a step", "a breakpoint stops a guest"]);
const QUIESCED: Witnesses =
    Some(&["a vCPU is quiesced", "both are in their guests", "others are quiesced"]);
const ON_ONE_CPU: Witnesses = Some(&[
    "one runs while another is in the middle of a step",
    "a turn is over while a step is pending",
    "a breakpoint stops a guest",
]);
const IN_TURNS: OthersPolicy = OthersPolicy::Step { quantum: 2 };

/// What must be seen of an exploration: everything that its properties are about, or these.
type Witnesses = Option<&'static [&'static str]>;

const fn alone(programs: &'static [Program], budget: u8) -> Exploration {
    Exploration::new(programs, budget)
}

const fn beside(programs: &'static [Program], budget: u8) -> Exploration {
    alone(programs, budget).beside(&[0, 0], OthersPolicy::Run)
}

const EXPLORATIONS: [(Exploration, Witnesses); 12] = [
    (alone(PROGRAMS, 0), Some(&[])),
    (alone(PROGRAMS, 1), Some(&[])),
    (alone(PROGRAMS, 2), None),
    // FIQ and SError in the place of IRQ.
    (alone(INTERRUPTED, 2).interrupted_by(Class::Fiq), HANDLERS),
    (alone(INTERRUPTED, 2).interrupted_by(Class::SystemError), HANDLERS),
    // Handlers that are stepped over run freely, to a breakpoint at what they interrupted.
    (alone(INTERRUPTED, 2).in_real_time(), HANDLERS),
    // One is stepped while the other runs, each on its CPU.
    (beside(PAIRED, 2), QUIESCED),
    (beside(EXCLUSIVE_LOOP, 3), QUIESCED),
    // One is stepped while the other runs, both on one CPU.
    (beside(PAIRED, 2).on_one_cpu(), ON_ONE_CPU),
    (beside(EXCLUSIVE_LOOP, 3).on_one_cpu(), ON_ONE_CPU),
    // Both are stepped, one after the other, on one CPU.
    (alone(PAIRED_IN_TURNS, 3).beside(&[0, 0], IN_TURNS).on_one_cpu(), TURNS),
    // And each on its own.
    (alone(PAIRED_IN_TURNS, 3).beside(&[0, 0], IN_TURNS), TURNS),
];

/// Explores all of it: nothing is violated, and these are seen.
fn explore(exploration: Exploration, witnesses: Witnesses) -> usize {
    let start = Instant::now();
    let properties = exploration.properties();
    let checker = exploration.checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} unique states, depth {}, {:?}", checker.max_depth(), start.elapsed());
    for property in properties {
        let name = property.name;
        match property.expectation {
            Expectation::Always => checker.assert_no_discovery(name),
            _ if witnesses.is_none_or(|all| all.contains(&name)) => {
                let _path = checker.assert_any_discovery(name);
            }
            // What others show.
            _ => {}
        }
    }
    states
}

#[test]
fn every_interleaving_keeps_every_property() {
    let chosen = std::env::var("STEPWELL_MODEL_ONLY").ok();
    let chosen: Option<usize> = chosen.and_then(|text| text.parse().ok());
    let all = EXPLORATIONS.into_iter().enumerate();
    let mut states = [0; STATES.len()];
    for (n, (exploration, witnesses)) in all.filter(|&(n, _)| chosen.is_none_or(|only| only == n)) {
        println!("{n}: {exploration:?}");
        states[n] = explore(exploration, witnesses);
    }
    if chosen.is_none() {
        assert_eq!(states, STATES, "a space has grown or shrunk");
    }
}

#[test]
fn these_are_the_real_engine_and_the_real_loop() {
    let made: Vec<_> = Mutant::ALL.into_iter().filter(|&mutant| mutation::is(mutant)).collect();
    assert_eq!(made, [], "built with the feature `mutants`");
    let made: Vec<_> =
        LoopMutant::ALL.into_iter().filter(|&mutant| loop_mutation::is(mutant)).collect();
    assert_eq!(made, [], "built with the feature `mutants`");
}

#[test]
fn a_program_that_ends_unstepped_ends_stepped() {
    let stuck = progress::first_without(&Exploration::new(PROGRAMS, 1));
    assert_eq!(stuck, None);
}
