//! Firmware in flash: EDK2 and U-Boot from their first instruction to what they start.
//!
//! Both are compared with plain QEMU (`-bios`), instruction by instruction, with one device tree: its own,
//! which tells of PCIe and an ITS as well. In the first 200,000 instructions nothing differs: caches are
//! set up, memory is found and, by U-Boot, relocated to. What comes later depends on the clock.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stepwell_tests::console::Console;
use stepwell_tests::debian::has_no_trouble;
use stepwell_tests::guest::folder;
use stepwell_tests::plain::{Setup, dump_device_tree, witness};
use stepwell_tests::process::{Finished, run};
use stepwell_tests::stepwell::{binary, show, with_machine};
use stepwell_tests::stream::demand_equal;

const LIMIT: Duration = Duration::from_secs(300);
const STEPS: usize = 200_000;

fn of_debian(name: &str) -> PathBuf {
    folder().join("debian").join(name)
}

/// The machine of a guest that begins in this firmware.
fn setup(firmware: &str) -> Setup {
    let firmware = Some(of_debian(firmware));
    Setup { firmware, memory_mib: 512, ..Setup::new(Path::new("")) }
}

/// `stepwell SUBCOMMAND` with that machine.
fn command(subcommand: &str, setup: &Setup) -> Command {
    let mut command = Command::new(binary());
    command.arg(subcommand).arg("--firmware").arg(setup.firmware.as_ref().unwrap());
    with_machine(&mut command, setup);
    command
}

fn is_exact(firmware: &str, cpu: &'static str) {
    let setup = Setup { cpu, ..setup(firmware) };
    let folder = tempfile::tempdir().unwrap();
    let (dtb, file) = (folder.path().join("plain.dtb"), folder.path().join("recording"));
    dump_device_tree(&setup, &dtb).unwrap();
    let seen = witness(&setup, 0, STEPS, LIMIT).unwrap().swap_remove(0);
    let mut trace = command("trace", &setup);
    trace.args(["--steps", &STEPS.to_string(), "--irq", "hold", "--quiet", "--dtb"]).arg(&dtb);
    let said = run(trace.arg("-o").arg(&file), LIMIT).unwrap();
    assert!(said.status.success(), "{}", said.output());
    let taken = show(&file).unwrap();
    assert!(seen.len() >= STEPS, "the witness saw {} instructions only", seen.len());
    if let Err(text) = demand_equal(STEPS, ("witness", &seen), ("stepwell", &taken)) {
        panic!("{firmware} on {cpu}: {text}");
    }
}

#[test]
fn edk2_from_its_reset_vector_is_what_plain_qemu_executes() {
    is_exact("AAVMF_CODE.fd", "cortex-a57");
    is_exact("AAVMF_CODE.fd", "max");
}

#[test]
fn u_boot_from_its_reset_vector_is_what_plain_qemu_executes() {
    is_exact("u-boot.bin", "cortex-a57");
}

/// Runs a guest, and types each answer once its question has been shown.
fn talk(run: &mut Command, conversation: &[(&str, &str)]) -> Finished {
    let mut console = Console::start(run, LIMIT).unwrap();
    for (question, answer) in conversation {
        console.hear(question).unwrap();
        console.say(answer).unwrap();
    }
    console.finish(LIMIT).unwrap()
}

const GUID: &str = "11111111-2222-3333-4444-555555555555";

#[test]
fn variables_of_edk2_last_through_resets_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let variables = folder.path().join("variables.fd");
    let set = format!("setvar Stepwell -guid {GUID} -nv -bs =0x41424344\r");
    let get = format!("setvar Stepwell -guid {GUID}\r");
    let boot = |conversation: &[(&str, &str)]| {
        let mut run = command("run", &setup("AAVMF_CODE.fd"));
        run.arg("--firmware-variables").arg(&variables);
        let said = talk(&mut run, conversation);
        assert!(said.status.success(), "{}", said.output());
        said.stdout
    };
    let (prompt, off) = ("Shell> ", "reset -s\r");
    let said = boot(&[(prompt, &set), (prompt, "reset\r"), (prompt, &get), (prompt, off)]);
    assert!(said.contains("44 43 42 41"), "after a reset: {said}");
    let said = boot(&[(prompt, &get), (prompt, off)]);
    assert!(said.contains("44 43 42 41"), "in another run: {said}");
    assert_eq!(fs::metadata(&variables).unwrap().len(), 64 << 20);
}

#[test]
fn edk2_starts_a_kernel_that_it_is_handed() {
    let setup = Setup { smp: 4, cpu: "max", ..setup("AAVMF_CODE.fd") };
    let mut boot = command("run", &setup);
    boot.arg("--kernel").arg(of_debian("vmlinuz"));
    boot.arg("--initrd").arg(of_debian("initramfs.cpio.gz"));
    boot.args(["--append", "console=ttyAMA0 stepwell.poweroff"]);
    let said = run(&mut boot, LIMIT).unwrap();
    has_no_trouble(&said);
    for words in ["EFI v2", "rtc0", "shell is up", "reboot: Power down"] {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
}

#[test]
fn u_boot_keeps_its_environment_and_boots_a_kernel_from_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for (from, to) in [("vmlinuz", "vmlinuz"), ("initramfs.cpio.gz", "initrd")] {
        fs::copy(of_debian(from), tree.join(to)).unwrap();
    }
    let image = folder.path().join("boot.img");
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext2", "-d"]).arg(&tree).arg(&image).arg("64M");
    assert!(make.status().unwrap().success());
    let mut run = command("run", &setup("u-boot.bin"));
    run.arg("--firmware-variables").arg(folder.path().join("environment"));
    run.arg("--disk").arg(format!("{},readonly", image.display()));
    let prompt = "\n=> ";
    let said = talk(
        &mut run,
        &[
            ("stop autoboot", "\r"),
            (prompt, "version\r"),
            (prompt, "setenv bootargs console=ttyAMA0 stepwell.poweroff; saveenv\r"),
            (prompt, "reset\r"),
            ("stop autoboot", "\r"),
            (prompt, "ext4load virtio 0 $kernel_addr_r /vmlinuz\r"),
            (prompt, "ext4load virtio 0 $ramdisk_addr_r /initrd\r"),
            (prompt, "booti $kernel_addr_r $ramdisk_addr_r:$filesize $fdt_addr\r"),
        ],
    );
    assert!(said.status.success(), "{}", said.output());
    for words in ["aarch64-linux-gnu-gcc", "from Flash... OK", "shell is up", "Power down"] {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
}
