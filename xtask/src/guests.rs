//! `cargo xtask guests`: everything that runs inside a machine of ours.
//!
//! The bare-metal guests are built as the hypervisor is. The kernel and the busybox are Debian's
//! own, unmodified: that an unmodified kernel can be stepped is the point.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::debian::{Archive, Package};
use crate::toolchain::BareMetal;
use crate::{elf_image, initramfs, layout, metadata, modules, process};

mod trixie;

const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);

/// EDK2 as Debian builds it: its code, and what its variables begin with.
const FIRMWARE: [&str; 2] = ["AAVMF_CODE.fd", "AAVMF_VARS.fd"];
const KERNEL_PREFIX: &str = "linux-image-6.1.0-";
const KERNEL_SUFFIX: &str = "-cloud-arm64";

/// Builds the bare-metal guests; fetches Debian's kernels and busybox, and makes an initramfs of each
#[derive(clap::Args)]
pub struct Guests {
    /// Fetches the packages again, for newer versions
    #[arg(long)]
    refresh: bool,
    /// Leaves Debian's kernels alone
    #[arg(long, conflicts_with = "refresh")]
    bare_only: bool,
}

impl Guests {
    /// Makes the guests and prints where they are.
    ///
    /// # Errors
    /// When the toolchain or the network is missing.
    pub fn run(self) -> Result<()> {
        bare()?;
        if !self.bare_only {
            debian(self.refresh)?;
            trixie::make(self.refresh, &DebianGuest::here().busybox())?;
        }
        Ok(())
    }
}

/// Makes all guests, from the cache where that is possible.
///
/// # Errors
/// When the toolchain or the network is missing.
pub fn everything() -> Result<()> {
    Guests { refresh: false, bare_only: false }.run()
}

/// Debian's kernel and the files made for it.
pub struct DebianGuest {
    folder: PathBuf,
}

impl DebianGuest {
    /// The one below the target directory, made or not.
    pub fn here() -> Self {
        Self { folder: layout::guests_dir().join("debian") }
    }

    /// The kernel, as Debian ships it.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Busybox and the start script.
    pub fn initramfs(&self) -> PathBuf {
        self.folder.join("initramfs.cpio.gz")
    }

    /// Busybox alone.
    pub fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    /// The modules for disks and networks, in the order in which they are loaded.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn module_files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        read_modules(&self.modules())
    }

    /// A module that came with the kernel: tests learn from it what the kernel demands of one.
    fn module(&self) -> PathBuf {
        self.folder.join("xt_limit.ko")
    }

    /// Modules for disks, each named by its place in the order in which they are loaded.
    fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// The boot loader that starts the image in tests.
    fn u_boot(&self) -> PathBuf {
        self.folder.join("u-boot.bin")
    }

    /// Firmware, and what its variables begin with.
    fn firmware(&self) -> [PathBuf; 2] {
        FIRMWARE.map(|name| self.folder.join(name))
    }

    /// Names and versions of the packages; written last, so its presence says that all is there.
    fn version(&self) -> PathBuf {
        self.folder.join("version")
    }

    /// Whether all modules are there: an older guest may have fewer.
    fn has_modules(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.modules()) else { return false };
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        let is_there = |wanted: &&str| {
            let end = format!("-{wanted}.ko");
            names.iter().any(|name| name.to_string_lossy().ends_with(&end))
        };
        modules::WANTED.iter().all(is_there)
    }

    /// Whether it was fetched.
    pub fn is_complete(&self) -> bool {
        let files = [self.kernel(), self.busybox(), self.module(), self.u_boot(), self.version()];
        let mut files = files.into_iter().chain(self.firmware());
        files.all(|file| file.is_file()) && self.has_modules()
    }
}

/// Builds the bare-metal guests.
///
/// # Errors
/// When the toolchain is missing or they do not build.
pub fn bare() -> Result<()> {
    let toolchain = BareMetal::find_or_stage()?;
    println!("Building the guests for {}", BareMetal::TARGET);
    let folder = layout::guests_dir();
    let mut cargo = toolchain.cargo(&folder.join("build"));
    cargo.args(["--package", "stepwell-guests", "--features", "bare", "--bins"]);
    process::run(&mut cargo, BUILD_LIMIT)?;
    let output = BareMetal::output_dir(&folder.join("build"));
    let names = metadata::programs("stepwell-guests")?;
    for name in &names {
        let elf = output.join(name);
        elf_image::write_raw(&elf, &folder.join(format!("{name}.bin")))?;
        fs::copy(&elf, folder.join(format!("{name}.elf"))).context("copying a guest's ELF")?;
    }
    remove_others(&folder, &names)?;
    println!("guests:    {} in {}", names.len(), layout::shown(&folder));
    Ok(())
}

/// Removes what is left of guests that are no more, so that no test runs one.
fn remove_others(folder: &Path, names: &[String]) -> Result<()> {
    for entry in fs::read_dir(folder).context("looking for old guests")? {
        let path = entry.context("looking for old guests")?.path();
        let of_a_guest = path.extension().is_some_and(|end| end == "bin" || end == "elf");
        let known = path.file_stem().is_some_and(|stem| names.iter().any(|name| *stem == **name));
        if of_a_guest && !known {
            fs::remove_file(&path).context("removing an old guest")?;
        }
    }
    Ok(())
}

/// Makes Debian's guest alone.
///
/// # Errors
/// When the network is missing.
pub fn debian_only() -> Result<()> {
    debian(false)
}

fn debian(refresh: bool) -> Result<()> {
    let guest = DebianGuest::here();
    if refresh || !guest.is_complete() {
        fetch(&guest)?;
    }
    let busybox = fs::read(guest.busybox()).context("reading busybox")?;
    let archive = initramfs::build(&busybox, &read_modules(&guest.modules())?)?;
    if !fs::read(guest.initramfs()).is_ok_and(|old| old == archive) {
        fs::write(guest.initramfs(), archive).context("writing the initramfs")?;
    }
    let version = fs::read_to_string(guest.version()).context("reading the versions")?;
    println!(
        "Debian:    {} in {}",
        version.trim().replace('\n', ", "),
        layout::shown(&guest.folder)
    );
    Ok(())
}

fn fetch(guest: &DebianGuest) -> Result<()> {
    let archive = Archive::arm64(&guest.folder.join("apt"))?;
    let names = archive.names(KERNEL_PREFIX)?;
    let name = newest_kernel(&names, KERNEL_PREFIX, KERNEL_SUFFIX).with_context(|| {
        format!(
            "Debian's package list has no {KERNEL_PREFIX}N{KERNEL_SUFFIX}: is the network there?"
        )
    })?;
    let kernel = archive.download(&name)?;
    let busybox = archive.download("busybox-static")?;
    let u_boot = archive.download("u-boot-qemu")?;
    fs::write(guest.kernel(), kernel.file("boot/vmlinuz-")?).context("writing the kernel")?;
    let release = name.trim_start_matches("linux-image-");
    let module = format!("lib/modules/{release}/kernel/net/netfilter/xt_limit.ko");
    fs::write(guest.module(), kernel.file(&module)?).context("writing a module")?;
    write_modules(&guest.modules(), &kernel, release)?;
    fs::write(guest.busybox(), busybox.file("bin/busybox")?).context("writing busybox")?;
    let program = u_boot.file("usr/lib/u-boot/qemu_arm64/u-boot.bin")?;
    fs::write(guest.u_boot(), program).context("writing U-Boot")?;
    let firmware = archive.download("qemu-efi-aarch64")?;
    for (name, path) in FIRMWARE.iter().zip(guest.firmware()) {
        let bytes = firmware.file(&format!("usr/share/AAVMF/{name}"))?;
        fs::write(path, bytes).context("writing EDK2")?;
    }
    let packages = [&kernel, &busybox, &u_boot, &firmware];
    let versions: String = packages.iter().map(|package| format!("{}\n", package.title)).collect();
    fs::write(guest.version(), versions).context("writing the versions")?;
    fs::remove_dir_all(guest.folder.join("apt")).context("removing apt's folders")
}

/// Takes the modules that a guest needs out of its kernel's package.
fn write_modules(folder: &Path, kernel: &Package, release: &str) -> Result<()> {
    let found = kernel.files(modules::name_of)?;
    let builtin = kernel.file(&format!("lib/modules/{release}/modules.builtin"))?;
    let order = modules::in_order(&modules::WANTED, &found, &String::from_utf8_lossy(&builtin))?;
    if folder.is_dir() {
        fs::remove_dir_all(folder).context("removing old modules")?;
    }
    fs::create_dir_all(folder).context("creating the modules' folder")?;
    for (place, name) in order.iter().enumerate() {
        let file = folder.join(format!("{place:02}-{name}.ko"));
        fs::write(file, &found[name]).context("writing a module")?;
    }
    Ok(())
}

/// The modules in their order.
fn read_modules(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(folder).context("looking for modules")? {
        let path = entry.context("looking for modules")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        modules.push((name, fs::read(&path).context("reading a module")?));
    }
    modules.sort();
    Ok(modules)
}

/// The kernel of the highest ABI number among `names`, which is between the two.
pub fn newest_kernel(names: &[String], prefix: &str, suffix: &str) -> Option<String> {
    let abi = |name: &String| -> Option<u32> {
        name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok()
    };
    let (_, name) = names.iter().filter_map(|name| Some((abi(name)?, name))).max()?;
    Some(name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_kernel_is_the_highest_number_and_signed() {
        let names = ["9-cloud-arm64", "10-cloud-arm64", "11-arm64", "12-cloud-arm64-unsigned"]
            .map(|tail| format!("linux-image-6.1.0-{tail}"));
        let newest = |names, suffix| newest_kernel(names, KERNEL_PREFIX, suffix);
        let cloud = newest(&names, KERNEL_SUFFIX);
        assert_eq!(cloud.as_deref(), Some("linux-image-6.1.0-10-cloud-arm64"));
        let full = newest(&names, "-arm64");
        assert_eq!(full.as_deref(), Some("linux-image-6.1.0-11-arm64"));
        assert_eq!(newest(&[], KERNEL_SUFFIX), None);
    }
}
