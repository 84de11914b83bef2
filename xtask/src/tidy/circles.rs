//! Rule for the files of a crate: no large circles of imports.
//!
//! Files that import each other in a circle can only be understood, tested and moved together. A few
//! that share one subject may; of more the types have to go below, into files without behaviour, and
//! what is done with them above.
//!
//! An import is any path that leads from one file to another one's item: in `use`, in a type or in
//! an expression. A re-export is looked through: whoever names `crate::Thing` imports the file that
//! defines it. The declaration `mod name;` is none, nor is what only tests import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Item, ItemUse, UseTree, Visibility};

use super::finding::Finding;
use super::panic_free::{attributes_of, is_for_tests};
use super::tree::{SourceFile, Tree};

/// Most files that may import each other in a circle.
const FILES_MAX: usize = 6;

/// Re-exports of re-exports that are followed.
const HOPS_MAX: usize = 8;

type ModulePath = Vec<String>;

/// Checks every crate.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut crates: BTreeMap<PathBuf, Vec<&SourceFile>> = BTreeMap::new();
    for file in tree.files().iter().filter(|file| file.is_rust()) {
        if let Some(root) = source_folder(&file.path) {
            crates.entry(root).or_default().push(file);
        }
    }
    crates.iter().flat_map(|(root, files)| check_crate(root, files)).collect()
}

/// The `src` that a file is in, if it is the code of a crate and not that of its tests.
fn source_folder(path: &Path) -> Option<PathBuf> {
    let root = path.ancestors().find(|folder| folder.ends_with("src"))?;
    let inside = path.strip_prefix(root).ok()?;
    let is_test = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
    (!inside.iter().any(is_test)).then(|| root.to_owned())
}

fn check_crate(root: &Path, files: &[&SourceFile]) -> Vec<Finding> {
    let modules = Modules::read(root, files);
    circles(&modules.imports())
        .into_iter()
        .filter(|circle| circle.len() > FILES_MAX)
        .map(|circle| {
            let names: Vec<_> = circle.iter().map(|path| path.join("::")).collect();
            let what = format!(
                "{} files import each other in a circle, at most {FILES_MAX}: put the types that \
                 they share below them ({})",
                circle.len(),
                names.join(", ")
            );
            Finding::new(root, 0, what)
        })
        .collect()
}

/// What a file imports and re-exports.
#[derive(Default)]
struct Module {
    /// Paths as they are written.
    imports: Vec<ModulePath>,
    /// What is named otherwise, or elsewhere, than where it is.
    exports: BTreeMap<String, ModulePath>,
}

/// The files of a crate by the path of their module.
struct Modules(BTreeMap<ModulePath, Module>);

impl Modules {
    fn read(root: &Path, files: &[&SourceFile]) -> Self {
        let parse = |file: &&SourceFile| {
            let parsed = syn::parse_file(&file.text).ok()?;
            let mut module = Module::default();
            module.visit_file(&parsed);
            Some((module_path(root, &file.path), module))
        };
        Self(files.iter().filter_map(parse).collect())
    }

    /// Which files import which.
    fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<&ModulePath>> {
        let of = |(path, module): (_, &Module)| {
            let found = module.imports.iter().filter_map(|import| self.resolve(path, import, 0));
            (path, found.filter(|other| *other != path).collect())
        };
        self.0.iter().map(of).collect()
    }

    /// The file that a path leads to, seen from a module.
    fn resolve(&self, from: &ModulePath, path: &[String], hops: usize) -> Option<&ModulePath> {
        let mut at = from.clone();
        for (place, name) in path.iter().enumerate() {
            match (place, name.as_str()) {
                (0, "crate") => at.clear(),
                (_, "self") => {}
                (_, "super") => {
                    at.pop();
                }
                (_, name) => {
                    at.push(name.to_owned());
                    if self.0.contains_key(&at) {
                        continue;
                    }
                    at.pop();
                    if place == 0 {
                        // Another crate's, or a name that this file has imported already.
                        return None;
                    }
                    return self.exported(&at, name, &path[place + 1..], hops);
                }
            }
        }
        self.0.get_key_value(&at).map(|(path, _)| path)
    }

    /// The file that defines what a module calls `name`.
    fn exported(
        &self,
        module: &ModulePath,
        name: &str,
        rest: &[String],
        hops: usize,
    ) -> Option<&ModulePath> {
        let (path, found) = self.0.get_key_value(module)?;
        if let Some(target) = found.exports.get(name)
            && hops < HOPS_MAX
        {
            let whole: ModulePath = target.iter().chain(rest).cloned().collect();
            // One that leads to another crate imports nothing of this one.
            return self.resolve(path, &whole, hops + 1);
        }
        Some(path)
    }
}

fn module_path(root: &Path, file: &Path) -> ModulePath {
    let inside = file.strip_prefix(root).unwrap_or(file).with_extension("");
    let mut path: ModulePath =
        inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|name| ["mod", "lib"].contains(&name.as_str())) {
        path.pop();
    }
    path
}

impl Module {
    fn add_use(&mut self, item: &ItemUse) {
        let is_export = !matches!(item.vis, Visibility::Inherited);
        self.add_tree(&item.tree, &mut Vec::new(), is_export);
    }

    fn add_tree(&mut self, tree: &UseTree, path: &mut ModulePath, is_export: bool) {
        let mut add = |name: String, path: ModulePath| {
            if is_export {
                self.exports.insert(name, path);
            } else {
                self.imports.push(path);
            }
        };
        let with = |name: &syn::Ident| path.iter().cloned().chain([name.to_string()]).collect();
        match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.add_tree(&inner.tree, path, is_export);
                path.pop();
            }
            UseTree::Name(name) => add(name.ident.to_string(), with(&name.ident)),
            UseTree::Rename(name) => add(name.rename.to_string(), with(&name.ident)),
            UseTree::Glob(_) => self.imports.push(path.clone()),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(tree, path, is_export);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_use(item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string());
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.imports.push(names.collect());
        }
        visit::visit_path(self, path);
    }
}

/// The sets of files that can all reach each other, two at least.
fn circles<'a>(
    imports: &BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>,
) -> Vec<BTreeSet<&'a ModulePath>> {
    let reach: BTreeMap<_, _> =
        imports.keys().map(|&file| (file, reached(imports, file))).collect();
    let mut found: BTreeSet<BTreeSet<&ModulePath>> = BTreeSet::new();
    for (&file, reached) in &reach {
        let both = |other: &&&ModulePath| reach.get(**other).is_some_and(|r| r.contains(file));
        let circle: BTreeSet<_> = reached.iter().filter(both).copied().collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

fn reached<'a>(
    imports: &BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>,
    from: &'a ModulePath,
) -> BTreeSet<&'a ModulePath> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![from];
    while let Some(file) = waiting.pop() {
        for &next in imports.get(file).into_iter().flatten() {
            if found.insert(next) {
                waiting.push(next);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let files: Vec<SourceFile> = files
            .iter()
            .map(|(path, text)| SourceFile {
                path: Path::new("src").join(path),
                text: (*text).to_owned(),
            })
            .collect();
        let modules = Modules::read(Path::new("src"), &files.iter().collect::<Vec<_>>());
        let circles = circles(&modules.imports());
        circles.iter().map(|all| all.iter().map(|path| path.join("::")).collect()).collect()
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::{self, B};"),
            ("b.rs", "fn f() { super::c::g() }"),
            ("c.rs", "pub fn g() -> crate::a::A {}"),
        ];
        assert_eq!(found(&files), [["a", "b", "c"]]);
    }

    #[test]
    fn a_declaration_and_a_child_that_uses_its_parent_are_none() {
        let files = [("a/mod.rs", "mod b; pub struct A;"), ("a/b.rs", "use super::A;")];
        assert!(found(&files).is_empty());
        let files = [("a/mod.rs", "mod b; use b::B;"), ("a/b.rs", "use super::A;")];
        assert_eq!(found(&files), [["a", "a::b"]]);
    }

    #[test]
    fn re_exports_are_looked_through() {
        let files = [
            ("lib.rs", "pub use b::B; pub use other::Thing;"),
            ("a.rs", "use crate::{B, Thing};"),
            ("b.rs", "pub struct B;"),
        ];
        assert!(found(&files).is_empty());
        let files = [
            ("lib.rs", "pub use b::B as Bee;"),
            ("a.rs", "use crate::Bee;"),
            ("b.rs", "use crate::a;"),
        ];
        assert_eq!(found(&files), [["a", "b"]]);
    }

    #[test]
    fn what_only_tests_import_does_not_count() {
        let files =
            [("a.rs", "#[cfg(test)] mod tests { use crate::b; }"), ("b.rs", "use crate::a;")];
        assert!(found(&files).is_empty());
        assert_eq!(source_folder(Path::new("crates/x/src/a/tests.rs")), None);
        assert_eq!(source_folder(Path::new("crates/x/tests/a.rs")), None);
        assert_eq!(source_folder(Path::new("crates/x/src/a.rs")), Some("crates/x/src".into()));
    }
}
