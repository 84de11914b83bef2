//! `cargo xtask demo`: Debian's kernel, stepped, from a fresh checkout.

use std::time::Duration;

use anyhow::Result;

use crate::guests::{self, DebianGuest};
use crate::initramfs::POWEROFF_PARAMETER;
use crate::{build, layout, process, setup};

/// The demo itself takes less than two minutes; more means that the guest hangs.
const DEMO_LIMIT: Duration = Duration::from_secs(4 * 60);

/// Sets up, builds, and single-steps Debian's kernel on its way to a shell prompt
#[derive(clap::Args)]
pub struct Demo {}

impl Demo {
    /// Runs the demo.
    ///
    /// # Errors
    /// When something is missing or a command of the demo fails.
    pub fn run(self) -> Result<()> {
        setup::ensure()?;
        build::everything()?;
        guests::everything()?;
        show()
    }
}

/// The commands that the visitor sees.
fn show() -> Result<()> {
    let guest = DebianGuest::here();
    let mut stepwell = process::command(layout::stepwell_binary());
    stepwell.arg("run").arg("--kernel").arg(guest.kernel());
    stepwell.arg("--initrd").arg(guest.initramfs());
    stepwell.arg("--append").arg(format!("console=ttyAMA0 {POWEROFF_PARAMETER}"));
    stepwell.env("STEPWELL_QEMU", setup::qemu());
    process::show_and_run(&mut stepwell, DEMO_LIMIT)
}
