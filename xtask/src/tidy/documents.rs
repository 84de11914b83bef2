//! Rules for every text file: no loose notes, no paths of one machine, links that lead somewhere.

use std::env;
use std::path::{Component, Path, PathBuf};

use super::finding::Finding;
use super::tree::{SourceFile, Tree};

/// Notes that belong into an issue. Split, so that this file does not find itself.
const NOTES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Starts of paths that exist on one machine only. Split for the same reason.
const PERSONAL: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/me", "dia/")];

/// Checks one file of `tree`.
pub fn check(file: &SourceFile, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let personal = personal_paths(tree);
    for (index, line) in file.text.lines().enumerate() {
        let mut find = |what: String| findings.push(Finding::new(&file.path, index + 1, what));
        if let Some(note) = NOTES.iter().find(|note| has_bare_note(line, note)) {
            find(format!("{note} without an issue: write `{note}(#N)` or do it"));
        }
        if let Some(path) = personal.iter().find(|path| has_path(line, path)) {
            find(format!("{path} is a path of one machine"));
        }
    }
    if file.is_markdown() {
        findings.extend(link_findings(file, tree.root()));
    }
    findings
}

fn personal_paths(tree: &Tree) -> Vec<String> {
    let mut paths: Vec<String> = PERSONAL.iter().map(|path| (*path).to_owned()).collect();
    paths.push(tree.root().display().to_string());
    let home = env::var("HOME").unwrap_or_default();
    if home.len() > 1 {
        paths.push(format!("{}/", home.trim_end_matches('/')));
    }
    paths
}

fn has_bare_note(line: &str, note: &str) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(note).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let after = rest.get(note.len()..).unwrap_or_default();
        !before.ends_with(is_word) && !after.starts_with(is_word) && !after.starts_with("(#")
    })
}

/// Whether `path` begins a path in `line`, rather than lying in the middle of a longer one.
fn has_path(line: &str, path: &str) -> bool {
    let continues = |letter: char| letter.is_alphanumeric() || "/._-}$~<>".contains(letter);
    line.match_indices(path).any(|(at, _)| !line.split_at(at).0.ends_with(continues))
}

fn link_findings(file: &SourceFile, root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_code = false;
    for (index, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in link_targets(line) {
            let place = file.path.parent().unwrap_or(Path::new("")).join(target);
            let inside = normalized(&place);
            if !inside.as_ref().is_some_and(|path| root.join(path).exists()) {
                let what = format!("the link to {target} leads nowhere");
                findings.push(Finding::new(&file.path, index + 1, what));
            }
        }
    }
    findings
}

/// The local files that `line` links to.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', ' ']).next()?;
        let path = target.split('#').next()?;
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        (!path.is_empty() && !elsewhere).then_some(path)
    })
}

/// `path` without `..`; `None` where it would leave the workspace.
fn normalized(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir if inside.pop() => {}
            _ => return None,
        }
    }
    Some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_need_an_issue() {
        let note = NOTES[0];
        assert!(has_bare_note(&format!("// {note}: later"), note));
        assert!(!has_bare_note(&format!("// {note}(#12): later"), note));
        assert!(!has_bare_note(&format!("{note}S"), note));
    }

    #[test]
    fn paths_count_from_their_start() {
        assert!(has_path("see `/abc/def`", "/abc/"));
        assert!(!has_path("$HOME/abc/def", "/abc/"));
        assert!(!has_path("x/abc/def", "/abc/"));
    }

    #[test]
    fn links_are_taken_apart() {
        let line = "[a](b/c.md#d) [e](https://f) [g](#h) ![i](j.png \"k\")";
        assert_eq!(link_targets(line).collect::<Vec<_>>(), ["b/c.md", "j.png"]);
        assert_eq!(normalized(Path::new("a/../b")), Some(PathBuf::from("b")));
        assert_eq!(normalized(Path::new("a/../../b")), None);
    }
}
