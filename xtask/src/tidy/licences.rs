//! The licences of what we depend on, against the list in deny.toml.
//!
//! For machines without cargo-deny: it reads the same list, and of the SPDX expressions it
//! understands what crates use (`OR`, `AND`, parentheses, and the old `/`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::finding::Finding;
use crate::layout;
use crate::metadata::{self, list, manifest_path, text};

const LIST: &str = "deny.toml";

/// Finds the dependencies whose licence is not allowed.
///
/// # Errors
/// When deny.toml or cargo's metadata cannot be read.
pub fn check() -> Result<Vec<Finding>> {
    let root = layout::root();
    let settings = fs::read_to_string(root.join(LIST)).context("reading deny.toml")?;
    let allowed = allowed_licences(&settings);
    ensure!(!allowed.is_empty(), "deny.toml has no list of allowed licences");
    // What is behind a feature is given away, too.
    let metadata = metadata::read(&["--all-features"])?;
    let mut findings = Vec::new();
    for package in list(&metadata, "packages") {
        let licence = text(package, "license");
        if !is_allowed(licence, &allowed) {
            let name = text(package, "name");
            let path = manifest_path(package, &root);
            let path = if path.is_absolute() { Path::new(LIST) } else { &path };
            let what = format!("{name} has the licence \"{licence}\", which is not allowed");
            findings.push(Finding::new(path, 0, what));
        }
    }
    Ok(findings)
}

/// The strings of `allow = [ … ]`.
fn allowed_licences(settings: &str) -> Vec<String> {
    let uncommented: Vec<&str> =
        settings.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
    let settings = uncommented.join("\n");
    let Some((_, rest)) = settings.split_once("\nallow = [") else { return Vec::new() };
    let body = rest.split(']').next().unwrap_or_default();
    body.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether the licences in `allowed` satisfy `expression`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, next: 0, allowed };
    let result = reader.any();
    result && reader.next == words.len()
}

/// A position in an expression.
struct Reader<'a> {
    words: &'a [&'a str],
    next: usize,
    allowed: &'a [String],
}

impl Reader<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.next) == Some(&word);
        self.next += usize::from(found);
        found
    }

    fn any(&mut self) -> bool {
        let mut result = self.all();
        while self.take("OR") {
            result |= self.all();
        }
        result
    }

    fn all(&mut self) -> bool {
        let mut result = self.one();
        while self.take("AND") {
            result &= self.one();
        }
        result
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let result = self.any();
            return self.take(")") && result;
        }
        let Some(licence) = self.words.get(self.next) else { return false };
        self.next += 1;
        let mut name = (*licence).to_owned();
        if self.take("WITH") {
            let exception = self.words.get(self.next).copied().unwrap_or_default();
            self.next += 1;
            name = format!("{name} WITH {exception}");
        }
        self.allowed.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_without_comments() {
        let text = "[licenses]\nallow = [\n  \"MIT\", # \"not me\"\n  \"Apache-2.0\",\n]\n";
        assert_eq!(allowed_licences(text), ["MIT", "Apache-2.0"]);
    }

    #[test]
    fn expressions_are_understood() {
        let allowed = ["MIT".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "Apache-2.0 WITH LLVM-exception",
            "(GPL-3.0 OR MIT) AND MIT",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT )", "Apache-2.0"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }
}
