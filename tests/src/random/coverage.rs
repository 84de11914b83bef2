//! What the hypervisor's test mode reports of a run: how often what happened to which kind of
//! instruction.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Columns that a kind of instruction cannot have, with the reason.
///
/// A page of data is withdrawn from under what accesses memory only.
const NO_DATA: &str = "it accesses no memory of the guest's";
const WITH_DATA: [&str; 5] = ["load", "store", "atomic", "load-exclusive", "store-exclusive"];
/// Not a kind of instruction.
const NO_CLASS: &str = "fast-run";
const DATA_PAGE: &str = "data-page";
const MET: &str = "met";

/// Counts by kind of instruction and by event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    rows: Vec<String>,
    columns: Vec<String>,
    counts: BTreeMap<(String, String), u64>,
}

impl Coverage {
    /// Reads the lines of a hypervisor's log that are a report's; the others are ignored.
    #[must_use]
    pub fn of_log(log: &str) -> Self {
        let mut coverage = Self::default();
        for line in log.lines() {
            if let Some((_, report)) = line.split_once("coverage: ") {
                coverage.add_line(report);
            }
        }
        coverage
    }

    fn add_line(&mut self, report: &str) {
        let mut words = report.split_whitespace();
        let Some(class) = words.next() else { return };
        for word in words {
            let Some((event, count)) = word.split_once('=') else { continue };
            self.add(class, event, count.parse().unwrap_or(0));
        }
    }

    fn add(&mut self, class: &str, event: &str, count: u64) {
        for (names, name) in [(&mut self.rows, class), (&mut self.columns, event)] {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        *self.counts.entry((class.to_owned(), event.to_owned())).or_default() += count;
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        for class in &other.rows {
            for event in &other.columns {
                self.add(class, event, other.count(class, event));
            }
        }
    }

    fn count(&self, class: &str, event: &str) -> u64 {
        let key = (class.to_owned(), event.to_owned());
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// Whether nothing was reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Why a cell has no count, if it cannot have one.
    fn absent(class: &str, event: &str) -> Option<&'static str> {
        (event == DATA_PAGE && !WITH_DATA.contains(&class)).then_some(NO_DATA)
    }

    /// Kinds and events that came together less often than `least` times.
    #[must_use]
    pub fn below(&self, least: u64) -> Vec<String> {
        let mut missing = Vec::new();
        for class in self.rows.iter().filter(|class| *class != NO_CLASS) {
            for event in self.columns.iter().filter(|event| *event != MET) {
                let count = self.count(class, event);
                if count < least && Self::absent(class, event).is_none() {
                    missing.push(format!("{class} x {event}: {count}"));
                }
            }
        }
        missing
    }

    /// The table, in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("| instruction | {} |\n", self.columns.join(" | "));
        let rule = vec!["---:"; self.columns.len()].join(" | ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| --- | {rule} |");
        for class in &self.rows {
            let cell = |event: &String| match Self::absent(class, event) {
                Some(_) => "–".to_owned(),
                None => self.count(class, event).to_string(),
            };
            let cells: Vec<String> = self.columns.iter().map(cell).collect();
            let _ = writeln!(text, "| {class} | {} |", cells.join(" | "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
[tool] qemu\n\
[hypervisor] stepwell: coverage: svc met=5 pending=2 data-page=0\n\
[hypervisor] stepwell: coverage: load met=7 pending=1 data-page=3\n";

    #[test]
    fn a_report_is_read_and_added_up() {
        let mut coverage = Coverage::of_log(LOG);
        coverage.merge(&Coverage::of_log(LOG));
        assert_eq!(coverage.count("load", "data-page"), 6);
        assert_eq!(coverage.below(4), ["load x pending: 2"]);
        assert!(coverage.below(2).is_empty());
        let table = coverage.table();
        assert!(table.contains("| instruction | met | pending | data-page |"), "{table}");
        assert!(table.contains("| svc | 10 | 4 | – |"), "{table}");
        assert!(Coverage::of_log("nothing").is_empty());
    }
}
