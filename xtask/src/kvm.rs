//! `cargo xtask kvm`: what the tests of KVM run in.
//!
//! An emulated host is Debian's kernel in QEMU, with EL2 for its KVM, and an initramfs that has the tests of
//! `stepwell-kvm` and the `stepwell` command, both built for arm64 Linux, and guests. `tests/tests/kvm.rs`
//! boots it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guests::DebianGuest;
use crate::{build, cross, guests, initramfs, layout, metadata, process, setup, test};

const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Runs every test of KVM on each kind of host; a matrix of them takes its time.
const MATRIX_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// Builds the tests of KVM and the emulated host that they run in
#[derive(clap::Args)]
pub struct Kvm {
    /// Runs them on every kind of host: Linux 6.1 and 6.12, GICv3 and GICv2, 1 CPU without VHE and 4 with it;
    /// and with Debian as a guest. Only those with WORD in their name, if one is given: host_6_12_gicv2
    #[arg(long, value_name = "WORD")]
    matrix: Option<Option<String>>,
    /// Measures steps in a second beside those of a bare loop, and how long a start takes
    #[arg(long, conflicts_with = "matrix")]
    rates: bool,
}

impl Kvm {
    /// Builds both and prints where they are.
    ///
    /// # Errors
    /// When a toolchain or a guest cannot be had, or the code does not build.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::CROSS)?;
        guests::everything()?;
        host()?;
        if let Some(which) = &self.matrix {
            return ignored(which.as_deref().unwrap_or_default(), &["--skip", "rates"]);
        }
        if self.rates {
            return ignored("rates", &[]);
        }
        Ok(())
    }
}

/// Runs tests of `tests/tests/kvm.rs` that are left out otherwise: those with `name` in theirs.
fn ignored(name: &str, more: &[&str]) -> Result<()> {
    build::everything()?;
    let mut cargo = process::host_cargo();
    // As `cargo xtask test` builds them.
    let features = format!("stepwell-tests/machine,{}", build::EVERY_EXPORTER);
    cargo.args(["test", "--workspace", "--features", &features, "--test", "kvm", name]);
    // Hosts one after the other: each has up to four CPUs.
    cargo.args(["--", "--ignored", "--nocapture", "--test-threads", "1"]).args(more);
    test::point_to_machine(&mut cargo);
    process::run(&mut cargo, MATRIX_LIMIT)
}

/// Makes the emulated host out of guests that are there.
///
/// # Errors
/// When a toolchain cannot be had, or the code does not build.
pub fn host() -> Result<()> {
    // The same profile: they share what they depend on.
    let compiler = cross::Compiler::find_or_fetch()?;
    let command = cross::stripped(&cross::build_with(&compiler)?)?;
    let tests = tests(&compiler)?;
    let xtask = cross::stripped(&cross::xtask_with(&compiler)?)?;
    let debian = DebianGuest::here();
    let read =
        |path: PathBuf| fs::read(&path).with_context(|| format!("reading {}", path.display()));
    let mut files = vec![
        ("bin/kvm-tests".to_owned(), read(tests)?),
        ("bin/stepwell".to_owned(), read(command)?),
        ("bin/xtask".to_owned(), read(xtask)?),
        ("guests/debian/vmlinuz".to_owned(), read(debian.kernel())?),
        ("guests/debian/initramfs.cpio.gz".to_owned(), read(debian.initramfs())?),
    ];
    for (name, contents) in debian.module_files()? {
        files.push((format!("lib/modules/{name}"), contents));
    }
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

/// Lints what only an arm64 host compiles.
///
/// # Errors
/// When a compiler cannot be had, or there is a warning.
pub fn lints() -> Result<()> {
    let compiler = cross::Compiler::find_or_fetch()?;
    let Some(mut clippy) = compiler.clippy()? else {
        println!("left out for arm64 hosts: `cargo clippy` is not installed");
        return Ok(());
    };
    clippy.args(["--package", "stepwell-kvm", "--all-targets", "--features", "host"]);
    clippy.args(["--target", cross::TARGET]).arg("--target-dir").arg(layout::cross_dir());
    process::run(clippy.args(["--", "-D", "warnings"]), BUILD_LIMIT)
}

/// Builds the tests; returns the program.
fn tests(compiler: &cross::Compiler) -> Result<PathBuf> {
    println!("Building the tests of KVM for arm64 Linux with {}", compiler.description());
    let arguments = |cargo: &mut Command| {
        cargo.args([
            "test",
            "--release",
            "--no-run",
            "--package",
            "stepwell-kvm",
            "--features",
            "host",
        ]);
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
