//! `cargo xtask tidy`: the project's rules that no compiler checks.
//!
//! The rules are those of DESIGN.md and the style guide; each has a file below, and each finding
//! says where, what, and what to do about it. The same check runs as a test of this crate, so
//! `cargo test` on any machine enforces it. What a lint of rustc or clippy can say is left to
//! them; here it is only made sure that the lints are switched on.

mod circles;
mod dependencies;
mod documents;
mod finding;
pub mod licences;
mod machine_code;
mod panic_free;
mod reading;
mod rust_sources;
mod sources;
mod tree;
mod words;

use anyhow::{Result, bail};

use crate::layout;
use finding::Finding;
use tree::Tree;

/// Checks the rules that no compiler checks: crate edges, sizes, unsafe, documents
#[derive(clap::Args)]
pub struct Tidy {}

impl Tidy {
    /// Prints what is found.
    ///
    /// # Errors
    /// When anything is.
    pub fn run(self) -> Result<()> {
        check()?;
        check_machine_code()?;
        println!("tidy");
        Ok(())
    }
}

/// Checks all rules and prints the findings.
///
/// # Errors
/// When there are any, or the workspace cannot be read.
pub fn check() -> Result<()> {
    let findings = findings()?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} places break the project's rules", findings.len());
    }
    Ok(())
}

/// Checks that the crates which must not panic have no machine code that could.
///
/// # Errors
/// When one has, or cannot be compiled.
pub fn check_machine_code() -> Result<()> {
    let findings = machine_code::check()?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} calls could panic where nothing may", findings.len());
    }
    Ok(())
}

fn findings() -> Result<Vec<Finding>> {
    let tree = Tree::read(&layout::root())?;
    let mut findings = tree.name_findings();
    for file in tree.files() {
        if file.is_rust() {
            findings.extend(rust_sources::check(file));
            findings.extend(panic_free::check(file));
            findings.extend(sources::check(file, &tree));
        }
        findings.extend(documents::check(file, &tree));
        findings.extend(words::check(file));
    }
    findings.extend(panic_free::check_lints(&tree));
    findings.extend(reading::check(&tree));
    findings.extend(circles::check(&tree));
    findings.extend(dependencies::check(&tree)?);
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_is_tidy() {
        let found: Vec<String> = findings().unwrap().iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    }
}
