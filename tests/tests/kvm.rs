//! Machines of the host's own, by KVM, in an emulated host: the contract, guests to their ends, and the
//! streams of bare-metal guests, which are those under QEMU.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use stepwell_debuggee::{
    Debuggee, Event, InterruptPolicy, StepRequest, TraceRecord, VcpuId, contract,
};
use stepwell_tests::guest;
use stepwell_tests::machine::launch;

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
const LIMIT: Duration = Duration::from_secs(60);
/// Seconds that the emulated host may take for all of it, on a busy machine.
const HOST_LIMIT: &str = "600";

/// Boots the emulated host, which runs the tests of `stepwell-kvm` and switches itself off; returns what it
/// has said.
fn boot_host(cpu: &str) -> String {
    let host = std::env::var_os("STEPWELL_KVM_HOST")
        .map_or_else(|| PathBuf::from("target/cross/host.cpio.gz"), PathBuf::from);
    assert!(host.is_file(), "{}: make it by `cargo xtask kvm`", host.display());
    let qemu = std::env::var("STEPWELL_QEMU").unwrap_or_else(|_| "qemu-system-aarch64".into());
    let mut command = Command::new("timeout");
    command.args(["-k", "1", HOST_LIMIT]).arg(qemu);
    command.args(["-machine", "virt,virtualization=on,gic-version=3", "-cpu", cpu, "-smp", "1"]);
    command.args(["-m", "1024", "-nographic", "-nic", "none", "-no-reboot"]);
    command.arg("-kernel").arg(guest::folder().join("debian/vmlinuz"));
    command.arg("-initrd").arg(host);
    command.args([
        "-append",
        "console=ttyAMA0 quiet panic=-1 run=kvm-tests,--nocapture,--test-threads,1",
    ]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the emulated host tells of streams: a guest, how many instructions, and their hash.
fn told(said: &str) -> Vec<(String, u64, u64)> {
    let line = |line: &str| {
        let (_, words) = line.split_once("stream ")?;
        let mut words = words.split_whitespace();
        let (name, count, hash) = (words.next()?, words.next()?, words.next()?);
        let hash = u64::from_str_radix(hash.trim_start_matches("0x"), 16).ok()?;
        Some((name.to_owned(), count.parse().ok()?, hash))
    };
    said.lines().filter_map(line).collect()
}

/// The hash of as many instructions of the guest under QEMU.
fn hash_under_qemu(name: &str, count: u64) -> (u64, u64) {
    let image = std::fs::read(guest::folder().join(format!("{name}.bin"))).unwrap();
    let (_machine, mut link) = launch(&image, "cortex-a57", 1).unwrap();
    contract::wait_for_stop(&mut link);
    let interrupts = link.support_interrupts().unwrap();
    interrupts.set_interrupt_policy(0, InterruptPolicy::Hold).unwrap();
    link.step(V0, StepRequest { record: true, ..StepRequest::steps(count) }).unwrap();
    while !matches!(link.wait(LIMIT).unwrap().unwrap(), Event::Stopped(_) | Event::Ended { .. }) {}
    let mut records = Vec::new();
    link.support_trace().unwrap().drain(&mut records).unwrap();
    let (mut found, mut hash) = (0, 0xcbf2_9ce4_8422_2325_u64);
    for record in records {
        let TraceRecord::Run { pc, length, .. } = record else { continue };
        for n in 0..u64::from(length) {
            found += 1;
            hash = (hash ^ (pc.0 + 4 * n)).wrapping_mul(0x100_0000_01b3);
        }
    }
    (found, hash)
}

#[test]
fn the_same_loop_runs_under_kvm() {
    let said = boot_host("cortex-a57");
    println!("{said}");
    assert!(said.contains("emulated host: status 0"), "a test failed in the emulated host");
    let streams = told(&said);
    assert!(streams.len() >= 4, "{streams:?}");
    for (name, count, hash) in streams {
        assert_eq!(hash_under_qemu(&name, count), (count, hash), "{name}");
    }
}
