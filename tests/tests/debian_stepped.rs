//! Debian's kernel, stepped for a while and then let go: it must come to its shell as if it had
//! not.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::{Duration, Instant};

use stepwell_tests::debian::{came_through, debian, says_as_undisturbed};
use stepwell_tests::process::Finished;
use stepwell_tests::prompt::Prompt;
use stepwell_tests::stepwell::type_at_stepper;

const LIMIT: Duration = Duration::from_secs(900);
/// A place in a system call that the guest's start script makes.
const PLACE: &str = "__arm64_sys_newuname";

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

/// After all CPUs have come up and before most of the boot: what comes of the pause is heard.
const EARLY: &str = "driver_init";
/// Whoever wakes a task takes its spin lock.
const TAKES_A_LOCK: &str = "u try_to_wake_up";

/// Steps until a spin lock was taken that nobody else wants. Some wake-ups find nothing to do.
fn take_a_lock(prompt: &mut Prompt) {
    for _ in 0..10 {
        prompt.stop_after(TAKES_A_LOCK).unwrap();
        // An interrupt's entry that had to wait makes it longer than it is: some fifty.
        for _ in 0..200 {
            let stop = prompt.stop_after("s").unwrap();
            let Some((_, operands)) = stop.split_once("stxr w") else { continue };
            let (_, address) = operands.split_once('[').unwrap();
            let address = address.split(']').next().unwrap();
            prompt.stop_after("s").unwrap();
            prompt.say(&format!("m {address} 4")).unwrap();
            let value = prompt.hear(|line| line.starts_with("0x")).unwrap();
            if value.contains("  01 00 00 00  ") {
                return;
            }
            break;
        }
    }
    panic!("no lock is taken here");
}

/// Stops four CPUs, one of them with a spin lock in its hands, and demands that their
/// kernel has nothing to say that it does not say anyway.
fn stands_unnoticed(pause: Duration) {
    let setup = debian("cortex-a57", 4);
    let (limit, started) = (LIMIT + pause, Instant::now());
    let mut prompt = Prompt::start(&setup, &["--at", EARLY], limit).unwrap();
    take_a_lock(&mut prompt);
    thread::sleep(pause);
    prompt.say("c").unwrap();
    let finished = prompt.finish(limit).unwrap();
    came_through(&finished);
    // It has run for no longer than it was let run.
    let (went, ran) = (*stamps(&finished.stdout).last().unwrap(), started.elapsed() - pause);
    assert!((0.0..ran.as_secs_f64()).contains(&went), "{went} s: {}", finished.output());
    says_as_undisturbed(&setup, &finished.stdout, LIMIT);
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
    stands_unnoticed(Duration::from_secs(60));
}

#[test]
#[ignore = "takes ten minutes, most of them asleep"]
fn a_guest_left_standing_for_ten_minutes_does_not_notice() {
    stands_unnoticed(Duration::from_secs(600));
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
