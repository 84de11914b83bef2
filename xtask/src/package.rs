//! `cargo xtask package`: Debian packages of the `stepwell` command, for amd64 and arm64.
//!
//! The command, its manual pages and completions, and nothing else: no script runs at installation. Built
//! by `dpkg-deb`, which every Debian has. The arm64 command is the static one of `cargo xtask cross`, which
//! runs on any Linux; the amd64 one takes the C library that it was linked with, or a newer one.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use object::{Object, ObjectSection as _};

use crate::{build, cross, layout, process, setup};

const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);
const PACK_LIMIT: Duration = Duration::from_secs(2 * 60);
/// Where shells look for completions: what clap calls each file, and the place.
const COMPLETIONS: [(&str, &str); 3] = [
    ("stepwell.bash", "usr/share/bash-completion/completions/stepwell"),
    ("_stepwell", "usr/share/zsh/vendor-completions/_stepwell"),
    ("stepwell.fish", "usr/share/fish/vendor_completions.d/stepwell.fish"),
];
const DESCRIPTION: &str = "\
Description: single-steps arm64 virtual machines exactly
 Boots an unmodified arm64 guest under a small hypervisor in QEMU, or by KVM on
 an arm64 host, steps it one instruction at a time, and records what it executes.
";

/// Makes Debian packages of the command, for amd64 and arm64
#[derive(clap::Args)]
pub struct Package {}

impl Package {
    /// Makes them and prints where they are.
    ///
    /// # Errors
    /// When something does not build, or `dpkg-deb` is missing.
    pub fn run(self) -> Result<()> {
        ensure!(
            process::is_installed("dpkg-deb"),
            "making packages needs dpkg-deb: install dpkg (any Debian or Ubuntu has it)"
        );
        setup::ensure(setup::CROSS)?;
        build::for_demo()?;
        let pages = layout::package_dir().join("pages");
        make_pages(&pages)?;
        let own = match env::consts::ARCH {
            "x86_64" => vec![("amd64", layout::stepwell_binary())],
            _ => Vec::new(),
        };
        let arm64 = cross::build_with(&cross::Compiler::find_or_fetch()?)?;
        let programs = own.into_iter().chain([("arm64", cross::stripped(&arm64)?)]);
        for (architecture, program) in programs {
            println!("package:   {}", layout::shown(&pack(architecture, &program, &pages)?));
        }
        Ok(())
    }
}

fn make_pages(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        fs::remove_dir_all(folder).context("removing old pages")?;
    }
    let mut cargo = process::host_cargo();
    cargo.args(["run", "--quiet", "--package", "stepwell", "--example", "pages"]).arg(folder);
    process::run(&mut cargo, BUILD_LIMIT)
}

/// Packs one architecture's package; returns the file.
fn pack(architecture: &str, program: &Path, pages: &Path) -> Result<PathBuf> {
    let root = layout::package_dir().join(architecture);
    if root.is_dir() {
        fs::remove_dir_all(&root).context("removing an old package's folder")?;
    }
    let contents = fs::read(program).with_context(|| program.display().to_string())?;
    put(&root, "usr/bin/stepwell", &contents)?;
    make_executable(&root.join("usr/bin/stepwell"))?;
    for (name, place) in COMPLETIONS {
        let completion = fs::read(pages.join(name)).with_context(|| format!("reading {name}"))?;
        put(&root, place, &completion)?;
    }
    for entry in fs::read_dir(pages).context("reading the pages")? {
        let path = entry.context("reading the pages")?.path();
        if path.extension().is_some_and(|end| end == "1") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let page = fs::read(&path).context("reading a page")?;
            put(&root, &format!("usr/share/man/man1/{name}.gz"), &packed(&page)?)?;
        }
    }
    let read = |name: &str| fs::read(layout::root().join(name)).with_context(|| name.to_owned());
    put(&root, "usr/share/doc/stepwell/copyright", &read("LICENSE-MIT")?)?;
    put(&root, "usr/share/doc/stepwell/changelog.gz", &packed(&read("CHANGELOG.md")?)?)?;
    put(&root, "DEBIAN/control", control(architecture, &contents).as_bytes())?;
    let version = env!("CARGO_PKG_VERSION");
    let file = layout::package_dir().join(format!("stepwell_{version}_{architecture}.deb"));
    let mut pack = process::command("dpkg-deb");
    pack.args(["--root-owner-group", "--build"]).arg(&root).arg(&file);
    process::run(&mut pack, PACK_LIMIT)?;
    Ok(file)
}

fn put(root: &Path, place: &str, contents: &[u8]) -> Result<()> {
    let path = root.join(place);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(&path, contents).with_context(|| path.display().to_string())
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).with_context(|| path.display().to_string())
}

fn packed(text: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text).context("compressing")?;
    gzip.finish().context("compressing")
}

fn control(architecture: &str, program: &[u8]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let depends = libc_version(program)
        .map(|(major, minor)| format!("Depends: libc6 (>= {major}.{minor})\n"))
        .unwrap_or_default();
    format!(
        "Package: stepwell\nVersion: {version}\nArchitecture: {architecture}\n\
         Maintainer: The Stepwell authors <stepwell@localhost>\nSection: devel\n\
         Priority: optional\n{depends}Recommends: qemu-system-arm (>= 1:7.2)\n\
         Suggests: gdb-multiarch\n{DESCRIPTION}"
    )
}

/// The newest version of glibc that a program takes; none where it takes none.
fn libc_version(program: &[u8]) -> Option<(u32, u32)> {
    let file = object::File::parse(program).ok()?;
    // One without an interpreter is static.
    let interpreter = file.section_by_name(".interp")?;
    (interpreter.size() > 0).then(|| newest_glibc(program)).flatten()
}

/// The newest version of glibc that is named.
fn newest_glibc(program: &[u8]) -> Option<(u32, u32)> {
    const PREFIX: &[u8] = b"\0GLIBC_";
    let found = program.windows(PREFIX.len()).enumerate();
    let places = found.filter(|(_, window)| *window == PREFIX).map(|(at, _)| at + PREFIX.len());
    let version = |at: usize| {
        let end = program.get(at..)?.iter().position(|&byte| byte == 0)?;
        let text = std::str::from_utf8(program.get(at..at + end)?).ok()?;
        let mut numbers = text.split('.').map(|word| word.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    places.filter_map(version).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_the_newest_glibc_that_it_names() {
        let program = b"x\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.17\0GLIBC_PRIVATE\0";
        assert_eq!(newest_glibc(program), Some((2, 34)));
        assert_eq!(newest_glibc(b"nothing\0of it"), None);
        let own = fs::read(env::current_exe().unwrap()).unwrap();
        assert!(control("amd64", &own).contains("Depends: libc6 (>= 2."), "it is linked with it");
        assert!(!control("arm64", b"").contains("Depends"));
    }

    #[test]
    fn a_control_file_has_its_lines() {
        let control = control("arm64", b"");
        let fields = ["Package: stepwell\n", "\nArchitecture: arm64\n", "\nDescription: "];
        assert!(fields.iter().all(|field| control.contains(field)), "{control}");
        assert!(control.ends_with("executes.\n"));
    }
}
