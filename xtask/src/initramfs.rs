//! The initramfs of the demo: busybox, a script, and the modules that a disk takes.
//!
//! Written here rather than with `cpio`, because device nodes and owners take root's rights on a
//! file system but are mere numbers in an archive. The result depends on its input alone (no times,
//! no inode numbers of this machine), so a guest run from it is repeatable.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

/// What the script prints when the shell is about to start; tests wait for it.
pub const BANNER: &str = "stepwell-demo: shell is up";

/// The kernel parameter that makes the guest power off after the banner.
pub const POWEROFF_PARAMETER: &str = "stepwell.poweroff";

const FOLDERS: [&str; 12] =
    ["bin", "dev", "etc", "lib", "lib/modules", "mnt", "proc", "root", "run", "sbin", "sys", "tmp"];

/// The applets that the script and a visitor at the prompt use.
const APPLETS: [&str; 53] = [
    "ash",
    "cat",
    "chmod",
    "clear",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dmesg",
    "du",
    "echo",
    "env",
    "false",
    "find",
    "free",
    "grep",
    "head",
    "hexdump",
    "id",
    "insmod",
    "kill",
    "less",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mknod",
    "more",
    "mount",
    "mv",
    "ps",
    "pwd",
    "rm",
    "sed",
    "setsid",
    "sh",
    "sleep",
    "sort",
    "switch_root",
    "sync",
    "tail",
    "test",
    "time",
    "top",
    "touch",
    "true",
    "tty",
    "umount",
    "uname",
    "vi",
    "wc",
    "yes",
];

/// Those of an emulated host beside: what tests type.
const HOST_APPLETS: [&str; 6] = ["adduser", "awk", "ip", "killall", "stty", "su"];

/// Those that live in /sbin.
const SYSTEM_APPLETS: [&str; 3] = ["halt", "poweroff", "reboot"];

const FOLDER_MODE: u32 = 0o040_755;
const PROGRAM_MODE: u32 = 0o100_755;
const FILE_MODE: u32 = 0o100_644;
const SYMLINK_MODE: u32 = 0o120_777;
const CONSOLE_MODE: u32 = 0o020_600;
/// The kernel opens /dev/console before any script could mount a /dev.
const CONSOLE_DEVICE: (u32, u32) = (5, 1);

/// The archive with `busybox` in it, compressed.
///
/// # Errors
/// When a file is too large for the archive's format.
pub fn build(busybox: &[u8], modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, FOLDER_MODE, b"")?;
    }
    archive.add_device("dev/console", CONSOLE_MODE, CONSOLE_DEVICE)?;
    archive.add("bin/busybox", PROGRAM_MODE, busybox)?;
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), SYMLINK_MODE, b"busybox")?;
    }
    for applet in SYSTEM_APPLETS {
        archive.add(&format!("sbin/{applet}"), SYMLINK_MODE, b"../bin/busybox")?;
    }
    for (name, contents) in modules {
        archive.add(&format!("lib/modules/{name}"), FILE_MODE, contents)?;
    }
    archive.add("sbin/load-modules", PROGRAM_MODE, LOAD_MODULES.as_bytes())?;
    archive.add("init", PROGRAM_MODE, script().as_bytes())?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&archive.finish()?).context("compressing the initramfs")?;
    gzip.finish().context("compressing the initramfs")
}

/// Loads what a disk takes. Nobody does by himself: a guest without disks boots as fast as before.
const LOAD_MODULES: &str =
    "#!/bin/sh\nfor module in /lib/modules/*.ko; do /bin/insmod $module || exit 1; done\n";

/// The archive of an emulated host: busybox, these files, all of them programs, and a script that runs the
/// words behind `run=` on the kernel's command line, separated by commas.
///
/// # Errors
/// When a file is too large for the archive's format.
pub fn host(busybox: &[u8], files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS.iter().chain(&["guests", "guests/debian"]) {
        archive.add(folder, FOLDER_MODE, b"")?;
    }
    archive.add_device("dev/console", CONSOLE_MODE, CONSOLE_DEVICE)?;
    archive.add("bin/busybox", PROGRAM_MODE, busybox)?;
    for applet in APPLETS.iter().chain(&HOST_APPLETS) {
        archive.add(&format!("bin/{applet}"), SYMLINK_MODE, b"busybox")?;
    }
    for applet in SYSTEM_APPLETS {
        archive.add(&format!("sbin/{applet}"), SYMLINK_MODE, b"../bin/busybox")?;
    }
    for (name, contents) in files {
        archive.add(name, PROGRAM_MODE, contents)?;
    }
    archive.add("init", PROGRAM_MODE, HOST_SCRIPT)?;
    // Most of it is packed already.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&archive.finish()?).context("compressing the initramfs")?;
    gzip.finish().context("compressing the initramfs")
}

/// The archive that takes a system from its kernel to its root file system: busybox, the modules for
/// that, and a script that mounts what `root=` on the kernel's command line says.
///
/// # Errors
/// When a file is too large for the archive's format.
pub fn to_disk(busybox: &[u8], modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, FOLDER_MODE, b"")?;
    }
    archive.add_device("dev/console", CONSOLE_MODE, CONSOLE_DEVICE)?;
    archive.add("bin/busybox", PROGRAM_MODE, busybox)?;
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), SYMLINK_MODE, b"busybox")?;
    }
    for (name, contents) in modules {
        archive.add(&format!("lib/modules/{name}"), FILE_MODE, contents)?;
    }
    archive.add("init", PROGRAM_MODE, TO_DISK_SCRIPT)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&archive.finish()?).context("compressing the initramfs")?;
    gzip.finish().context("compressing the initramfs")
}

/// Process 1 until there is a disk.
const TO_DISK_SCRIPT: &[u8] = b"#!/bin/sh\n\
    export PATH=/bin\n\
    mount -t proc proc /proc\n\
    mount -t devtmpfs dev /dev\n\
    for module in /lib/modules/*.ko; do insmod $module; done\n\
    root=$(sed 's/.*root=//; s/ .*//' /proc/cmdline)\n\
    n=0; while [ ! -b $root ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done\n\
    mount -t ext4 $root /mnt || exec sh\n\
    umount /proc\n\
    mount --move /dev /mnt/dev\n\
    exec switch_root /mnt /sbin/init\n";

/// Process 1 of an emulated host. What is typed comes as it is from when it says that it is up on.
const HOST_SCRIPT: &[u8] = b"#!/bin/sh\n\
    export PATH=/bin:/sbin HOME=/root STEPWELL_GUESTS=/guests\n\
    mount -t proc proc /proc\n\
    mount -t sysfs sys /sys\n\
    mount -t devtmpfs dev /dev\n\
    stty -echo -onlcr </dev/console\n\
    echo host-up\n\
    $(sed 's/.*run=//; s/,/ /g' /proc/cmdline)\n\
    echo \"emulated host: status $?\"\n\
    poweroff -f\n";

/// Process 1. `poweroff -f` throughout: there is no init to ask. The shell gets the terminal behind
/// /dev/console, because the console itself cannot be a controlling terminal and Ctrl-C would do
/// nothing.
fn script() -> String {
    format!(
        "#!/bin/sh\n\
         export PATH=/bin:/sbin HOME=/root TERM=linux\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sys /sys\n\
         mount -t devtmpfs dev /dev\n\
         echo '{BANNER}'\n\
         uname -a\n\
         if grep -qw {POWEROFF_PARAMETER} /proc/cmdline; then poweroff -f; fi\n\
         cd /root\n\
         tty=$(sed 's/.* //' /sys/class/tty/console/active)\n\
         setsid -c sh -i <\"/dev/$tty\" >\"/dev/$tty\" 2>&1\n\
         poweroff -f\n"
    )
}

/// An archive in cpio's `newc` form, which is what the kernel unpacks.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.entry(name, mode, (0, 0), contents)
    }

    fn add_device(&mut self, name: &str, mode: u32, device: (u32, u32)) -> Result<()> {
        self.entry(name, mode, device, b"")
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> Result<()> {
        let size = u32::try_from(contents.len()).context("a file too large for an initramfs")?;
        let name_size =
            u32::try_from(name.len() + 1).context("a name too long for an initramfs")?;
        self.entries += 1;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let (uid, gid, time, holder, checksum) = (0, 0, 0, (0, 0), 0);
        let fields = [
            self.entries,
            mode,
            uid,
            gid,
            links,
            time,
            size,
            holder.0,
            holder.1,
            device.0,
            device.1,
            name_size,
            checksum,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").into_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), b"")?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn entries_are_aligned_and_carry_modes_and_devices() {
        let mut archive = Archive::default();
        archive.add("a", PROGRAM_MODE, b"12345").unwrap();
        archive.add_device("console", CONSOLE_MODE, CONSOLE_DEVICE).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let second = text.rfind("070701").unwrap();
        assert!(text[second..].contains("TRAILER!!!"));
        assert!(text.starts_with("07070100000001000081ED"));
        assert!(text.contains("12345\0\0\x00070701"));
        assert!(text.contains("000000050000000100000008"), "console's device numbers");
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let modules = [("00-a.ko".to_owned(), b"a".to_vec())];
        let first = build(b"busybox", &modules).unwrap();
        assert_eq!(first, build(b"busybox", &modules).unwrap());
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(first.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked.starts_with(b"070701"));
    }
}
