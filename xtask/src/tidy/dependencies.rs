//! Who may import whom, and that every dependency is accounted for.
//!
//! The table is DESIGN's. An edge that it lacks is a decision to discuss, not to make in passing:
//! most of what keeps the engine provable and the hypervisor small is what they do not import.

use anyhow::Result;

use super::finding::Finding;
use super::tree::Tree;
use crate::metadata::{self, list, manifest_path, text};

/// A package and those of ours that it may depend on, also for its tests.
const MAY_IMPORT: [(&str, &[&str]); 21] = [
    ("stepwell-arch", &[]),
    // What all ends speak of: everybody may know it.
    ("stepwell-protocol", &["stepwell-arch"]),
    ("stepwell-engine", &["stepwell-arch", "stepwell-protocol"]),
    ("stepwell-wire", &["stepwell-arch", "stepwell-protocol"]),
    ("stepwell-vm", &["stepwell-arch", "stepwell-engine", "stepwell-protocol", "stepwell-wire"]),
    (
        "stepwell-hypervisor",
        &["stepwell-arch", "stepwell-engine", "stepwell-protocol", "stepwell-vm", "stepwell-wire"],
    ),
    // Its tests hold it to the contract, by the tool's end of the link.
    (
        "stepwell-kvm",
        &[
            "stepwell-arch",
            "stepwell-debuggee",
            "stepwell-engine",
            "stepwell-link",
            "stepwell-protocol",
            "stepwell-vm",
            "stepwell-wire",
        ],
    ),
    ("stepwell-debuggee", &["stepwell-arch", "stepwell-protocol"]),
    (
        "stepwell-link",
        &["stepwell-arch", "stepwell-debuggee", "stepwell-protocol", "stepwell-wire"],
    ),
    // Serves what EL2 asks for over memory that both map, and knows nothing of who plugs it in.
    ("stepwell-devices", &["stepwell-wire"]),
    // Knows no link and no machine: any debuggee will do.
    ("stepwell-gdb", &["stepwell-arch", "stepwell-debuggee"]),
    ("stepwell-trace", &["stepwell-arch", "stepwell-protocol"]),
    // Any debuggee, and the names that a recording has.
    ("stepwell-linux", &["stepwell-arch", "stepwell-debuggee", "stepwell-trace"]),
    // Knows no link and no machine either.
    ("stepwell-replay", &["stepwell-arch", "stepwell-debuggee"]),
    ("stepwell", &TOOL_LIBRARIES),
    ("stepwell-python", &PYTHON_LIBRARIES),
    ("stepwell-guests", &[]),
    ("stepwell-tests", &TEST_LIBRARIES),
    ("xtask", &[]),
    // The judge shares nothing with whom it judges.
    ("stepwell-spec", &[]),
    (
        "stepwell-model",
        &[
            "stepwell-arch",
            "stepwell-engine",
            "stepwell-protocol",
            "stepwell-spec",
            "stepwell-vm",
            "stepwell-wire",
        ],
    ),
];

const TOOL_LIBRARIES: [&str; 13] = [
    "stepwell-arch",
    "stepwell-debuggee",
    "stepwell-devices",
    "stepwell-engine",
    "stepwell-gdb",
    // Machines on the host's own CPU, and where images lie in their memory.
    "stepwell-kvm",
    "stepwell-link",
    "stepwell-linux",
    "stepwell-protocol",
    "stepwell-replay",
    "stepwell-trace",
    "stepwell-vm",
    "stepwell-wire",
];

const PYTHON_LIBRARIES: [&str; 6] = [
    // Launching, names, questions and recordings are the tool's.
    "stepwell",
    "stepwell-arch",
    "stepwell-debuggee",
    "stepwell-link",
    "stepwell-linux",
    "stepwell-trace",
];

const TEST_LIBRARIES: [&str; 10] = [
    "stepwell",
    "stepwell-arch",
    "stepwell-debuggee",
    // The names of its mutants.
    "stepwell-engine",
    // The declarations of the conformance cases, none of their code.
    "stepwell-guests",
    "stepwell-link",
    // Where a kernel has what a module is made of.
    "stepwell-linux",
    "stepwell-protocol",
    "stepwell-trace",
    "stepwell-wire",
];

/// Where every dependency from outside is named, with what it is for.
const ACCOUNT: &str = "ARCHITECTURE.md";

/// Checks the packages of the workspace.
///
/// # Errors
/// When cargo cannot tell what they depend on.
pub fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let metadata = metadata::read(&["--no-deps"])?;
    // A checkout without the document has nothing to compare with; the README's links notice that.
    let account = tree.text(ACCOUNT);
    let mut findings = Vec::new();
    for package in list(&metadata, "packages") {
        let name = text(package, "name");
        let manifest = manifest_path(package, tree.root());
        let Some(allowed) = may_import(name) else {
            let what = format!("the package {name} is not in tidy's table of crate edges");
            findings.push(Finding::new(&manifest, 0, what));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let other = text(dependency, "name");
            let what = if may_import(other).is_some() {
                let forbidden = !allowed.contains(&other);
                forbidden.then(|| format!("{name} must not import {other}"))
            } else {
                let unknown = account.is_some_and(|text| !is_named(text, other));
                unknown.then(|| format!("the dependency {other} is not named in {ACCOUNT}"))
            };
            findings.extend(what.map(|what| Finding::new(&manifest, 0, what)));
        }
    }
    Ok(findings)
}

fn may_import(name: &str) -> Option<&'static [&'static str]> {
    MAY_IMPORT.iter().find(|(package, _)| *package == name).map(|(_, allowed)| *allowed)
}

/// Whether `document` names `crate_name` as a word of its own, not as a part of another name.
fn is_named(document: &str, crate_name: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '-' || letter == '_';
    document.split(|letter| !is_part(letter)).any(|word| word == crate_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_only_packages_of_its_own() {
        for (package, allowed) in MAY_IMPORT {
            for other in allowed {
                assert!(may_import(other).is_some(), "{package} may import {other}, unknown");
                assert_ne!(package, *other);
            }
        }
    }

    #[test]
    fn names_are_whole_words() {
        assert!(is_named("uses `clap` for", "clap"));
        assert!(!is_named("uses `clap-derive`", "clap"));
    }
}
