//! The shortest way to a violation, for people.

use crate::adversary::Action;
use crate::programs::PROGRAMS;
use crate::progress;
use crate::world::{Exploration, World};
use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model};
use std::fmt::Write;
use stepwell_engine::mutation::{Mutant, select};
use stepwell_spec::{Daif, Op, Program};

/// Adversary's actions that suffice to show each mistake.
const BUDGET: u8 = 2;

/// A way to a violation.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The property that is violated.
    pub property: &'static str,
    /// Where it begins.
    pub start: World,
    /// The way.
    pub actions: Vec<Action>,
}

/// The shortest way to a violation of any property, breadth first.
#[must_use]
pub fn shortest(exploration: &Exploration) -> Option<Counterexample> {
    let checker = exploration
        .clone()
        .checker()
        .threads(1)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let failures = checker.discoveries().into_iter().filter(|(name, _)| {
        matches!(checker.discovery_classification(name), DiscoveryClassification::Counterexample)
    });
    failures
        .filter_map(|(property, path)| {
            let start = path.clone().into_states().into_iter().next()?;
            Some(Counterexample { property, start, actions: path.into_actions() })
        })
        .min_by_key(|found| (found.actions.len(), found.property))
        .or_else(|| {
            let (start, _) = progress::first_without(exploration)?;
            let property = "a program that ends unstepped ends stepped";
            Some(Counterexample { property, start, actions: vec![Action::StepOn] })
        })
}

const MASKED: Daif = Daif { d: false, a: false, i: true, f: false };

/// One consequence of a mistake: a heading of its own, and the programs that show it.
pub type Aspect = (&'static str, &'static [Program]);

/// What a mistake is to be seen by.
#[must_use]
pub const fn aspects(mutant: Mutant) -> &'static [Aspect] {
    match mutant {
        Mutant::InterruptsMaskedInDaif => &[
            ("the guest reads it", &[Program(&[Op::ReadMask])]),
            ("its MSR DAIF is lost", &[Program(&[Op::WriteMask(MASKED)])]),
            ("an exception saves it", &[Program(&[Op::Svc])]),
        ],
        _ => &[("", PROGRAMS)],
    }
}

/// The shortest way to a violation while this mistake is made.
///
/// Which mistake is made is the choice of the whole program: nothing else may explore meanwhile.
#[must_use]
pub fn shortest_of(mutant: Mutant, programs: &'static [Program]) -> Option<Counterexample> {
    select(Some(mutant));
    let found = shortest(&Exploration::new(programs, BUDGET));
    select(None);
    found
}

fn describe(mutant: Mutant, aspect: Aspect, text: &mut String) -> std::fmt::Result {
    let (title, programs) = aspect;
    let separator = if title.is_empty() { "" } else { ": " };
    writeln!(text, "\n## `{}`{separator}{title}\n", mutant.name())?;
    let Some(found) = shortest_of(mutant, programs) else {
        return writeln!(text, "Survives.");
    };
    let start = &found.start.alone;
    let ops = Exploration::new(programs, BUDGET).program(&found.start).0;
    writeln!(text, "Violates: *{}*.\n", found.property)?;
    writeln!(text, "- program: `{ops:?}`")?;
    let own = if start.mdscr.ss { ", which the guest itself steps" } else { "" };
    writeln!(text, "- begins at {:?}{own}", start.pstate.el)?;
    let actions: Vec<_> = found.actions.iter().map(|action| format!("{action:?}")).collect();
    writeln!(text, "- `{}`", actions.join(", "))
}

/// The text of `model/COUNTEREXAMPLES.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Counterexamples\n\n\
         What the model says of each mistake made in the engine's place (`Mutant` in \
         `crates/stepwell-engine/src/mutation.rs` says what each does): the shortest action path to \
         a violation. Written by `STEPWELL_BLESS=1 cargo test -p stepwell-model --features mutants \
         --test mutants`; a test fails when it is stale.\n",
    );
    for mutant in Mutant::ALL {
        for &aspect in aspects(mutant) {
            // Writing to a string does not fail.
            let _written = describe(mutant, aspect, &mut text);
        }
    }
    text
}
