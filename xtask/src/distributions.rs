//! `cargo xtask distributions`: Debian from disks, through firmware and boot loader.

use std::time::Duration;

use anyhow::Result;

use crate::{build, guests, images, process, setup, test};

/// Eight guests.
const LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// Boots Debian 12 and 13 from disks to their logins, and has them do what people do there
///
/// Through EDK2 and GRUB, on cortex-a57 and max, with 1 and 4 vCPUs: logs in over the console, gets
/// lists of packages from a server on this machine by `--net user`, writes 200 MB and reads them
/// back, reboots, finds them again, powers off, and has the file system checked ("used"). Then without
/// firmware, once freely and once with two million steps: the console and the disk have the same
/// ("stepped"). Prints a table.
#[derive(clap::Args)]
pub struct Distributions {
    /// Only the rows with these words: debian12, debian13, cortex-a57, max, 1, 4, used, stepped
    only: Vec<String>,
}

impl Distributions {
    /// Builds what it takes and runs it.
    ///
    /// # Errors
    /// When something cannot be built, or a guest does not come through.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::DISTRIBUTIONS)?;
        build::everything()?;
        guests::everything()?;
        images::make(None, false)?;
        let mut cargo = process::host_cargo();
        cargo.args(["run", "--quiet", "--package", "stepwell-tests", "--bin", "distributions"]);
        cargo.arg("--").args(self.only);
        test::point_to_machine(&mut cargo);
        process::run(&mut cargo, LIMIT)
    }
}
