//! Conformance: each case of the guest `conform` is reported as it declares, in every view.
//!
//! What is compared, and with what, is told in `stepwell_tests::conformance`. The table of case and
//! result is kept in `docs/conformance.md`; after a change of the cases,
//! `STEPWELL_BLESS=1 cargo xtask test conformance` writes it anew.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;

use stepwell_debuggee::InterruptPolicy;
use stepwell_engine::mutation::Mutant;
use stepwell_tests::conformance::observe::{Circumstances, guest, observe};
use stepwell_tests::conformance::{Table, View, document, mutants};

/// What the hypervisor's test mode does to every run: percentages of events.
const ADVERSITY: &str = "pending=20,before=10,stage2=5,pause=5";
/// Each seed is another run of bad luck.
const SEEDS: [u32; 2] = [1, 2];

/// The tool starts the second one as `max,pauth-impdef=on`.
const CPUS: [&str; 2] = ["cortex-a57", "max"];

#[test]
fn every_case_is_reported_as_it_declares() {
    let (_, places) = guest();
    let mut table = Table::default();
    // A thread for each CPU; QEMU lives no longer than the thread that started it.
    let observed = thread::scope(|scope| {
        let threads = CPUS.map(|cpu| {
            scope.spawn(move || {
                View::ALL.map(|view| (view, cpu, observe(view, Circumstances::plain(cpu))))
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    for (view, cpu, observation) in observed.into_iter().flatten() {
        table.take(view, cpu, &places, observation);
    }
    let failures = table.failures();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    document::keep(document::Part::Cases, &table.document());
}

/// Exits between an instruction and its step exception, exits before it, withdrawn pages, calls out of
/// the guest with stepping switched off and on: QEMU does none of these by itself, and none may show.
#[test]
fn nothing_shows_of_what_the_test_mode_does() {
    let (_, places) = guest();
    let mut table = Table::default();
    // Not stop by stop, which takes minutes (see the page).
    let stepped = View::ALL.into_iter().filter(|view| matches!(view, View::Recorded(_)));
    let observed = thread::scope(|scope| {
        let threads = [0, 1].map(|n| {
            let words = format!("seed={},{ADVERSITY}", SEEDS[n]);
            let views = stepped.clone();
            scope.spawn(move || {
                let circumstances =
                    Circumstances { test_mode: Some(&words), ..Circumstances::plain(CPUS[n]) };
                // A stop in the middle of a handler that is stepped over is one in the handler.
                let patient = words.replace("pause=5", "pause=0");
                let over = Circumstances { test_mode: Some(&patient), ..circumstances };
                let in_view = |view| match view {
                    View::Recorded(InterruptPolicy::Over) => observe(view, over),
                    view => observe(view, circumstances),
                };
                views.map(|view| (view, CPUS[n], in_view(view))).collect::<Vec<_>>()
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    for (view, cpu, observation) in observed.into_iter().flatten() {
        table.take(view, cpu, &places, observation);
    }
    let failures = table.failures();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_guests_kill_at_least_half_of_the_mutants() {
    let (_, places) = guest();
    let words = format!("seed={},{ADVERSITY}", SEEDS[0]);
    let (even, odd): (Vec<_>, Vec<_>) =
        Mutant::ALL.iter().enumerate().partition(|(n, _)| n % 2 == 0);
    let mut verdicts: Vec<_> = thread::scope(|scope| {
        let threads = [even, odd].map(|half| {
            let (words, places) = (&words, &places);
            let judge = move |(n, &mutant)| (n, mutants::judge(mutant, words, places));
            scope.spawn(move || half.into_iter().map(judge).collect::<Vec<_>>())
        });
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    verdicts.sort_by_key(|(n, _)| *n);
    let verdicts: Vec<_> = verdicts.into_iter().map(|(_, verdict)| verdict).collect();
    let text = mutants::markdown(&verdicts);
    println!("{text}");
    let killed = verdicts.iter().filter(|verdict| verdict.killed.is_some()).count();
    assert!(2 * killed >= verdicts.len(), "the guests kill less than half:\n{text}");
    // Which case is the first to differ depends on time; only what is asserted above must not.
    if std::env::var_os("STEPWELL_BLESS").is_some() {
        document::keep(document::Part::Mutants, &text);
    }
}
