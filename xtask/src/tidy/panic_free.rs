//! Rules for the crates that run on a guest's say-so: nothing in them can panic.
//!
//! Three checks, each of which sees what the others cannot. Clippy's lints know types and see into
//! macros; here it is made sure that they are forbidden, so that the compiler lets nobody allow
//! them again. The syntax tree is looked through for the same things, and for shifts by a distance
//! that is not a constant and for assertions, which no lint of clippy's tells; it needs no
//! compiler, so that it also holds where clippy is not installed. What functions of `core` do
//! inside is seen by neither: that is for [`machine_code`](super::machine_code).
//!
//! Code of tests is left alone, and so are constants, which the compiler computes.

use std::path::Path;

use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, BinOp, Expr, ExprBinary, ExprConst, ExprIndex, ExprMethodCall, ExprRepeat,
    ExprUnary, ImplItemConst, ImplItemFn, Item, ItemConst, ItemStatic, Macro, Meta, Token,
    TypeArray, UnOp,
};

use super::finding::Finding;
use super::rust_sources::collect_words;
use super::tree::{SourceFile, Tree};

/// The crates of which no function may be able to panic, down to the machine code.
pub const PANIC_FREE: [&str; 2] = ["stepwell-arch", "stepwell-engine"];

/// Those that run at EL2 and may let arithmetic wrap: overflow checks are off there.
const MAY_WRAP: [&str; 2] = ["stepwell-hypervisor", "stepwell-vm"];

/// Those whose source is looked through, too: the wire is read from whoever sends something.
const WITHOUT_PANICS_IN_SOURCE: [&str; 3] = ["stepwell-arch", "stepwell-engine", "stepwell-wire"];

/// What the `lib.rs` of all of these must forbid wherever they are not compiled as tests.
const FORBIDDEN_LINTS: [&str; 8] = [
    "expect_used",
    "indexing_slicing",
    "panic",
    "string_slice",
    "todo",
    "unimplemented",
    "unreachable",
    "unwrap_used",
];

const PANICKING_METHODS: [&str; 4] = ["expect", "expect_err", "unwrap", "unwrap_err"];

const PANICKING_MACROS: [&str; 10] = [
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
    "panic",
    "todo",
    "unimplemented",
    "unreachable",
];

/// Checks that the lints are forbidden.
pub fn check_lints(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let strict = ["clippy::arithmetic_side_effects", "missing_docs", "unsafe_code"];
    let crates = WITHOUT_PANICS_IN_SOURCE.iter().map(|package| (package, &strict[..]));
    for (package, more) in crates.chain(MAY_WRAP.iter().map(|package| (package, &[][..]))) {
        let path = Path::new("crates").join(package).join("src/lib.rs");
        let parsed = syn::parse_file(tree.text(&path).unwrap_or_default());
        let attributes = parsed.map(|file| file.attrs).unwrap_or_default();
        for missing in missing_lints(&attributes, more) {
            let what = format!("the lint {missing} is not forbidden");
            findings.push(Finding::new(&path, 0, what));
        }
    }
    findings
}

/// What neither `#![forbid(…)]` nor `#![cfg_attr(not(test), forbid(…))]` names, of
/// [`FORBIDDEN_LINTS`] and `more`.
fn missing_lints(attributes: &[Attribute], more: &[&str]) -> Vec<String> {
    let mut forbidden = Vec::new();
    for attribute in attributes {
        let Meta::List(list) = &attribute.meta else { continue };
        let text = list.tokens.to_string().replace(' ', "");
        let always = list.path.is_ident("forbid");
        let outside_tests = list.path.is_ident("cfg_attr") && text.starts_with("not(test),forbid(");
        if always || outside_tests {
            collect_words(list.tokens.clone(), &mut forbidden);
        }
    }
    let lints = FORBIDDEN_LINTS.iter().map(|lint| format!("clippy::{lint}"));
    lints
        .chain(more.iter().map(|&lint| lint.to_owned()))
        .filter(|lint| {
            let name = lint.rsplit(':').next().unwrap_or_default();
            !forbidden.iter().any(|word| word == name)
        })
        .collect()
}

/// Checks one file, if it belongs to one of the crates and not only to their tests.
pub fn check(file: &SourceFile) -> Vec<Finding> {
    let is_ours = WITHOUT_PANICS_IN_SOURCE
        .iter()
        .any(|package| file.path.starts_with(Path::new("crates").join(package).join("src")));
    if !is_ours || file.path.ends_with("tests.rs") {
        return Vec::new();
    }
    let mut visitor = Visitor { path: &file.path, findings: Vec::new() };
    // What is no Rust is found elsewhere.
    if let Ok(parsed) = syn::parse_file(&file.text) {
        visitor.visit_file(&parsed);
    }
    visitor.findings
}

/// Collects what can panic at run time.
struct Visitor<'a> {
    path: &'a Path,
    findings: Vec<Finding>,
}

impl Visitor<'_> {
    fn find(&mut self, place: &impl Spanned, what: impl Into<String>) {
        let line = place.span().start().line;
        self.findings.push(Finding::new(self.path, line, what));
    }

    fn check_operator(&mut self, binary: &ExprBinary) {
        let advice = match binary.op {
            BinOp::Add(_) | BinOp::AddAssign(_) => "wrapping_add, saturating_add or checked_add",
            BinOp::Sub(_) | BinOp::SubAssign(_) => "wrapping_sub, saturating_sub or checked_sub",
            BinOp::Mul(_) | BinOp::MulAssign(_) => "wrapping_mul, saturating_mul or checked_mul",
            BinOp::Div(_) | BinOp::DivAssign(_) if !is_constant(&binary.right) => "checked_div",
            BinOp::Rem(_) | BinOp::RemAssign(_) if !is_constant(&binary.right) => "checked_rem",
            BinOp::Shl(_) | BinOp::ShlAssign(_) if !is_constant(&binary.right) => {
                "wrapping_shl or checked_shl"
            }
            BinOp::Shr(_) | BinOp::ShrAssign(_) if !is_constant(&binary.right) => {
                "wrapping_shr or checked_shr"
            }
            _ => return,
        };
        self.find(&binary.op, format!("arithmetic that can panic: use {advice}"));
    }
}

/// A literal, or a path that ends in a constant's name: the compiler refuses it where it is zero
/// for a division, or too large for a shift.
fn is_constant(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(_) => true,
        Expr::Path(path) => path.path.segments.last().is_some_and(|segment| {
            let name = segment.ident.to_string();
            name.chars().all(|letter| !letter.is_lowercase())
        }),
        Expr::Paren(inner) => is_constant(&inner.expr),
        _ => false,
    }
}

pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => attribute.path().is_ident("test"),
    })
}

pub fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    // Computed by the compiler, which would say so.
    fn visit_item_const(&mut self, _: &'ast ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast ImplItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast ExprConst) {}
    fn visit_type_array(&mut self, _: &'ast TypeArray) {}
    fn visit_expr_repeat(&mut self, repeat: &'ast ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_expr_index(&mut self, index: &'ast ExprIndex) {
        self.find(index, "indexing can panic: use get");
        visit::visit_expr_index(self, index);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if PANICKING_METHODS.iter().any(|name| call.method == name) {
            let what = format!("{} can panic: match, or return an error", call.method);
            self.find(&call.method, what);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_binary(&mut self, binary: &'ast ExprBinary) {
        self.check_operator(binary);
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast ExprUnary) {
        if matches!(unary.op, UnOp::Neg(_)) && !is_constant(&unary.expr) {
            self.find(&unary.op, "arithmetic that can panic: use wrapping_neg or checked_neg");
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        if let Some(name) = called.path.segments.last().map(|segment| segment.ident.to_string())
            && PANICKING_MACROS.contains(&name.as_str())
        {
            self.find(called, format!("{name}! can panic: return an error"));
        }
        // The arguments of write! and its kin are expressions. What cannot be read as such clippy
        // sees, who looks at what becomes of it.
        let separated = Punctuated::<Expr, Token![,]>::parse_terminated;
        for argument in called.parse_body_with(separated).unwrap_or_default() {
            let mut inner = Visitor { path: self.path, findings: Vec::new() };
            inner.visit_expr(&argument);
            self.findings.append(&mut inner.findings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Vec<String> {
        let text = format!("//! A.\n{body}\n");
        let file = SourceFile { path: "crates/stepwell-engine/src/a.rs".into(), text };
        check(&file).iter().map(ToString::to_string).collect()
    }

    fn in_function(expression: &str) -> Vec<String> {
        found(&format!("fn f() {{ {expression}; }}"))
    }

    #[test]
    fn what_can_panic_is_found_with_its_line() {
        assert_eq!(
            in_function("x[1]"),
            ["crates/stepwell-engine/src/a.rs:2: indexing can panic: use get"]
        );
        for expression in [
            "&x[1..]",
            "x.unwrap()",
            "x.expect(\"why\")",
            "x.unwrap_err()",
            "a + b",
            "a += 1",
            "a - 1",
            "a * b",
            "a / b",
            "a % b",
            "1 << a",
            "a >> (b & 63)",
            "a <<= b",
            "-a",
            "panic!()",
            "unreachable!(\"no\")",
            "assert!(a)",
            "core::assert_eq!(a, b)",
            "debug_assert!(a)",
            "write!(f, \"{}\", a + b)",
            "if let Some(a) = b { a[0] }",
            "g(|x| x.unwrap())",
        ] {
            assert_eq!(in_function(expression).len(), 1, "{expression}");
        }
    }

    #[test]
    fn what_cannot_panic_is_left_alone() {
        for expression in [
            "x.get(1)",
            "x.unwrap_or(1)",
            "a.wrapping_add(b)",
            "a << 5",
            "a >> Self::SHIFT",
            "a / SIZE",
            "a % 8",
            "-1",
            "!a & b | c",
            "a && !b",
            "const { assert!(A < B) }",
            "[0; 1 + 1]",
            "matches!(a, 1..=3 | 7)",
        ] {
            assert_eq!(in_function(expression), Vec::<String>::new(), "{expression}");
        }
    }

    #[test]
    fn constants_and_tests_are_left_alone() {
        assert!(found("const A: u64 = 1 + 2;").is_empty());
        assert!(found("const _: () = assert!(A == 3);").is_empty());
        assert!(found("impl A { const B: usize = TABLE[1]; }").is_empty());
        assert!(found("#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }").is_empty());
        assert!(!found("#[cfg(not(test))]\nmod other { fn f() { x.unwrap(); } }").is_empty());
        assert!(!found("impl A { fn f() { x.unwrap(); } }").is_empty());
    }

    #[test]
    fn other_crates_are_left_alone() {
        let text = "//! A.\nfn f() { x[1] }\n".to_owned();
        let file = SourceFile { path: "crates/stepwell/src/a.rs".into(), text };
        assert!(check(&file).is_empty());
    }

    #[test]
    fn a_lint_that_could_be_allowed_again_is_missing() {
        let more = ["missing_docs", "unsafe_code"];
        let lints = |text: &str| missing_lints(&syn::parse_file(text).unwrap().attrs, &more).len();
        let all = FORBIDDEN_LINTS.map(|lint| format!("clippy::{lint}")).join(", ");
        let forbidden = format!(
            "#![forbid(missing_docs, unsafe_code)]\n#![cfg_attr(not(test), forbid({all}))]"
        );
        assert_eq!(lints(&forbidden), 0);
        assert_eq!(lints(&forbidden.replace("panic, ", "")), 1);
        assert_eq!(lints(&forbidden.replace("missing_docs, ", "")), 1);
        let denied = forbidden.replace("forbid", "deny");
        assert_eq!(lints(&denied), FORBIDDEN_LINTS.len() + 2);
        let elsewhere = forbidden.replace("not(test)", "test");
        assert_eq!(lints(&elsewhere), FORBIDDEN_LINTS.len());
    }
}
