//! Conformance: each case of the guest `conform` is reported as it declares, in every view.
//!
//! What is compared, and with what, is told in `stepwell_tests::conformance`. The table of case and
//! result is printed and kept in `docs/conformance.md`; after a change of the cases,
//! `STEPWELL_BLESS=1 cargo xtask test conformance` writes it anew.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;

use stepwell_tests::conformance::observe::{guest, observe};
use stepwell_tests::conformance::{Table, View, document};

/// The tool starts the second one as `max,pauth-impdef=on`.
const CPUS: [&str; 2] = ["cortex-a57", "max"];

#[test]
fn every_case_is_reported_as_it_declares() {
    let (_, places) = guest();
    let mut table = Table::default();
    // A thread for each CPU; QEMU lives no longer than the thread that started it.
    let observed = thread::scope(|scope| {
        let threads = CPUS
            .map(|cpu| scope.spawn(move || View::ALL.map(|view| (view, cpu, observe(view, cpu)))));
        threads.map(|thread| thread.join().unwrap())
    });
    for (view, cpu, observation) in observed.into_iter().flatten() {
        table.take(view, cpu, &places, observation);
    }
    println!("{}", table.markdown());
    let failures = table.failures();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    document::keep(document::Part::Cases, &table.document());
}
