//! Debian's kernel boots to a shell and powers off, on each CPU model and number of CPUs.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::guest::folder;
use stepwell_tests::plain::Setup;
use stepwell_tests::stepwell::run_guest;

const LIMIT: Duration = Duration::from_secs(240);

fn boots(cpu: &'static str, smp: u8) {
    let setup = Setup {
        initrd: Some(folder().join("debian/initramfs.cpio.gz")),
        append: Some("console=ttyAMA0 stepwell.poweroff".to_owned()),
        cpu,
        smp,
        memory_mib: 512,
        ..Setup::new(&folder().join("debian/vmlinuz"))
    };
    let finished = run_guest(&setup, LIMIT).unwrap();
    let said = finished.output();
    assert!(finished.status.success(), "{cpu} with {smp}: {said}");
    assert!(finished.stdout.contains("Linux version"), "{cpu} with {smp}: {said}");
    assert!(finished.stdout.contains("reboot: Power down"), "{cpu} with {smp}: {said}");
    let cpus = format!("smp: Brought up 1 node, {smp} CPU");
    assert!(finished.stdout.contains(&cpus), "{cpu} with {smp}: {said}");
    for trouble in ["Kernel panic", "rcu: INFO", "soft lockup", "Oops", "BUG:"] {
        assert!(!finished.stdout.contains(trouble), "{cpu} with {smp}: {trouble}: {said}");
    }
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
}

macro_rules! matrix {
    ($($name:ident $cpu:literal $smp:literal)*) => {$(
        #[test]
        fn $name() {
            boots($cpu, $smp);
        }
    )*};
}

matrix! {
    cortex_a57_with_1_cpu "cortex-a57" 1
    cortex_a57_with_2_cpus "cortex-a57" 2
    cortex_a57_with_4_cpus "cortex-a57" 4
    cortex_a57_with_8_cpus "cortex-a57" 8
    max_with_1_cpu "max" 1
    max_with_2_cpus "max" 2
    max_with_4_cpus "max" 4
}
