//! The shortest way to a violation, for people.

use crate::adversary::{Action, Order};
use crate::exploration::Exploration;
use crate::programs::{EXCLUSIVE_LOOP, INTERRUPTED, PAIRED, PROGRAMS, SHORT};
use crate::progress;
use crate::world::World;
use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model};
use stepwell_engine::mutation::{self, Mutant};
use stepwell_protocol::OthersPolicy;
use stepwell_spec::{Class, Daif, Op, Program};
use stepwell_vm::mutation::{self as loop_mutation, LoopMutant};

/// Adversary's actions that suffice to show most mistakes.
const BUDGET: u8 = 2;

/// A mistake, made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// In the step engine's place.
    Engine(Mutant),
    /// In the vCPU loop's.
    Loop(LoopMutant),
}

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

impl Mistake {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Mutant::ALL.into_iter().map(Self::Engine).chain(LoopMutant::ALL.into_iter().map(Self::Loop))
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine(mutant) => mutant.name(),
            Self::Loop(mutant) => mutant.name(),
        }
    }

    /// Makes it from now on, everywhere in this program: nothing else may explore meanwhile.
    fn select(self) {
        match self {
            Self::Engine(mutant) => mutation::select(Some(mutant)),
            Self::Loop(mutant) => loop_mutation::select(Some(mutant)),
        }
    }
}

/// Makes no mistake any more.
fn select_none() {
    mutation::select(None);
    loop_mutation::select(None);
}

/// The shortest way to a violation of any property, breadth first.
#[must_use]
pub fn shortest(exploration: &Exploration) -> Option<Counterexample> {
    let checker = (*exploration)
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
            Some(Counterexample { property, start, actions: vec![Action::Command(Order::Steps)] })
        })
}

const MASKED: Daif = Daif { d: false, a: false, i: true, f: false };

/// One consequence of a mistake: a heading of its own, and what shows it.
pub type Aspect = (&'static str, Exploration);

const fn with(programs: &'static [Program], budget: u8) -> Exploration {
    Exploration::new(programs, budget)
}

const BESIDE: Exploration = with(PAIRED, 1).beside(&[0, 0], OthersPolicy::Run);
const ON_ONE_CPU: Exploration = with(PAIRED, 2).beside(&[0, 0], OthersPolicy::Run).on_one_cpu();

/// What a mistake is to be seen by.
#[must_use]
pub fn aspects(mistake: Mistake) -> Vec<Aspect> {
    const READ: &[Program] = &[Program(&[Op::ReadMask])];
    const WRITE: &[Program] = &[Program(&[Op::WriteMask(MASKED)])];
    const SVC: &[Program] = &[Program(&[Op::Svc])];
    let exploration = match mistake {
        Mistake::Engine(Mutant::InterruptsMaskedInDaif) => {
            return vec![
                ("the guest reads it", with(READ, BUDGET)),
                ("its MSR DAIF is lost", with(WRITE, BUDGET)),
                ("an exception saves it", with(SVC, BUDGET)),
            ];
        }
        Mistake::Engine(Mutant::ExclusivesLeftToCpu) => with(EXCLUSIVE_LOOP, 1),
        Mistake::Loop(LoopMutant::HeldInterruptEntered) => with(SHORT, 3),
        Mistake::Loop(LoopMutant::SystemErrorKept) => {
            with(INTERRUPTED, BUDGET).interrupted_by(Class::SystemError)
        }
        Mistake::Loop(LoopMutant::AcknowledgedForGood | LoopMutant::ReturnBreakpointKept) => {
            with(SHORT, BUDGET)
        }
        Mistake::Loop(
            LoopMutant::StopToldByEach
            | LoopMutant::OthersNotAwaited
            | LoopMutant::QuiescedNotCalled,
        ) => BESIDE,
        Mistake::Loop(LoopMutant::MachineNotForgotten) => ON_ONE_CPU,
        _ => with(PROGRAMS, BUDGET),
    };
    vec![("", exploration)]
}

/// The shortest way to a violation while this mistake is made.
///
/// Which mistake is made is the choice of the whole program: nothing else may explore meanwhile.
#[must_use]
pub fn shortest_of(mistake: Mistake, exploration: &Exploration) -> Option<Counterexample> {
    mistake.select();
    let found = shortest(exploration);
    select_none();
    found
}

fn describe(mistake: Mistake, aspect: &Aspect) -> String {
    let (title, exploration) = aspect;
    let separator = if title.is_empty() { "" } else { ": " };
    let heading = format!("\n## `{}`{separator}{title}\n\n", mistake.name());
    let Some(found) = shortest_of(mistake, exploration) else {
        return heading + "Survives.\n";
    };
    let start = &found.start.vcpus[0].alone;
    let ops = exploration.program(&found.start).0;
    let own = if start.mdscr.ss { ", which the guest itself steps" } else { "" };
    let on_one = if exploration.shares_cpu { ", on one CPU" } else { "" };
    let vcpus = match exploration.is_alone() {
        true => String::new(),
        false => format!("; {} vCPUs{on_one}", exploration.starts.len()),
    };
    let actions: Vec<_> = found.actions.iter().map(|action| format!("{action:?}")).collect();
    format!(
        "{heading}Violates: *{}*.\n\n- program: `{ops:?}`\n- begins at {:?}{own}{vcpus}\n- `{}`\n",
        found.property,
        start.pstate.el,
        actions.join(", ")
    )
}

/// What `model/COUNTEREXAMPLES.md` says of a mistake.
#[must_use]
pub fn section(mistake: Mistake) -> String {
    aspects(mistake).iter().map(|aspect| describe(mistake, aspect)).collect()
}

/// How it begins.
pub const INTRODUCTION: &str = "# Counterexamples\n\n\
     What the model says of each mistake made in the engine's place (`Mutant` in \
     `crates/stepwell-engine/src/mutation.rs` says what each does) and in the vCPU loop's \
     (`LoopMutant` in `crates/stepwell-vm/src/mutation.rs`): the shortest action path to a \
     violation. A number is the vCPU that an action is of. Written by `STEPWELL_BLESS=1 cargo test -p \
     stepwell-model --features mutants --test mutants`; a test fails when it is stale.\n";
