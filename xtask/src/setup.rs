//! `cargo xtask setup`: what the project needs and this machine lacks.
//!
//! Everything is looked for first, so that a second run touches neither the network nor a package
//! manager. What is missing is named before it is installed; what cannot be installed is named
//! with the way to get it, all of it at once rather than one thing a run. Each command asks for
//! what it uses itself: who only looks at the demo gets no browser.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::apt;
use crate::debian;
use crate::layout;
use crate::process;
use crate::qemu;
use crate::toolchain::{self, BareMetal, Found};

const RUSTUP_LIMIT: Duration = Duration::from_secs(3 * 60);

/// Debian's compiler with the source of its standard library.
const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];

/// Finds what the tests need and this machine lacks, and installs it
#[derive(clap::Args)]
pub struct Setup {}

/// A program or file that a Debian package brings.
pub struct Need {
    name: &'static str,
    purpose: &'static str,
    package: &'static str,
    present: fn() -> bool,
}

const QEMU: Need = Need {
    name: process::QEMU,
    purpose: "the machine that everything runs on",
    package: "qemu-system-arm",
    present: || process::is_installed(&qemu()),
};

const KEYRING: Need = Need {
    name: debian::KEYRING,
    purpose: "Debian's keys, to check the guest kernel's origin",
    package: "debian-archive-keyring",
    present: || Path::new(debian::KEYRING).exists(),
};

const GDB: Need = Need {
    name: "gdb-multiarch",
    purpose: "the debugger that the machine tests attach",
    package: "gdb-multiarch",
    present: || process::is_installed("gdb-multiarch"),
};

const LLDB: Need = Need {
    name: "lldb",
    purpose: "the other debugger that they attach",
    package: "lldb",
    present: || process::is_installed("lldb"),
};

const GENHTML: Need = Need {
    name: "genhtml",
    purpose: "the reader that coverage is checked with",
    package: "lcov",
    present: || process::is_installed("genhtml"),
};

const BROWSER: Need = Need {
    name: "chromium",
    purpose: "the browser that shows reports to the tests",
    package: "chromium",
    present: || BROWSERS.iter().any(|name| process::is_installed(name)),
};

const VENV: Need = Need {
    name: "python3 -m venv",
    purpose: "where the Python module is installed for its tests",
    package: "python3-venv",
    present: || {
        let mut python = process::command("python3");
        process::answer(python.args(["-c", "import ensurepip, venv; print(1)"])).is_some()
    },
};

const CROSS_GCC: Need = Need {
    name: "aarch64-linux-gnu-gcc",
    purpose: "links the command for arm64 hosts",
    package: "gcc-aarch64-linux-gnu",
    present: || cfg!(target_arch = "aarch64") || process::is_installed("aarch64-linux-gnu-gcc"),
};

const CROSS_LIBC: Need = Need {
    name: "/usr/aarch64-linux-gnu/lib/libc.a",
    purpose: "the C library of the command for arm64 hosts",
    package: "libc6-dev-arm64-cross",
    present: || {
        cfg!(target_arch = "aarch64") || Path::new("/usr/aarch64-linux-gnu/lib/libc.a").exists()
    },
};

const SFDISK: Need = Need {
    name: "sfdisk",
    purpose: "partitions disk images",
    package: "fdisk",
    present: || Path::new("/usr/sbin/sfdisk").exists() || process::is_installed("sfdisk"),
};

const MTOOLS: Need = Need {
    name: "mformat",
    purpose: "the file system that firmware reads",
    package: "mtools",
    present: || process::is_installed("mformat"),
};

const MKE2FS: Need = Need {
    name: "mke2fs",
    purpose: "the file system of disk images",
    package: "e2fsprogs",
    present: || Path::new("/usr/sbin/mke2fs").exists() || process::is_installed("mke2fs"),
};

const PASST: Need = Need {
    name: "passt",
    purpose: "the guest's network without any rights",
    package: "passt",
    present: || process::is_installed("passt"),
};

const IP: Need = Need {
    name: "ip",
    purpose: "a TAP device for a guest's network",
    package: "iproute2",
    present: || process::is_installed("ip"),
};

/// What making disk images takes.
pub const IMAGES: &[Need] = &[KEYRING, SFDISK, MTOOLS, MKE2FS];
/// What running what is on them takes.
pub const DISTRIBUTIONS: &[Need] = &[QEMU, KEYRING, SFDISK, MTOOLS, MKE2FS, PASST];
/// What building the command for arm64 hosts takes, beside a compiler.
pub const CROSS: &[Need] = &[KEYRING, CROSS_GCC, CROSS_LIBC];
/// What running a guest takes: the demo and the measurements need no more.
pub const MACHINE: &[Need] = &[QEMU, KEYRING];
/// What it takes where the host's KVM runs it.
pub const BY_KVM: &[Need] = &[KEYRING];
/// What taking pictures of reports takes.
pub const PICTURES: &[Need] = &[QEMU, KEYRING, BROWSER];
/// What all tests take.
pub const TESTS: &[Need] =
    &[QEMU, KEYRING, GDB, LLDB, GENHTML, BROWSER, VENV, CROSS_GCC, CROSS_LIBC, PASST, IP];

/// Browsers that will do, the one from Debian first.
pub const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The QEMU that is run: `$STEPWELL_QEMU`, the installed one, or the one that was unpacked.
pub fn qemu() -> String {
    let unpacked = || process::unpacked_qemu().map(|path| path.display().to_string());
    std::env::var("STEPWELL_QEMU")
        .ok()
        .or_else(unpacked)
        .unwrap_or_else(|| process::QEMU.to_owned())
}

/// A QEMU that the user names is the user's: none is installed in its place.
fn check_named_qemu() -> Result<()> {
    match std::env::var("STEPWELL_QEMU") {
        Ok(name) if !process::is_installed(&name) => bail!(
            "STEPWELL_QEMU names {name:?}, which is no program: correct it, or unset it for the \
             installed QEMU"
        ),
        _ => Ok(()),
    }
}

impl Setup {
    /// Installs what is missing and says so; says that nothing is, otherwise.
    ///
    /// # Errors
    /// When something is missing that cannot be installed.
    pub fn run(self) -> Result<()> {
        if ensure(TESTS)?.is_empty() {
            println!("Everything needed is installed.");
        }
        Ok(())
    }
}

/// What [`ensure`] would install, as lines for people; none where all is there.
///
/// # Errors
/// When apt cannot say.
pub fn plan(needs: &[Need]) -> Result<Vec<String>> {
    check_named_qemu()?;
    let mut lines = plan_programs(needs)?;
    match BareMetal::find() {
        Found::Ready(_) => {}
        Found::Stageable { .. } => lines.push(format!(
            "core and alloc for {}, built from the compiler's own source",
            BareMetal::TARGET
        )),
        Found::Nothing if process::is_installed("rustup") => {
            lines.push(format!("target {} by rustup", BareMetal::TARGET));
        }
        Found::Nothing => lines.push(format!("packages {}", DEBIAN_RUST.join(", "))),
    }
    Ok(lines)
}

/// What [`ensure_programs`] would install, as [`plan`] tells it.
///
/// # Errors
/// When apt cannot say.
pub fn plan_programs(needs: &[Need]) -> Result<Vec<String>> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    let mut lines = Vec::new();
    if !missing.is_empty() {
        let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
        let mut bytes = 0;
        if packages.contains(&QEMU.package) {
            let plan = apt::Plan::of(&[QEMU.package])?;
            if !plan.removed.is_empty() {
                packages.retain(|package| *package != QEMU.package);
                bytes += plan.bytes;
                lines.push(format!(
                    "package {} and what it depends on, unpacked below {}: to install it would \
                     remove {}",
                    QEMU.package,
                    layout::shown(&layout::unpacked_qemu_dir()),
                    plan.removed.join(", ")
                ));
            }
        }
        if !packages.is_empty() {
            let plan = apt::Plan::of(&packages)?;
            bytes += plan.bytes;
            lines.extend(plan.installed.iter().map(|package| format!("package {package}")));
            lines.extend(plan.removed.iter().map(|package| {
                format!("nothing, before this is solved: {package} would have to be removed")
            }));
        }
        lines.push(format!("{} to fetch", apt::megabytes(bytes)));
    }
    Ok(lines)
}

/// Makes sure that everything needed is there; returns what had to be installed.
///
/// # Errors
/// When something is missing that cannot be installed.
pub fn ensure(needs: &[Need]) -> Result<Vec<String>> {
    check_named_qemu()?;
    let mut installed = ensure_programs(needs)?;
    installed.extend(ensure_bare_metal()?);
    Ok(installed)
}

/// As [`ensure`], where nothing is built for bare-metal arm64.
///
/// # Errors
/// When something is missing that cannot be installed.
pub fn ensure_programs(needs: &[Need]) -> Result<Vec<String>> {
    let mut missing: Vec<&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    let mut installed = Vec::new();
    if !missing.is_empty() {
        for need in &missing {
            println!("Missing: {} ({}), in package {}", need.name, need.purpose, need.package);
        }
        installed.extend(unpack_qemu(&missing)?);
        missing.retain(|need| !(need.present)());
    }
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
        let outcome = apt::install(&packages);
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
        installed.extend(outcome.map(|plan| plan.installed).unwrap_or_default());
    }
    Ok(installed)
}

/// Unpacks QEMU where it is missing and cannot be installed without a decision of the user's: other
/// packages would go for it, or root's rights are missing.
fn unpack_qemu(missing: &[&Need]) -> Result<Option<String>> {
    if !missing.iter().any(|need| need.package == QEMU.package) {
        return Ok(None);
    }
    let Some(obstacle) = apt::obstacle(QEMU.package)? else { return Ok(None) };
    println!("{obstacle}: QEMU is unpacked below the target directory instead");
    let wrapper = qemu::unpack_own()?;
    println!("Stepwell finds it with\n  export STEPWELL_QEMU={}", wrapper.display());
    Ok(Some(format!("QEMU, unpacked in {}", layout::shown(&layout::unpacked_qemu_dir()))))
}

/// Returns what had to be installed or made.
fn ensure_bare_metal() -> Result<Option<String>> {
    match BareMetal::find() {
        Found::Ready(_) => return Ok(None),
        Found::Stageable { lacks_linker: true, .. } => {
            println!("Missing: ld.lld (links for bare-metal arm64), in package lld");
            apt::install(&["lld"])?;
        }
        Found::Stageable { lacks_linker: false, .. } => {}
        Found::Nothing => obtain_compiler()?,
    }
    let toolchain = BareMetal::find_or_stage()?;
    Ok(Some(format!("{} for {}", BareMetal::TARGET, toolchain.description())))
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
    if let Err(error) = apt::install(&DEBIAN_RUST) {
        bail!("{error:#}\n{}", toolchain::BOTH_WAYS);
    }
    Ok(())
}
