//! `cargo xtask setup`: what the project needs and this machine lacks.
//!
//! Everything is looked for first, so that a second run touches neither the network nor a package
//! manager. What is missing is named before it is installed; what cannot be installed is named
//! with the way to get it, all of it at once rather than one thing a run.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::debian;
use crate::process;
use crate::toolchain::{self, BareMetal, Found};

const UPDATE_LIMIT: Duration = Duration::from_secs(3 * 60);
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);
const RUSTUP_LIMIT: Duration = Duration::from_secs(3 * 60);

/// Debian's compiler with the source of its standard library.
const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];

/// Finds what is missing on this machine and installs it
#[derive(clap::Args)]
pub struct Setup {}

/// A program or file that a Debian package brings.
struct Need {
    name: &'static str,
    purpose: &'static str,
    package: &'static str,
    present: fn() -> bool,
}

const NEEDS: [Need; 6] = [
    Need {
        name: "qemu-system-aarch64",
        purpose: "the machine that everything runs on",
        package: "qemu-system-arm",
        present: || process::is_installed(&qemu()),
    },
    Need {
        name: "gdb-multiarch",
        purpose: "the debugger that the machine tests attach",
        package: "gdb-multiarch",
        present: || process::is_installed("gdb-multiarch"),
    },
    Need {
        name: "lldb",
        purpose: "the other debugger that they attach",
        package: "lldb",
        present: || process::is_installed("lldb"),
    },
    Need {
        name: debian::KEYRING,
        purpose: "Debian's keys, to check the guest kernel's origin",
        package: "debian-archive-keyring",
        present: || Path::new(debian::KEYRING).exists(),
    },
    Need {
        name: "genhtml",
        purpose: "the reader that coverage is checked with",
        package: "lcov",
        present: || process::is_installed("genhtml"),
    },
    Need {
        name: "chromium",
        purpose: "the browser that the report is tested in",
        package: "chromium",
        present: || BROWSERS.iter().any(|name| process::is_installed(name)),
    },
];

/// Browsers that will do, the one from Debian first.
pub const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The QEMU that is run: `$STEPWELL_QEMU` or the usual name.
pub fn qemu() -> String {
    std::env::var("STEPWELL_QEMU").unwrap_or_else(|_| "qemu-system-aarch64".to_owned())
}

impl Setup {
    /// Installs what is missing and says so; says that nothing is, otherwise.
    ///
    /// # Errors
    /// When something is missing that cannot be installed.
    pub fn run(self) -> Result<()> {
        if !ensure()? {
            println!("Everything needed is installed.");
        }
        Ok(())
    }
}

/// Makes sure that everything needed is there; tells whether anything had to be installed.
///
/// # Errors
/// When something is missing that cannot be installed.
pub fn ensure() -> Result<bool> {
    let mut missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.present)()).collect();
    let mut installed = false;
    if !missing.is_empty() {
        for need in &missing {
            println!("Missing: {} ({}), in package {}", need.name, need.purpose, need.package);
        }
        let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
        let outcome = apt_install(&packages);
        missing.retain(|need| !(need.present)());
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|need| need.name).collect();
            let reason = outcome.err().map(|error| format!("{error:#}\n")).unwrap_or_default();
            bail!(
                "{reason}still missing: {}\nInstall the packages yourself, as root:\n  \
                 apt-get install {}",
                names.join(", "),
                packages.join(" ")
            );
        }
        installed = true;
    }
    Ok(ensure_bare_metal()? || installed)
}

fn ensure_bare_metal() -> Result<bool> {
    match BareMetal::find() {
        Found::Ready(_) => return Ok(false),
        Found::Stageable { lacks_linker: true, .. } => {
            println!("Missing: ld.lld (links for bare-metal arm64), in package lld");
            apt_install(&["lld"])?;
        }
        Found::Stageable { lacks_linker: false, .. } => {}
        Found::Nothing => obtain_compiler()?,
    }
    BareMetal::find_or_stage().map(|_| true)
}

fn obtain_compiler() -> Result<()> {
    println!("Missing: a Rust compiler for {}", BareMetal::TARGET);
    if let Some(named) = toolchain::named_compiler() {
        bail!(
            "{}, named in STEPWELL_RUSTC, is no Rust compiler with this target or with the source \
             of the standard library",
            named.display()
        );
    }
    if process::is_installed("rustup") {
        let mut rustup = process::bare_metal("rustup");
        rustup.args(["target", "add", BareMetal::TARGET]);
        match process::show_and_run(&mut rustup, RUSTUP_LIMIT) {
            Ok(()) if matches!(BareMetal::find(), Found::Ready(_)) => return Ok(()),
            Ok(()) => println!("rustup has added it to a compiler that is not the one in use."),
            Err(error) => println!("{error:#}"),
        }
    }
    if let Err(error) = apt_install(&DEBIAN_RUST) {
        bail!("{error:#}\n{}", toolchain::BOTH_WAYS);
    }
    Ok(())
}

/// Installs Debian packages, after a fresh look at what there is.
///
/// # Errors
/// When there is no apt-get, no root's rights, or a package cannot be had.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    if !process::is_installed("apt-get") {
        bail!("there is no apt-get on this machine");
    }
    let root = become_root()?;
    println!("Installing: {}", packages.join(" "));
    // A stale list is no reason to give up: the installation itself decides.
    if let Err(error) = process::show_and_run(apt_get(root).arg("update"), UPDATE_LIMIT) {
        println!("{error:#}; trying to install with what is known");
    }
    let mut install = apt_get(root);
    install.args(["install", "-y", "--no-install-recommends"]).args(packages);
    process::show_and_run(&mut install, INSTALL_LIMIT)
}

fn apt_get(root: Option<&str>) -> std::process::Command {
    let mut words = root.into_iter().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    let mut apt = process::command(words.next().unwrap_or("env"));
    apt.args(words);
    apt.args(["-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=2"]);
    apt.args(["-o", "DPkg::Lock::Timeout=120"]);
    apt
}

/// The program that gives root's rights: `None` when we have them.
fn become_root() -> Result<Option<&'static str>> {
    if process::is_root() {
        return Ok(None);
    }
    let sudo_asks_nothing = || process::answer(process::command("sudo").args(["-n", "true"]));
    if process::is_installed("sudo") && (sudo_asks_nothing().is_some() || io::stdin().is_terminal())
    {
        return Ok(Some("sudo"));
    }
    bail!("installing packages takes root's rights, and sudo cannot be used here")
}
