//! After stepping is switched off no register tells that it was ever on.
//!
//! The same place is reached unstepped, and by stepping to another place before; then all that the
//! stepper's `r` shows must be equal: core registers, PSTATE, system registers. The guests and the
//! stretch of the kernel are such that nothing in them depends on time.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use stepwell_tests::guest::{Guest, folder};
use stepwell_tests::plain::Setup;
use stepwell_tests::stepwell::type_at_stepper;

const LIMIT: Duration = Duration::from_secs(300);

/// What `r` printed, by name.
fn registers(setup: &Setup, options: &[&str], script: &str) -> BTreeMap<String, String> {
    let finished = type_at_stepper(setup, options, script, LIMIT).unwrap();
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
    let words: Vec<&str> = finished.stdout.split_whitespace().collect();
    let found: BTreeMap<String, String> = words
        .windows(2)
        .filter(|pair| is_register(pair[0]) && is_number(pair[1]))
        .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
        .collect();
    for name in ["x0", "x30", "sp", "pc", "pstate", "SCTLR_EL1", "SPSR_EL1", "MDSCR_EL1"] {
        assert!(found.contains_key(name), "no {name} in: {}", finished.output());
    }
    found
}

fn is_register(word: &str) -> bool {
    let numbered = word.strip_prefix('x').is_some_and(|n| n.parse::<u8>().is_ok());
    numbered
        || ["sp", "pc", "pstate"].contains(&word)
        || word.ends_with("_EL0")
        || word.ends_with("_EL1")
}

fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Compares at `at`; `before` steps must not lead there yet.
fn same_registers(setup: &Setup, at: &str, before: u32) {
    let unstepped = registers(setup, &["--at", at], "r\nx\n");
    // Stepped for a while, then on at full speed to the place.
    let script = format!("s {before}\nu {at}\nr\nx\n");
    let stepped = registers(setup, &["--at", "reset", "--irq", "hold"], &script);
    for (name, value) in &unstepped {
        assert_eq!(stepped.get(name), Some(value), "{name} at {at}: stepped, unstepped");
    }
    assert_eq!(unstepped.len(), stepped.len());
}

fn same_in_guest(name: &str, before: u32, place: fn(&Guest) -> u64) {
    let guest = Guest::named(name);
    same_registers(&Setup::new(&guest.path), &format!("{:#x}", place(&guest)), before);
}

#[test]
fn at_a_loop() {
    same_in_guest("loop_sum", 20, |guest| guest.counting_loop.clone().unwrap().start);
}

#[test]
fn after_the_gic_was_set_up() {
    same_in_guest("gic", 500, |guest| guest.exact_end.unwrap());
}

#[test]
fn after_firmware_calls() {
    same_in_guest("psci", 500, |guest| guest.exact_end.unwrap());
}

#[test]
fn at_start_kernel() {
    let setup = Setup {
        initrd: Some(folder().join("debian/initramfs.cpio.gz")),
        append: Some("console=ttyAMA0 nokaslr".to_owned()),
        memory_mib: 512,
        ..Setup::new(&folder().join("debian/vmlinuz"))
    };
    same_registers(&setup, "start_kernel", 500);
}
