//! The Python module, installed as a user installs it, and its tests.
//!
//! In a virtual environment of its own below the target directory, so that nothing of the user's
//! Python is touched, and built with what is compiled already.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::{build, guests, layout, process, setup};

const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Installs the Python module in an environment of its own, and runs its tests and examples
#[derive(clap::Args)]
pub struct Python {}

impl Python {
    /// Builds what it takes and runs them.
    ///
    /// # Errors
    /// When something cannot be built or installed, or a test fails.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::MACHINE)?;
        build::everything()?;
        guests::everything()?;
        test()
    }
}

fn environment() -> PathBuf {
    layout::target_dir().join("python")
}

/// A program of the virtual environment's.
fn program(name: &str) -> Command {
    let mut command = process::command(environment().join("bin").join(name));
    // As `cargo xtask build` has them: the module shares what that compiled.
    command.env("CARGO_TARGET_DIR", layout::target_dir());
    command.env("STEPWELL_HYPERVISOR_IMAGE", layout::hypervisor_image());
    command.env("STEPWELL_GUESTS", layout::guests_dir());
    command.env("STEPWELL_QEMU", setup::qemu());
    command
}

/// Installs the module and runs its tests. The image and the guests are built.
///
/// # Errors
/// When it cannot be installed, or a test fails.
pub fn test() -> Result<()> {
    let module = layout::root().join("python");
    if !environment().join("bin/pip").exists() {
        let mut python = process::command("python3");
        process::run(python.args(["-m", "venv"]).arg(environment()), LIMIT)?;
    }
    let mut pip = program("pip");
    // With drgn, which one test is about.
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    process::run(pip.arg(format!("{}[drgn]", module.display())), LIMIT)?;
    let mut python = program("python");
    // Not in its folder, where Python would take the sources for the module.
    python.current_dir(layout::target_dir()).args(["-m", "unittest", "discover", "-s"]);
    process::run(python.arg(module.join("tests")), LIMIT)
}
