//! What is wrong before a machine runs, or with QEMU itself: each one clear line, status 1, and
//! nothing left behind. None of these needs QEMU.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use assert_cmd::Command;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use stepwell_replay::log::{Entry, FileIdentity, Header, VERSION, Writer};
use tempfile::TempDir;

/// A directory for one test, which is also its `TMPDIR`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Something that is called like QEMU, and is a shell script.
    fn qemu(&self, script: &str) -> PathBuf {
        let path = self.file("qemu", format!("#!/bin/sh\n{script}\n").as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs a command that must fail, and returns the one line that says why.
    fn refused(&self, arguments: &[&str]) -> String {
        let scratch = self.0.path().join("tmp");
        fs::create_dir_all(&scratch).unwrap();
        let mut command = Command::cargo_bin("stepwell").unwrap();
        let output = command.args(arguments).env("TMPDIR", &scratch).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "something was left behind");
        text.strip_prefix("stepwell: ").unwrap().trim_end().to_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An arm64 Image that is all header.
fn image() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&(1_u64 << 20).to_le_bytes());
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image
}

#[test]
fn a_kernel_that_is_none_is_refused_by_name_and_reason() {
    let place = Place::new();
    let garbage = place.file("garbage", b"this is a text file, and long enough to be read");
    let told = place.refused(&["run", "--kernel", text(&garbage)]);
    assert!(told.contains("garbage is not a kernel"), "{told}");
    let told = place.refused(&["run", "--kernel", "/nonexistent/vmlinuz"]);
    assert!(told.contains("/nonexistent/vmlinuz: No such file"), "{told}");
}

#[test]
fn too_little_memory_is_refused_with_an_amount() {
    let place = Place::new();
    let kernel = place.file("Image", &image());
    let told = place.refused(&["run", "--kernel", text(&kernel), "--memory", "2M"]);
    assert!(told.contains("needs at least") && told.contains("--memory"), "{told}");
}

#[test]
fn an_unknown_symbol_is_told_before_anything_runs() {
    let place = Place::new();
    let kernel = place.file("Image", &image());
    let no_qemu = ["--qemu", "/nonexistent/qemu"];
    let step = ["step", "--kernel", text(&kernel), "--at", "start_kernal"];
    let told = place.refused(&[step.as_slice(), &no_qemu].concat());
    assert!(told.contains("start_kernal"), "{told}");
}

#[test]
fn a_missing_qemu_is_told_with_its_package() {
    let place = Place::new();
    let (kernel, hypervisor) = (place.file("Image", &image()), place.file("el2", &image()));
    let told = place.refused(&[
        "run",
        "--kernel",
        text(&kernel),
        "--hypervisor",
        text(&hypervisor),
        "--qemu",
        "/nonexistent/qemu",
    ]);
    assert!(told.contains("qemu-system-arm"), "{told}");
}

#[test]
fn a_qemu_that_dies_is_told_with_its_last_words() {
    let place = Place::new();
    let (kernel, hypervisor) = (place.file("Image", &image()), place.file("el2", &image()));
    let qemu = place.qemu("echo first >&2; echo 'no such CPU' >&2; exit 3");
    let told = place.refused(&[
        "run",
        "--kernel",
        text(&kernel),
        "--hypervisor",
        text(&hypervisor),
        "--qemu",
        text(&qemu),
    ]);
    assert_eq!(told, "QEMU ended (status 3): no such CPU");
}

#[test]
fn a_hypervisor_that_is_none_is_refused() {
    let place = Place::new();
    let (kernel, other) = (place.file("Image", &image()), place.file("other", &[7; 100]));
    let told = place.refused(&["run", "--kernel", text(&kernel), "--hypervisor", text(&other)]);
    assert!(told.contains("is not a hypervisor"), "{told}");
}

/// An ELF for this machine that was not linked, as every module is.
#[test]
fn symbols_of_a_module_are_refused() {
    let place = Place::new();
    let kernel = place.file("Image", &image());
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (header[16], header[18], header[20], header[52]) = (1, 183, 1, 64);
    let module = place.file("hello.ko", &header);
    let trace = ["trace", "--kernel", text(&kernel), "--symbols", text(&module)];
    let told = place.refused(&trace);
    assert!(told.contains("hello.ko: is relocatable"), "{told}");
}

#[test]
fn a_file_where_a_socket_shall_be_is_left_alone() {
    let place = Place::new();
    let (kernel, file) = (place.file("Image", &image()), place.file("notes", b"precious"));
    let told = place.refused(&["gdb", "--kernel", text(&kernel), "--listen", text(&file)]);
    assert!(told.contains("cannot listen at") && told.contains("no socket"), "{told}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn a_folder_for_recordings_has_to_be_there() {
    let place = Place::new();
    let kernel = place.file("Image", &image());
    let gdb = ["gdb", "--kernel", text(&kernel), "--recordings", "/nonexistent/folder"];
    let told = place.refused(&gdb);
    assert!(told.contains("/nonexistent/folder: No such file"), "{told}");
}

#[test]
fn a_file_that_is_no_recording_is_refused() {
    let place = Place::new();
    let other = place.file("other", b"something else entirely, of some length");
    let told = place.refused(&["show", text(&other)]);
    assert!(told.contains("not a Stepwell recording"), "{told}");
}

#[test]
fn usage_errors_are_status_1() {
    for arguments in [
        vec!["run"],
        vec!["run", "--kernel", "x", "--smp", "9"],
        vec!["run", "--kernel", "x", "--memory", "lots"],
        vec!["trace", "--kernel", "x", "--irq", "never"],
        vec!["frobnicate"],
    ] {
        let mut command = Command::cargo_bin("stepwell").unwrap();
        command.args(&arguments).assert().code(1);
    }
    Command::cargo_bin("stepwell").unwrap().arg("--help").assert().code(0);
}

#[test]
fn what_is_read_is_not_written_over() {
    let place = Place::new();
    let (kernel, initrd) = (place.file("Image", &image()), place.file("initrd", b"cpio"));
    let guest = ["--kernel", text(&kernel), "--initrd", text(&initrd)];
    let alias = place.0.path().join("alias");
    std::os::unix::fs::symlink(&kernel, &alias).unwrap();
    for (command, option, output, what) in [
        ("trace", "-o", &kernel, "is the kernel"),
        ("trace", "-o", &alias, "is the kernel"),
        ("trace", "--output", &initrd, "is the initial ramdisk"),
        ("gdb", "--write-symbols", &kernel, "is the kernel"),
        ("gdb", "--init-file", &initrd, "is the initial ramdisk"),
    ] {
        let told = place.refused(&[&[command, option, text(output)], guest.as_slice()].concat());
        assert!(told.contains(what) && told.contains("name another file"), "{told}");
    }
    let both = place.0.path().join("both");
    let files = ["gdb", "--write-symbols", text(&both), "--init-file", text(&both)];
    let told = place.refused(&[files.as_slice(), &guest].concat());
    assert!(told.contains("both"), "{told}");
    assert_eq!(fs::read(&kernel).unwrap(), image());
    assert_eq!(fs::read(&initrd).unwrap(), b"cpio");
}

/// A replay log of a run that nobody can have again.
fn replay_log(kernel: &Path) -> Vec<u8> {
    let kernel = FileIdentity { path: text(kernel).into(), sha256: "00".into() };
    let header = Header {
        stepwell_replay: VERSION,
        cpu: "cortex-a57".into(),
        vcpus: 1,
        memory_bytes: 64 << 20,
        schedule: "turns=50000".into(),
        command_line: String::new(),
        raw: true,
        kernel,
        initrd: None,
        devicetree: None,
        hypervisor: String::new(),
        qemu: String::new(),
    };
    let mut bytes = Vec::new();
    let mut log = Writer::new(&mut bytes, &header).unwrap();
    log.add(&Entry::Left { position: 50, clock: 50 }).unwrap();
    bytes
}

#[test]
fn a_replay_log_that_is_none_is_told_by_every_command() {
    let place = Place::new();
    let gone = place.0.path().join("gone.bin");
    let log = replay_log(&gone);
    let flipped = |at: usize| {
        let mut log = log.clone();
        log[at] ^= 1;
        log
    };
    let json = "{\"stepwell_replay\":9}";
    let future = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    for (bytes, words) in [
        (&b"hello\n"[..], "not a replay log: `stepwell record` writes them"),
        (b"", "not a replay log"),
        (&flipped(20), "not a replay log"),
        (&flipped(log.len() - 5), "line 2 is damaged"),
        (future.as_bytes(), "a replay log of version 9"),
        (&log, "gone.bin"),
    ] {
        let file = place.file("run.replay", bytes);
        for command in [&["replay"][..], &["step", "--replay"], &["gdb", "--replay"]] {
            let said = place.refused(&[command, &[text(&file)]].concat());
            assert!(said.contains(words), "{command:?}: {said}");
        }
        let output = place.0.path().join("part.stepwell");
        let said = place.refused(&["trace", "-o", text(&output), "--replay", text(&file)]);
        assert!(said.contains(words) && !output.exists(), "{said}");
    }
    let missing = place.0.path().join("missing.replay");
    let said = place.refused(&["step", "--replay", text(&missing)]);
    assert!(said.contains("missing.replay"), "{said}");
}
