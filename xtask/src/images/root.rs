//! The root file system: unpacked packages, and what their scripts would have written.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

/// What is on the disk, beside what these depend on.
pub const PACKAGES: [&str; 27] = [
    "base-files",
    "base-passwd",
    "bash",
    "dash",
    "coreutils",
    "util-linux",
    "login",
    "passwd",
    "libpam-runtime",
    "mount",
    "e2fsprogs",
    "kmod",
    "udev",
    "systemd",
    "systemd-sysv",
    "iproute2",
    "procps",
    "apt",
    "dpkg",
    "grep",
    "sed",
    "findutils",
    "gzip",
    "hostname",
    "busybox-static",
    "linux-image-cloud-arm64",
    "grub-efi-arm64-bin",
];

/// Modules that the initial ramdisk loads: nobody has made an index of the others.
pub const MODULES: [&str; 5] =
    ["virtio_mmio", "virtio_blk", "virtio_net", "crc32c_generic", "ext4"];

/// The kernel in the tree.
pub struct Kernel {
    /// Its file in /boot.
    pub file: String,
    /// What `uname -r` says.
    pub release: String,
}

/// Folders that are one with those in /usr.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];

/// Makes one of the folders that Debian 12's packages still have beside those in /usr.
fn merge(tree: &Path) -> Result<()> {
    for name in MERGED {
        let (folder, in_usr) = (tree.join(name), tree.join("usr").join(name));
        if folder.is_symlink() {
            continue;
        }
        if folder.is_dir() {
            move_into(&folder, &in_usr).context("merging the image's /usr")?;
        }
        fs::create_dir_all(&in_usr).context("merging the image's /usr")?;
        symlink(format!("usr/{name}"), &folder).context("merging the image's /usr")?;
    }
    Ok(())
}

/// Moves what is in a folder; folders that are in both are made one.
fn move_into(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
            move_into(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    fs::remove_dir(from)
}

/// PAM's stacks that all programs share: passwords, and nothing else.
const PAM: [(&str, &str); 5] = [
    ("common-auth", "auth required pam_unix.so nullok"),
    ("common-account", "account required pam_unix.so"),
    ("common-password", "password required pam_unix.so yescrypt"),
    ("common-session", "session required pam_unix.so"),
    ("common-session-noninteractive", "session required pam_unix.so"),
];

/// What a first boot would make for want of scripts, for minutes, and a login does not take; and the
/// logins at terminals that an emulated board does not have.
const MASKED: [&str; 4] = [
    "systemd-hwdb-update.service",
    "ldconfig.service",
    "systemd-journal-catalog-update.service",
    "getty-static.service",
];

const NETWORK: &str = "[Match]\nType=ether\n\n[Network]\nDHCP=ipv4\n";
/// An emulated board on a busy host takes its time: a console that is a minute and a half late is none to
/// systemd otherwise.
const PATIENT: &str = "[Manager]\nDefaultTimeoutStartSec=1h\nDefaultTimeoutStopSec=1h\n\
                       DefaultDeviceTimeoutSec=1h\n";
/// apt runs what it downloads with as this user.
const APT_USER: &str = "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n";

/// Writes what a login takes. root has no password.
///
/// # Errors
/// When a package did not bring what it should have, or a file cannot be written.
pub fn configure(tree: &Path, name: &str) -> Result<Kernel> {
    merge(tree)?;
    let read = |path: &str| {
        fs::read_to_string(tree.join(path)).with_context(|| format!("reading the image's {path}"))
    };
    let passwd = read("usr/share/base-passwd/passwd.master")?;
    let passwd = passwd.replacen("root:*:", "root::", 1) + APT_USER;
    let group = read("usr/share/base-passwd/group.master")?;
    let shadow: String = passwd
        .lines()
        .filter_map(|line| line.split(':').next())
        .map(|user| {
            format!("{user}:{}:19000:0:99999:7:::\n", if user == "root" { "" } else { "*" })
        })
        .collect();
    let mut files = vec![
        ("etc/passwd".to_owned(), passwd),
        ("etc/group".to_owned(), group),
        ("etc/shadow".to_owned(), shadow),
        ("etc/hostname".to_owned(), format!("{name}\n")),
        ("etc/hosts".to_owned(), format!("127.0.0.1 localhost {name}\n")),
        ("etc/fstab".to_owned(), "/dev/vda2 / ext4 defaults 0 0\n".to_owned()),
        // Always the same, so that a first boot is as any other.
        ("etc/machine-id".to_owned(), "5ce93e11000040008000000000000000\n".to_owned()),
        (
            "etc/nsswitch.conf".to_owned(),
            "passwd: files\ngroup: files\nhosts: files dns\n".to_owned(),
        ),
        ("etc/systemd/network/80-ether.network".to_owned(), NETWORK.to_owned()),
        ("etc/systemd/system.conf.d/patient.conf".to_owned(), PATIENT.to_owned()),
        ("root/.profile".to_owned(), "PS1='\\h:\\w# '\n".to_owned()),
    ];
    for (stack, line) in PAM {
        files.push((format!("etc/pam.d/{stack}"), format!("{line}\n")));
    }
    for (path, text) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap_or(tree)).context("writing the image")?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let secret = fs::Permissions::from_mode(0o640);
    fs::set_permissions(tree.join("etc/shadow"), secret).context("protecting passwords")?;
    for (target, link) in [
        ("dash", "usr/bin/sh"),
        ("mawk", "usr/bin/awk"),
        (
            "/usr/lib/systemd/system/systemd-networkd.service",
            "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        ),
        ("/proc/self/mounts", "etc/mtab"),
    ] {
        add_link(tree, target, link)?;
    }
    for unit in MASKED {
        add_link(tree, "/dev/null", &format!("etc/systemd/system/{unit}"))?;
    }
    kernel(tree)
}

fn add_link(tree: &Path, target: &str, link: &str) -> Result<()> {
    let link = tree.join(link);
    if link.symlink_metadata().is_ok() {
        return Ok(());
    }
    fs::create_dir_all(link.parent().unwrap_or(tree)).context("writing the image")?;
    symlink(target, &link).with_context(|| format!("writing {}", link.display()))
}

fn kernel(tree: &Path) -> Result<Kernel> {
    for entry in fs::read_dir(tree.join("boot")).context("looking for the kernel")? {
        let file = entry.context("looking for the kernel")?.file_name();
        let file = file.to_string_lossy().into_owned();
        if let Some(release) = file.strip_prefix("vmlinuz-") {
            return Ok(Kernel { release: release.to_owned(), file });
        }
    }
    anyhow::bail!("the kernel's package has no kernel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_become_one() {
        let tree = std::env::temp_dir().join(format!("merged-{}", std::process::id()));
        for file in ["bin/a", "usr/bin/b", "lib/x/c", "usr/lib/x/d"] {
            let file = tree.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
        }
        merge(&tree).unwrap();
        merge(&tree).unwrap();
        for file in ["usr/bin/a", "bin/b", "usr/lib/x/c", "lib/x/d"] {
            assert!(tree.join(file).is_file(), "{file}");
        }
        assert!(tree.join("sbin").is_symlink());
        fs::remove_dir_all(&tree).unwrap();
    }
}
