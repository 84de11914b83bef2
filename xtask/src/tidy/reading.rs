//! Rule for ARCHITECTURE.md: "Where to begin reading" leads from each row to one file that can be
//! read in one go.

use std::path::Path;

use super::finding::Finding;
use super::tree::Tree;

const DOCUMENT: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Where to begin reading";
/// Lines that somebody reads who has never been here.
const LINES_MAX: usize = 499;

/// Checks the table.
pub fn check(tree: &Tree) -> Vec<Finding> {
    // A checkout without the document has nothing to lead from; the README's links notice that.
    let Some(document) = tree.text(DOCUMENT) else { return Vec::new() };
    let rows = rows(document);
    if rows.is_empty() {
        let what = format!("no table under \"{HEADING}\": it is where a newcomer begins");
        return vec![Finding::new(Path::new(DOCUMENT), 0, what)];
    }
    let lines_of = |path: &str| tree.text(path).map(|text| text.lines().count());
    let found = rows.into_iter().filter_map(|(line, row)| Some((line, objection(row, lines_of)?)));
    found.map(|(line, what)| Finding::new(Path::new(DOCUMENT), line, what)).collect()
}

/// The rows of the table, each with its line.
fn rows(document: &str) -> Vec<(usize, &str)> {
    let lines = document.lines().enumerate();
    let section = lines.skip_while(|(_, line)| *line != HEADING).skip(1);
    let section = section.take_while(|(_, line)| !line.starts_with("## "));
    let rows = section.filter(|(_, line)| line.starts_with("| "));
    // The head, and the line below it.
    rows.skip(2).map(|(index, line)| (index + 1, line)).collect()
}

/// What is wrong with a row, if anything is.
fn objection(row: &str, lines_of: impl Fn(&str) -> Option<usize>) -> Option<String> {
    let cell = row.split('|').nth(2).unwrap_or_default().trim();
    let path = cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    let Some(path) = path.filter(|path| !path.contains('`')) else {
        return Some("the second column names one file, in backticks".to_owned());
    };
    match lines_of(path) {
        None => Some(format!("{path} is no file: begin with one that is there")),
        Some(lines) if lines > LINES_MAX => {
            Some(format!("{path} has {lines} lines: begin with a file of at most {LINES_MAX}"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# A\n\n## Where to begin reading\n\nText.\n\n| a | b | c |\n| --- | --- | \
                         --- |\n| x | `a.rs` | more |\n\n## Next\n\n| y | z | |\n";

    #[test]
    fn the_rows_are_those_of_the_section() {
        assert_eq!(rows(TABLE), [(9, "| x | `a.rs` | more |")]);
        assert!(rows("# A\n").is_empty());
    }

    #[test]
    fn each_leads_to_one_short_file() {
        let lines_of = |path: &str| match path {
            "short.rs" => Some(499),
            "long.rs" => Some(500),
            _ => None,
        };
        let wrong = |cell: &str| objection(&format!("| x | {cell} | then |"), lines_of);
        assert_eq!(wrong("`short.rs`"), None);
        assert!(wrong("`long.rs`").is_some_and(|what| what.contains("500 lines")));
        assert!(wrong("`none.rs`").is_some_and(|what| what.contains("no file")));
        for cell in ["`short.rs`, then `long.rs`", "short.rs", "the folder `a/`"] {
            assert!(wrong(cell).is_some(), "{cell}");
        }
    }
}
