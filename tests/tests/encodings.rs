//! Every MRS, MSR, SYS and SYSL, at EL1 and EL0, MSR (immediate), hints and barriers, and A32's
//! coprocessor transfers: what each does unstepped and stepped is what it does on plain QEMU.
//!
//! What differs for a reason is in `stepwell_tests::encodings::expected`.

#![cfg(feature = "machine")]

use stepwell_tests::encodings::{differences, on_plain, stepped, unstepped};
use stepwell_tests::guest::Guest;

fn every_encoding_does_the_same(cpu: &'static str, plain: &'static str) {
    let guest = Guest::named("encodings");
    let plain = on_plain(&guest, plain);
    let mut wrong = Vec::new();
    for (how, seen) in [("unstepped", unstepped(&guest, cpu)), ("stepped", stepped(&guest, cpu))] {
        let found = differences(&plain, &seen);
        wrong.extend(found.into_iter().map(|line| format!("{how}, {line}")));
    }
    assert!(wrong.is_empty(), "{cpu}: {} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_encoding_does_on_a_cortex_a57_what_it_does_on_plain_qemu() {
    every_encoding_does_the_same("cortex-a57", "cortex-a57");
}

#[test]
fn every_encoding_does_on_the_newest_cpu_what_it_does_on_plain_qemu() {
    every_encoding_does_the_same("max", "max,pauth-impdef=on");
}

#[test]
fn every_encoding_does_on_a_neoverse_n1_what_it_does_on_plain_qemu() {
    every_encoding_does_the_same("neoverse-n1", "neoverse-n1");
}
