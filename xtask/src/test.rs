//! `cargo xtask test`: every check there is, the quick ones first.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::tidy::{self, licences};
use crate::{build, coverage, failures, guests, kvm, layout, process, python, qemu, setup};

const LINT_LIMIT: Duration = Duration::from_secs(15 * 60);
const HOST_LIMIT: Duration = Duration::from_secs(20 * 60);
const MACHINE_LIMIT: Duration = Duration::from_secs(40 * 60);

/// Machines at once: each runs up to four CPUs and QEMU serves them from one thread a CPU.
const MACHINES_MAX: &str = "2";

/// Sets up, builds, and runs all tests: on the host, then in QEMU
#[derive(clap::Args)]
pub struct Test {
    /// Leaves out the tests that need QEMU
    #[arg(long)]
    host_only: bool,
    /// Runs the machine tests a second time, on the QEMU that `cargo xtask qemu` fetches
    #[arg(long, conflicts_with = "host_only")]
    both_qemus: bool,
    /// Runs only the tests with this in their name
    filter: Option<String>,
}

impl Test {
    /// Runs the tests, each group announced and timed.
    ///
    /// # Errors
    /// At the first group that fails.
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        if !self.host_only {
            group("setup", || setup::ensure(setup::TESTS).map(|_| ()))?;
        }
        if self.filter.is_none() {
            group("tidy", tidy::check)?;
            group("panic paths", tidy::check_machine_code)?;
            group("formatting", formatting)?;
            group("licences", licence_check)?;
            group("lints", lints)?;
            if !self.host_only {
                group("lints for arm64 hosts", kvm::lints)?;
            }
        }
        group("host tests", || self.host_tests())?;
        if self.filter.is_none() {
            group("mutants", mutants)?;
            group("line coverage", || coverage::measure_if_possible(!self.host_only))?;
        }
        if !self.host_only {
            group("build", build::everything)?;
            group("guests", guests::everything)?;
            group("emulated host", kvm::host)?;
            group("machine tests", || self.machine_tests(&setup::qemu()))?;
            if self.filter.is_none() {
                group("Python module", python::test)?;
            }
        }
        if self.both_qemus {
            group("machine tests, newer QEMU", || {
                self.machine_tests(&qemu::newer()?.display().to_string())
            })?;
        }
        println!("== all passed in {} s", start.elapsed().as_secs());
        Ok(())
    }

    fn host_tests(&self) -> Result<()> {
        let mut cargo = process::host_cargo();
        cargo.args(["test", "--workspace", "--features", build::EVERY_EXPORTER]);
        cargo.args(&self.filter);
        failures::run(&mut cargo, HOST_LIMIT)
    }

    fn machine_tests(&self, qemu: &str) -> Result<()> {
        println!("{}", qemu::version(qemu)?);
        let mut cargo = process::host_cargo();
        // As part of the workspace and with the exporters, like the host tests: but for this package
        // nothing is built a second time.
        let features = format!("stepwell-tests/machine,{}", build::EVERY_EXPORTER);
        cargo.args(["test", "--workspace", "--features", &features]);
        for name in layout::machine_tests()? {
            cargo.args(["--test", &name]);
        }
        // One run is long: it shows everything that fails.
        cargo.arg("--no-fail-fast").args(&self.filter).args(["--", "--test-threads", MACHINES_MAX]);
        point_to_machine(&mut cargo);
        // Of the two that there may be, what one test compares this one with.
        let newer = qemu::fetched().map(|path| path.display().to_string());
        if let Some(other) = newer.filter(|newer| newer != qemu) {
            cargo.env("STEPWELL_OTHER_QEMU", other);
        }
        failures::run(cargo.env("STEPWELL_QEMU", qemu), MACHINE_LIMIT)
    }
}

/// The model finds each mistake made on purpose in the engine and the loop. By itself, because the
/// feature would otherwise be in everybody's.
fn mutants() -> Result<()> {
    let mut cargo = process::host_cargo();
    cargo.args(["test", "--package", "stepwell-model", "--features", "mutants"]);
    failures::run(cargo.args(["--test", "mutants"]), HOST_LIMIT)
}

/// Tells the programs of `tests/` where the things are that they run.
pub fn point_to_machine(command: &mut Command) {
    command.env("STEPWELL_BIN", layout::stepwell_binary());
    command.env("STEPWELL_GUESTS", layout::guests_dir());
    command.env("STEPWELL_IMAGES", layout::images_dir());
    command.env("STEPWELL_QEMU", setup::qemu());
    command.env("STEPWELL_KVM_HOST", layout::emulated_host());
}

fn group(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    run()?;
    println!("== {name}: passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn formatting() -> Result<()> {
    if !has_subcommand("fmt") {
        println!("left out: `cargo fmt` is not installed (rustup component add rustfmt)");
        return Ok(());
    }
    let mut cargo = process::host_cargo();
    process::run(cargo.args(["fmt", "--all", "--check"]), LINT_LIMIT)
}

fn lints() -> Result<()> {
    if !has_subcommand("clippy") {
        println!("left out: `cargo clippy` is not installed (rustup component add clippy)");
        return Ok(());
    }
    let mut cargo = process::host_cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--features", build::EVERY_EXPORTER]);
    cargo.args(["--", "-D", "warnings"]);
    process::run(&mut cargo, LINT_LIMIT)
}

/// By cargo-deny where it is installed; otherwise by reading the same list ourselves.
fn licence_check() -> Result<()> {
    if has_subcommand("deny") {
        let mut cargo = process::host_cargo();
        return process::run(
            cargo.args(["deny", "--all-features", "check", "licenses"]),
            LINT_LIMIT,
        );
    }
    let findings = licences::check()?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} dependencies have a licence that deny.toml does not allow", findings.len());
    }
    Ok(())
}

fn has_subcommand(name: &str) -> bool {
    process::answer(process::host_cargo().args([name, "--version"])).is_some()
}
