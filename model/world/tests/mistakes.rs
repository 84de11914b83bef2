//! The model tells each historical mistake from the real engine, and its words are up to date.

use stepwell_model::counterexample::{document, exploration_of, exploration_of_rewrites, shortest};
use stepwell_model::{Action, Mistake};

#[test]
fn every_mistake_is_found() {
    for mistake in Mistake::ALL {
        let found = shortest(&exploration_of(mistake));
        assert!(found.is_some(), "{mistake:?} survives");
    }
}

#[test]
fn the_model_finds_that_a_rewritten_line_fools_the_engine() {
    // A known limit, not a mistake in its place: this test fails when it is one no longer.
    let found = shortest(&exploration_of_rewrites()).unwrap();
    assert_eq!(found.property, "a store-exclusive succeeds only where it could have");
    assert!(found.actions.contains(&Action::OtherRewrites));
}

#[test]
fn the_counterexamples_are_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../COUNTEREXAMPLES.md");
    let document = document();
    if std::env::var_os("STEPWELL_BLESS").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(written, document, "STEPWELL_BLESS=1 cargo test -p stepwell-model");
}
