//! `cargo xtask proc`: what Debian's kernels tell of themselves, against their own `/proc`.

use std::time::Duration;

use anyhow::Result;

use crate::{build, guests, process, setup, test};

/// Eight guests.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Compares tasks, modules, mappings and symbols with the guest's own /proc
///
/// Debian 12's and 13's kernels, on cortex-a57 and max, with 1 and 4 vCPUs, at random moments while
/// processes fork, execute programs and load a module. Prints a table.
#[derive(clap::Args)]
pub struct Proc {
    /// How often each guest is stopped and asked
    #[arg(long, value_name = "N", default_value_t = 20)]
    stops: u32,
    /// Chooses the moments
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Only the rows with these words: debian, debian13, cortex-a57, max, 1, 4
    only: Vec<String>,
}

impl Proc {
    /// Builds what it takes and runs it.
    ///
    /// # Errors
    /// When something cannot be built, or an answer is not the guest's.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::MACHINE)?;
        build::everything()?;
        guests::everything()?;
        let mut cargo = process::host_cargo();
        cargo.args(["run", "--quiet", "--package", "stepwell-tests", "--bin", "proc", "--"]);
        cargo.args([self.stops.to_string(), self.seed.to_string()]).args(self.only);
        test::point_to_machine(&mut cargo);
        process::run(&mut cargo, LIMIT)
    }
}
