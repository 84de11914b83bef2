//! Interrupts as the guest sees them: what is pending, what is held, what was withdrawn, and whether
//! any is late.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::cross_calls::{Calls, cross_calls};
use stepwell_tests::guest::Guest;
use stepwell_tests::plain::{Setup, console};
use stepwell_tests::process::{Finished, run};
use stepwell_tests::stepwell::{command, run_guest};

const LIMIT: Duration = Duration::from_secs(300);
const CPUS: [&str; 2] = ["cortex-a57", "max"];

fn traced(setup: &Setup, options: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let mut trace = command("trace", setup);
    trace.args(["--steps", "1000000000", "--quiet", "-o"]).arg(folder.path().join("r.stepwell"));
    run(trace.args(options), LIMIT).unwrap()
}

/// ISR_EL1, HPPIR, IAR, ISPENDR, ISTATUS and WFI agree on what is pending, also right after a timer
/// was switched off, masked or moved; with `hold` they do where nothing masks.
#[test]
fn all_registers_agree_on_what_is_pending() {
    let guest = Guest::named("pending");
    for cpu in CPUS {
        let setup = Setup { cpu, ..Setup::new(&guest.path) };
        let plain = console(&setup, LIMIT).unwrap();
        assert!(plain.stdout.contains("pending: ok 0x0"), "plain on {cpu}: {}", plain.output());
        let free = run_guest(&setup, LIMIT).unwrap();
        assert!(free.stdout.contains("pending: ok 0x0"), "unstepped on {cpu}: {}", free.output());
        for (irq, result) in [("hold", "0x1"), ("into", "0x0"), ("over", "0x0")] {
            for time in ["stopped", "real"] {
                let said = traced(&setup, &["--irq", irq, "--time", time]);
                let wanted = format!("pending: ok {result}");
                let what = format!("{irq}, {time}, {cpu}");
                assert!(said.stdout.contains(&wanted), "{what}: {}", said.output());
            }
        }
    }
}

/// A loop that counts, or looks at the clock, while it waits for another vCPU comes to its end.
#[test]
fn waits_with_time_outs_end_under_every_policy() {
    let guest = Guest::named("time_outs");
    let setup = Setup { cpu: "cortex-a57", smp: 2, ..Setup::new(&guest.path) };
    for others in ["stop", "step", "run"] {
        let said = traced(&setup, &["--others", others]);
        assert!(said.stdout.contains("time_outs: ok 0x14"), "{others}: {}", said.output());
    }
}

/// What another vCPU has acknowledged is active at the first look, and ends where somebody else ends it.
#[test]
fn another_vcpus_interrupts_are_seen_and_ended() {
    let guest = Guest::named("gic_others");
    for cpu in CPUS {
        let setup = Setup { cpu, smp: 2, ..Setup::new(&guest.path) };
        let plain = console(&setup, LIMIT).unwrap();
        assert!(plain.stdout.contains("gic_others: ok 0x4"), "plain: {}", plain.output());
        let free = run_guest(&setup, LIMIT).unwrap();
        assert!(free.stdout.contains("gic_others: ok 0x4"), "unstepped: {}", free.output());
        for others in ["stop", "step", "run"] {
            let said = traced(&setup, &["--irq", "into", "--others", others]);
            let is_right = said.stdout.contains("gic_others: ok 0x4");
            assert!(is_right, "{others}, {cpu}: {}", said.output());
        }
    }
}

/// Four vCPUs call each other and set timers, one of them stepped, their threads suspended at random:
/// the short form of `cargo xtask soak --interrupts`. Where the host has no time for QEMU's main
/// thread, which lets timers go off, these come late; what is lost does not come at all.
#[test]
fn no_interrupt_is_late() {
    let (duration, late) = (Duration::from_secs(15), Duration::from_millis(250));
    let calls = Calls { smp: 4, irq: "into", duration, late };
    let outcome = cross_calls(&calls, &mut |_| {}).unwrap();
    assert!(outcome.suspensions > 100, "{outcome}");
    assert!(outcome.delivered > 100, "{outcome}");
}
