//! A shared folder: Debian mounts it, reads what the host has put there, and writes where it may.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use stepwell_tests::debian::{debian_doing, has_no_trouble};
use stepwell_tests::process::{Finished, run};
use stepwell_tests::stepwell::command;

const LIMIT: Duration = Duration::from_secs(300);
const MOUNTED: &str = "b=/bin/busybox; mount -t proc proc /proc; mount -t devtmpfs dev /dev; load-modules; mkdir -p /mnt; \
                       mount -t virtiofs share /mnt && ";

/// What Debian says that has this folder and does this.
fn doing(script: &str, share: &str) -> Finished {
    let setup = debian_doing(&format!("{MOUNTED}{script}; $b poweroff -f"), "cortex-a57", 2);
    let said = run(command("run", &setup).args(["--share", share]), LIMIT).unwrap();
    assert!(said.status.success() && said.left_behind.is_empty(), "{}", said.output());
    has_no_trouble(&said);
    said
}

/// A folder with a mebibyte that is not all the same, and files in folders.
fn fill(folder: &Path) {
    let bytes: Vec<u8> =
        (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    fs::write(folder.join("big"), bytes).unwrap();
    for n in 0..300 {
        let folder = folder.join(format!("folder-{}", n % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{n}")), format!("{n}")).unwrap();
    }
}

#[test]
fn a_folder_is_read_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let sum = std::process::Command::new("md5sum").arg(folder.path().join("big")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let (sum, _) = sum.split_once(' ').unwrap();
    let script = "$b md5sum /mnt/big; $b find /mnt -type f | $b wc -l; $b cat /mnt/folder-3/file-3; \
                  echo; echo no >/mnt/no || echo refused; $b rm /mnt/big || echo kept";
    let said = doing(script, folder.path().to_str().unwrap());
    for words in [sum, "\n301", "\n3\r", "refused", "kept", "Read-only file system"] {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
    assert!(folder.path().join("big").exists() && !folder.path().join("no").exists());
}

#[test]
fn what_the_guest_writes_is_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old"), "old").unwrap();
    let script = "$b dd if=/dev/zero of=/mnt/zeros bs=64k count=64 && mkdir -p /mnt/a/b && \
                  echo text >/mnt/a/b/new && $b mv /mnt/a/b/new /mnt/a/moved && $b rm /mnt/old && \
                  $b ln -s moved /mnt/a/link && echo more >>/mnt/a/link && $b chmod 600 /mnt/a/moved && \
                  $b sync && $b cat /mnt/a/link && echo whole";
    let share = format!("{},write", folder.path().display());
    let said = doing(script, &share);
    assert!(said.stdout.contains("whole"), "{}", said.output());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("a/moved"), b"text\nmore\n");
    assert!(read("zeros").len() == 64 << 16 && read("zeros").iter().all(|&byte| byte == 0));
    assert!(!folder.path().join("old").exists());
}
