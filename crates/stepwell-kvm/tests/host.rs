//! Machines of KVM's, on a host that has it: the contract of every debuggee, and guests whose streams
//! are what they are everywhere.
//!
//! `cargo xtask kvm` builds this for arm64 Linux and runs it inside an emulated host.

#![cfg(all(target_os = "linux", target_arch = "aarch64", feature = "host"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "host/hidden.rs"]
mod hidden;
#[path = "host/rates.rs"]
mod rates;
#[path = "host/traces.rs"]
mod traces;

use std::path::PathBuf;
use std::time::Duration;
use stepwell_arch::Va;
use stepwell_debuggee::{
    Debuggee, DomainEnding, Event, InterruptPolicy, OthersPolicy, Place, StepRequest, StopReason,
    TraceRecord, VcpuId, contract,
};
use stepwell_kvm::{Files, KvmMachine};
use stepwell_link::{Link, Patience, Ring};

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
/// Emulated twice, everything takes its time.
const PATIENCE: Patience =
    Patience { boot: Duration::from_secs(60), answer: Duration::from_secs(60) };

fn launch(kernel: &[u8]) -> (KvmMachine, Link) {
    open(&bare(kernel))
}

fn launch_with(kernel: &[u8], vcpus: usize) -> (KvmMachine, Link) {
    open(&Files { vcpus, ..bare(kernel) })
}

fn bare(kernel: &[u8]) -> Files<'_> {
    Files {
        kernel,
        linked: None,
        ramdisk: None,
        devicetree: None,
        command_line: "",
        vcpus: 1,
        memory_bytes: 64 * MIB,
        verbose: true,
    }
}

fn open(files: &Files<'_>) -> (KvmMachine, Link) {
    let (machine, stream) = KvmMachine::launch(files).unwrap();
    let mut link = Link::open(stream, PATIENCE).unwrap();
    let ring = machine.ring();
    link.attach_ring(Ring::map(&ring.file, 0, ring.bytes).unwrap());
    (machine, link)
}

/// A guest of the folder that the environment names.
fn guest(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("STEPWELL_GUESTS").map_or_else(|| "guests".into(), PathBuf::from);
    std::fs::read(folder.join(format!("{name}.bin"))).unwrap()
}

/// What a guest says, from where it is to its end.
fn run_to_its_end(link: &mut Link) -> (String, DomainEnding) {
    link.resume(0).unwrap();
    run_on(link)
}

fn run_on(link: &mut Link) -> (String, DomainEnding) {
    let mut said = Vec::new();
    loop {
        match link.wait(LIMIT).unwrap() {
            Some(Event::Console { bytes, .. }) => said.extend(bytes),
            Some(Event::Ended { ending, .. }) => {
                return (String::from_utf8_lossy(&said).into_owned(), ending);
            }
            Some(Event::Stopped(_)) => {}
            None => panic!("it says no more after {:?}", String::from_utf8_lossy(&said)),
        }
    }
}

#[test]
fn the_contract_is_kept() {
    let mut machine = None;
    contract::check(|| {
        // The one before ends here.
        drop(machine.take());
        let (started, link) = launch(&contract::guest_bytes());
        machine = Some(started);
        Box::new(link)
    });
}

/// A guest has vectors where the host's CPU has them.
#[test]
fn vectors_are_the_hosts() {
    let (_machine, mut link) = launch(&contract::guest_bytes());
    contract::wait_for_stop(&mut link);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let has_sve = cpus.split_whitespace().any(|word| word == "sve");
    let length = link.support_sve().unwrap().vector_length(V0);
    assert_eq!(length.is_ok(), has_sve, "{length:?}");
}

#[test]
fn a_guest_runs_to_its_end() {
    let (_machine, mut link) = launch(&guest("plain"));
    contract::wait_for_stop(&mut link);
    let (text, ending) = run_to_its_end(&mut link);
    assert_eq!(ending, DomainEnding::PoweredOff);
    assert!(text.contains("plain: ok"), "{text}");
}

/// Where `irq_storm` unmasks the timer that is pending: MSR DAIFClr, #2, of which it has one.
fn unmasks(image: &[u8]) -> Va {
    let word = 0xd503_42ff_u32.to_le_bytes();
    let n = image.chunks_exact(4).position(|bytes| bytes == word).unwrap();
    Va(0x4020_0000 + 4 * n as u64)
}

/// An interrupt that is pending where the guest was stopped is held while it is stepped: no vector.
#[test]
fn what_was_pending_is_held() {
    let image = guest("irq_storm");
    let at = Place::Va(unmasks(&image));
    let (_machine, mut link) = launch(&image);
    contract::wait_for_stop(&mut link);
    link.set_breakpoint(0, at).unwrap();
    link.resume(0).unwrap();
    assert_eq!(stopped_or_ended(&mut link), Some(StopReason::Breakpoint));
    link.clear_breakpoint(0, at).unwrap();
    let interrupts = link.support_interrupts().unwrap();
    interrupts.set_interrupt_policy(0, InterruptPolicy::Hold).unwrap();
    link.step(V0, StepRequest { record: true, ..StepRequest::steps(2000) }).unwrap();
    assert_eq!(stopped_or_ended(&mut link), Some(StopReason::Stepped));
    let mut records = Vec::new();
    link.support_trace().unwrap().drain(&mut records).unwrap();
    let outside = records
        .iter()
        .filter(|record| matches!(record, TraceRecord::Run { pc, .. } if pc.0 < unmasks(&image).0));
    assert_eq!(outside.count(), 0, "an interrupt was taken: the vectors lie below");
    let (text, _) = run_to_its_end(&mut link);
    assert!(text.contains("irq_storm: ok"), "{text}");
}

/// Locks and counters that four vCPUs share come out right, whatever becomes of them under steps.
#[test]
fn several_vcpus_share_memory() {
    let image = guest("hammer");
    let policies = [OthersPolicy::Stop, OthersPolicy::STEP, OthersPolicy::Run];
    for policy in std::iter::once(None).chain(policies.map(Some)) {
        let (_machine, mut link) = launch_with(&image, 4);
        contract::wait_for_stop(&mut link);
        if let Some(policy) = policy {
            link.support_others().unwrap().set_others_policy(0, policy).unwrap();
            link.step(V0, StepRequest::steps(6000)).unwrap();
            assert_eq!(stopped_or_ended(&mut link), Some(StopReason::Stepped), "{policy:?}");
        }
        let (text, ending) = run_to_its_end(&mut link);
        assert_eq!(ending, DomainEnding::PoweredOff, "{policy:?}");
        assert!(text.contains("hammer: ok 0x400"), "{policy:?}: {text}");
    }
}

/// Guests that need no interrupt controller, and steps that say enough of each.
const STREAMS: [(&str, u64); 12] = [
    ("plain", 4000),
    ("exclusives", 4000),
    ("exceptions", 4000),
    ("simd", 2000),
    ("encodings", 1500),
    ("loop_sum", 1500),
    ("own_text", 1500),
    ("remap", 1500),
    ("ram_clean", 1500),
    ("psci", 1500),
    ("sysregs", 1500),
    ("device_forms", 1500),
];

/// What a stepped guest has executed: how many instructions, and a hash of their addresses (FNV-1a).
/// It is told, so that whoever runs this can compare it with another machine's.
#[test]
fn streams_are_told() {
    for (name, steps) in STREAMS {
        let (_machine, mut link) = launch(&guest(name));
        contract::wait_for_stop(&mut link);
        let interrupts = link.support_interrupts().unwrap();
        interrupts.set_interrupt_policy(0, InterruptPolicy::Hold).unwrap();
        link.step(V0, StepRequest { record: true, ..StepRequest::steps(steps) }).unwrap();
        let stopped = stopped_or_ended(&mut link);
        let mut records = Vec::new();
        link.support_trace().unwrap().drain(&mut records).unwrap();
        let (mut count, mut hash) = (0_u64, 0xcbf2_9ce4_8422_2325_u64);
        for record in records {
            let TraceRecord::Run { pc, length, .. } = record else { continue };
            for n in 0..u64::from(length) {
                count += 1;
                hash = (hash ^ (pc.0 + 4 * n)).wrapping_mul(0x100_0000_01b3);
            }
        }
        println!("stream {name} {count} {hash:#x}");
        assert!(count == steps || stopped.is_none(), "{count} of {steps}: {stopped:?}");
    }
}

/// How the steps have ended; nothing where the guest has.
fn stopped_or_ended(link: &mut Link) -> Option<StopReason> {
    loop {
        match link.wait(LIMIT).unwrap() {
            Some(Event::Stopped(stop)) => return Some(stop.reason),
            Some(Event::Ended { .. }) => return None,
            Some(Event::Console { .. }) => {}
            None => panic!("the steps do not end"),
        }
    }
}
