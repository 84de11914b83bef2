//! Debian's kernel, stepped for a while and then let go: it must come to its shell as if it had not.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use stepwell_tests::guest::folder;
use stepwell_tests::plain::Setup;
use stepwell_tests::process::{Finished, Running};
use stepwell_tests::stepwell::{command, type_at_stepper};

const LIMIT: Duration = Duration::from_secs(180);
/// A place in a system call that the guest's start script makes.
const PLACE: &str = "__arm64_sys_newuname";
/// What a kernel writes when it has not run for too long, or its clock went wrong.
const TROUBLE: [&str; 9] = [
    "Kernel panic",
    "rcu: INFO",
    "stall",
    "lockup",
    "Oops",
    "BUG:",
    "clocksource: timekeeping",
    "clocksource: Marking",
    "hung",
];

fn debian(cpu: &'static str, smp: u8) -> Setup {
    Setup {
        initrd: Some(folder().join("debian/initramfs.cpio.gz")),
        append: Some("console=ttyAMA0 stepwell.poweroff".to_owned()),
        cpu,
        smp,
        memory_mib: 512,
        ..Setup::new(&folder().join("debian/vmlinuz"))
    }
}

/// Demands that the guest came to its shell, powered itself off, and had nothing to complain of.
fn came_through(finished: &Finished) {
    let said = finished.output();
    assert!(finished.status.success(), "{said}");
    for words in ["stepwell-demo: shell is up", "reboot: Power down", "the guest powered off"] {
        assert!(finished.stdout.contains(words), "no {words:?} in {said}");
    }
    for trouble in TROUBLE {
        assert!(!finished.stdout.contains(trouble), "{trouble}: {said}");
    }
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
}

/// Three million steps from reset lead through the first locks, page tables and patched code.
fn stepped_silently_from_reset(cpu: &'static str) {
    let options = ["--at", "reset", "--irq", "into"];
    let finished = type_at_stepper(&debian(cpu, 1), &options, "s 3000000\nc\n", LIMIT).unwrap();
    came_through(&finished);
    let shown = finished.stdout.lines().filter(|line| line.starts_with("vcpu0  0x"));
    let shown: Vec<&str> = shown.collect();
    assert_eq!(shown.len(), 2, "the first stop and the last step: {shown:?}");
    assert!(shown[1].contains("  0xffff"), "it has come to its virtual addresses: {shown:?}");
}

#[test]
fn three_million_steps_on_cortex_a57() {
    stepped_silently_from_reset("cortex-a57");
}

#[test]
fn three_million_steps_on_max() {
    stepped_silently_from_reset("max");
}

#[test]
fn four_cpus_come_up_after_one_was_stepped() {
    let script = "vcpu\ns 100000\nc\n";
    let options = ["--at", "start_kernel"];
    let finished = type_at_stepper(&debian("cortex-a57", 4), &options, script, LIMIT).unwrap();
    came_through(&finished);
    assert!(finished.stdout.contains("Brought up 1 node, 4 CPU"), "{}", finished.output());
    let off = finished.stdout.lines().filter(|line| line.ends_with("  off")).count();
    assert_eq!(off, 3, "the others are off at start_kernel: {}", finished.stdout);
}

/// Longer than the guest takes to where it stops.
const BOOT: Duration = Duration::from_secs(15);

/// Lets the guest stand with a spin lock in its hands, in the middle of a system call; returns what
/// was said.
fn left_standing(pause: Duration) -> Finished {
    let mut step = command("step", &debian("cortex-a57", 4));
    step.args(["--at", PLACE]);
    step.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut step).unwrap();
    let mut stdin = running.stdin().unwrap();
    let typist = thread::spawn(move || {
        stdin.write_all(b"u _raw_spin_lock\ns 100\n").unwrap();
        thread::sleep(BOOT + pause);
        stdin.write_all(b"c\n").unwrap();
    });
    let finished = running.finish(LIMIT).unwrap();
    typist.join().unwrap();
    finished
}

/// The guest's clock in seconds, in each of its lines that tell it.
fn stamps(output: &str) -> Vec<f64> {
    let stamp = |line: &str| {
        let (_, rest) = line.split_once("guest| [")?;
        rest.split_once(']')?.0.trim().parse().ok()
    };
    output.lines().filter_map(stamp).collect()
}

/// How far the clock went between the last line before the stop and the power-off.
fn clock_went(finished: &Finished) -> f64 {
    let (before, after) = finished.stdout.split_once("(stepwell) s 100\n").unwrap();
    stamps(after).last().unwrap() - stamps(before).last().unwrap()
}

#[test]
fn a_guest_left_standing_does_not_notice() {
    let finished = left_standing(Duration::from_secs(60));
    came_through(&finished);
    let went = clock_went(&finished);
    assert!((0.0..15.0).contains(&went), "{went} s: {}", finished.output());
}

/// A clock that jumps is what the test above would see.
#[test]
fn a_guest_whose_steps_are_worth_seconds_notices() {
    let script = "time per-step=200000000\ns 100\ntime stopped\nc\n";
    let finished =
        type_at_stepper(&debian("cortex-a57", 1), &["--at", PLACE], script, LIMIT).unwrap();
    let went = clock_went(&finished);
    assert!(went > 19.0, "{went} s: {}", finished.output());
}
