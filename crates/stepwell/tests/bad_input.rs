//! What is wrong before a machine runs, or with QEMU itself: each one clear line, status 1, and
//! nothing left behind. None of these needs QEMU.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod place;

use assert_cmd::Command;
use place::{Place, image, text};
use std::fs;

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
    let alias = place.path().join("alias");
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
    let both = place.path().join("both");
    let files = ["gdb", "--write-symbols", text(&both), "--init-file", text(&both)];
    let told = place.refused(&[files.as_slice(), &guest].concat());
    assert!(told.contains("both"), "{told}");
    assert_eq!(fs::read(&kernel).unwrap(), image());
    assert_eq!(fs::read(&initrd).unwrap(), b"cpio");
}
