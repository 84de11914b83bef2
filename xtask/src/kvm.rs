//! `cargo xtask kvm`: what the tests of KVM run in.
//!
//! An emulated host is Debian's kernel in QEMU, with EL2 for its KVM, and an initramfs that has the tests of
//! `stepwell-kvm`, built for arm64 Linux, and the guests that they run. `tests/tests/kvm.rs` boots it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guests::DebianGuest;
use crate::{cross, guests, initramfs, layout, metadata, process, setup};

const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Builds the tests of KVM and the emulated host that they run in
#[derive(clap::Args)]
pub struct Kvm {}

impl Kvm {
    /// Builds both and prints where they are.
    ///
    /// # Errors
    /// When a toolchain or a guest cannot be had, or the code does not build.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::CROSS)?;
        guests::everything()?;
        host()
    }
}

/// Makes the emulated host out of guests that are there.
///
/// # Errors
/// When a toolchain cannot be had, or the code does not build.
pub fn host() -> Result<()> {
    let tests = tests()?;
    let debian = DebianGuest::here();
    let read =
        |path: PathBuf| fs::read(&path).with_context(|| format!("reading {}", path.display()));
    let mut files = vec![("bin/kvm-tests".to_owned(), read(tests)?)];
    for name in metadata::programs("stepwell-guests")? {
        let path = layout::guests_dir().join(format!("{name}.bin"));
        files.push((format!("guests/{name}.bin"), read(path)?));
    }
    let busybox = read(debian.busybox())?;
    let archive = initramfs::host(&busybox, &files)?;
    fs::write(layout::emulated_host(), archive).context("writing the emulated host")?;
    println!("KVM host:  {}", layout::shown(&layout::emulated_host()));
    Ok(())
}

/// Builds the tests; returns the program.
fn tests() -> Result<PathBuf> {
    let compiler = cross::Compiler::find_or_fetch()?;
    println!("Building the tests of KVM for arm64 Linux with {}", compiler.description());
    let arguments = |cargo: &mut Command| {
        cargo.args(["test", "--no-run", "--package", "stepwell-kvm", "--features", "host"]);
        cargo.args(["--test", "host", "--target", cross::TARGET]);
        cargo.arg("--target-dir").arg(layout::cross_dir());
    };
    let mut cargo = compiler.cargo();
    arguments(&mut cargo);
    process::run(&mut cargo, BUILD_LIMIT)?;
    // Now that it is built cargo tells its name at once.
    let mut cargo = compiler.cargo();
    arguments(&mut cargo);
    let output = process::capture(cargo.args(["--message-format", "json"]))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut programs = messages.filter_map(|message: serde_json::Value| {
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    let program = programs.next_back().context("cargo names no program of the tests of KVM")?;
    cross::stripped(&program)
}
