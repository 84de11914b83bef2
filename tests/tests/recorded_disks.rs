//! Runs with disks that are recorded: the same each time, and gone back in.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stepwell_tests::debian::{debian_doing, has_no_trouble};
use stepwell_tests::guest::Guest;
use stepwell_tests::plain::Setup;
use stepwell_tests::process::{Running, run};
use stepwell_tests::stepwell::{binary, command};

const LIMIT: Duration = Duration::from_secs(300);

/// Mounts the disk, writes to it, and reads back what the cache has let go. What all of the disk is, it
/// says before and after.
const SCRIPT: &str = "mount -t devtmpfs dev /dev; mount -t proc proc /proc; load-modules; \
    md5sum /dev/vda; mount -t ext4 /dev/vda /mnt; cat /mnt/greeting; \
    yes stepwell | head -c 3000000 >/mnt/many; echo other >/mnt/greeting; sync; \
    echo 3 >/proc/sys/vm/drop_caches; md5sum /mnt/many; cat /mnt/greeting; umount /mnt; \
    md5sum /dev/vda; poweroff -f";

/// A file system with a file.
fn image(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("greeting"), "as it was\n").unwrap();
    let image = folder.join("disk.img");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&image).arg("16M");
    assert!(mke2fs.status().unwrap().success());
    image
}

/// What it says of the disk's contents, one line each.
fn sums(said: &str) -> Vec<&str> {
    let is_sum = |line: &&str| line.contains("  /dev/vda") || line.contains("  /mnt/many");
    said.lines().map(|line| line.trim_start_matches("  guest| ").trim()).filter(is_sum).collect()
}

#[test]
fn two_runs_with_the_same_disk_are_the_same_recording() {
    let folder = tempfile::tempdir().unwrap();
    let disk = format!("{},snapshot", image(folder.path()).display());
    let setup = debian_doing(SCRIPT, "cortex-a57", 2);
    let mut logs = Vec::new();
    for n in 0..2 {
        let log = folder.path().join(format!("{n}.replay"));
        let mut record = command("record", &setup);
        record.args(["--quiet", "--checkpoints", "hashes=50000000", "--disk", &disk, "-o"]);
        let said = run(record.arg(&log), LIMIT).unwrap();
        assert!(said.status.success(), "{}", said.output());
        has_no_trouble(&said);
        let sums = sums(&said.stdout);
        assert!(sums.len() == 3 && sums[0] != sums[2], "it was written to: {}", said.output());
        assert!(said.stdout.contains("as it was") && said.stdout.contains("other"));
        logs.push((log, said.stdout));
    }
    let [(first, said), (second, again)] = &logs[..] else { panic!("two runs") };
    assert_eq!(sums(said), sums(again));
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap(), "byte for byte");
    let mut replay = Command::new(binary());
    let replayed = run(replay.args(["replay", "--verify"]).arg(first), LIMIT).unwrap();
    assert!(replayed.status.success(), "{}", replayed.output());
    assert_eq!(sums(&replayed.stdout), sums(said));
    gone_back_in(first, &sums(said));
}

/// Whoever goes back over what was written finds the disk as it was.
fn gone_back_in(log: &Path, sums_were: &[&str]) {
    let mut step = Command::new(binary());
    step.arg("step").arg("--replay").arg(log);
    step.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut step).unwrap();
    let lines = "c\nwhen\ngoto 300000000\nc\nwhen\nx\n";
    running.stdin().unwrap().write_all(lines.as_bytes()).unwrap();
    let said = running.finish(LIMIT).unwrap();
    assert!(said.status.success(), "{}", said.output());
    assert_eq!(sums(&said.stdout), [sums_were, sums_were].concat(), "{}", said.output());
}

#[test]
fn traces_of_a_run_with_a_disk_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut sectors = vec![0; 16 * 512];
    for n in 0..2_u32 {
        let code = [0xd280_0000 | (n + 1) << 5, 0xd65f_03c0].map(u32::to_le_bytes);
        sectors[512 * n as usize..][..8].copy_from_slice(code.as_flattened());
    }
    let disk = folder.path().join("disk.img");
    fs::write(&disk, sectors).unwrap();
    let disk = format!("{},snapshot", disk.display());
    let setup = Setup::new(&Guest::named("disk").path);
    let mut traces = Vec::new();
    for n in 0..2 {
        let log = folder.path().join(format!("{n}.replay"));
        let mut record = command("record", &setup);
        let said = run(record.args(["--quiet", "--disk", &disk, "-o"]).arg(&log), LIMIT).unwrap();
        assert!(said.stdout.contains("disk: ok"), "{}", said.output());
        let file = folder.path().join(format!("{n}.stepwell"));
        let mut trace = Command::new(binary());
        trace.args(["trace", "--quiet", "--record", "regs,mem", "--replay"]).arg(&log);
        let said = run(trace.arg("-o").arg(&file), LIMIT).unwrap();
        assert!(said.status.success(), "{}", said.output());
        traces.push((fs::read(&log).unwrap(), fs::read(&file).unwrap()));
    }
    let [(log, trace), (other_log, other_trace)] = &traces[..] else { panic!("two runs") };
    assert!(log == other_log && trace == other_trace, "byte for byte");
    assert!(trace.len() > 10_000, "{} bytes", trace.len());
}
