//! The compiler for bare-metal arm64, found or made.
//!
//! Users have one of two things: rustup, which can download the target's `core`, or Debian's
//! rustc, which comes with the standard library's source instead. The second kind gets a sysroot
//! staged once from that source; building our own code with `-Zbuild-std` each time would work
//! too, but only with the unstable features of the compiler switched on, and then one of them
//! could slip into our code unnoticed.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{layout, process};

/// Compiling `core` and `alloc`, with the download of what their build locks.
const STAGE_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The libraries that a bare-metal program links.
const STAGED: [&str; 3] = ["core", "alloc", "compiler_builtins"];

const STAGE_MANIFEST: &str = "\
[package]
name = \"sysroot\"
version = \"0.0.0\"
edition = \"2021\"

[lib]
path = \"lib.rs\"

[workspace]
";

/// Both ways to get a compiler for the target, for when neither was found.
pub const BOTH_WAYS: &str = "\
There is no Rust compiler for aarch64-unknown-none-softfloat. Either of these provides one:
  rustup:  rustup target add aarch64-unknown-none-softfloat
  Debian:  apt-get install rustc-web cargo-web rust-web-src lld   (as root)
If the compiler is in an unusual place, name it in STEPWELL_RUSTC.";

/// A compiler that builds for [`BareMetal::TARGET`], and what cargo has to be told to use it.
pub struct BareMetal {
    /// `None`: cargo's own choice.
    rustc: Option<PathBuf>,
    /// A staged sysroot, where the compiler's own lacks the target.
    sysroot: Option<PathBuf>,
    linker: Option<&'static str>,
    description: String,
}

/// What could be found on this machine without building or installing anything.
pub enum Found {
    /// A compiler that can be used at once.
    Ready(BareMetal),
    /// A compiler with the standard library's source: [`BareMetal::find_or_stage`] will use it.
    Stageable {
        /// The compiler that the source belongs to.
        rustc: PathBuf,
        /// Neither the compiler's own linker nor `ld.lld` is there.
        lacks_linker: bool,
    },
    /// Neither.
    Nothing,
}

impl BareMetal {
    /// Without FP and SIMD: EL2 must never touch the guest's registers behind its back.
    pub const TARGET: &'static str = "aarch64-unknown-none-softfloat";

    /// Looks at the compilers of this machine; quick, and changes nothing.
    pub fn find() -> Found {
        for rustc in candidates() {
            if let Some(libdir) = target_libdir(&rustc)
                && has_library(&libdir, "core")
            {
                return Found::Ready(Self::with(rustc, None));
            }
        }
        for rustc in candidates() {
            let Some(sysroot) = sysroot(&rustc) else { continue };
            if !sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file() {
                continue;
            }
            let staged = staged_sysroot(&rustc);
            if staged.as_deref().is_some_and(is_complete) {
                return Found::Ready(Self::with(rustc, staged));
            }
            let lacks_linker = linker(&rustc) == Some(LLD) && !process::is_installed(LLD);
            return Found::Stageable { rustc, lacks_linker };
        }
        Found::Nothing
    }

    /// Finds a compiler, staging a sysroot from source if that is what this machine has.
    ///
    /// # Errors
    /// When there is none, with both ways to get one; when staging fails.
    pub fn find_or_stage() -> Result<Self> {
        match Self::find() {
            Found::Ready(toolchain) => Ok(toolchain),
            Found::Stageable { lacks_linker: true, .. } => {
                bail!("the linker ld.lld is missing: apt-get install lld (as root)")
            }
            Found::Stageable { rustc, .. } => {
                let sysroot = stage(&rustc)?;
                Ok(Self::with(rustc, Some(sysroot)))
            }
            Found::Nothing => bail!(BOTH_WAYS),
        }
    }

    fn with(rustc: PathBuf, sysroot: Option<PathBuf>) -> Self {
        let version = process::answer(process::bare_metal(&rustc).arg("--version"))
            .unwrap_or_else(|| rustc.display().to_string());
        let staged = if sysroot.is_some() { ", core from its source" } else { "" };
        let description = format!("{version}{staged}");
        let linker = linker(&rustc);
        let rustc = (rustc != Path::new("rustc")).then_some(rustc);
        Self { rustc, sysroot, linker, description }
    }

    /// The compiler in words.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// `cargo build` for the target with the profile of EL2 code, into `target_dir`.
    pub fn cargo(&self, target_dir: &Path) -> Command {
        let mut cargo = process::bare_metal("cargo");
        cargo.args(["build", "--profile", "el2", "--target", Self::TARGET]);
        cargo.arg("--target-dir").arg(target_dir);
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if let Some(sysroot) = &self.sysroot {
            cargo.arg("--config").arg(rustflags(&format!("--sysroot={}", sysroot.display())));
        }
        if let Some(linker) = self.linker {
            cargo.env(linker_variable(), linker);
        }
        cargo
    }

    /// Where that cargo leaves its programs.
    pub fn output_dir(target_dir: &Path) -> PathBuf {
        target_dir.join(Self::TARGET).join("el2")
    }
}

const LLD: &str = "ld.lld";

/// The compiler that the user names, which then is the only one to be looked at.
pub fn named_compiler() -> Option<PathBuf> {
    env::var_os("STEPWELL_RUSTC").filter(|name| !name.is_empty()).map(PathBuf::from)
}

/// The compilers to look at, in order.
fn candidates() -> Vec<PathBuf> {
    match named_compiler() {
        Some(named) => vec![named],
        None => vec!["rustc".into(), "/usr/bin/rustc".into()],
    }
}

fn linker_variable() -> String {
    format!("CARGO_TARGET_{}_LINKER", BareMetal::TARGET.to_uppercase().replace('-', "_"))
}

/// The linker that cargo must be told of: none where the compiler brings the target's default.
fn linker(rustc: &Path) -> Option<&'static str> {
    let own = sysroot(rustc)?.join("lib/rustlib").join(host(rustc)?).join("bin/rust-lld");
    if own.is_file() { None } else { Some(LLD) }
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    process::answer(process::bare_metal(rustc).args(["--print", "sysroot"])).map(PathBuf::from)
}

fn host(rustc: &Path) -> Option<String> {
    let text = process::answer(process::bare_metal(rustc).arg("-vV"))?;
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

fn target_libdir(rustc: &Path) -> Option<PathBuf> {
    let mut command = process::bare_metal(rustc);
    command.args(["--print", "target-libdir", "--target", BareMetal::TARGET]);
    process::answer(&mut command).map(PathBuf::from)
}

fn has_library(libdir: &Path, name: &str) -> bool {
    rlibs(libdir).iter().any(|path| is_library(path, name))
}

fn rlibs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let rlib = Some(OsStr::new("rlib"));
    entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == rlib).collect()
}

fn is_library(path: &Path, name: &str) -> bool {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    file_name.starts_with(&format!("lib{name}-"))
}

/// The place of the sysroot for exactly this compiler: libraries of another build of it, even of
/// the same version, are refused by rustc.
fn staged_sysroot(rustc: &Path) -> Option<PathBuf> {
    let text = process::answer(process::bare_metal(rustc).arg("-vV"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ")?;
    let commit = field("commit-hash: ")?;
    let short_commit = commit.get(..9).unwrap_or(commit);
    Some(layout::target_dir().join("sysroot").join(format!("{release}-{short_commit}")))
}

fn staged_libdir(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(BareMetal::TARGET).join("lib")
}

fn is_complete(sysroot: &Path) -> bool {
    let libdir = staged_libdir(sysroot);
    STAGED.iter().all(|name| has_library(&libdir, name))
}

/// Builds `core` and `alloc` from the compiler's own source into a sysroot.
fn stage(rustc: &Path) -> Result<PathBuf> {
    let sysroot = staged_sysroot(rustc).context("the compiler does not tell its version")?;
    println!("Building core and alloc for {} from source (once)", BareMetal::TARGET);
    let work = layout::target_dir().join("sysroot/work");
    fs::create_dir_all(&work).context("creating the sysroot's folder")?;
    fs::write(work.join("Cargo.toml"), STAGE_MANIFEST).context("writing the sysroot's crate")?;
    fs::write(work.join("lib.rs"), "#![no_std]\n").context("writing the sysroot's crate")?;
    let mut cargo = process::bare_metal("cargo");
    cargo.current_dir(&work).args(["build", "--release", "--target", BareMetal::TARGET]);
    cargo.arg("-Zbuild-std=core,alloc,compiler_builtins");
    // The memcpy family, which on this target nobody else provides.
    cargo.arg("-Zbuild-std-features=compiler-builtins-mem");
    // The EL2 profile optimises across crates, for which `core` must carry its bitcode.
    cargo.arg("--config").arg(rustflags("-Cembed-bitcode=yes"));
    cargo.arg("--target-dir").arg(work.join("target"));
    cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").env(linker_variable(), LLD);
    process::run(&mut cargo, STAGE_LIMIT)?;

    let libdir = staged_libdir(&sysroot);
    fs::create_dir_all(&libdir).context("creating the sysroot")?;
    let built = work.join("target").join(BareMetal::TARGET).join("release/deps");
    for rlib in rlibs(&built) {
        if STAGED.iter().any(|name| is_library(&rlib, name)) {
            let name = rlib.file_name().context("a library without a name")?;
            fs::copy(&rlib, libdir.join(name)).context("copying into the sysroot")?;
        }
    }
    fs::remove_dir_all(&work).context("removing the sysroot's build")?;
    if !is_complete(&sysroot) {
        bail!("building core from source left no usable libraries in {}", sysroot.display());
    }
    Ok(sysroot)
}

/// A setting for cargo's --config. Not the variable RUSTFLAGS, which overrides flags of config files.
fn rustflags(flag: &str) -> String {
    let quoted = flag.replace('\\', "\\\\").replace('"', "\\\"");
    format!("target.{}.rustflags=[\"{quoted}\"]", BareMetal::TARGET)
}
