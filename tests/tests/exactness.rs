//! Exactness: the recorded stream equals the one that QEMU reports for the same guest.
//!
//! Both runs have the same device tree and layout, and interrupts are held in Stepwell. Where the
//! streams may differ all the same is said here, and nowhere else:
//!
//! - *Interrupts*: the witness takes them, the recording holds them. The handlers' instructions
//!   (from an IRQ vector to the one ERET of interrupts) are left out of the witness's stream.
//! - *Time*: code in the guest's section `timed` loops on the counter. It is left out of both.
//! - *What waits for an interrupt* never ends when they are held: from the guest's symbol
//!   `exact_end` on, nothing is compared.
//! - *Fetches that abort*: a stepper stops at the address before it is fetched; QEMU never gets to
//!   report it. Addresses outside of the guest's memory are left out of both.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::guest::{Guest, LOAD, folder};
use stepwell_tests::plain::{Setup, dump_device_tree, witness};
use stepwell_tests::stepwell::{Recording, record};
use stepwell_tests::stream::{demand_equal, first_divergence, until, without_ranges};

const LIMIT: Duration = Duration::from_secs(300);

/// Addresses at which no instruction of a guest can be: devices, and beyond the aliases of RAM.
const NOT_MEMORY: [std::ops::Range<u64>; 2] = [0..0x4000_0000, 0x1_0000_0000..u64::MAX];

/// Compares the first `steps` recorded instructions of a guest (all up to `exact_end` if fewer).
fn exact(name: &str, cpu: &'static str, steps: usize) {
    let guest = Guest::named(name);
    let setup = Setup { cpu, ..Setup::new(&guest.path) };
    let folder = tempfile::tempdir().unwrap();
    let dtb = folder.path().join("plain.dtb");
    dump_device_tree(&setup, &dtb).unwrap();
    // The witness's interrupts take instructions too: let it run longer.
    let seen = witness(&setup, LOAD, 8 * steps, LIMIT).unwrap().swap_remove(0);
    let wanted = Recording { at: "reset", steps, irq: "hold", dtb: Some(&dtb) };
    let taken = record(&setup, wanted, LIMIT).unwrap_or_else(|error| panic!("{name}: {error}"));
    let witnessed = without_ranges(&guest.exact_part(&seen), &NOT_MEMORY);
    let recorded = without_ranges(&guest.exact_part(&taken), &NOT_MEMORY);
    let length = match guest.exact_end {
        Some(end) if taken.contains(&end) => {
            assert!(seen.contains(&end), "{name}: the witness did not get to the end");
            witnessed.len()
        }
        None if taken.len() < steps => {
            // The call that powers off does not complete: a recording may end before it.
            assert!(recorded.len() <= witnessed.len(), "{name}: steps after the power-off");
            witnessed.len() - 1
        }
        _ => {
            assert_eq!(taken.len(), steps, "{name}: fewer steps than asked for, and no end");
            witnessed.len().min(recorded.len())
        }
    };
    assert!(length > 100, "{name}: only {length} instructions to compare");
    if let Err(text) = demand_equal(length, ("witness", &witnessed), ("stepwell", &recorded)) {
        panic!("{name} on {cpu}: {text}");
    }
}

macro_rules! exact_guests {
    ($($name:ident $steps:literal)*) => {$(
        #[test]
        fn $name() {
            exact(stringify!($name), "cortex-a57", $steps);
        }
    )*};
}

// `bad_random_sysregs` is compared up to its first access to RVBAR_EL1, some 1,498,000 instructions
// in: that register exists at the highest exception level only, which is EL1 on the witness and EL2
// under Stepwell, and its absence goes to the guest's EL1 without EL2 being asked.
exact_guests! {
    plain 200_000
    loop_sum 200_000
    exclusives 200_000
    exceptions 200_000
    sysregs 200_000
    debug_own 200_000
    precedence 200_000
    uart 200_000
    gic 200_000
    seed 400_000
    irq_storm 100_000
    sgi 100_000
    timer 100_000
    wfx 100_000
    psci 100_000
    bad_gic 1_000_000
    bad_psci 200_000
    bad_random_sysregs 1_400_000
    simd 200_000
    device_forms 200_000
}

#[test]
fn on_another_cpu() {
    for name in ["plain", "exclusives", "exceptions", "loop_sum", "precedence"] {
        exact(name, "max", 200_000);
    }
}

#[test]
fn the_first_200_000_instructions_of_the_kernel() {
    let length = 200_000;
    let setup = Setup {
        initrd: Some(folder().join("debian/initramfs.cpio.gz")),
        append: Some("console=ttyAMA0 nokaslr".to_owned()),
        memory_mib: 512,
        ..Setup::new(&folder().join("debian/vmlinuz"))
    };
    let folder = tempfile::tempdir().unwrap();
    let dtb = folder.path().join("plain.dtb");
    dump_device_tree(&setup, &dtb).unwrap();
    let seen = witness(&setup, LOAD, length, LIMIT).unwrap().swap_remove(0);
    assert!(seen.len() >= length, "the witness saw {} instructions only", seen.len());
    let wanted = Recording { at: "reset", steps: length, irq: "hold", dtb: Some(&dtb) };
    let taken = record(&setup, wanted, LIMIT).unwrap();
    if let Err(text) = demand_equal(length, ("witness", &seen), ("stepwell", &taken)) {
        panic!("{text}");
    }
}

/// The comparison itself must be able to fail.
#[test]
fn a_stream_with_a_lost_step_is_not_taken_for_exact() {
    let guest = Guest::named("loop_sum");
    let setup = Setup::new(&guest.path);
    let seen = witness(&setup, LOAD, 5_000, LIMIT).unwrap().swap_remove(0);
    let again = witness(&setup, LOAD, 5_000, LIMIT).unwrap().swap_remove(0);
    assert_eq!(first_divergence(&seen, &again), None);
    let start = guest.counting_loop.unwrap().start;
    let mut lost = seen.clone();
    lost.remove(until(&seen, start).len() + 100);
    assert!(demand_equal(5_000, ("witness", &seen), ("lost", &lost)).is_err());
}
