//! `cargo xtask cross`: the `stepwell` command for arm64 Linux, on any x86-64 machine.
//!
//! Static, so that it runs on whatever Linux there is, and inside the emulated host that the tests of KVM
//! boot. It needs a compiler with the standard library for arm64 Linux, and a cross gcc for what is C.
//! rustup adds the former; where there is none, Debian's own compiler is fetched and unpacked, with its
//! library for arm64 beside it, and nothing is installed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::debian::Archive;
use crate::toolchain::named_compiler;
use crate::{layout, process, setup};

/// What it is built for.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const STRIP: &str = "aarch64-linux-gnu-strip";
const STRIP_LIMIT: Duration = Duration::from_secs(60);
/// A build of everything, C included, on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
const RUSTUP_LIMIT: Duration = Duration::from_secs(3 * 60);
/// Debian's compiler, which is newer than the release's.
const COMPILER: &str = "rustc-web";
/// The linter of that compiler.
const LINTER: &str = "rust-web-clippy";
/// Its standard library, of each architecture.
const LIBRARY: &str = "libstd-rust-web-dev";
/// What packages that it depends on are called, those that few machines have.
const ITS_LIBRARIES: [&str; 3] = ["libstd-rust", "libllvm", "libz3"];
/// Where the packages have shared libraries.
const SHARED: &str = "usr/lib/x86_64-linux-gnu";

/// Builds a static `stepwell` for arm64 Linux
#[derive(clap::Args)]
pub struct Cross {}

impl Cross {
    /// Builds it and prints where it is.
    ///
    /// # Errors
    /// When a toolchain cannot be had, or the code does not build.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::CROSS)?;
        let program = build_with(&Compiler::find_or_fetch()?)?;
        println!("arm64:     {}", layout::shown(&program));
        Ok(())
    }
}

/// Builds it; returns the program.
///
/// # Errors
/// When the code does not build.
pub fn build_with(compiler: &Compiler) -> Result<PathBuf> {
    println!("Building the stepwell command for {TARGET} with {}", compiler.description());
    let mut cargo = compiler.cargo();
    cargo.args(["build", "--release", "--package", "stepwell", "--target", TARGET]);
    cargo.arg("--target-dir").arg(folder());
    if layout::hypervisor_image().is_file() {
        cargo.env("STEPWELL_HYPERVISOR_IMAGE", layout::hypervisor_image());
    }
    process::run(&mut cargo, BUILD_LIMIT)?;
    Ok(layout::arm64_binary())
}

/// Builds this program, which shows the demo; returns it.
///
/// # Errors
/// When the code does not build.
pub fn xtask_with(compiler: &Compiler) -> Result<PathBuf> {
    let mut cargo = compiler.cargo();
    cargo.args(["build", "--release", "--package", "xtask", "--target", TARGET]);
    process::run(cargo.arg("--target-dir").arg(folder()), BUILD_LIMIT)?;
    Ok(layout::arm64_binary().with_file_name("xtask"))
}

fn folder() -> PathBuf {
    layout::cross_dir()
}

/// A compiler that builds for arm64 Linux.
pub struct Compiler {
    /// None: cargo's own choice.
    rustc: Option<PathBuf>,
    /// Where its shared libraries are, if it was unpacked.
    libraries: Option<PathBuf>,
}

impl Compiler {
    /// Finds one, has rustup add the library where that is there, or fetches Debian's.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn find_or_fetch() -> Result<Self> {
        if let Some(found) = Self::find() {
            return Ok(found);
        }
        if named_compiler().is_none() && process::is_installed("rustup") {
            let mut rustup = process::bare_metal("rustup");
            let outcome =
                process::show_and_run(rustup.args(["target", "add", TARGET]), RUSTUP_LIMIT);
            match Self::find() {
                Some(found) => return Ok(found),
                None => outcome.unwrap_or_else(|error| println!("{error:#}")),
            }
        }
        let root = folder().join("debian");
        let unpacked =
            Self { rustc: Some(root.join("usr/bin/rustc")), libraries: Some(root.join(SHARED)) };
        if !root.join("complete").is_file() {
            fetch(&root)?;
        }
        Ok(unpacked)
    }

    /// One that is installed.
    fn find() -> Option<Self> {
        let candidates = match named_compiler() {
            Some(named) => vec![named],
            None => vec!["rustc".into(), "/usr/bin/rustc".into()],
        };
        let rustc = candidates.into_iter().find(|rustc| has_library(rustc))?;
        Some(Self { rustc: (rustc != Path::new("rustc")).then_some(rustc), libraries: None })
    }

    /// The compiler in words.
    pub fn description(&self) -> String {
        let mut rustc = process::bare_metal(self.rustc.as_deref().unwrap_or(Path::new("rustc")));
        self.find_libraries(&mut rustc);
        process::answer(rustc.arg("--version")).unwrap_or_else(|| "the compiler of cargo".into())
    }

    fn find_libraries(&self, command: &mut Command) {
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }

    /// A cargo that uses it, for static programs.
    pub fn cargo(&self) -> Command {
        self.prepared(process::bare_metal("cargo"))
    }

    /// A `cargo clippy` that uses it; none where there is none of this compiler's.
    ///
    /// # Errors
    /// When Debian's cannot be fetched.
    pub fn clippy(&self) -> Result<Option<Command>> {
        if self.libraries.is_none() {
            let mut cargo = self.cargo();
            cargo.arg("clippy");
            let is_there = process::answer(self.cargo().args(["clippy", "--version"])).is_some();
            return Ok(is_there.then_some(cargo));
        }
        let root = folder().join("debian");
        let program = root.join("usr/bin/cargo-clippy");
        if !program.is_file() {
            let work = folder().join("apt");
            let archive = Archive::of_architecture(&work, "amd64")?;
            archive.download(LINTER)?.unpack(&root)?;
            fs::remove_dir_all(&work).context("removing apt's folders")?;
        }
        let mut clippy = self.prepared(process::bare_metal(program));
        clippy.arg("clippy");
        Ok(Some(clippy))
    }

    fn prepared(&self, mut cargo: Command) -> Command {
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        self.find_libraries(&mut cargo);
        let variable =
            |what: &str| format!("CARGO_TARGET_{}_{what}", TARGET.to_uppercase().replace('-', "_"));
        if env::consts::ARCH != "aarch64" {
            cargo.env(variable("LINKER"), LINKER);
        }
        cargo.env(variable("RUSTFLAGS"), "-Ctarget-feature=+crt-static");
        cargo
    }
}

/// A copy of a program without its debug information.
///
/// # Errors
/// When binutils for arm64 are missing.
pub fn stripped(program: &Path) -> Result<PathBuf> {
    let copy = program.with_extension("stripped");
    let name = if env::consts::ARCH == "aarch64" { "strip" } else { STRIP };
    let mut strip = process::command(name);
    strip.arg("-o").arg(&copy).arg(program);
    process::run(&mut strip, STRIP_LIMIT)?;
    Ok(copy)
}

/// Whether a compiler has the standard library for the target.
fn has_library(rustc: &Path) -> bool {
    let mut command = process::bare_metal(rustc);
    command.args(["--print", "target-libdir", "--target", TARGET]);
    let Some(folder) = process::answer(&mut command) else { return false };
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

/// Fetches Debian's compiler and both of its libraries, and unpacks them side by side.
fn fetch(root: &Path) -> Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "there is no compiler for {TARGET} here: rustup target add {TARGET}"
    );
    println!("There is no Rust library for {TARGET}: fetching Debian's compiler (some 130 MB)");
    let work = folder().join("apt");
    fs::create_dir_all(root).context("creating a folder for the compiler")?;
    let host = Archive::of_architecture(&work.join("amd64"), "amd64")?;
    let compiler = host.download(COMPILER)?;
    compiler.unpack(root)?;
    for package in host.depended_on(COMPILER, &ITS_LIBRARIES)? {
        host.download(&package)?.unpack(root)?;
    }
    let target = Archive::of_architecture(&work.join("arm64"), "arm64")?;
    let library = target.download(LIBRARY)?;
    let version = |title: &str| title.split(' ').nth(1).map(str::to_owned);
    if version(&library.title) != version(&compiler.title) {
        bail!(
            "{} and {} are of different versions: try again when Debian's archive is whole",
            compiler.title,
            library.title
        );
    }
    library.unpack(root)?;
    let mut rustc = process::bare_metal(root.join("usr/bin/rustc"));
    rustc.env("LD_LIBRARY_PATH", root.join(SHARED)).arg("--version");
    let tried = process::capture(&mut rustc)?;
    ensure!(
        tried.status.success(),
        "{} does not run here: {}\nrustup has the library, too: rustup target add {TARGET}",
        compiler.title,
        String::from_utf8_lossy(&tried.stderr).trim()
    );
    fs::remove_dir_all(&work).context("removing apt's folders")?;
    fs::write(root.join("complete"), compiler.title).context("writing the compiler's version")
}
