//! Machine code of the panic-free crates: no function of theirs can reach a panic.
//!
//! Lints see the source, and so miss what functions of `core` do inside: the iterator of `0..`
//! panics at its end, `u8::pow` where it overflows. So the crates are compiled as for EL2, but
//! with overflow checks and with every function kept, and the calls in the object are followed.
//! Whatever leaves the crates must be known not to panic: formatting, copying of bytes, and the
//! other crates that are held to the same. A panic path that the optimiser can prove dead is none.
//!
//! Generic functions have code only where a type is put in: [`INSTANCES`] does that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use rustc_demangle::demangle;

use super::panic_free::PANIC_FREE;
use crate::{layout, process};

const BUILD_LIMIT: Duration = Duration::from_secs(5 * 60);

/// As at EL2, but with overflow checks, and with code for all that can be called.
const FLAGS: [&str; 5] = [
    "-Copt-level=2",
    "-Ccodegen-units=1",
    "-Cpanic=abort",
    "-Coverflow-checks=on",
    "-Clink-dead-code",
];

/// Functions without type parameters that use those with some.
const INSTANCES: &str = "\
#![no_std]
use stepwell_arch::stage1::{self, Access, PhysicalMemory, Regime, Translation, Walk, WalkStep};
use stepwell_arch::{Ipa, Va};

pub struct Memory<'a>(pub &'a dyn Fn(Ipa) -> Result<u64, u8>);

impl PhysicalMemory for Memory<'_> {
    type Error = u8;
    fn read_u64(&self, ipa: Ipa) -> Result<u64, u8> {
        (self.0)(ipa)
    }
}

pub fn walk(regime: &Regime, va: Va, access: Access, memory: &Memory<'_>) -> Walk<u8> {
    stage1::walk(regime, va, access, memory)
}

pub fn steps(walk: &Walk<u8>) -> &[WalkStep] {
    walk.steps()
}

pub fn translate(
    regime: &Regime, va: Va, access: Access, memory: &Memory<'_>,
) -> Result<Translation, u8> {
    stage1::translate(regime, va, access, &memory).map_err(|error| error.fsc().0)
}

pub fn show(error: &stage1::WalkError<u8>, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
    core::fmt::Display::fmt(error, f)
}
";

/// Compiles the crates and tells which of their functions can panic.
///
/// # Errors
/// When they cannot be compiled, or what comes out cannot be read.
pub fn check() -> Result<Vec<String>> {
    let folder = layout::target_dir().join("panic-paths");
    let mut findings = Vec::new();
    for package in PANIC_FREE {
        let mut cargo = process::host_cargo();
        cargo.env("CARGO_TARGET_DIR", &folder);
        cargo.args(["rustc", "--quiet", "--release", "--lib", "--package", package, "--"]);
        process::run(cargo.args(FLAGS), BUILD_LIMIT)?;
        findings.extend(check_library(&library(&folder, package))?);
    }
    findings.extend(check_library(&build_instances(&folder)?)?);
    Ok(findings)
}

fn library(folder: &Path, package: &str) -> PathBuf {
    folder.join("release").join(format!("lib{}.rlib", package.replace('-', "_")))
}

fn build_instances(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("instances.rs");
    fs::write(&source, INSTANCES).context("writing the generic functions' users")?;
    let output = folder.join("libstepwell_instances.rlib");
    let dependency = library(folder, "stepwell-arch");
    let mut rustc = process::host_rustc();
    rustc.args(["--edition=2024", "--crate-type=rlib", "--crate-name=stepwell_instances"]);
    rustc.args(FLAGS).arg("--extern").arg(format!("stepwell_arch={}", dependency.display()));
    process::run(rustc.arg("-o").arg(&output).arg(&source), BUILD_LIMIT)?;
    Ok(output)
}

fn check_library(path: &Path) -> Result<Vec<String>> {
    let data = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let archive = ArchiveFile::parse(&*data).context("reading a library")?;
    let mut findings = Vec::new();
    let mut functions = 0;
    for member in archive.members() {
        let member = member.context("reading a library's member")?;
        if member.name().ends_with(b".o") {
            let code = member.data(&*data).context("reading a library's member")?;
            let graph = Calls::read(code)?;
            functions += graph.roots.len();
            findings.extend(graph.findings());
        }
    }
    if functions == 0 {
        bail!("{} has no function in it: nothing was checked", path.display());
    }
    Ok(findings)
}

/// What refers to what in an object, by section: each function and each constant has its own.
#[derive(Default)]
struct Calls {
    names: BTreeMap<usize, String>,
    /// Sections of our own functions.
    roots: BTreeSet<usize>,
    inside: BTreeMap<usize, BTreeSet<usize>>,
    /// Names that are defined elsewhere.
    outside: BTreeMap<usize, BTreeSet<String>>,
}

impl Calls {
    fn read(code: &[u8]) -> Result<Self> {
        let object = object::File::parse(code).context("reading an object")?;
        let mut calls = Self::default();
        for symbol in object.symbols().filter(|symbol| symbol.is_definition()) {
            if let Some(section) = symbol.section_index().map(|index| index.0) {
                let name = readable(symbol.name().unwrap_or_default());
                if is_own(&name) {
                    calls.roots.insert(section);
                }
                calls.names.insert(section, name);
            }
        }
        for section in object.sections() {
            for (_, relocation) in section.relocations() {
                let RelocationTarget::Symbol(index) = relocation.target() else { continue };
                let symbol = object.symbol_by_index(index).context("reading a relocation")?;
                let from = section.index().0;
                if let Some(target) = symbol.section_index() {
                    calls.inside.entry(from).or_default().insert(target.0);
                } else {
                    let name = readable(symbol.name().unwrap_or_default());
                    calls.outside.entry(from).or_default().insert(name);
                }
            }
        }
        Ok(calls)
    }

    /// Follows the calls from our own functions.
    fn findings(&self) -> Vec<String> {
        let mut reached: BTreeSet<usize> = self.roots.clone();
        let mut open: Vec<usize> = reached.iter().copied().collect();
        while let Some(section) = open.pop() {
            for &target in self.inside.get(&section).into_iter().flatten() {
                if reached.insert(target) {
                    open.push(target);
                }
            }
        }
        let calls = self.outside.iter().filter(|(section, _)| reached.contains(section));
        calls
            .flat_map(|(section, names)| names.iter().map(move |name| (section, name)))
            .filter(|(_, name)| !cannot_panic(name))
            .map(|(section, name)| {
                let caller = self.names.get(section).map_or("a constant", String::as_str);
                format!("{caller} calls {name}, which is not known never to panic")
            })
            .collect()
    }
}

/// A symbol's name as people read it, without the hash.
fn readable(name: &str) -> String {
    format!("{:#}", demangle(name))
}

fn is_own(name: &str) -> bool {
    name.contains("stepwell_")
}

fn cannot_panic(name: &str) -> bool {
    const BYTES: [&str; 5] = ["bcmp", "memcmp", "memcpy", "memmove", "memset"];
    // The compiler's own 128-bit division; that the divisor is not 0 has been checked before.
    const DIVISION: [&str; 2] = ["__udivti3", "__umodti3"];
    // What a dead personality routine's unwind tables name: there is no unwinding.
    let unwinding = name == "rust_eh_personality";
    name.contains("core::fmt::")
        || is_own(name)
        || BYTES.contains(&name)
        || DIVISION.contains(&name)
        || unwinding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_crates_must_be_known() {
        for name in [
            "core::fmt::write",
            "<u64 as core::fmt::LowerHex>::fmt",
            "<core::fmt::Formatter>::write_str",
            "stepwell_arch::pstate::Pstate::el",
            "memcpy",
        ] {
            assert!(cannot_panic(name), "{name}");
        }
        for name in [
            "core::panicking::panic_fmt",
            "core::panicking::panic_const::panic_const_add_overflow",
            "core::option::unwrap_failed",
            "core::slice::index::slice_index_fail",
            "anything::new",
        ] {
            assert!(!cannot_panic(name), "{name}");
        }
    }

    #[test]
    fn a_panic_is_found_however_far_away() {
        let calls = |root| Calls {
            names: BTreeMap::from([(3, "core::far".to_owned())]),
            roots: BTreeSet::from([root]),
            inside: BTreeMap::from([(1, BTreeSet::from([2])), (2, BTreeSet::from([3, 1]))]),
            outside: BTreeMap::from([(
                3,
                BTreeSet::from(["core::panicking::panic".to_owned(), "memcpy".to_owned()]),
            )]),
        };
        let found = calls(1).findings();
        assert_eq!(
            found,
            ["core::far calls core::panicking::panic, which is not known never to panic"]
        );
        assert!(calls(4).findings().is_empty(), "what nobody of ours reaches does not matter");
    }
}
