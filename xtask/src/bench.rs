//! `cargo xtask bench`: what a step costs.

use std::time::Duration;

use anyhow::Result;

use crate::{build, guests, layout, process, setup, test};

const BENCH_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Measures steps per second and EL2 instructions per step
#[derive(clap::Args)]
pub struct Bench {
    /// Arguments for the measuring program
    #[arg(trailing_var_arg = true)]
    arguments: Vec<String>,
}

impl Bench {
    /// Builds everything and runs the measuring program of `tests/`.
    ///
    /// # Errors
    /// When something is missing or a measurement fails.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::MACHINE)?;
        build::everything()?;
        guests::everything()?;
        let mut cargo = process::host_cargo();
        cargo.args(["run", "--release", "--quiet", "--package", "stepwell-tests"]);
        cargo.args(["--bin", "bench", "--"]).args(self.arguments);
        // The bench steps through the tool's own library, which carries the hypervisor as the
        // command does.
        cargo.env("STEPWELL_HYPERVISOR_IMAGE", layout::hypervisor_image());
        test::point_to_machine(&mut cargo);
        process::run(&mut cargo, BENCH_LIMIT)
    }
}
