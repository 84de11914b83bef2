//! Disks: a bare-metal driver that executes what it reads, and Debian on a root file system.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use stepwell_tests::debian::{debian_doing, has_no_trouble};
use stepwell_tests::guest::{Guest, folder};
use stepwell_tests::plain::{Setup, console_with};
use stepwell_tests::process::{Running, run};
use stepwell_tests::stepwell::command;

const LIMIT: Duration = Duration::from_secs(300);
const SECTOR: usize = 512;

/// A disk of sixteen sectors, the first two with a function each.
fn functions(folder: &Path) -> std::path::PathBuf {
    let mut bytes = vec![0; 16 * SECTOR];
    for (n, sector) in bytes.chunks_mut(SECTOR).take(2).enumerate() {
        let mov_x0 = 0xd280_0000 | (n as u32 + 1) << 5;
        let ret = 0xd65f_03c0;
        sector[..8].copy_from_slice([mov_x0, ret].map(u32::to_le_bytes).as_flattened());
    }
    let path = folder.join("functions.img");
    fs::write(&path, bytes).unwrap();
    path
}

/// What a device writes is seen by what is executed: an emulator does not see stores of another
/// process's to code that it has translated.
#[test]
fn code_that_is_read_over_code_is_what_is_executed() {
    let guest = Guest::named("disk");
    let folder = tempfile::tempdir().unwrap();
    let image = functions(folder.path());
    let setup = Setup::new(&guest.path);
    let drive = format!("if=none,id=disk,format=raw,snapshot=on,file={}", image.display());
    let options = ["-global", "virtio-mmio.force-legacy=false", "-drive", &drive, "-device"];
    let plain =
        console_with(&setup, &[&options[..], &["virtio-blk-device,drive=disk"]].concat(), LIMIT);
    let plain = plain.unwrap();
    assert!(guest.succeeded(&plain.stdout), "plain: {}", plain.output());
    let disk = image.display().to_string();
    let snapshot = format!("{disk},snapshot");
    let said = run(command("run", &setup).args(["--disk", &snapshot]), LIMIT).unwrap();
    assert!(guest.succeeded(&said.stdout), "unstepped: {}", said.output());
    let before = fs::read(&image).unwrap();
    let mut recordings = Vec::new();
    for n in 0..2 {
        let file = folder.path().join(n.to_string());
        let mut trace = command("trace", &setup);
        trace.args([
            "--disk",
            &snapshot,
            "--steps",
            "1000000000",
            "--time",
            "per-step=10",
            "--quiet",
        ]);
        let said = run(trace.arg("-o").arg(&file), LIMIT).unwrap();
        assert!(guest.succeeded(&said.stdout), "stepped: {}", said.output());
        recordings.push(fs::read(&file).unwrap());
    }
    assert!(recordings[0] == recordings[1], "the disk is no source of chance");
    assert!(fs::read(&image).unwrap() == before, "a snapshot is never written");
    let said = run(command("run", &setup).args(["--disk", &disk]), LIMIT).unwrap();
    assert!(guest.succeeded(&said.stdout), "written: {}", said.output());
    let after = fs::read(&image).unwrap();
    assert_eq!(after[2 * SECTOR + 8..2 * SECTOR + 16], [1, 1, 1, 1, 0, 0, 0, 0]);
}

fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A file system with busybox and a script in it.
fn root(folder: &Path, script: &str) -> std::path::PathBuf {
    let tree = folder.join("tree");
    for part in ["bin", "dev", "proc", "sys"] {
        fs::create_dir_all(tree.join(part)).unwrap();
    }
    fs::copy(folder_of_debian().join("busybox"), tree.join("bin/busybox")).unwrap();
    fs::write(tree.join("init"), format!("#!/bin/busybox sh\n{script}")).unwrap();
    for program in ["bin/busybox", "init"] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(tree.join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let image = folder.join("root.img");
    must(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&image).arg("64M"));
    image
}

fn folder_of_debian() -> std::path::PathBuf {
    folder().join("debian")
}

/// Loads what a disk takes, and goes over to what is on it.
const SWITCH: &str = "mount -t devtmpfs dev /dev; load-modules && mount -t ext4 /dev/vda /mnt && \
                      exec switch_root /mnt /init";

/// On the disk: writes, reads back what the cache has let go, and says so.
const INIT: &str = "b=/bin/busybox
$b mount -t proc proc /proc
$b echo rooted
$b dd if=/bin/busybox of=/copy bs=64k 2>/dev/null
$b yes stepwell | $b head -c 20000000 >/many
$b sync
echo 3 >/proc/sys/vm/drop_caches
$b cmp /bin/busybox /copy && $b echo copied
$b md5sum /many
$b mount -o remount,ro / && $b poweroff -f
";

#[test]
fn debian_lives_on_an_ext4_root() {
    let folder = tempfile::tempdir().unwrap();
    let image = root(folder.path(), INIT);
    for (smp, options) in [(2, ",snapshot"), (1, "")] {
        let setup = debian_doing(SWITCH, "cortex-a57", smp);
        let disk = format!("{}{options}", image.display());
        let before = fs::read(&image).unwrap();
        let said = run(command("run", &setup).args(["--disk", &disk]), LIMIT).unwrap();
        assert!(said.status.success(), "{}", said.output());
        for words in ["rooted", "copied", "19f42b88cb0f28e36dce9df8268fd7af  /many"] {
            assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
        }
        has_no_trouble(&said);
        let is_unchanged = fs::read(&image).unwrap() == before;
        assert_eq!(is_unchanged, options == ",snapshot");
        must(Command::new("e2fsck").args(["-f", "-n"]).arg(&image));
    }
    let sum = must(Command::new("debugfs").args(["-R", "stat /many"]).arg(&image));
    assert!(sum.contains("Size: 20000000"), "{sum}");
}

/// On the disk: says when a file is where it outlives the machine, and goes on writing.
const WRITER: &str = "b=/bin/busybox
$b mount -t proc proc /proc
$b yes flushed | $b head -c 3000000 >/kept
$b sync
$b echo all of it is flushed
while true; do $b dd if=/dev/zero of=/more bs=64k count=100 2>/dev/null; done
";

#[test]
fn what_was_flushed_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let image = root(folder.path(), WRITER);
    let setup = debian_doing(SWITCH, "cortex-a57", 2);
    let mut stepwell = command("run", &setup);
    stepwell.arg("--disk").arg(&image);
    stepwell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut stepwell).unwrap();
    running.kill_after(LIMIT);
    let mut console = running.lines().unwrap().lines().map_while(Result::ok);
    assert!(console.any(|line| line.contains("all of it is flushed")), "it gets there");
    // In the middle of the writes that follow.
    std::thread::sleep(Duration::from_millis(300));
    running.kill();
    // The journal is replayed, and then there is nothing to repair.
    let replayed = Command::new("e2fsck").args(["-p"]).arg(&image).output().unwrap();
    assert!(replayed.status.code().is_some_and(|code| code <= 1), "{replayed:?}");
    must(Command::new("e2fsck").args(["-f", "-n"]).arg(&image));
    let kept = folder.path().join("kept");
    let dump = format!("dump /kept {}", kept.display());
    must(Command::new("debugfs").args(["-R", &dump]).arg(&image));
    let kept = fs::read(kept).unwrap();
    assert_eq!(kept.len(), 3_000_000);
    assert!(kept.chunks(8).all(|line| line == b"flushed\n"));
}

/// What is typed at U-Boot's prompt; an empty line ends its countdown.
const U_BOOT: &str = "\n\
    version\n\
    ext4load virtio 0 $kernel_addr_r /vmlinuz\n\
    ext4load virtio 0 $ramdisk_addr_r /initrd\n\
    setenv bootargs console=ttyAMA0 stepwell.poweroff\n\
    booti $kernel_addr_r $ramdisk_addr_r:$filesize $fdt_addr\n";

#[test]
fn u_boot_boots_a_kernel_from_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for (from, to) in [("vmlinuz", "vmlinuz"), ("initramfs.cpio.gz", "initrd")] {
        fs::copy(folder_of_debian().join(from), tree.join(to)).unwrap();
    }
    let image = folder.path().join("boot.img");
    must(Command::new("mke2fs").args(["-q", "-t", "ext2", "-d"]).arg(&tree).arg(&image).arg("64M"));
    let setup = Setup { memory_mib: 512, ..Setup::new(&folder_of_debian().join("u-boot.bin")) };
    let mut u_boot = command("run", &setup);
    u_boot.arg("--raw").arg("--disk").arg(format!("{},readonly", image.display()));
    u_boot.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut u_boot).unwrap();
    running.stdin().unwrap().write_all(U_BOOT.as_bytes()).unwrap();
    let said = running.finish(LIMIT).unwrap();
    for words in ["U-Boot 20", "stepwell-demo: shell is up", "reboot: Power down"] {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
    assert!(said.status.success(), "{}", said.output());
}
