//! A few random programs, stepped and unstepped: what `cargo xtask soak` does for as long as one
//! likes. Fixed seeds, and a fresh one each time, which the failure names.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{SystemTime, UNIX_EPOCH};

use stepwell_tests::process::configured;
use stepwell_tests::random::case::{Case, Options, Outcome};
use stepwell_tests::stepwell::binary;

/// The second found something once: the guest's own step of a load-exclusive, and of what follows
/// an SVC.
const SEEDS: [u64; 4] = [101, 103, 104, 107];

fn holds(seed: u64) -> Outcome {
    let case = Case::new(seed, &Options::default());
    match case.run() {
        Ok(outcome) => outcome,
        Err(failure) => panic!("{}", failure.text),
    }
}

#[test]
fn random_programs_are_stepped_exactly() {
    for seed in SEEDS {
        let outcome = holds(seed);
        assert!(outcome.compared > 10_000, "seed {seed}: {outcome:?}");
        assert!(outcome.excursions > 100 && outcome.nested > 10, "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_random_program_that_nobody_has_seen() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {now}");
    holds(now);
}

/// The comparison must be able to fail.
#[test]
fn an_engine_with_a_mistake_is_found() {
    let mutant = Some("trap-keeps-ss".to_owned());
    let case = Case::new(101, &Options { mutant, ..Options::default() });
    let failure = case.run().expect_err("what comes behind a trap is swallowed");
    assert!(failure.text.contains("seed 101"), "{}", failure.text);
}

/// What the test mode is made of must not be in what is released.
#[test]
fn the_release_image_has_no_test_mode() {
    let folder = binary().parent().unwrap().parent().unwrap().join("el2");
    let folder = configured("STEPWELL_EL2", &folder.to_string_lossy());
    let has = |image: &str, text: &str| {
        let bytes = std::fs::read(folder.join(image)).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for text in ["coverage: ", "spurious", "a stop and a resume change a register", "adversary"] {
        assert!(!has("stepwell-hypervisor.bin", text), "{text:?} is in the release image");
    }
    assert!(has("stepwell-hypervisor-test-mode.bin", "coverage: "));
    assert!(has("stepwell-hypervisor-test-mode.bin", "spurious"));
}
