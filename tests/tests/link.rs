//! The link to the real hypervisor: the contract of every debuggee, monitors, breakpoints.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell::machine::QemuMachine;
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_debuggee::{
    Debuggee, DomainEnding, Event, Monitor, Place, Refusal, Stop, StopReason, VcpuId, contract,
};
use stepwell_link::Link;
use stepwell_tests::guest::Guest;
use stepwell_tests::machine::launch;

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
/// `b .`
const FOREVER: u32 = 0x1400_0000;
const LIMIT: Duration = Duration::from_secs(60);

/// Where the guest's vectors are put, and the code at the one for synchronous exceptions.
const VECTORS: u64 = 0x4200_0000;
const SKIP: [u32; 4] = [
    0xd538_4026, // mrs  x6, elr_el1
    0x9100_10c6, // add  x6, x6, #4
    0xd518_4026, // msr  elr_el1, x6
    0xd69f_03e0, // eret
];

/// Starts the contract's guest. Its SMC is undefined on this board, so it gets a vector to skip it.
fn contract_guest(cpu: &str, smp: u8) -> (QemuMachine, Link) {
    let (machine, mut link) = launch(&contract::guest_bytes(), cpu, smp).unwrap();
    let skip: Vec<u8> = SKIP.iter().flat_map(|word| word.to_le_bytes()).collect();
    link.write_memory(V0, Place::Ipa(Ipa(VECTORS + 0x200)), &skip).unwrap();
    let base = SystemRegister::from_name("VBAR_EL1").unwrap();
    let system = link.support_system_registers().unwrap();
    system.write_system_register(V0, base.0, VECTORS).unwrap();
    (machine, link)
}

fn keeps_the_contract(cpu: &str) {
    let mut machine = None;
    contract::check(|| {
        // The one before ends here.
        drop(machine.take());
        let (started, link) = contract_guest(cpu, 1);
        machine = Some(started);
        Box::new(link)
    });
}

#[test]
fn the_contract_is_kept_on_cortex_a57() {
    keeps_the_contract("cortex-a57");
}

#[test]
fn the_contract_is_kept_on_max() {
    keeps_the_contract("max");
}

fn refusal(result: Result<(), stepwell_debuggee::Error>) -> Option<Refusal> {
    result.unwrap_err().refusal()
}

fn monitor(link: &mut Link, vcpu: Option<u8>, monitor: Monitor, on: bool) -> Option<Refusal> {
    let result = link.support_monitors().unwrap().set_monitor(0, vcpu, monitor, on);
    result.err().map(|error| error.refusal().unwrap())
}

fn resume(link: &mut Link) -> Stop {
    link.resume(0).unwrap();
    contract::wait_for_stop(link).0
}

/// Single-stepping by monitor: each time it is let go, the guest makes one step.
fn single_steps(vcpu: Option<u8>) {
    let (_machine, mut link) = contract_guest("cortex-a57", 2);
    contract::wait_for_stop(&mut link);
    assert_eq!(monitor(&mut link, vcpu, Monitor::SingleStep, true), None);
    let again = monitor(&mut link, vcpu, Monitor::SingleStep, true);
    assert_eq!(again, Some(Refusal::AlreadySet(true)));
    assert_eq!(again.unwrap().to_string(), "already enabled");
    for step in 1..5 {
        let pc = contract::ENTRY.offset(4 * step);
        let expected = Stop { vcpu: V0, reason: StopReason::Stepped, pc, steps: 1 };
        assert_eq!(resume(&mut link), expected);
    }
    assert_eq!(monitor(&mut link, vcpu, Monitor::SingleStep, false), None);
    let again = monitor(&mut link, vcpu, Monitor::SingleStep, false);
    assert_eq!(again, Some(Refusal::AlreadySet(false)));
    link.resume(0).unwrap();
    let ending = loop {
        match link.wait(LIMIT).unwrap() {
            Some(Event::Console { .. }) => {}
            other => break other,
        }
    };
    let off = Event::Ended { domain: 0, ending: DomainEnding::PoweredOff };
    assert_eq!(ending, Some(off), "it runs on as if it had never been monitored");
}

#[test]
fn single_step_is_monitored_for_a_domain() {
    single_steps(None);
}

#[test]
fn single_step_is_monitored_for_one_vcpu() {
    single_steps(Some(0));
}

#[test]
fn monitoring_another_vcpu_leaves_this_one_alone() {
    let (_machine, mut link) = contract_guest("cortex-a57", 2);
    contract::wait_for_stop(&mut link);
    let nobody = monitor(&mut link, Some(2), Monitor::SingleStep, true);
    assert_eq!(nobody, Some(Refusal::NoSuchVcpu));
    for kind in [Monitor::SingleStep, Monitor::PrivilegedCall] {
        assert_eq!(monitor(&mut link, Some(1), kind, true), None);
        // All are wanted and one is on: that is a change.
        assert_eq!(monitor(&mut link, None, kind, true), None);
        assert_eq!(monitor(&mut link, Some(0), kind, false), None);
    }
    let place = Place::Va(contract::SMC.offset(4));
    link.set_breakpoint(0, place).unwrap();
    assert_eq!(resume(&mut link).pc, contract::SMC.offset(4), "no SMC, no step stopped it");
}

#[test]
fn privileged_calls_are_monitored_for_one_vcpu() {
    let (_machine, mut link) = contract_guest("cortex-a57", 2);
    contract::wait_for_stop(&mut link);
    assert_eq!(monitor(&mut link, Some(0), Monitor::PrivilegedCall, true), None);
    let stop = resume(&mut link);
    let reason = StopReason::PrivilegedCall { immediate: 0x12 };
    assert_eq!((stop.vcpu, stop.reason, stop.pc), (V0, reason, contract::SMC));
}

#[test]
fn a_running_domain_is_paused_while_a_monitor_changes() {
    let (_machine, mut link) = launch(&FOREVER.to_le_bytes(), "cortex-a57", 1).unwrap();
    contract::wait_for_stop(&mut link);
    for (kind, on) in [
        (Monitor::PrivilegedCall, true),
        (Monitor::PrivilegedCall, false),
        (Monitor::SingleStep, true),
    ] {
        link.resume(0).unwrap();
        assert_eq!(link.wait(Duration::from_millis(300)).unwrap(), None, "it runs");
        assert_eq!(monitor(&mut link, None, kind, on), None);
        let (stop, _) = contract::wait_for_stop(&mut link);
        assert_eq!((stop.reason, stop.pc), (StopReason::Paused, contract::ENTRY), "{kind:?}");
    }
    let stop = resume(&mut link);
    assert_eq!((stop.reason, stop.steps), (StopReason::Stepped, 1));
    assert_eq!(monitor(&mut link, None, Monitor::SingleStep, false), None);
    link.resume(0).unwrap();
    let off = monitor(&mut link, None, Monitor::SingleStep, false);
    assert_eq!(off, Some(Refusal::AlreadySet(false)));
    assert_eq!(link.wait(Duration::from_millis(300)).unwrap(), None, "a refusal pauses nothing");
}

/// Sets breakpoints until there are no more, and returns how many there were.
fn use_up(link: &mut Link, place: impl Fn(u64) -> Place) -> u64 {
    for n in 0..300 {
        match link.set_breakpoint(0, place(n)) {
            Ok(()) => {}
            Err(error) => {
                let most = Refusal::NoBreakpointLeft(u8::try_from(n).unwrap());
                assert_eq!(error.refusal(), Some(most));
                assert!(error.to_string().contains(&format!("there are {n}")), "{error}");
                return n;
            }
        }
    }
    panic!("no CPU has so many breakpoints")
}

#[test]
fn more_breakpoints_than_there_are_are_refused() {
    for cpu in ["cortex-a57", "max"] {
        let (_machine, mut link) = contract_guest(cpu, 1);
        contract::wait_for_stop(&mut link);
        // Of T32 code: A64's are hidden in copies of pages where the CPU has no register left.
        let far = |n: u64| Place::Va(Va(0x4100_0002 + 4 * n));
        let hardware = use_up(&mut link, far);
        assert!(hardware >= 2, "{cpu}: only {hardware}");
        // What was refused has not taken the place of another; what is cleared is free again.
        link.clear_breakpoint(0, far(0)).unwrap();
        link.set_breakpoint(0, Place::Va(contract::CALL)).unwrap();
        assert_eq!(
            refusal(link.set_breakpoint(0, far(0))),
            Some(Refusal::NoBreakpointLeft(hardware as u8))
        );
        (0..50).for_each(|n| link.set_breakpoint(0, Place::Va(Va(0x4100_0000 + 4 * n))).unwrap());
        let stop = resume(&mut link);
        assert_eq!((stop.reason, stop.pc), (StopReason::Breakpoint, contract::CALL));
    }
}

/// The guest `debug_own` uses its own breakpoints, watchpoints and single-step, and says whether
/// they worked. A breakpoint of ours takes the CPU's debug registers away from it.
#[test]
fn the_guests_own_debugger_works_beside_a_breakpoint_of_ours() {
    let guest = std::fs::read(Guest::named("debug_own").path).unwrap();
    let (_machine, mut link) = launch(&guest, "cortex-a57", 1).unwrap();
    contract::wait_for_stop(&mut link);
    link.set_breakpoint(0, Place::Va(Va(0x4100_0000))).unwrap();
    link.resume(0).unwrap();
    let mut said = Vec::new();
    let ending = loop {
        match link.wait(LIMIT).unwrap() {
            Some(Event::Console { bytes, .. }) => said.extend(bytes),
            Some(Event::Ended { ending, .. }) => break ending,
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&said)),
        }
    };
    let said = String::from_utf8_lossy(&said);
    assert_eq!(ending, DomainEnding::PoweredOff, "{said}");
    assert!(said.contains("debug_own: ok"), "{said}");
}
