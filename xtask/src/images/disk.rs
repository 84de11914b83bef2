//! A disk of partitions: one that firmware reads, with GRUB, and the root file system.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::root::Kernel;
use crate::process;

/// For what one tool takes.
pub const LIMIT: Duration = Duration::from_secs(5 * 60);

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
const EFI_AT: u64 = MIB;
const EFI_BYTES: u64 = 48 * MIB;
const ROOT_AT: u64 = EFI_AT + EFI_BYTES;
const ROOT_BYTES: u64 = 1200 * MIB;
/// Behind the last partition is the second copy of the table.
const DISK_BYTES: u64 = ROOT_AT + ROOT_BYTES + MIB;

/// Every image has the same identities: who has two of them in one machine names disks, not these.
const DISK_ID: &str = "5ce93e11-0000-4000-8000-000000000000";
const EFI_ID: &str = "5ce93e11-0000-4000-8000-000000000001";
const ROOT_ID: &str = "5ce93e11-0000-4000-8000-000000000002";

/// Builds the disk `image` of the tree `root`, which has GRUB and `kernel` in it.
///
/// # Errors
/// When a tool fails, or the tree is too large.
pub fn build(folder: &Path, root: &Path, image: &Path, kernel: &Kernel) -> Result<()> {
    let disk = File::create(image).context("creating the disk")?;
    disk.set_len(DISK_BYTES).context("creating the disk")?;
    drop(disk);
    partition(image)?;
    let grub = root.join("usr/lib/grub/arm64-efi/monolithic/grubaa64.efi");
    let config = folder.join("grub.cfg");
    fs::write(&config, grub_config(kernel)).context("writing GRUB's configuration")?;
    write_efi(image, &grub, &config)?;
    // The boot loader is where it is needed, and most of its package is not.
    fs::remove_dir_all(root.join("usr/lib/grub")).context("removing GRUB's modules")?;
    write_root(image, root)
}

fn partition(image: &Path) -> Result<()> {
    let table = format!(
        "label: gpt\nlabel-id: {DISK_ID}\n\
         start={}, size={}, type=uefi, uuid={EFI_ID}, name=efi\n\
         start={}, size={}, type=linux, uuid={ROOT_ID}, name=root\n",
        EFI_AT / SECTOR,
        EFI_BYTES / SECTOR,
        ROOT_AT / SECTOR,
        ROOT_BYTES / SECTOR
    );
    let mut sfdisk = Command::new(tool("sfdisk"));
    sfdisk.args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(image);
    let mut child = sfdisk.stdin(Stdio::piped()).spawn().context("starting sfdisk")?;
    child.stdin.take().context("sfdisk's input")?.write_all(table.as_bytes())?;
    ensure!(child.wait().context("waiting for sfdisk")?.success(), "sfdisk failed");
    Ok(())
}

fn write_efi(image: &Path, grub: &Path, config: &Path) -> Result<()> {
    let partition = format!("{}@@{EFI_AT}", image.display());
    let mtools = |program: &str, arguments: &[&str]| {
        let mut command = process::command(program);
        process::run(command.args(["-i", &partition]).args(arguments), LIMIT)
    };
    let sectors = (EFI_BYTES / SECTOR).to_string();
    mtools(
        "mformat",
        &["-v", "EFI", "-N", "5ce93e11", "-T", &sectors, "-h", "64", "-s", "32", "::"],
    )?;
    mtools("mmd", &["::EFI", "::EFI/BOOT", "::EFI/debian"])?;
    let (grub, config) = (grub.display().to_string(), config.display().to_string());
    mtools("mcopy", &[&grub, "::EFI/BOOT/BOOTAA64.EFI"])?;
    mtools("mcopy", &[&config, "::EFI/debian/grub.cfg"])
}

fn grub_config(kernel: &Kernel) -> String {
    format!(
        "set timeout=0\n\
         search --no-floppy --fs-uuid --set=root {ROOT_ID}\n\
         menuentry 'Debian' {{\n\
         \tlinux /boot/{} root=/dev/vda2 console=ttyAMA0\n\
         \tinitrd /boot/initrd.img\n\
         }}\n",
        kernel.file
    )
}

/// Files are root's, whoever builds.
fn write_root(image: &Path, root: &Path) -> Result<()> {
    let mut words = Vec::new();
    if !process::is_root() {
        words.extend(["unshare", "--map-root-user"].map(str::to_owned));
    }
    words.push(tool("mke2fs"));
    let offset = format!("offset={ROOT_AT},root_owner=0:0,hash_seed={ROOT_ID}");
    let blocks = format!("{}k", ROOT_BYTES / 1024);
    words.extend(
        ["-q", "-F", "-t", "ext4", "-L", "root", "-U", ROOT_ID, "-m", "0"].map(str::to_owned),
    );
    words.extend(["-E".to_owned(), offset, "-d".to_owned(), root.display().to_string()]);
    words.extend([image.display().to_string(), blocks]);
    process::run(process::command(&words[0]).args(&words[1..]), LIMIT)
}

/// A tool of the administrator's, who alone has these on his path.
fn tool(name: &str) -> String {
    let path = format!("/usr/sbin/{name}");
    if Path::new(&path).is_file() { path } else { name.to_owned() }
}
