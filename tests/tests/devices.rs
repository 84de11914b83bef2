//! Devices, and where none is, answer as on the board: whatever form an access has, and whoever looks.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::guest::Guest;
use stepwell_tests::plain::{Setup, console_with, qemu_version};
use stepwell_tests::process::run;
use stepwell_tests::stepwell::{command, run_guest};

const LIMIT: Duration = Duration::from_secs(900);

/// The guest's own lines, without what the tool puts before them.
fn lines(console: &str) -> Vec<String> {
    let lines = console.lines().map(|line| {
        let line = line.trim_end_matches('\r');
        line.trim_start().strip_prefix("guest| ").unwrap_or(line).to_owned()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

fn demand_same(what: &str, plain: &[String], found: &[String]) {
    for (n, line) in plain.iter().enumerate() {
        let (before, other) = (n.checked_sub(1).and_then(|n| plain.get(n)), found.get(n));
        if is_of_newer_qemu(line, before.map_or("", String::as_str)) {
            continue;
        }
        let other = other.map_or("nothing", String::as_str);
        assert_eq!(line, other, "{what}, line {n}, behind {before:?}");
    }
}

/// What plain QEMU has another way since its version 8, which docs/qemu.md tells: an access of a device that
/// is not aligned faults where stage 1 is off or says so, but below an EL2; GICD_TYPER.ITLinesNumber; and that
/// the UART loops back.
fn is_of_newer_qemu(line: &str, before: &str) -> bool {
    const ALIGNMENT_FAULT: &str = "0x96000021";
    const TYPER: &str = "0x37a0008";
    let is_newer = qemu_version().is_some_and(|(major, _)| major >= 8);
    let is_stored = |line: &str| line.starts_with("stored, not aligned");
    let is_looped = line.starts_with("looped back");
    let is_one =
        line.contains(ALIGNMENT_FAULT) || line.contains(TYPER) || is_stored(line) || is_looped;
    is_newer && (is_one || line.starts_with("not aligned") || is_stored(before))
}

/// What a guest says on plain QEMU it says running freely and stepped, too.
fn says_the_same(setup: &Setup, guest: &Guest, lines_min: usize) {
    let cpu = setup.cpu;
    // Stepwell's slots for virtio are those of the specification's version 1, as QEMU's may be.
    let modern = ["-global", "virtio-mmio.force-legacy=false"];
    let said = console_with(setup, &modern, LIMIT).unwrap();
    assert!(guest.succeeded(&said.stdout), "plain on {cpu}: {}", said.output());
    let plain = lines(&said.stdout);
    assert!(plain.len() > lines_min, "plain on {cpu}: {}", said.output());
    let said = run_guest(setup, LIMIT).unwrap();
    demand_same(&format!("unstepped on {cpu}"), &plain, &lines(&said.stdout));
    let folder = tempfile::tempdir().unwrap();
    let mut trace = command("trace", setup);
    trace.args(["--steps", "1000000000", "--quiet", "-o"]).arg(folder.path().join("r"));
    let said = run(&mut trace, LIMIT).unwrap();
    demand_same(&format!("stepped on {cpu}"), &plain, &lines(&said.stdout));
}

/// The guest `devices` tells what loads, stores, fetches and table walks come to.
#[test]
fn every_access_comes_to_what_it_does_on_the_board() {
    let guest = Guest::named("devices");
    for cpu in ["cortex-a57", "max"] {
        says_the_same(&Setup { cpu, ..Setup::new(&guest.path) }, &guest, 200);
    }
}

/// The guest `frames` tells what each register of each device is at reset, and what it keeps.
#[test]
fn every_register_of_a_device_is_the_boards() {
    let guest = Guest::named("frames");
    says_the_same(&Setup { smp: 2, ..Setup::new(&guest.path) }, &guest, 1_000);
}

/// The guest `gic_random` tells what the interrupt controller shows after each of its accesses.
#[test]
fn the_interrupt_controller_shows_what_the_boards_does() {
    let guest = Guest::named("gic_random");
    says_the_same(&Setup::new(&guest.path), &guest, 1_000);
}
