//! Rules for Rust: sizes, module docs, unfinished code, and where unsafe may be.
//!
//! Sizes and attributes are taken from the syntax tree; `unsafe` and the unfinished-code macros are
//! looked for among all tokens, since the syntax tree does not reach into macros.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, ImplItemFn, ItemFn, Signature, TraitItemFn};

use super::finding::Finding;
use super::tree::SourceFile;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;

/// Files that are long because they list registers; they say so with [`REGISTER_TABLE_MARK`].
const REGISTER_TABLES: [&str; 0] = [];
const REGISTER_TABLE_MARK: &str = "//! register table";

/// Where unsafe may be: the entry, the hardware and the memory of EL2; the guests, which are
/// bare-metal programs; the modules that share memory with a guest, the kernel or the tool; and the one
/// that starts QEMU, which asks the kernel, between fork and exec, to kill it with us.
const UNSAFE_FOLDERS: [&str; 4] = [
    "crates/stepwell-hypervisor/src/boot",
    "crates/stepwell-hypervisor/src/hw",
    "crates/stepwell-hypervisor/src/mem",
    "guests",
];
const UNSAFE_FILES: [&str; 15] = [
    "crates/stepwell-hypervisor/src/boot.rs",
    "crates/stepwell-hypervisor/src/hw.rs",
    "crates/stepwell-hypervisor/src/mem.rs",
    "crates/stepwell-kvm/src/calls.rs",
    "crates/stepwell-kvm/src/host/machine_code.rs",
    "crates/stepwell-kvm/src/host/general.rs",
    "crates/stepwell-kvm/src/host/ram.rs",
    "crates/stepwell-kvm/src/host/ring.rs",
    "crates/stepwell-kvm/src/host/vcpu.rs",
    "crates/stepwell-kvm/src/host/vm.rs",
    "crates/stepwell-kvm/src/host/withheld.rs",
    "crates/stepwell-devices/src/network/tap.rs",
    "crates/stepwell-kvm/tests/host/rates.rs",
    "crates/stepwell-link/src/shared.rs",
    "crates/stepwell/src/machine/process.rs",
];

/// Checks one file.
pub fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String| findings.push(Finding::new(&file.path, line, what));
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX && !is_register_table(file) {
        find(0, format!("{lines} lines, at most {FILE_LINES_MAX}: split it by topic"));
    }
    let parsed = match syn::parse_file(&file.text) {
        Ok(parsed) => parsed,
        Err(error) => {
            find(error.span().start().line, format!("not valid Rust: {error}"));
            return findings;
        }
    };
    if !parsed.attrs.iter().any(|attribute| attribute.path().is_ident("doc")) {
        find(1, "no module docs: begin with `//!` and say why the file exists".to_owned());
    }
    let mut visitor = Visitor { path: &file.path, findings: Vec::new() };
    visitor.visit_file(&parsed);
    findings.extend(visitor.findings);
    // It parsed as a file, so it is made of tokens.
    let tokens: TokenStream = file.text.parse().unwrap_or_default();
    check_tokens(file, tokens, &mut findings);
    findings
}

fn is_register_table(file: &SourceFile) -> bool {
    REGISTER_TABLES.iter().any(|listed| file.path == Path::new(listed))
        && file.text.lines().any(|line| line == REGISTER_TABLE_MARK)
}

fn may_be_unsafe(path: &Path) -> bool {
    UNSAFE_FOLDERS.iter().any(|folder| path.starts_with(folder))
        || UNSAFE_FILES.iter().any(|listed| path == Path::new(listed))
}

fn check_tokens(file: &SourceFile, tokens: TokenStream, findings: &mut Vec<Finding>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => check_tokens(file, group.stream(), findings),
            TokenTree::Ident(word) if word == "unsafe" && !may_be_unsafe(&file.path) => {
                let what = "unsafe outside the places that tidy lists for it";
                findings.push(Finding::new(&file.path, line, what));
            }
            TokenTree::Ident(word) if word == "unsafe" => {
                if let Some(what) = unargued(file, line, tokens.get(index + 1)) {
                    findings.push(Finding::new(&file.path, line, what));
                }
            }
            TokenTree::Ident(word) if word == "todo" || word == "unimplemented" => {
                let next = tokens.get(index + 1);
                if matches!(next, Some(TokenTree::Punct(mark)) if mark.as_char() == '!') {
                    let what = format!("{word}! is not finished code");
                    findings.push(Finding::new(&file.path, line, what));
                }
            }
            _ => {}
        }
    }
}

/// How far above an `unsafe` its argument may begin: it comes before the statement.
const ARGUMENT_LINES_MAX: usize = 12;

/// What an `unsafe` lacks: a block needs a SAFETY comment, a function its contract. Clippy looks for
/// both, but not in code that is built for EL2 only.
fn unargued(file: &SourceFile, line: usize, next: Option<&TokenTree>) -> Option<String> {
    let (mark, what) = match next? {
        TokenTree::Group(_) => ("SAFETY:", "an unsafe block without a SAFETY comment"),
        // What an unsafe trait asks for has the trait's contract.
        TokenTree::Ident(word) if word == "fn" && !is_in_unsafe_impl(file, line) => {
            ("# Safety", "an unsafe function without its contract, under `# Safety`")
        }
        // `unsafe impl`, `unsafe extern` and `#[unsafe(…)]`, which declare.
        _ => return None,
    };
    let is_attribute = |text: &str| text.trim_start().starts_with("#[unsafe(");
    let above: Vec<&str> = file.text.lines().take(line).collect();
    if above.last().is_some_and(|text| is_attribute(text)) {
        return None;
    }
    // A blank line ends what belongs together.
    let near =
        above.iter().rev().take(ARGUMENT_LINES_MAX).take_while(|text| !text.trim().is_empty());
    let is_argued = near.into_iter().any(|text| text.contains(mark));
    (!is_argued).then(|| what.to_owned())
}

/// Whether a line lies in an `unsafe impl`, as rustfmt lays it out.
fn is_in_unsafe_impl(file: &SourceFile, line: usize) -> bool {
    let above: Vec<&str> = file.text.lines().take(line).collect();
    let begun = above.iter().rev().find(|text| text.contains("impl") && !text.starts_with(' '));
    begun.is_some_and(|text| text.starts_with("unsafe impl"))
}

/// Collects what the syntax tree tells.
struct Visitor<'a> {
    path: &'a Path,
    findings: Vec<Finding>,
}

impl Visitor<'_> {
    fn check_length(&mut self, signature: &Signature, body: &Block) {
        let start = signature.span().start().line;
        let lines = body.span().end().line + 1 - start;
        if lines > FUNCTION_LINES_MAX {
            let what = format!(
                "function {} has {lines} lines, at most {FUNCTION_LINES_MAX}",
                signature.ident
            );
            self.findings.push(Finding::new(self.path, start, what));
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.check_length(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.check_length(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(body) = &item.default {
            self.check_length(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let syn::Meta::List(list) = &attribute.meta else { return };
        let mut words = Vec::new();
        if let Some(name) = attribute.path().get_ident() {
            words.push(name.to_string());
        }
        collect_words(list.tokens.clone(), &mut words);
        let has = |word: &str| words.iter().any(|other| other == word);
        if has("unsafe_code") && (has("allow") || has("expect")) && !has("reason") {
            let line = attribute.span().start().line;
            let what = "unsafe code is allowed without a reason = \"…\"";
            self.findings.push(Finding::new(self.path, line, what));
        }
    }
}

/// All words of an attribute, in whatever brackets.
pub fn collect_words(tokens: TokenStream, words: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) => words.push(word.to_string()),
            TokenTree::Group(group) => collect_words(group.stream(), words),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile { path: path.into(), text: text.to_owned() };
        check(&file).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_code_has_no_findings() {
        assert!(found("a.rs", "//! A module.\nfn f() {}\n").is_empty());
    }

    #[test]
    fn module_docs_are_required() {
        assert!(found("a.rs", "fn f() {}\n")[0].contains("no module docs"));
    }

    #[test]
    fn lengths_are_bounded_to_the_line() {
        let body = |lines: usize| format!("//! A.\nfn f() {{\n{}}}\n", "    g();\n".repeat(lines));
        assert!(found("a.rs", &body(68)).is_empty());
        assert!(found("a.rs", &body(69))[0].contains("function f has 71 lines"));
        let long = format!("//! A.\n{}", "// b\n".repeat(800));
        assert!(found("a.rs", &long)[0].contains("801 lines"));
    }

    #[test]
    fn unsafe_is_fenced_even_in_macros() {
        let text = "//! A.\nm! { unsafe { g() } }\n";
        assert!(found("crates/stepwell/src/a.rs", text)[0].contains("unsafe outside"));
        let argued = "//! A.\n// SAFETY: it does nothing.\nm! { unsafe { g() } }\n";
        assert!(found("crates/stepwell-hypervisor/src/hw/a.rs", argued).is_empty());
    }

    #[test]
    fn each_unsafe_block_is_argued_and_each_unsafe_function_has_a_contract() {
        let found = |text: &str| found("crates/stepwell-hypervisor/src/mem/a.rs", text);
        assert!(
            found("//! A.\n// SAFETY: b.\n\nfn f() { unsafe { g() } }\n")[0].contains("SAFETY")
        );
        assert!(found("//! A.\nunsafe fn f() {}\n")[0].contains("# Safety"));
        assert!(found("//! A.\n/// # Safety\n///\n/// None.\nunsafe fn f() {}\n").is_empty());
        assert!(found("//! A.\n#[unsafe(no_mangle)]\nextern \"C\" fn f() {}\n").is_empty());
        let implements = "//! A.\nunsafe impl A for B {\n    unsafe fn f() {}\n}\n";
        assert!(found(implements).is_empty());
        assert!(found("//! A.\nunsafe extern \"C\" {\n    fn f();\n}\n").is_empty());
    }

    #[test]
    fn opting_out_takes_a_reason() {
        let without = "//! A.\n#![allow(unsafe_code)]\n";
        assert!(found("guests/a.rs", without)[0].contains("without a reason"));
        let with = "//! A.\n#![expect(unsafe_code, reason = \"maps the ring\")]\n";
        assert!(found("guests/a.rs", with).is_empty());
    }

    #[test]
    fn unfinished_code_is_found() {
        assert!(found("a.rs", "//! A.\nfn f() { todo!() }\n")[0].contains("todo!"));
        assert!(found("a.rs", "//! A.\nfn todo() {}\n").is_empty());
    }
}
