//! The model tells each mistake from the real engine and the real loop, and its words are up to date.
//!
//! `cargo test -p stepwell-model --features mutants --test mutants`. Which mistake is made is the
//! choice of the whole program, so there is one test here, and it does one thing after another.

use std::time::Instant;
use stepwell_model::counterexample::{INTRODUCTION, Mistake, section};

#[test]
fn every_mutant_is_killed_and_the_counterexamples_are_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../COUNTEREXAMPLES.md");
    let mut document = INTRODUCTION.to_owned();
    for mistake in Mistake::all() {
        let start = Instant::now();
        let section = section(mistake);
        println!("{section}\n{:?}", start.elapsed());
        document += &section;
    }
    let survivors = document.matches("Survives.").count();
    assert_eq!(survivors, 0, "of {}", Mistake::all().count());
    if std::env::var_os("STEPWELL_BLESS").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(written, document, "STEPWELL_BLESS=1 cargo test -p stepwell-model ...");
}
