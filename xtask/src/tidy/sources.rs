//! Rule for the crates that state what the architecture says: each public item names its source.
//!
//! A fact without a source cannot be checked by whoever doubts it, and issues of the manual differ.
//! So the docs of each public type, function and constant of these crates, or those of a module
//! around it, have a line `Source:` with the document, its issue and the *title* of the section
//! (numbers move between issues). What is our own invention is listed below, with what it is.

use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, Item, Lit, Meta, Visibility};

use super::finding::Finding;
use super::panic_free::PANIC_FREE;
use super::tree::{SourceFile, Tree};

/// Documents that can be named, with their issues.
const DOCUMENTS: [[&str; 2]; 2] = [["DDI 0487", "L.b"], ["IHI 0069", "H"]];

/// Letters that a title has at least.
const TITLE_MIN: usize = 8;

/// Files in which nothing is the architecture's.
const OWN_INVENTIONS: [(&str, &str); 4] = [
    ("crates/stepwell-engine/src/handler.rs", "by what a resumed context is told from another"),
    ("crates/stepwell-engine/src/mutation.rs", "names for mistakes"),
    ("crates/stepwell-engine/src/spin.rs", "by what a loop that gets nowhere is recognised"),
    ("crates/stepwell-engine/src/turns.rs", "the order in which vCPUs are stepped"),
];

/// Checks one file of these crates; `tree` has the modules around it.
pub fn check(file: &SourceFile, tree: &Tree) -> Vec<Finding> {
    let is_ours = PANIC_FREE
        .iter()
        .any(|package| file.path.starts_with(Path::new("crates").join(package).join("src")));
    let is_exempt = file.path.ends_with("lib.rs")
        || file.path.ends_with("tests.rs")
        || OWN_INVENTIONS.iter().any(|(path, _)| file.path == Path::new(path));
    if !is_ours || is_exempt {
        return Vec::new();
    }
    // What is no Rust is found elsewhere.
    let Ok(parsed) = syn::parse_file(&file.text) else { return Vec::new() };
    let mut inherited = docs_of(&parsed.attrs);
    if let Some(around) = parent(&file.path).and_then(|path| tree.text(&path)) {
        inherited += &syn::parse_file(around).map(|file| docs_of(&file.attrs)).unwrap_or_default();
    }
    let mut findings = Vec::new();
    if !names_source(&inherited) {
        check_items(&parsed.items, &file.path, &mut findings);
    }
    findings
}

/// The module's file that `path` is a submodule of: `a/b.rs` for `a/b/c.rs`.
fn parent(path: &Path) -> Option<PathBuf> {
    path.parent().map(|folder| folder.with_extension("rs"))
}

fn check_items(items: &[Item], path: &Path, findings: &mut Vec<Finding>) {
    for item in items {
        let (attributes, visibility, name) = match item {
            Item::Const(item) => (&item.attrs, &item.vis, &item.ident),
            Item::Enum(item) => (&item.attrs, &item.vis, &item.ident),
            Item::Fn(item) => (&item.attrs, &item.vis, &item.sig.ident),
            Item::Mod(item) => (&item.attrs, &item.vis, &item.ident),
            Item::Static(item) => (&item.attrs, &item.vis, &item.ident),
            Item::Struct(item) => (&item.attrs, &item.vis, &item.ident),
            Item::Trait(item) => (&item.attrs, &item.vis, &item.ident),
            Item::Type(item) => (&item.attrs, &item.vis, &item.ident),
            _ => continue,
        };
        if !matches!(visibility, Visibility::Public(_)) || names_source(&docs_of(attributes)) {
            continue;
        }
        match item {
            // In a file of its own, which is looked at by itself.
            Item::Mod(module) => {
                let inside = module.content.as_ref().map_or(&[][..], |(_, items)| items);
                check_items(inside, path, findings);
            }
            _ => {
                let what = format!(
                    "{name} has no line `Source:` with document, issue and section title, nor has \
                     its module"
                );
                findings.push(Finding::new(path, name.span().start().line, what));
            }
        }
    }
}

/// The text of the documentation comments.
fn docs_of(attributes: &[Attribute]) -> String {
    let mut docs = String::new();
    for attribute in attributes {
        if let Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let Expr::Lit(literal) = &pair.value
            && let Lit::Str(line) = &literal.lit
        {
            docs += &line.value();
            docs.push('\n');
        }
    }
    docs
}

/// Whether a paragraph begins with `Source:` and goes on as it should.
fn names_source(docs: &str) -> bool {
    docs.split("\n\n")
        .filter_map(|paragraph| {
            let text = paragraph.trim_start();
            text.strip_prefix("Source:").or_else(|| text.strip_prefix("Sources:"))
        })
        .any(|source| {
            DOCUMENTS.iter().any(|[document, issue]| {
                source.split_once(document).is_some_and(|(_, rest)| {
                    let title = rest.split_once(issue).map_or("", |(_, title)| title);
                    title.chars().filter(|letter| letter.is_alphabetic()).count() >= TITLE_MIN
                })
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "Source: Arm ARM, DDI 0487 L.b, Software Step exceptions.";

    fn found(text: &str) -> usize {
        let file = syn::parse_file(text).unwrap();
        let mut findings = Vec::new();
        check_items(&file.items, Path::new("a.rs"), &mut findings);
        findings.len()
    }

    #[test]
    fn a_source_has_document_issue_and_title() {
        assert!(names_source(&format!("Text.\n\n {SOURCE}\n")));
        assert!(names_source(" Sources: Arm ARM (DDI 0487, issue L.b), \"Wait for Event\", and"));
        assert!(names_source("Source: IHI 0069 H, ICH_HCR_EL2, Hyp Control Register."));
        assert!(!names_source("Source: Arm ARM, section \"Software Step exceptions\""));
        assert!(!names_source("Source: Arm ARM, DDI 0487 L.b."));
        assert!(!names_source("See Arm ARM, DDI 0487 L.b, Software Step exceptions."));
    }

    #[test]
    fn public_items_name_it_or_their_module_does() {
        assert_eq!(found("/// A.\npub fn f() {}"), 1);
        assert_eq!(found("/// A.\nfn f() {}\npub(crate) struct B;"), 0);
        assert_eq!(found(&format!("/// A.\n///\n/// {SOURCE}\npub struct B;")), 0);
        assert_eq!(found("/// A.\npub mod m { pub const B: u8 = 1; pub enum C {} }"), 2);
        assert_eq!(found(&format!("/// {SOURCE}\npub mod m {{ pub const B: u8 = 1; }}")), 0);
    }
}
