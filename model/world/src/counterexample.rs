//! The shortest way to a violation, for people.

use crate::programs::PROGRAMS;
use crate::progress;
use crate::subject::Mistake;
use crate::world::{Action, Exploration, World};
use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model};
use std::fmt::Write;

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
            let start = progress::first_without(exploration)?;
            let property = "a program that ends unstepped ends stepped";
            Some(Counterexample { property, start, actions: vec![Action::StepOn] })
        })
}

/// The exploration that shows a mistake.
#[must_use]
pub fn exploration_of(mistake: Mistake) -> Exploration {
    Exploration { mistake: Some(mistake), ..Exploration::new(PROGRAMS, BUDGET) }
}

/// The exploration in which the second vCPU writes back what was there.
#[must_use]
pub fn exploration_of_rewrites() -> Exploration {
    Exploration { rewrites: true, ..Exploration::new(PROGRAMS, BUDGET) }
}

fn describe(title: &str, exploration: &Exploration, text: &mut String) -> std::fmt::Result {
    writeln!(text, "\n## {title}\n")?;
    let Some(found) = shortest(exploration) else {
        return writeln!(text, "Survives.");
    };
    let start = &found.start.alone;
    let letters = exploration.program(&found.start).0;
    writeln!(text, "Violates: *{}*.\n", found.property)?;
    writeln!(text, "- program: `{letters:?}`")?;
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
         What the model says of each mistake put in the engine's place: the shortest action path \
         to a violation. Written by `STEPWELL_BLESS=1 cargo test -p stepwell-model`; a test fails \
         when it is stale.\n",
    );
    for mistake in Mistake::ALL {
        // Writing to a string does not fail.
        let _written = describe(&format!("{mistake:?}"), &exploration_of(mistake), &mut text);
    }
    text.push_str(
        "\n# Known limit of the real engine\n\n\
         Its compare-and-swap sees values, not writes: where another vCPU runs and writes back \
         what was there, a store-exclusive succeeds that would have failed.\n",
    );
    let _written = describe("Rewritten line", &exploration_of_rewrites(), &mut text);
    text
}
