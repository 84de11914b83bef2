//! `cargo xtask images`: disks with Debian on them, as people have them, out of its packages alone.
//!
//! A disk has an EFI system partition with GRUB, and a root file system with systemd, apt and the
//! cloud kernel. Packages are unpacked and not configured: their scripts are programs of another
//! architecture. What these would have written, and a login takes, is in [`root`]. Nothing takes root's
//! rights; an image is made again where its packages or this recipe have changed.

mod disk;
mod root;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::{Archive, KEYRING};
use crate::{initramfs, layout, modules, process, setup};

/// Changes with whatever is in an image beside its packages.
const RECIPE: &str = concat!(
    include_str!("images.rs"),
    include_str!("images/disk.rs"),
    include_str!("images/root.rs"),
    include_str!("initramfs.rs")
);

/// A release of Debian that images are made of.
pub struct Release {
    /// What people call it.
    pub name: &'static str,
    /// What its archive does.
    codename: &'static str,
}

/// The releases.
const RELEASES: [Release; 2] = [
    Release { name: "debian12", codename: "bookworm" },
    Release { name: "debian13", codename: "trixie" },
];

/// Makes disk images of Debian 12 and 13 for arm64, with GRUB, systemd and apt
#[derive(clap::Args)]
pub struct Images {
    /// Only this release: debian12 or debian13
    #[arg(value_name = "RELEASE")]
    only: Option<String>,
    /// Fetches the lists of packages again, and the packages where these have changed
    #[arg(long)]
    refresh: bool,
}

impl Images {
    /// Makes the images and prints where they are.
    ///
    /// # Errors
    /// When a tool or the network is missing.
    pub fn run(self) -> Result<()> {
        make(self.only.as_deref(), self.refresh)
    }
}

/// Makes images, of one release or of all, where there are none of what they would be made of, and
/// prints where they are.
///
/// # Errors
/// As [`Images::run`].
pub fn make(only: Option<&str>, refresh: bool) -> Result<()> {
    setup::ensure(setup::IMAGES)?;
    let wanted = |release: &&Release| only.is_none_or(|name| name == release.name);
    let releases: Vec<_> = RELEASES.iter().filter(wanted).collect();
    anyhow::ensure!(!releases.is_empty(), "there are {}", RELEASES.map(|it| it.name).join(", "));
    for release in releases {
        let image = DiskImage::of(release);
        image.make(release, refresh)?;
        println!("{}:  {}", release.name, layout::shown(&image.disk()));
    }
    Ok(())
}

/// An image and what it was made of.
pub struct DiskImage {
    folder: PathBuf,
}

impl DiskImage {
    fn of(release: &Release) -> Self {
        Self { folder: layout::images_dir().join(release.name) }
    }

    /// The disk, raw.
    fn disk(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// The same as qcow2, where there is what converts it.
    fn qcow2(&self) -> PathBuf {
        self.folder.join("disk.qcow2")
    }

    /// What it was made of; written last, so its presence says that all is there.
    fn version(&self) -> PathBuf {
        self.folder.join("version")
    }

    fn make(&self, release: &Release, refresh: bool) -> Result<()> {
        if !refresh && self.is_of(None) {
            return Ok(());
        }
        let archive = Archive::arm64_of(&self.folder.join("apt"), release.codename)?;
        let packages = archive.all_for(&root::PACKAGES)?;
        let digest = digest(&packages);
        if self.is_of(Some(&digest)) {
            return Ok(());
        }
        let tree = self.folder.join("root");
        for old in [&tree, &self.folder.join("efi")] {
            if old.is_dir() {
                fs::remove_dir_all(old).context("removing an old tree")?;
            }
        }
        fs::create_dir_all(&tree).context("creating the tree")?;
        for package in archive.download_all(&packages)? {
            package.unpack(&tree)?;
        }
        let kernel = root::configure(&tree, release.name)?;
        self.write_initramfs(&tree, &kernel)?;
        disk::build(&self.folder, &tree, &self.disk(), &kernel)?;
        if process::is_installed("qemu-img") {
            let mut convert = process::command("qemu-img");
            convert.args(["convert", "-O", "qcow2"]).arg(self.disk()).arg(self.qcow2());
            process::run(&mut convert, disk::LIMIT)?;
        }
        fs::remove_dir_all(&tree).context("removing the tree")?;
        fs::write(self.version(), format!("{digest}\n{}\n", packages.join("\n")))
            .context("writing the versions")
    }

    /// Whether there is an image of these packages, or of any, by this recipe.
    fn is_of(&self, digest: Option<&str>) -> bool {
        let Ok(version) = fs::read_to_string(self.version()) else { return false };
        let mut lines = version.lines();
        let known = lines.next().unwrap_or_default();
        let packages: Vec<String> = lines.map(str::to_owned).collect();
        self.disk().is_file() && known == digest.map_or_else(|| self::digest(&packages), Into::into)
    }

    /// The initial ramdisk, into the tree and beside the disk, and the kernel there too: for who boots
    /// without a firmware.
    fn write_initramfs(&self, tree: &Path, kernel: &root::Kernel) -> Result<()> {
        let folder = tree.join("lib/modules").join(&kernel.release);
        let found = modules::in_folder(&folder)?;
        let builtin =
            fs::read_to_string(folder.join("modules.builtin")).context("the kernel's list")?;
        let order = modules::in_order(&root::MODULES, &found, &builtin)?;
        let numbered = order.iter().enumerate();
        let modules: Vec<_> =
            numbered.map(|(n, name)| (format!("{n:02}-{name}.ko"), found[name].clone())).collect();
        let busybox = fs::read(tree.join("usr/bin/busybox")).context("reading busybox")?;
        let archive = initramfs::to_disk(&busybox, &modules)?;
        fs::write(tree.join("boot/initrd.img"), &archive).context("writing the initramfs")?;
        fs::write(self.folder.join("initrd.img"), &archive).context("writing the initramfs")?;
        fs::copy(tree.join("boot").join(&kernel.file), self.folder.join("vmlinuz"))
            .context("copying the kernel")?;
        Ok(())
    }
}

/// A number for packages and recipe.
fn digest(packages: &[String]) -> String {
    let mut crc = flate2::Crc::new();
    for part in packages.iter().map(String::as_str).chain([RECIPE, KEYRING]) {
        crc.update(part.as_bytes());
        crc.update(b"\n");
    }
    format!("{:08x}", crc.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_another_image() {
        let of = |packages: &[&str]| {
            digest(&packages.iter().map(|&package| package.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["a 1", "b 2"]), of(&["a 1", "b 2"]));
        assert_ne!(of(&["a 1", "b 2"]), of(&["a 1", "b 3"]));
        assert_ne!(of(&["a 1"]), of(&["a 1", "b 2"]));
    }
}
