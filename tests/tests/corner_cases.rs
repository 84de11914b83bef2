//! Guests that print what they see: freely, with hidden breakpoints and stepped it is what they see on
//! plain QEMU.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stepwell_tests::guest::Guest;
use stepwell_tests::plain::qemu_version;
use stepwell_tests::ways::{EVERY, Way, debugged, differences, on_plain};

/// CPUs, each with what it is called where nobody debugs it.
const CPUS: [&str; 2] = ["cortex-a57", "max"];

fn is_the_same_in_every_way(name: &str, is_right: fn(&str, Way) -> bool) {
    let guest = Guest::named(name);
    let mut wrong = Vec::new();
    for cpu in CPUS {
        let plain = on_plain(&guest, cpu, 1).unwrap();
        for way in EVERY {
            let seen = debugged(&guest, cpu, 1, way).unwrap();
            let found = differences(&plain, &seen).into_iter().filter(|line| !is_right(line, way));
            wrong.extend(found.map(|line| format!("{cpu}, {way:?}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn breakpoints_and_watchpoints_of_the_guests_own_hit_where_they_do() {
    is_the_same_in_every_way("debug_controls", |_, _| false);
}

/// A store-exclusive that stores more or less than its load read: QEMU says that it has failed, and here it
/// succeeds (docs/qemu.md).
fn is_of_another_size(line: &str) -> bool {
    ["x_larger ", "x_smaller "].iter().any(|name| line.starts_with(name))
}

/// A store-exclusive that may not even load, because of PAN: QEMU's ESR_EL1.WnR is 0, and stepped it is the
/// manual's (docs/qemu.md). The line is the same but for that.
fn is_of_a_store(line: &str) -> bool {
    let Some((seen, plain)) = line.split_once("\n  and on plain QEMU ") else { return false };
    seen.starts_with("x_pan ") && seen.replace("0x9600004d", "0x9600000d") == plain
}

/// A load-exclusive within 16 bytes with stage 1 off: newer QEMUs have the alignment fault of a CPU with
/// FEAT_LSE2 without an EL2, and none below one that has stage 2 on (docs/qemu.md).
fn is_of_an_odd_address(line: &str) -> bool {
    let Some((seen, plain)) = line.split_once("\n  and on plain QEMU ") else { return false };
    let is_newer = qemu_version().is_some_and(|(major, _)| major >= 8);
    is_newer
        && [seen, plain].iter().all(|line| line.starts_with("x_odd_half "))
        && ["| 0x96000021 ", "| 0x92000021 "].iter().any(|syndrome| plain.contains(syndrome))
        && !seen.contains('|')
}

#[test]
fn corner_cases_are_what_they_are() {
    is_the_same_in_every_way("corner_cases", |line, way| {
        let is_stepped = matches!(way, Way::Stepped(..));
        is_of_another_size(line) || is_of_an_odd_address(line) || is_stepped && is_of_a_store(line)
    });
}
