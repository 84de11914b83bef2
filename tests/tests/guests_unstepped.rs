//! The guests under Stepwell, unstepped: same results as on plain QEMU, and clear ends for bad ones.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, Write};
use std::process::Stdio;
use std::time::Duration;

use stepwell_tests::guest::Guest;
use stepwell_tests::plain::{Setup, console, qemu_version};
use stepwell_tests::process::{Finished, Running};
use stepwell_tests::stepwell::{command, run_guest};

const LIMIT: Duration = Duration::from_secs(180);

fn run(name: &str, cpu: &'static str, smp: u8) -> (Guest, Finished) {
    let guest = Guest::named(name);
    let setup = Setup { cpu, smp, ..Setup::new(&guest.path) };
    let finished = run_guest(&setup, LIMIT).unwrap();
    assert!(finished.left_behind.is_empty(), "{name}: left behind {:?}", finished.left_behind);
    (guest, finished)
}

fn passes(name: &str, cpu: &'static str, smp: u8) {
    let (guest, finished) = run(name, cpu, smp);
    let good = guest.succeeded(&finished.stdout) && finished.status.success();
    assert!(good, "{name} on {cpu} with {smp}: {}", finished.output());
}

macro_rules! guests {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            passes(stringify!($name), "cortex-a57", 1);
            passes(stringify!($name), "max", 1);
        }
    )*};
}

guests! {
    plain loop_sum exclusives exceptions seed irq_storm sgi timer gic uart psci simd sysregs debug_own own_text wfx precedence
    aarch32
    bad_gic bad_psci bad_random_sysregs
}

#[test]
fn several_cpus_pass() {
    for name in ["psci", "hammer", "ticks"] {
        for smp in [2, 4, 8] {
            passes(name, "cortex-a57", smp);
        }
    }
}

/// Whatever the machine was started with lies elsewhere: the host's device tree above all, which
/// QEMU puts where it finds room.
#[test]
fn nothing_of_the_host_lies_in_the_memory_of_a_guest() {
    let guest = Guest::named("ram_clean");
    for memory_mib in [64, 256, 512, 1024, 2048] {
        let setup = Setup { memory_mib, ..Setup::new(&guest.path) };
        let finished = run_guest(&setup, LIMIT).unwrap();
        let expected = format!("ram_clean: ok {memory_mib:#x}");
        assert!(finished.stdout.contains(&expected), "{memory_mib} MiB: {}", finished.output());
    }
}

/// What each form of load and store does to a device, and where nobody answers, is what it does on the
/// board.
#[test]
fn devices_are_accessed_in_every_form() {
    let guest = Guest::named("device_forms");
    for cpu in ["cortex-a57", "max"] {
        let setup = Setup { cpu, ..Setup::new(&guest.path) };
        let plain = console(&setup, LIMIT).unwrap();
        assert!(guest.succeeded(&plain.stdout), "{}", plain.output());
        // The identification registers by LDP, as they are in the PL011.
        assert!(plain.stdout.contains("load_pair_post 0x9000fe0"), "{}", plain.output());
        let finished = run_guest(&setup, LIMIT).unwrap();
        // A form has a line, and what it left behind in those that are indented.
        let pairs: Vec<_> = finished.stdout.lines().zip(plain.stdout.lines()).collect();
        let forms = pairs.chunk_by(|_, (_, plain)| plain.starts_with(' '));
        let differ: Vec<_> = forms
            .filter(|form| !form.iter().any(|(_, plain)| is_faulted_by_qemu_10(plain)))
            .flat_map(|form| form.iter().filter(|(seen, plain)| seen != plain))
            .collect();
        assert!(differ.is_empty(), "{cpu}: seen, and on plain QEMU: {differ:#?}");
        assert_eq!(finished.stdout.lines().count(), plain.stdout.lines().count(), "{cpu}");
    }
}

/// An access of a device that is not aligned, with stage 1 off: plain QEMU has had the alignment fault
/// since version 8, and none below an EL2 that has stage 2 on (docs/qemu.md).
fn is_faulted_by_qemu_10(line: &str) -> bool {
    let is_newer = qemu_version().is_some_and(|(major, _)| major >= 8);
    is_newer && line.trim_start().starts_with("exceptions 0x1 0x96000021 ")
}

/// A guest that asks to be reset comes up again, on the same console, until it switches off.
#[test]
fn a_reset_starts_the_guest_anew() {
    let setup = Setup::new(&Guest::named("reset").path);
    let start = |options: &[&str]| {
        let mut command = command("run", &setup);
        command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(&mut command).unwrap()
    };
    let mut running = start(&[]);
    let (mut typed, mut lines) = (running.stdin().unwrap(), running.lines().unwrap());
    running.kill_after(LIMIT);
    for byte in [b"r", b"r", b"p"] {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), "reset: up");
        typed.write_all(byte).unwrap();
        typed.flush().unwrap();
    }
    let rest: Vec<String> = lines.lines().map(Result::unwrap).collect();
    assert_eq!(rest, ["reset: ok 0x70"]);
    let finished = running.finish(LIMIT).unwrap();
    assert!(finished.status.success() && finished.left_behind.is_empty());
    // The old way.
    let mut running = start(&["--no-reboot"]);
    running.stdin().unwrap().write_all(b"r").unwrap();
    let finished = running.finish(LIMIT).unwrap();
    assert_eq!(finished.status.code(), Some(3), "{}", finished.output());
}
