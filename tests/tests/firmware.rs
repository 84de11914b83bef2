//! Firmware in flash: EDK2 and U-Boot from their first instruction to what they start.
//!
//! Both are compared with plain QEMU (`-bios`), instruction by instruction, with one device tree: its own,
//! which tells of PCIe and an ITS as well. In the first 200,000 instructions nothing differs: caches are
//! set up, memory is found and, by U-Boot, relocated to. What comes later depends on the clock.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
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
use stepwell_trace::symbols::file;
use stepwell_trace::{Symbol, SymbolKind, Symbols};

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

/// Where U-Boot carries out a command, as its relocations tell of its table of commands.
fn carried_out(image: &[u8], command: &str) -> u64 {
    const RELATIVE: u64 = 0x403;
    let word = |at: usize| Some(u64::from_le_bytes(image.get(at..at + 8)?.try_into().unwrap()));
    let entries = (0..image.len()).step_by(8).filter(|&at| word(at + 8) == Some(RELATIVE));
    let pointers: HashMap<u64, u64> =
        entries.filter_map(|at| Some((word(at)?, word(at + 16)?))).collect();
    let name = format!("{command}\0");
    let is_name =
        |at: u64| image.get(at as usize..).is_some_and(|bytes| bytes.starts_with(name.as_bytes()));
    // Its name, a number, what carries out a repeated one and a first one, and its usage.
    let is_command = |at: u64| {
        let [number, first, usage] = [8, 24, 32].map(|field| pointers.contains_key(&(at + field)));
        !number && first && usage
    };
    let found = pointers.iter().find(|&(&at, &to)| is_name(to) && is_command(at));
    pointers[&(found.unwrap().0 + 24)]
}

/// An ELF of U-Boot's with one name, and where that is linked.
fn symbols_of_u_boot(folder: &Path) -> (PathBuf, u64) {
    let image = fs::read(of_debian("u-boot.bin")).unwrap();
    let address = carried_out(&image, "run");
    let (kind, name) = (SymbolKind::Function, "do_run".to_owned());
    let symbols = Symbols::new([Symbol { address, size: 64, kind, name }], Some(0));
    let path = folder.join("u-boot");
    fs::write(&path, file::to_elf(&symbols, &image)).unwrap();
    (path, address)
}

/// U-Boot boots by `run`, long after it has moved.
#[test]
fn names_follow_u_boot_to_the_end_of_ram() {
    let folder = tempfile::tempdir().unwrap();
    let (elf, linked) = symbols_of_u_boot(folder.path());
    let linked = format!("{linked:#018x}");
    // By name from its first instruction on, and by a breakpoint that is set before it moves.
    for (at, lines) in [("do_run", "break do_run\n"), ("reset", "break do_run\nc\nbreak\n")] {
        let mut step = command("step", &setup("u-boot.bin"));
        step.arg("--symbols").arg(&elf).args(["--at", at]);
        let mut console = Console::start(&mut step, LIMIT).unwrap();
        console.say(lines).unwrap();
        let said = console.finish(LIMIT).unwrap();
        assert!(said.status.success(), "{}", said.output());
        assert!(said.stderr.contains("the firmware moves to 0x5f"), "{}", said.output());
        let named: Vec<_> = said.stdout.lines().filter(|line| line.contains("do_run")).collect();
        let [.., listed] = named.as_slice() else { panic!("{}", said.output()) };
        if at == "reset" {
            let before = named.iter().any(|line| line.contains(&linked));
            assert!(before, "set where it was linked: {}", said.output());
        }
        assert!(!listed.contains(&linked), "moved: {}", said.output());
        let stops =
            said.stdout.lines().filter(|line| line.starts_with("vcpu0") && line.contains("do_run"));
        assert_eq!(stops.count(), 1, "{}", said.output());
    }
}

/// What EDK2 loads is found by the table that it keeps, and stopped in by name: here the kernel that
/// it is handed, whose names are its own, or are said to be in its file.
#[test]
fn names_are_those_of_the_kernel_that_edk2_loads() {
    let kernel = of_debian("vmlinuz");
    let (handed, named) = (["--kernel"], ["--kernel", "--symbols"]);
    for (options, at) in [(&handed[..], "start_kernel"), (&named[..], "rest_init")] {
        let mut step = command("step", &setup("AAVMF_CODE.fd"));
        for option in options {
            step.arg(option).arg(&kernel);
        }
        step.args(["--at", at, "--append", "console=ttyAMA0"]);
        let mut console = Console::start(&mut step, LIMIT).unwrap();
        console.say("s 2\n").unwrap();
        let said = console.finish(LIMIT).unwrap();
        assert!(said.status.success(), "{}", said.output());
        assert!(said.stderr.contains("the firmware has put"), "{}", said.output());
        let stops = said.stdout.lines().filter(|line| line.starts_with("vcpu0"));
        let stops: Vec<_> = stops.filter(|line| line.contains(at)).collect();
        assert_eq!(stops.len(), 3, "{}", said.output());
        assert!(
            stops[0].contains("0xffff"),
            "where it has an address of its own: {}",
            said.output()
        );
    }
}
