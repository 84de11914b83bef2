//! Several vCPUs on fewer CPUs, and runs that can be had again: a position is one state, however it
//! was come to.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use stepwell_debuggee::{Debuggee, Event, Moment, StateHash, StopReason};
use stepwell_link::Link;
use stepwell_tests::debian::debian;
use stepwell_tests::guest::Guest;
use stepwell_tests::machine::{launch_counted, launch_counted_setup_on};
use stepwell_tests::plain::Setup;
use stepwell_tests::positions::{Random, go, straight, walk};
use stepwell_tests::process::{other_qemu, qemu, run};
use stepwell_tests::random::case::{Case, Options};
use stepwell_tests::stepwell::{binary, command, run_guest};

const LIMIT: Duration = Duration::from_secs(300);
const VCPUS: u8 = 4;
/// As short as makes sense: it ends in many a sequence.
const TURN: u32 = 300;
/// Where states are compared.
const COMPARED: u64 = 10;
const APART: u64 = 25_000;
/// Stops between two of these in the runs that have some.
const STOPS: u64 = 25;
/// Before the guest `wfx` ends.
const WFX_END: u64 = 6_000;

fn run_until(link: &mut Link, position: u64) -> StateHash {
    link.support_time_travel().unwrap().run_until(0, Moment::at(position)).unwrap();
    let begun = Instant::now();
    loop {
        match link.wait(Duration::from_secs(1)).unwrap() {
            Some(Event::Stopped(stop)) if stop.reason == StopReason::Reached => break,
            Some(Event::Ended { ending, .. }) => panic!("before {position}: {ending:?}"),
            _ => assert!(begun.elapsed() < LIMIT, "never at {position}"),
        }
    }
    let travel = link.support_time_travel().unwrap();
    assert_eq!(travel.moment(0).unwrap().position, position);
    travel.state_hash(0).unwrap()
}

/// The states of a run, with stops in between by a seed, or without any.
fn states(code: &[u8], cpu: &str, mut seed: u64) -> Vec<StateHash> {
    let (_machine, mut link) = launch_counted(code, cpu, VCPUS, TURN).unwrap();
    let mut all = Vec::new();
    for n in 0..COMPARED {
        let mut stops: Vec<u64> = Vec::new();
        for _ in 0..if seed == 0 { 0 } else { STOPS } {
            // Xorshift.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            stops.push(n * APART + seed % APART);
        }
        stops.sort_unstable();
        stops.dedup();
        for &stop in stops.iter().filter(|&&stop| stop > 0) {
            let _state = run_until(&mut link, stop);
        }
        all.push(run_until(&mut link, (n + 1) * APART));
    }
    all
}

fn stops_leave_no_trace(cpu: &str) {
    let code = fs::read(&Guest::named("hammer").path).unwrap();
    let straight = states(&code, cpu, 0);
    for seed in [1, 0x1234_5678_9abc_def1] {
        assert_eq!(states(&code, cpu, seed), straight, "with stops, {cpu}, seed {seed:#x}");
    }
}

#[test]
fn stops_leave_no_trace_on_cortex_a57() {
    stops_leave_no_trace("cortex-a57");
}

#[test]
fn stops_leave_no_trace_on_max() {
    stops_leave_no_trace("max,pauth-impdef=on");
}

/// Comes to known states of a guest in every way, so often.
fn a_position_is_one_state(guest: &str, cpu: &str, run: (u8, u64), count: u64) {
    one_state_each(guest, &fs::read(&Guest::named(guest).path).unwrap(), cpu, run, count);
}

fn one_state_each(guest: &str, code: &[u8], cpu: &str, (vcpus, end): (u8, u64), count: u64) {
    let positions = Random::new(0x5eed).positions(400, end);
    let (_machine, mut link) = launch_counted(code, cpu, vcpus, TURN).unwrap();
    let known = straight(&mut link, &positions).unwrap();
    let (_machine, mut link) = launch_counted(code, cpu, vcpus, TURN).unwrap();
    let tally = walk(&mut link, &known, &[], count, 0x1234_5678).unwrap();
    println!("{guest} on {cpu}: {tally}");
}

#[test]
fn a_position_is_one_state_on_cortex_a57() {
    a_position_is_one_state("hammer", "cortex-a57", (VCPUS, COMPARED * APART), 600);
    a_position_is_one_state("irq_storm", "cortex-a57", (1, 80_000), 200);
    a_position_is_one_state("ticks", "cortex-a57", (2, 60_000), 200);
}

/// Its timer's interrupt waits while it is masked, and is withdrawn when the guest has moved the timer.
#[test]
fn a_position_is_one_state_while_an_interrupt_waits() {
    a_position_is_one_state("wfx", "cortex-a57", (1, WFX_END), 200);
}

/// Programs of random blocks: registers that trap, devices, exclusives with whatever may come in between,
/// exceptions, a timer.
#[test]
fn a_position_is_one_state_in_random_programs() {
    for seed in [1, 3, 4] {
        let case = Case::new(seed, &Options::default());
        let file = tempfile::NamedTempFile::new().unwrap();
        case.write(file.path()).unwrap();
        let code = fs::read(file.path()).unwrap();
        one_state_each(&format!("program {seed}"), &code, case.cpu, (1, 30_000), 100);
    }
}

/// A guest that reads one system register after another, most of which trap: what that is counted as does
/// not depend on where it stops, and each position is there.
#[test]
fn registers_that_trap_are_one_instruction_each() {
    const END: u64 = 2_400;
    let code = fs::read(&Guest::named("sysregs").path).unwrap();
    let (_machine, mut link) = launch_counted(&code, "cortex-a57", 1, TURN).unwrap();
    let straight = go(&mut link, END, false).unwrap();
    let at_end = |by_steps: bool, apart: usize| {
        let (_machine, mut link) = launch_counted(&code, "cortex-a57", 1, TURN).unwrap();
        let all = (1..=END).step_by(apart).chain([END]);
        all.map(|position| go(&mut link, position, by_steps).unwrap()).last().unwrap()
    };
    assert_eq!(at_end(false, 1), straight, "one by one");
    assert_eq!(at_end(true, 1_000), straight, "by steps");
}

#[test]
fn a_position_is_one_state_on_max() {
    a_position_is_one_state("hammer", "max,pauth-impdef=on", (VCPUS, COMPARED * APART), 200);
}

/// Each lock, counter and list, hammered by four vCPUs that have one or two CPUs.
#[test]
fn vcpus_share_cpus() {
    let setup = Setup { smp: VCPUS, ..Setup::new(&Guest::named("hammer").path) };
    for cpus in ["1", "2"] {
        let mut shared = command("run", &setup);
        let finished = run(shared.args(["--cpus", cpus]), LIMIT).unwrap();
        let said = finished.output();
        assert!(finished.status.success() && said.contains("hammer: ok"), "{cpus}: {said}");
    }
    assert!(run_guest(&setup, LIMIT).unwrap().status.success(), "each its own");
}

/// Records with the command, and replays.
fn recorded_and_replayed(setup: &Setup, every: &str, until: &str, log: &Path) -> String {
    let mut record = command("record", setup);
    record.args(["--quiet", "--checkpoints", every, "--until", until, "-o"]).arg(log);
    let recorded = run(&mut record, LIMIT).unwrap();
    assert!(recorded.status.success(), "{}", recorded.output());
    replay(log, &["--verify"])
}

fn replay(log: &Path, options: &[&str]) -> String {
    let mut replay = std::process::Command::new(binary());
    let finished = run(replay.args(["replay", "--quiet"]).arg(log).args(options), LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    finished.stdout
}

/// The last line of a replay to a position: where it is, and the state's hash.
fn place(said: &str) -> &str {
    said.lines().last().unwrap()
}

#[test]
fn what_was_recorded_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("boot.replay");
    let setup = Setup { smp: VCPUS, ..Setup::new(&Guest::named("hammer").path) };
    let said = recorded_and_replayed(&setup, "hashes=20000", "150000", &log);
    assert!(said.contains("states compared: all the same"), "{said}");
    let whole = place(&said).to_owned();
    assert!(whole.starts_with("position 150000,"), "{said}");
    // Come to otherwise, it is the same.
    let again = replay(&log, &["--to", "150000"]);
    assert_eq!(place(&again), whole);
    assert!(place(&replay(&log, &["--to", "123456"])).starts_with("position 123456,"));
    // Half a log is a log, and a changed one none.
    let bytes = fs::read(&log).unwrap();
    let half = folder.path().join("half.replay");
    fs::write(&half, &bytes[..bytes.len() - 10]).unwrap();
    assert_eq!(place(&replay(&half, &[])), whole, "it has the last state");
    let mut changed = bytes.clone();
    changed[bytes.len() - 10] ^= 1;
    fs::write(&half, &changed).unwrap();
    let mut refused = std::process::Command::new(binary());
    let refused = run(refused.args(["replay", "--quiet"]).arg(&half), LIMIT).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.output());
    assert!(refused.stderr.contains("is damaged"), "{}", refused.output());
}

/// Linux on four vCPUs, with its timers and calls between CPUs: a recording stops every five million
/// instructions, and a replay where it is told to.
fn a_boot_is_the_same_in_its_replay(cpu: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("boot.replay");
    let said = recorded_and_replayed(&debian(cpu, VCPUS), "hashes=70000000", "350000000", &log);
    assert!(said.contains("5 states compared: all the same"), "{said}");
    let whole = place(&said).to_owned();
    assert!(whole.starts_with("position 350000000,"), "{said}");
    assert_eq!(place(&replay(&log, &[])), whole, "with no stop on the way");
}

#[test]
fn a_boot_is_the_same_in_its_replay_on_cortex_a57() {
    a_boot_is_the_same_in_its_replay("cortex-a57");
}

/// The kernel keeps the ID registers of its CPUs in memory, some 17 million instructions in, and asks the
/// PL031 for the time behind 285 million. Its shell is there behind 930 million.
#[test]
fn a_boot_is_the_same_on_another_qemu() {
    const POSITIONS: [u64; 3] = [30_000_000, 300_000_000, 940_000_000];
    let Some(other) = other_qemu() else {
        println!(
            "there is no other QEMU here: `cargo xtask qemu` fetches one, STEPWELL_OTHER_QEMU names it"
        );
        return;
    };
    let [here, there] = [qemu(), other].map(|qemu| {
        let setup = debian("cortex-a57", VCPUS);
        let (_machine, mut link) = launch_counted_setup_on(qemu, &setup, 50_000).unwrap();
        POSITIONS.map(|position| go(&mut link, position, false).unwrap())
    });
    assert_eq!(here, there);
}

#[test]
fn a_boot_is_the_same_in_its_replay_on_max() {
    a_boot_is_the_same_in_its_replay("max");
}
