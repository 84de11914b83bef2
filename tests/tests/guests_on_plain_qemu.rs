//! The guests themselves, without Stepwell: each must pass where it is known what is right.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::guest::{Guest, LOAD};
use stepwell_tests::plain::{Setup, console, witness};
use stepwell_tests::stream::demand_equal;

const LIMIT: Duration = Duration::from_secs(180);

fn passes(name: &str, cpu: &'static str, smp: u8) {
    let guest = Guest::named(name);
    let setup = Setup { cpu, smp, ..Setup::new(&guest.path) };
    let finished = console(&setup, LIMIT).unwrap();
    assert!(guest.succeeded(&finished.stdout), "{name} on {cpu}: {}", finished.output());
}

#[test]
fn every_good_guest_passes_on_both_cpus() {
    for name in [
        "plain",
        "loop_sum",
        "exclusives",
        "exceptions",
        "seed",
        "irq_storm",
        "sgi",
        "timer",
        "gic",
        "uart",
        "psci",
        "sysregs",
        "debug_own",
        "precedence",
        "own_text",
        "wfx",
        "aarch32",
        "bad_gic",
        "bad_psci",
        "bad_random_sysregs",
        "firmware",
    ] {
        for cpu in ["cortex-a57", "max"] {
            passes(name, cpu, 1);
        }
    }
}

#[test]
fn several_cpus_pass() {
    for name in ["psci", "hammer", "ticks"] {
        for smp in [2, 4, 8] {
            passes(name, "cortex-a57", smp);
        }
    }
}

/// What is compared with Stepwell must not depend on when interrupts came, or on time.
#[test]
fn the_exact_part_of_each_guest_is_the_same_in_two_runs() {
    for name in ["seed", "irq_storm", "sgi", "timer", "gic", "psci", "wfx", "exceptions", "plain"] {
        let guest = Guest::named(name);
        let setup = Setup::new(&guest.path);
        let [one, other] = [(); 2].map(|()| {
            let stream = witness(&setup, LOAD, 400_000, LIMIT).unwrap().swap_remove(0);
            guest.exact_part(&stream)
        });
        let length = one.len().min(other.len());
        assert!(length > 100, "{name}: {length} instructions only");
        if let Err(text) = demand_equal(length, ("one run", &one), ("another", &other)) {
            panic!("{name}: {text}");
        }
    }
}
