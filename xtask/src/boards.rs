//! `cargo xtask boards`: the hypervisor's image on every board that QEMU has and it can be tried on.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::debian::Archive;
use crate::{build, guests, layout, process, setup, test};

const LIMIT: Duration = Duration::from_secs(40 * 60);

/// The package of Debian's kernel for all boards, and the trees that are wanted of it.
const KERNEL_PREFIX: &str = "linux-image-6.1.0-";
const KERNEL_SUFFIX: &str = "-arm64";
const TREES: [&str; 3] =
    ["freescale/imx8mp-evk.dtb", "xilinx/zynqmp-zcu102-rev1.0.dtb", "broadcom/bcm2711-rpi-4-b.dtb"];

/// Starts the image on every board, with a guest in Debian's or QEMU's own tree of it
///
/// Prints the table of docs/boards.md. Some of the boards are QEMU's from version 10 on.
#[derive(clap::Args)]
pub struct Boards {
    /// Another QEMU to try them on, beside the one of the tests
    #[arg(long = "qemu", value_name = "PATH")]
    qemus: Vec<PathBuf>,
}

impl Boards {
    /// Fetches and builds what it takes, and runs the matrix.
    ///
    /// # Errors
    /// When something is missing, or a board does not do what is expected of it.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::MACHINE)?;
        build::everything()?;
        guests::everything()?;
        let folder = fetch_trees()?;
        let mut cargo = process::host_cargo();
        cargo.args(["run", "--quiet", "--package", "stepwell-tests"]);
        cargo.args(["--bin", "boards", "--"]).args(&self.qemus);
        cargo.env("STEPWELL_BOARD_TREES", folder);
        test::point_to_machine(&mut cargo);
        process::run(&mut cargo, LIMIT)
    }
}

/// Makes the folder of the boards' trees, from the cache where that is possible.
fn fetch_trees() -> Result<PathBuf> {
    let folder = layout::guests_dir().join("boards");
    let file = |tree: &str| folder.join(tree.rsplit('/').next().unwrap_or(tree));
    if TREES.iter().all(|tree| file(tree).is_file()) {
        return Ok(folder);
    }
    let archive = Archive::arm64(&folder.join("apt"))?;
    let names = archive.names(KERNEL_PREFIX)?;
    let name = guests::newest_kernel(&names, KERNEL_PREFIX, KERNEL_SUFFIX).with_context(|| {
        format!(
            "Debian's package list has no {KERNEL_PREFIX}N{KERNEL_SUFFIX}: is the network there?"
        )
    })?;
    let package = archive.download(&name)?;
    for tree in TREES {
        let contents = package.file(&format!("usr/lib/{name}/{tree}"))?;
        fs::write(file(tree), contents).with_context(|| format!("writing {tree}"))?;
    }
    println!("trees:     of {} in {}", package.title, layout::shown(&folder));
    fs::remove_dir_all(folder.join("apt")).context("removing apt's folders")?;
    Ok(folder)
}
