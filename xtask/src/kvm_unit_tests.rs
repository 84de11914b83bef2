//! `cargo xtask kvm-unit-tests`: another project's tests as guests.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{build, process, setup, test};

/// Of all tests in every way: some step for minutes.
const LIMIT: Duration = Duration::from_secs(6 * 60 * 60);

/// Runs kvm-unit-tests for arm64 as guests, freely and stepped, and compares them with plain QEMU
///
/// Prints a table; docs/conformance.md has one, and how to build the tests.
#[derive(clap::Args)]
pub struct KvmUnitTests {
    /// Where their `.flat` files are: the folder `arm` of their source, once built
    folder: PathBuf,
    /// Only these
    names: Vec<String>,
    /// How long each may take in each way
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    patience: u64,
    /// What other vCPUs do while one is stepped
    #[arg(long, value_name = "POLICY", default_value = "stop")]
    others: String,
    /// By which clock the guest goes while it is stepped: one that waits by it steps less where each
    /// step is worth more
    #[arg(long, value_name = "POLICY", default_value = "stopped")]
    time: String,
    /// Leaves out the runs that are stepped
    #[arg(long)]
    unstepped: bool,
}

impl KvmUnitTests {
    /// Builds what it takes and runs them.
    ///
    /// # Errors
    /// When something is missing, or a test reports something else than on plain QEMU.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::MACHINE)?;
        build::everything()?;
        let shown = || self.folder.display().to_string();
        let folder = std::fs::canonicalize(&self.folder).with_context(shown)?;
        let mut cargo = process::host_cargo();
        cargo.args(["run", "--quiet", "--package", "stepwell-tests"]);
        cargo.args(["--bin", "kvm_unit_tests", "--"]).arg(folder);
        cargo.args([&self.patience.to_string(), &self.others, &self.time]);
        cargo.args(self.unstepped.then_some("unstepped")).args(&self.names);
        test::point_to_machine(&mut cargo);
        process::run(&mut cargo, LIMIT)
    }
}
