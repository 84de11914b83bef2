//! Every interleaving, with the real engine: no property is violated, every witness is seen, and
//! the space is as large as it was.

use stateright::{Checker, Expectation, Model};
use stepwell_engine::mutation::{self, Mutant};
use stepwell_model::programs::{INTERRUPTED, PROGRAMS};
use stepwell_model::{Exploration, progress};
use stepwell_spec::Class;

/// Unique states for each budget of the adversary. A change is to be explained in its commit.
const STATES: [usize; 4] = [19_347, 265_149, 1_983_256, 11_668_288];
/// Where the interrupt is an FIQ, and where it is an SError.
const STATES_OF_OTHERS: [usize; 2] = [2_196_373, 2_116_631];
/// What the adversary may do in a normal test run.
const BUDGET: usize = 3;

/// `STEPWELL_MODEL_BUDGET=4` explores more than is pinned.
fn budget() -> usize {
    let text = std::env::var("STEPWELL_MODEL_BUDGET").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(BUDGET)
}

#[test]
fn every_interleaving_keeps_every_property() {
    let budget = budget();
    let exploration = Exploration::new(PROGRAMS, u8::try_from(budget).unwrap());
    let checker = exploration.checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("budget {budget}: {states} unique states, depth {}", checker.max_depth());
    checker.assert_properties();
    if let Some(&pinned) = STATES.get(budget) {
        assert_eq!(states, pinned, "the space has grown or shrunk");
    }
}

#[test]
fn small_budgets_have_the_states_they_had() {
    for (budget, pinned) in STATES.into_iter().enumerate().take(BUDGET) {
        let exploration = Exploration::new(PROGRAMS, u8::try_from(budget).unwrap());
        let checker = exploration.checker().threads(1).spawn_bfs().join();
        println!("budget {budget}: {} unique states", checker.unique_state_count());
        assert_eq!(checker.unique_state_count(), pinned, "with a budget of {budget}");
    }
}

/// FIQ and SError in the place of IRQ: held, stepped into and run over alike.
#[test]
fn fast_interrupts_and_errors_keep_every_property() {
    const WITNESSES: [&str; 3] =
        ["an interrupt is entered under a step", "an interrupt is held", "a handler is run over"];
    for (interrupt, pinned) in [Class::Fiq, Class::SystemError].into_iter().zip(STATES_OF_OTHERS) {
        let budget = u8::try_from(BUDGET).unwrap();
        let exploration = Exploration::new(INTERRUPTED, budget).interrupted_by(interrupt);
        let properties = exploration.properties();
        let checker = exploration.checker().threads(2).spawn_bfs().join();
        println!("{interrupt:?}: {} unique states", checker.unique_state_count());
        for property in properties {
            match property.expectation {
                Expectation::Always => checker.assert_no_discovery(property.name),
                _ if WITNESSES.contains(&property.name) => {
                    let _path = checker.assert_any_discovery(property.name);
                }
                // What others need more programs for.
                _ => {}
            }
        }
        assert_eq!(checker.unique_state_count(), pinned, "{interrupt:?}");
    }
}

#[test]
fn this_is_the_real_engine() {
    let made: Vec<_> = Mutant::ALL.into_iter().filter(|&mutant| mutation::is(mutant)).collect();
    assert_eq!(made, [], "built with the feature `mutants`");
}

#[test]
fn a_program_that_ends_unstepped_ends_stepped() {
    let stuck = progress::first_without(&Exploration::new(PROGRAMS, 1));
    assert_eq!(stuck, None);
}
