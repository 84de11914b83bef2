//! `docs/conformance.md`: written by the tests that know, and compared by them.
//!
//! The document has parts, each between two comment lines of its own, so that the test that runs
//! the cases and the one that runs the mutants each keep theirs.

use std::fs;
use std::path::PathBuf;

/// A part of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The table of case and result.
    Cases,
    /// Which mutants the guests kill.
    Mutants,
}

impl Part {
    const fn marks(self) -> (&'static str, &'static str) {
        match self {
            Self::Cases => ("<!-- cases: begin -->\n", "<!-- cases: end -->\n"),
            Self::Mutants => ("<!-- mutants: begin -->\n", "<!-- mutants: end -->\n"),
        }
    }
}

/// Compares a part of the document with what it should be; with `STEPWELL_BLESS=1` writes it.
///
/// # Panics
/// Where they differ, or the document cannot be read.
pub fn keep(part: Part, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let old = fs::read_to_string(&path).expect("the document is part of the sources");
    let new = with(part, &old, text).expect("the document has both marks of the part");
    if std::env::var_os("STEPWELL_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, new).expect("the sources can be written");
    } else {
        let how = "STEPWELL_BLESS=1 cargo xtask test conformance";
        assert!(old == new, "docs/conformance.md is stale: `{how}` writes it anew");
    }
}

/// The document with a part replaced; none where it has no such part.
fn with(part: Part, document: &str, text: &str) -> Option<String> {
    let (begin, end) = part.marks();
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_replaced_and_nothing_else() {
        let old = "a\n<!-- cases: begin -->\nold\n<!-- cases: end -->\nb\n";
        let new = "a\n<!-- cases: begin -->\nnew\n<!-- cases: end -->\nb\n";
        assert_eq!(with(Part::Cases, old, "new\n").unwrap(), new);
        assert_eq!(with(Part::Mutants, old, "new\n"), None);
    }
}
