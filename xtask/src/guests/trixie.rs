//! The kernel of Debian 13 (trixie), as a second one that is asked about itself.
//!
//! Its structures, its symbols and its tables are others than those of the kernel that all other
//! tests have: 6.12 has modules in regions, addresses of 52 bits where the CPU has them, and
//! packed modules.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use liblzma::read::XzDecoder;

use super::{newest_kernel, read_modules};
use crate::debian::Archive;
use crate::{initramfs, layout, modules};

const RELEASE: &str = "trixie";
const KERNEL_PREFIX: &str = "linux-image-6.12.";
const KERNEL_SUFFIX: &str = "+deb13-cloud-arm64";
/// Modules for disks that are not in this kernel itself, and some that depend on each other.
const WANTED: [&str; 3] = ["virtio_mmio", "virtio_blk", "xt_limit"];
/// All that these may depend on.
const CANDIDATES: [&str; 5] = ["virtio_mmio", "virtio_blk", "xt_limit", "x_tables", "virtio"];
/// The one that tests learn from what the kernel demands of a module.
const SAMPLE: &str = "xt_limit";

fn folder() -> PathBuf {
    layout::guests_dir().join("debian13")
}

/// Makes the guest, from the cache where that is possible.
///
/// # Errors
/// When the network is missing.
pub(super) fn make(refresh: bool, busybox: &Path) -> Result<()> {
    let folder = folder();
    let version = folder.join("version");
    if refresh || !version.is_file() {
        fetch(&folder)?;
    }
    let busybox = fs::read(busybox).context("reading busybox")?;
    let archive = initramfs::build(&busybox, &read_modules(&folder.join("modules"))?)?;
    let path = folder.join("initramfs.cpio.gz");
    if !fs::read(&path).is_ok_and(|old| old == archive) {
        fs::write(path, archive).context("writing the initramfs")?;
    }
    let version = fs::read_to_string(version).context("reading the version")?;
    println!("Debian 13: {} in {}", version.trim(), layout::shown(&folder));
    Ok(())
}

fn fetch(folder: &Path) -> Result<()> {
    let archive = Archive::arm64_of(&folder.join("apt"), RELEASE)?;
    let names = archive.names(KERNEL_PREFIX)?;
    let name = newest_kernel(&names, KERNEL_PREFIX, KERNEL_SUFFIX).with_context(|| {
        format!(
            "Debian's package list has no {KERNEL_PREFIX}N{KERNEL_SUFFIX}: is the network there, \
             and the newest debian-archive-keyring?"
        )
    })?;
    let package = archive.download(&name)?;
    fs::write(folder.join("vmlinuz"), package.file("boot/vmlinuz-")?)
        .context("writing the kernel")?;
    let wanted = |path: &str| modules::name_of(path).filter(|n| CANDIDATES.contains(&n.as_str()));
    let mut found = BTreeMap::new();
    for (name, packed) in package.files(wanted)? {
        let mut bytes = Vec::new();
        XzDecoder::new(packed.as_slice())
            .read_to_end(&mut bytes)
            .with_context(|| format!("unpacking {name}"))?;
        found.insert(name, bytes);
    }
    let release = name.trim_start_matches("linux-image-");
    let builtin = package.file(&format!("usr/lib/modules/{release}/modules.builtin"))?;
    let order = modules::in_order(&WANTED, &found, &String::from_utf8_lossy(&builtin))?;
    let modules = folder.join("modules");
    if modules.is_dir() {
        fs::remove_dir_all(&modules).context("removing old modules")?;
    }
    fs::create_dir_all(&modules).context("creating the modules' folder")?;
    for (place, name) in order.iter().enumerate() {
        fs::write(modules.join(format!("{place:02}-{name}.ko")), &found[name])
            .context("writing a module")?;
    }
    fs::write(folder.join(format!("{SAMPLE}.ko")), &found[SAMPLE]).context("writing a module")?;
    fs::write(folder.join("version"), format!("{}\n", package.title))
        .context("writing the version")?;
    fs::remove_dir_all(folder.join("apt")).context("removing apt's folders")
}
