//! The scenario that Stepwell comes from: a fast timer, two SMCs, a counting loop, each policy.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::guest::Guest;
use stepwell_tests::plain::Setup;
use stepwell_tests::stepwell::{Recording, record, type_at_stepper};
use stepwell_tests::stream::without_interrupts;

const LIMIT: Duration = Duration::from_secs(300);
/// What the guest counts to, three instructions a turn.
const COUNT: usize = 100_000;
const TURN: usize = 3;

fn take(guest: &Guest, steps: usize, irq: &str) -> Vec<u64> {
    let at = format!("{:#x}", guest.counting_loop.clone().unwrap().start);
    let wanted = Recording { at: &at, steps, irq, dtb: None };
    record(&Setup::new(&guest.path), wanted, LIMIT).unwrap_or_else(|error| panic!("{irq}: {error}"))
}

/// Every turn of the loop in order, and nothing else.
fn is_the_loop(stream: &[u64], start: u64) {
    for (step, &pc) in stream.iter().enumerate() {
        let wanted = start + 4 * (step % TURN) as u64;
        assert_eq!(pc, wanted, "step {step} is at {pc:#x} instead of {wanted:#x}");
    }
}

fn only_the_loop(irq: &str) {
    let guest = Guest::named("seed");
    let steps = COUNT * TURN;
    let stream = take(&guest, steps, irq);
    assert_eq!(stream.len(), steps, "{irq}");
    is_the_loop(&stream, guest.counting_loop.unwrap().start);
}

#[test]
fn hold_reports_the_loop_only() {
    only_the_loop("hold");
}

#[test]
fn over_reports_the_loop_only() {
    only_the_loop("over");
}

#[test]
fn into_enters_handlers_through_their_vector_and_leaves_them() {
    let guest = Guest::named("seed");
    let stream = take(&guest, COUNT * TURN, "into");
    let vector = guest.interrupt_vectors()[0];
    let entries = stream.iter().filter(|pc| **pc == vector).count();
    let returns = stream.iter().filter(|pc| **pc == guest.interrupt_return()).count();
    assert!(entries > 0, "no handler was entered");
    assert!(entries - returns <= 1, "{entries} entries, {returns} returns");
    let rest = without_interrupts(&stream, &guest.interrupt_vectors(), guest.interrupt_return());
    assert!(rest.len() > 1000, "only {} instructions outside of handlers", rest.len());
    let counting = guest.counting_loop.unwrap();
    let inside = rest.iter().take_while(|pc| counting.contains(pc)).count();
    is_the_loop(&rest[..inside], counting.start);
    assert!(inside == rest.len() || inside == COUNT * TURN, "the loop left after {inside} steps");
}

/// Steps a while under a policy, then lets go: the guest must find its count right.
fn loop_finishes(irq: &str) {
    let guest = Guest::named("seed");
    let setup = Setup::new(&guest.path);
    let at = format!("{:#x}", guest.counting_loop.clone().unwrap().start);
    let options = ["--at", at.as_str()];
    let script = format!("i {irq}\ns 5000\nc\n");
    let finished = type_at_stepper(&setup, &options, &script, LIMIT).unwrap();
    assert!(guest.succeeded(&finished.stdout), "{irq}: {}", finished.output());
    assert!(finished.left_behind.is_empty(), "{irq}: {:?}", finished.left_behind);
}

#[test]
fn the_loop_finishes_with_the_right_count_under_each_policy() {
    for irq in ["hold", "over", "into"] {
        loop_finishes(irq);
    }
}

/// The two SMCs are stepped once each: either by their own (undefined) exception, or as one step.
#[test]
fn each_smc_is_reported_once() {
    let guest = Guest::named("seed");
    let start = guest.counting_loop.clone().unwrap().start;
    let first = start - 16;
    let at = format!("{first:#x}");
    let wanted = Recording { at: &at, steps: 2_000, irq: "hold", dtb: None };
    let stream = record(&Setup::new(&guest.path), wanted, LIMIT).unwrap();
    for smc in [first, first + 4] {
        let times = stream.iter().filter(|pc| **pc == smc).count();
        assert_eq!(times, 1, "{smc:#x}");
    }
    assert!(stream.contains(&start), "the loop was not reached");
}

#[test]
fn a_thousand_steps_while_interrupts_are_pending_at_each() {
    let guest = Guest::named("irq_storm");
    let counting = guest.counting_loop.clone().unwrap();
    let setup = Setup::new(&guest.path);
    let at = format!("{:#x}", counting.start);
    let wanted = Recording { at: "reset", steps: 20_000, irq: "hold", dtb: None };
    let stream = record(&setup, wanted, LIMIT).unwrap();
    let inside: Vec<u64> = stream.into_iter().filter(|pc| counting.contains(pc)).collect();
    assert!(inside.len() >= 1000, "{} steps in the loop", inside.len());
    is_the_loop(&inside, counting.start);
    // Let go after such steps: all the interrupts come, and the count is right.
    let script = format!("i hold\nu {at}\ns 1000\nc\n");
    let finished = type_at_stepper(&setup, &["--at", "reset"], &script, LIMIT).unwrap();
    assert!(guest.succeeded(&finished.stdout), "{}", finished.output());
}
