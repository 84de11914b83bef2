//! The guests against the mutants: each mistake that others have made, put into the hypervisor.
//!
//! The image that is built for tests has them all (`stepwell_engine::mutation`) and makes the one
//! that its test mode is told. A mutant is *killed* by a stream that is not as declared, by a check
//! of the guest's own, by a guest or a machine that ends early, or by one that does not end.

use std::fmt::Write as _;
use std::time::Duration;

use stepwell_debuggee::InterruptPolicy;
use stepwell_engine::mutation::Mutant;

use super::observe::{Circumstances, observe};
use super::{Places, Table, View};

/// Where each mutant is looked for, in this order: what kills most is first.
const VIEWS: [View; 3] =
    [View::Recorded(InterruptPolicy::Into), View::Stops, View::Recorded(InterruptPolicy::Hold)];
/// Some three times what a run takes that is not wrong.
const LIMIT: Duration = Duration::from_secs(20);
/// Some three times what the guest executes.
const STEPS_MAX: usize = 400_000;
const CPU: &str = "cortex-a57";

/// What became of a mutant.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The mutant.
    pub mutant: Mutant,
    /// Where it was killed, and how; none where it survived.
    pub killed: Option<(View, String)>,
}

/// Runs the guests against one mutant until something kills it.
#[must_use]
pub fn judge(mutant: Mutant, test_mode: &str, places: &Places) -> Verdict {
    let words = format!("{test_mode},mutant={}", mutant.name());
    let circumstances =
        Circumstances { cpu: CPU, test_mode: Some(&words), limit: LIMIT, steps_max: STEPS_MAX };
    let killed = VIEWS.into_iter().find_map(|view| {
        let mut table = Table::default();
        table.take(view, CPU, places, observe(view, circumstances));
        Some((view, table.worst()?))
    });
    Verdict { mutant, killed }
}

/// The verdicts in Markdown.
#[must_use]
pub fn markdown(verdicts: &[Verdict]) -> String {
    let killed = verdicts.iter().filter(|verdict| verdict.killed.is_some()).count();
    let mut text = format!(
        "{killed} of {} are killed.\n\n| mutant | killed in | by |\n| --- | --- | --- |\n",
        verdicts.len()
    );
    for Verdict { mutant, killed } in verdicts {
        let (view, by) = match killed {
            Some((view, by)) => (view.name(), by.as_str()),
            None => ("-", "survives"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {view} | {by} |", mutant.name());
    }
    text
}
