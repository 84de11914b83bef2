//! The table of case and result, and the failures that it counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stepwell_guests::conform::{Case, Level, Run, cases};

use super::observe::Observation;
use super::{Places, View, declared, expected, is_interrupted, runs};
use crate::stream::{around, first_divergence};

/// What became of one run in one view on one CPU: `None` where all is as declared.
type Failure = Option<String>;

/// All results.
#[derive(Debug, Default)]
pub struct Table {
    /// By case and level, then by view: how many runs, and what failed.
    cells: BTreeMap<(&'static str, u8, usize), (usize, Vec<String>)>,
    /// What is no run's.
    general: Vec<String>,
}

fn level_number(level: Level) -> u8 {
    u8::from(level == Level::El1)
}

fn run_name(run: Run) -> String {
    format!(
        "EL{}, {}",
        level_number(run.level),
        if run.pending { "interrupted" } else { "uninterrupted" }
    )
}

impl Table {
    /// Takes what was seen in one view.
    pub fn take(
        &mut self,
        view: View,
        cpu: &str,
        places: &Places,
        observed: Result<Observation, String>,
    ) {
        let observation = match observed {
            Ok(observation) => observation,
            Err(text) => {
                self.general.push(format!("{} on {cpu}: {text}", view.name()));
                return;
            }
        };
        if !observation.console.contains("conform: ok ") {
            let said = observation.console.trim();
            self.general.push(format!("{} on {cpu}: the guest says\n{said}", view.name()));
        }
        let digits = digits(&observation.console, cpu);
        let column = View::ALL.iter().position(|other| *other == view).unwrap_or(0);
        for (n, (case, run)) in runs(cpu).enumerate() {
            let failure = compare(case, run, view, places, &observation, n)
                .or_else(|| said(case, run, &observation.console))
                .or_else(|| interrupts(case, run, view, digits.get(n)));
            let key = (case.name, level_number(run.level), column);
            let cell = self.cells.entry(key).or_default();
            cell.0 += 1;
            if let Some(text) = failure {
                let (view, run) = (view.name(), run_name(run));
                cell.1.push(format!("{} ({run}), {view} on {cpu}: {text}", case.name));
            }
        }
    }

    /// Everything that is not as declared.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let of_runs = self.cells.values().flat_map(|(_, failures)| failures.iter());
        self.general.iter().chain(of_runs).cloned().collect()
    }

    /// What kind of failure there is, in words that are the same each time: one for a table.
    #[must_use]
    pub fn worst(&self) -> Option<String> {
        let cases = self.cells.iter().filter(|(_, (_, failures))| !failures.is_empty());
        let first = cases.clone().map(|((name, ..), _)| *name).min_by_key(|name| place_of(name));
        match (self.general.first(), first) {
            (None, None) => None,
            (Some(text), None) if text.contains("killed after") || text.contains("no stop") => {
                Some("the guest does not come to its end".to_owned())
            }
            (Some(_), None) => Some("the guest ends early".to_owned()),
            (_, Some(name)) => Some(format!("case `{name}`")),
        }
    }

    /// The table in Markdown, a row for each case and level.
    fn markdown(&self) -> String {
        let mut text = String::new();
        for (group, cases) in cases::GROUPS {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n## Cases: {group}\n");
            let names: Vec<&str> = View::ALL.iter().map(|view| view.name()).collect();
            let _ = writeln!(text, "| case | EL | declared path | {} |", names.join(" | "));
            let _ = writeln!(text, "| --- | --- | --- |{}", " --- |".repeat(names.len()));
            for case in cases {
                for level in [Level::El1, Level::El0] {
                    if case.runs().any(|run| run.level == level) {
                        let _ = writeln!(text, "{}", self.row(case, level));
                    }
                }
            }
        }
        text
    }

    fn row(&self, case: &Case, level: Level) -> String {
        let run = Run { level, pending: case.runs().all(|run| run.pending) };
        // With interrupts where they always are: as `into` shows it.
        let path = declared(case, run, View::Stops);
        let cells = (0..View::ALL.len()).map(|column| {
            let key = (case.name, level_number(level), column);
            match self.cells.get(&key) {
                None => "-".to_owned(),
                Some((_, failures)) if !failures.is_empty() => "**differs**".to_owned(),
                Some((runs, _)) => {
                    let by_qemu = matches!(View::ALL[column], View::Plain | View::Unstepped);
                    let departs =
                        case.departure.is_some_and(|departure| departure.is_the_cpus || by_qemu);
                    format!("{}{runs}", if departs { "as QEMU, " } else { "ok " })
                }
            }
        });
        let cells: Vec<String> = cells.collect();
        let (el, what) = (level_number(level), case.what);
        format!("| {what} | {el} | `{path}` | {} |", cells.join(" | "))
    }

    /// The table, and what there is to say of it, for `docs/conformance.md`.
    #[must_use]
    pub fn document(&self) -> String {
        let departures = Self::departures();
        let runs: usize = self.cells.values().map(|(runs, _)| runs).sum();
        format!(
            "{runs} runs were compared.\n\n## Where QEMU 7.2 departs from the manual\n\n\
            {departures}{}",
            self.markdown()
        )
    }

    /// Where QEMU departs from the manual, one line each.
    fn departures() -> String {
        let mut text = String::new();
        for (_, cases) in cases::GROUPS {
            for case in cases {
                if let Some(departure) = case.departure {
                    let who = if departure.is_the_cpus {
                        "everywhere: it is the CPU that does it"
                    } else {
                        "on plain QEMU and unstepped; stepped, the guest sees what the manual says"
                    };
                    let (what, reason, path) = (case.what, departure.reason, departure.path);
                    // As above.
                    let _ = writeln!(text, "- *{what}*: {reason}. Its path is `{path}`, {who}.");
                }
            }
        }
        text
    }
}

/// The number of a case among all.
fn place_of(name: &str) -> Option<usize> {
    let all = cases::GROUPS.iter().flat_map(|(_, cases)| cases.iter());
    all.enumerate().find(|(_, case)| case.name == name).map(|(n, _)| n)
}

fn compare(
    case: &Case,
    run: Run,
    view: View,
    places: &Places,
    observation: &Observation,
    n: usize,
) -> Failure {
    let streams = observation.streams.as_ref()?;
    let wanted = expected(case, run, view, places);
    let Some(seen) = streams.get(n) else { return Some("it did not run".to_owned()) };
    if *seen == wanted {
        return None;
    }
    let at = first_divergence(&wanted, seen).unwrap_or(wanted.len().min(seen.len()));
    let path = declared(case, run, view);
    let shown = around(at, ("declared", &wanted), ("reported", seen));
    Some(format!("`{path}` is not what is reported:\n{shown}"))
}

/// The guest's own failed check of a run.
fn said(case: &Case, run: Run, console: &str) -> Failure {
    let level = level_number(run.level);
    let kind = if run.pending { "interrupted" } else { "uninterrupted" };
    let start = format!("conform: {} at EL{level}, {kind}: ", case.name);
    let line = console.lines().find_map(|line| line.split_once(&start))?;
    Some(line.1.trim().to_owned())
}

/// How many interrupts each run took, as the guest counted them; runs that the CPU cannot do are
/// left out.
fn digits(console: &str, cpu: &str) -> Vec<char> {
    let line = console.lines().find_map(|line| line.split_once("conform: interrupts "));
    let all = line.map_or("", |line| line.1.trim());
    let can: Vec<_> = runs(cpu).collect();
    let kept = cases::runs().zip(all.chars()).filter(|((case, run), _)| {
        can.iter().any(|(other, time)| other.name == case.name && time == run)
    });
    kept.map(|(_, digit)| digit).collect()
}

fn interrupts(case: &Case, run: Run, view: View, digit: Option<&char>) -> Failure {
    let wanted = if is_interrupted(case, run, view) { '1' } else { '0' };
    match digit {
        Some(&seen) if seen == wanted => None,
        Some(seen) => Some(format!("interrupts taken: {seen}, declared: {wanted}")),
        None => Some("the guest did not tell of it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_trace::{Symbol, SymbolKind, Symbols};

    const CPU: &str = "max";
    const VIEW: View = View::Plain;

    /// Places that no guest has, each far from the others.
    fn places() -> Places {
        let handlers =
            stepwell_guests::conform::Handler::ALL.iter().map(|handler| handler.symbol());
        let fixed =
            ["conform_vectors", "conform_irq", "conform_fiq", "conform_enter", "conform_end"];
        let cases = cases::GROUPS.iter().flat_map(|(_, cases)| cases.iter());
        let cases = cases.map(|case| format!("conform_case_{}", case.name));
        let names = handlers.chain(fixed).map(str::to_owned).chain(cases);
        let symbol = |(n, name): (u64, String)| Symbol {
            name,
            address: 0x10_0000 * (n + 1),
            size: 0,
            kind: SymbolKind::Function,
        };
        Places::from(Symbols::new((0..).zip(names).map(symbol), None))
    }

    fn as_declared(places: &Places) -> Observation {
        let streams = runs(CPU).map(|(case, run)| expected(case, run, VIEW, places)).collect();
        let digit = |(case, run): (&Case, Run)| u8::from(is_interrupted(case, run, VIEW));
        let digits: String = runs(CPU).map(digit).map(|digit| digit.to_string()).collect();
        let console = format!("conform: interrupts {digits}\nconform: ok 1\n");
        Observation { streams: Some(streams), console }
    }

    fn failures(places: &Places, observation: Observation) -> Vec<String> {
        let mut table = Table::default();
        table.take(VIEW, CPU, places, Ok(observation));
        table.failures()
    }

    #[test]
    fn what_is_as_declared_fails_nowhere() {
        let places = places();
        assert_eq!(failures(&places, as_declared(&places)), Vec::<String>::new());
    }

    #[test]
    fn a_lost_step_a_doubled_one_and_a_missing_run_are_found() {
        let places = places();
        let changes: [fn(&mut Vec<Vec<u64>>); 3] = [
            |streams| {
                streams[40].remove(1);
            },
            |streams| {
                let pc = streams[7][2];
                streams[7].insert(2, pc);
            },
            |streams| {
                streams.pop();
            },
        ];
        for change in changes {
            let mut observation = as_declared(&places);
            change(observation.streams.as_mut().unwrap());
            assert_eq!(failures(&places, observation).len(), 1);
        }
    }

    #[test]
    fn what_the_guest_says_counts() {
        let places = places();
        let mut observation = as_declared(&places);
        observation
            .console
            .insert_str(0, "conform: svc at EL0, uninterrupted: ELR: got 0x0, want 0x4\n");
        assert_eq!(
            failures(&places, observation),
            ["svc (EL0, uninterrupted), plain QEMU on max: ELR: got 0x0, want 0x4"]
        );
        let mut observation = as_declared(&places);
        observation.console = observation.console.replacen("01", "00", 1);
        assert_eq!(failures(&places, observation).len(), 1);
        let mut observation = as_declared(&places);
        observation.console = observation.console.replace("ok", "FAIL");
        assert_eq!(failures(&places, observation).len(), 1);
    }
}
