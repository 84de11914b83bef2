//! `cargo xtask build`: the EL2 image, then the host tool that carries it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::toolchain::BareMetal;
use crate::{elf_image, layout, process};

/// The exporters that a plain `cargo build` leaves out, because their crates are large.
pub const EVERY_EXPORTER: &str = "stepwell/parquet";

/// How long a build from scratch may take on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Builds the hypervisor for EL2 and the `stepwell` command that embeds it
#[derive(clap::Args)]
pub struct Build {
    /// Builds the EL2 image only
    #[arg(long)]
    image_only: bool,
}

impl Build {
    /// Builds what was asked for and prints where it is.
    ///
    /// # Errors
    /// When a toolchain is missing or the code does not build.
    pub fn run(self) -> Result<()> {
        let toolchain = BareMetal::find_or_stage()?;
        let test_mode = layout::test_mode_image();
        hypervisor_image(&toolchain, "el2,test-mode", &test_mode)?;
        println!("EL2 image for tests: {}", layout::shown(&test_mode));
        // The last one built is what an ELF with symbols is left of.
        release_image(&toolchain)?;
        if self.image_only { Ok(()) } else { host_tool(&["--features", EVERY_EXPORTER]) }
    }
}

/// Builds the image and the host tool, as every command that runs machines needs them.
///
/// # Errors
/// When a toolchain is missing or the code does not build.
pub fn everything() -> Result<()> {
    Build { image_only: false }.run()
}

/// Builds what a visitor runs: no test mode, and no exporter that takes a minute to build.
///
/// # Errors
/// As [`everything`].
pub fn for_demo() -> Result<()> {
    release_image(&BareMetal::find_or_stage()?)?;
    host_tool(&[])
}

/// Builds what a visitor runs whose host has KVM: the command alone.
///
/// # Errors
/// When the code does not build.
pub fn for_demo_by_kvm() -> Result<()> {
    command(&mut process::host_cargo(), &[])
}

fn release_image(toolchain: &BareMetal) -> Result<()> {
    let image = layout::hypervisor_image();
    hypervisor_image(toolchain, "el2", &image)?;
    println!("EL2 image: {}", layout::shown(&image));
    Ok(())
}

fn hypervisor_image(toolchain: &BareMetal, features: &str, image: &Path) -> Result<()> {
    println!(
        "Building the hypervisor ({features}) for {} with {}",
        BareMetal::TARGET,
        toolchain.description()
    );
    let mut cargo = toolchain.cargo(&layout::el2_dir());
    cargo.args(["--package", "stepwell-hypervisor", "--features", features]);
    process::run(&mut cargo, BUILD_LIMIT)?;
    let elf = BareMetal::output_dir(&layout::el2_dir()).join("stepwell-hypervisor");
    elf_image::check_relocations(&elf)?;
    elf_image::write_raw(&elf, image)
}

fn host_tool(features: &[&str]) -> Result<()> {
    let mut cargo = process::host_cargo();
    cargo.env("STEPWELL_HYPERVISOR_IMAGE", layout::hypervisor_image());
    command(&mut cargo, features)
}

fn command(cargo: &mut Command, features: &[&str]) -> Result<()> {
    println!("Building the stepwell command");
    cargo.args(["build", "--release", "--package", "stepwell"]).args(features);
    process::run(cargo, BUILD_LIMIT)?;
    println!("command:   {}", layout::shown(&layout::stepwell_binary()));
    Ok(())
}
