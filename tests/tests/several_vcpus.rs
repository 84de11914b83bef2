//! Several vCPUs, one of them stepped, or all: locks are let go, totals are right, and two runs
//! with the same input are the same run.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use stepwell_tests::debian::{debian, has_no_trouble, says_as_undisturbed};
use stepwell_tests::guest::Guest;
use stepwell_tests::plain::Setup;
use stepwell_tests::process::{Finished, run};
use stepwell_tests::stepwell::{binary, command, run_guest, type_at_stepper};

const LIMIT: Duration = Duration::from_secs(300);
const OTHERS: [&str; 3] = ["stop", "run", "step"];
const VCPUS: u8 = 4;
/// Rounds of each vCPU in `hammer`.
const ROUNDS: u64 = 256;

fn hammer(cpu: &'static str) -> Setup {
    Setup { cpu, smp: VCPUS, ..Setup::new(&Guest::named("hammer").path) }
}

fn traced(setup: &Setup, options: &[&str], file: &Path) -> Finished {
    let mut trace = command("trace", setup);
    trace.args(["--steps", "100000000", "--irq", "into", "--quiet"]).args(options);
    let finished = run(trace.arg("-o").arg(file), LIMIT).unwrap();
    let said = finished.output();
    assert!(finished.status.success(), "{options:?}: {said}");
    assert!(finished.left_behind.is_empty(), "left behind {:?}: {said}", finished.left_behind);
    finished
}

fn is_right(finished: &Finished) {
    let wanted = format!("hammer: ok {:#x}", u64::from(VCPUS) * ROUNDS);
    assert!(finished.stdout.contains(&wanted), "{}", finished.output());
}

/// Each lock, counter and list with each width of exclusive, hammered from all sides.
fn totals_are_right(cpu: &'static str) {
    let setup = hammer(cpu);
    is_right(&run_guest(&setup, LIMIT).unwrap());
    let folder = tempfile::tempdir().unwrap();
    for others in OTHERS {
        let file = folder.path().join(others);
        is_right(&traced(&setup, &["--others", others], &file));
    }
}

#[test]
fn totals_are_right_on_cortex_a57() {
    totals_are_right("cortex-a57");
}

#[test]
fn totals_are_right_on_max() {
    totals_are_right("max,pauth-impdef=on");
}

/// A page of code is another one from the moment on at which who changed that goes on.
#[test]
fn another_vcpus_change_of_page_tables_is_heeded() {
    let setup = Setup { cpu: "cortex-a57", smp: 2, ..Setup::new(&Guest::named("remap").path) };
    let folder = tempfile::tempdir().unwrap();
    for others in OTHERS {
        let file = folder.path().join(others);
        let finished = traced(&setup, &["--others", others], &file);
        assert!(finished.stdout.contains("remap: ok"), "{others}: {}", finished.output());
    }
}

#[test]
fn ten_runs_give_one_recording() {
    let setup = hammer("cortex-a57");
    let folder = tempfile::tempdir().unwrap();
    let options = ["--others", "step", "--time", "per-step=1"];
    let mut first = None;
    for round in 0..10 {
        let file = folder.path().join(round.to_string());
        is_right(&traced(&setup, &options, &file));
        let recording = fs::read(&file).unwrap();
        let first = first.get_or_insert_with(|| recording.clone());
        assert!(*first == recording, "run {round} differs from run 0");
    }
}

/// A vCPU that waits for a lock gets it although only it is stepped, at the prompt as well.
#[test]
fn a_vcpu_that_waits_is_not_stuck_at_the_prompt() {
    let setup = hammer("cortex-a57");
    let script = "s 3000\nothers step\ns 3000\nvcpu 1\ns 500\nothers run\ns 3000\nc\n";
    let finished = type_at_stepper(&setup, &["--irq", "into"], script, LIMIT).unwrap();
    is_right(&finished);
}

#[test]
fn a_clock_cannot_go_by_steps_while_others_run() {
    let setup = hammer("cortex-a57");
    let options = ["--others", "run", "--time", "per-step=5"];
    let finished = type_at_stepper(&setup, &options, "s\ntime stopped\ns\nx\n", LIMIT).unwrap();
    assert!(finished.stdout.contains("the clock cannot go by steps"), "{}", finished.output());
}

/// Steps through a busy loop, three instructions a turn, while each vCPU has a 1 kHz tick and tells
/// all others of it: no handler is reported, and no turn of the loop is lost.
fn only_the_loop_is_reported(options: &[&str]) {
    let guest = Guest::named("ticks");
    let counting = guest.counting_loop.clone().unwrap();
    let setup = Setup { cpu: "cortex-a57", smp: VCPUS, ..Setup::new(&guest.path) };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ticks.stepwell");
    let at = format!("{:#x}", counting.start);
    let mut trace = command("trace", &setup);
    trace.args(["--at", &at, "--steps", "100000", "--irq", "over", "--quiet"]).args(options);
    let finished = run(trace.arg("-o").arg(&file), LIMIT).unwrap();
    assert!(finished.status.success(), "{options:?}: {}", finished.output());
    let mut show = std::process::Command::new(binary());
    show.args(["show", "--format", "pc", "--vcpu", "0"]).arg(&file);
    let shown = run(&mut show, LIMIT).unwrap();
    let mut steps = 0;
    for (step, line) in shown.stdout.lines().enumerate() {
        let wanted = format!("0 {:x}", counting.start + 4 * (step as u64 % 3));
        assert_eq!(line, wanted, "{options:?}: step {step}");
        steps += 1;
    }
    assert_eq!(steps, 100_000, "{options:?}: {}", shown.output());
}

#[test]
fn over_reports_no_handler_among_ticks_and_sgis() {
    only_the_loop_is_reported(&["--others", "stop", "--time", "per-step=200"]);
    only_the_loop_is_reported(&["--others", "run"]);
}

/// What any CPU reads of either counter is never before what another has read.
#[test]
fn all_vcpus_have_one_clock() {
    let guest = Guest::named("ticks");
    let setup = Setup { cpu: "cortex-a57", smp: VCPUS, ..Setup::new(&guest.path) };
    let script = "i into\ns 50000\nothers step\ntime per-step=200\ns 100000\nvcpu 1\ns 3000\n\
                  time stopped\nothers run\ni over\ns 20000\nvcpu 0\ntime real\ns 2000\n\
                  others stop\ntime stopped\ns 3000\nc\n";
    let finished = type_at_stepper(&setup, &[], script, LIMIT).unwrap();
    // A stop may fall into the line.
    let said: String =
        finished.stdout.lines().filter_map(|line| line.strip_prefix("  guest| ")).collect();
    assert!(said.contains("ticks: ok 0x4"), "{}", finished.output());
}

/// Twenty million steps through all locks of the boot, on all vCPUs, then to the shell.
fn boots_after_steps(cpu: &'static str) {
    let setup = debian(cpu, VCPUS);
    let options = ["--others", "step", "--irq", "into"];
    let limit = Duration::from_secs(1_200);
    let finished = type_at_stepper(&setup, &options, "s 20000000\nc\n", limit).unwrap();
    let said = finished.output();
    assert!(finished.status.success(), "{said}");
    has_no_trouble(&finished);
    says_as_undisturbed(&setup, &finished.stdout, LIMIT);
}

#[test]
fn debian_boots_after_twenty_million_steps_of_four_cortex_a57() {
    boots_after_steps("cortex-a57");
}

#[test]
fn debian_boots_after_twenty_million_steps_of_four_max() {
    boots_after_steps("max,pauth-impdef=on");
}
