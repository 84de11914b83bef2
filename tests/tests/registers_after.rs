//! After stepping is switched off no register tells that it was ever on.
//!
//! The same place is reached unstepped, and by stepping to another place before; then all that the
//! stepper's `r` shows must be equal: core registers, PSTATE, system registers.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::guest::Guest;
use stepwell_tests::plain::Setup;
use stepwell_tests::stepwell::type_at_stepper;

const LIMIT: Duration = Duration::from_secs(120);
/// What depends on when it is read, and is equal in no two runs.
const OF_TIME: [&str; 6] = [
    "CNTVCT_EL0",
    "CNTPCT_EL0",
    "CNTV_CVAL_EL0",
    "CNTV_TVAL_EL0",
    "CNTP_CVAL_EL0",
    "CNTP_TVAL_EL0",
];

/// The lines that `r` printed, without those of time.
fn registers(guest: &Guest, options: &[&str], script: &str) -> Vec<String> {
    let finished = type_at_stepper(&Setup::new(&guest.path), options, script, LIMIT).unwrap();
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
    let lines: Vec<String> = finished
        .stdout
        .lines()
        .filter(|line| is_register_line(line))
        .map(str::trim)
        .map(str::to_owned)
        .collect();
    assert!(lines.len() >= 10, "few registers in: {}", finished.output());
    lines
}

fn is_register_line(line: &str) -> bool {
    let upper = line.to_uppercase();
    let names = ["X0", "X4", "X8", "SP ", "PC ", "PSTATE", "_EL1", "_EL0"];
    let is_register = names.iter().any(|name| upper.contains(name)) && upper.contains("0X");
    is_register && !OF_TIME.iter().any(|name| upper.contains(name))
}

fn same_registers(name: &str, place: u64) {
    let guest = Guest::named(name);
    let at = format!("{place:#x}");
    let unstepped = registers(&guest, &["--at", &at], "r\nx\n");
    // Stepped for a while, then on at full speed to a breakpoint.
    let script = format!("s 500\nu {at}\nr\nx\n");
    let stepped = registers(&guest, &["--at", "reset", "--irq", "hold"], &script);
    assert_eq!(unstepped, stepped, "{name}: left unstepped, right stepped before");
}

#[test]
fn at_a_loop() {
    let place = Guest::named("loop_sum").counting_loop.unwrap().start;
    same_registers("loop_sum", place);
}

#[test]
fn after_the_timer_was_set_up() {
    let place = Guest::named("timer").exact_end.unwrap();
    same_registers("timer", place);
}

#[test]
fn after_the_gic_was_set_up() {
    let place = Guest::named("gic").exact_end.unwrap();
    same_registers("gic", place);
}
