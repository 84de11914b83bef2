//! What the fast path costs, in EL2 instructions counted by QEMU: the same number in every run.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stepwell_tests::cost::{self, Cost, Programs};
use stepwell_tests::machine::hypervisor;
use stepwell_tests::process::qemu;

/// Most EL2 instructions of a plain step.
const SILENT_MAX: f64 = 40.0;
/// And of one that is recorded.
const TRACED_MAX: f64 = 64.0;

/// Most of the others, silent and traced, in the order of README's table, which has what they are.
const SLOW: [(f64, f64); 8] = [
    (857.0, 1003.0),
    (1659.0, 2137.0),
    (1387.0, 2216.0),
    (737.0, 883.0),
    (66.0, 110.0),
    (712.0, 858.0),
    (41.0, 46.0),
    (11_826.0, 13_181.0),
];
/// What another compiler may make of the same source.
const SPREAD: f64 = 1.02;

#[test]
fn a_plain_step_stays_within_its_limits() {
    let programs = Programs { qemu: qemu(), hypervisor: Some(hypervisor()) };
    let (bare, costs) = cost::count(&programs).unwrap();
    println!("{bare} {costs:#?}");
    assert_eq!(bare.round(), 14.0, "the bare loop is what it was");
    let [plain, branch, ..] = costs[..] else { panic!("{costs:?}") };
    assert!(plain.silent <= SILENT_MAX, "{plain:?}");
    assert!(plain.traced <= TRACED_MAX, "{plain:?}");
    // What little is not whole is that a longer run is not told quite as a shorter one is.
    let whole = |cost: Cost| (cost.silent.round(), cost.traced.round());
    // As ARCHITECTURE.md has them, instruction by instruction: change them there, too.
    assert_eq!(whole(plain), (31.0, 36.0), "{plain:?}");
    // A look at whether the guest spins may fall into either of two runs alone.
    let (silent, traced) = whole(branch);
    assert!((-1.0..=1.0).contains(&silent) && (16.0..=18.0).contains(&traced), "{branch:?}");
    // The others leave the fast path, at least where a turn ends.
    assert_eq!(costs[2..].len(), SLOW.len(), "each has its limits");
    for (cost, (silent, traced)) in costs[2..].iter().zip(SLOW) {
        assert!((plain.silent..=silent * SPREAD).contains(&cost.silent), "{cost:?}");
        assert!((cost.silent..=traced * SPREAD).contains(&cost.traced), "{cost:?}");
    }
}
