//! A guest that looks for whatever tells that it is debugged finds nothing that docs/stealth.md does not
//! list, and everything that it lists is found somewhere.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread::sleep;
use std::time::Duration;

use stepwell_debuggee::{
    Debuggee, InterruptPolicy, OthersPolicy, StopReason, TimePolicy, VcpuId, contract,
};
use stepwell_tests::detector::{Allowed, Round, detect};
use stepwell_tests::machine::launch_counting;

fn rounds() -> Vec<Round> {
    use InterruptPolicy::{Hold, Into, Over};
    let stepped = |irq, time, others| Round::Stepped { irq, time, others };
    let (stop, run) = (OthersPolicy::Stop, OthersPolicy::Run);
    let step = OthersPolicy::Step { quantum: 1_000 };
    let (stopped, real) = (TimePolicy::Stopped, TimePolicy::Real);
    let natural = TimePolicy::Natural { seed: 5 };
    let per_step = |ns| TimePolicy::PerStep { ns };
    vec![
        Round::Free { breakpoints: false, pauses: false },
        Round::Free { breakpoints: true, pauses: false },
        Round::Free { breakpoints: false, pauses: true },
        Round::Free { breakpoints: true, pauses: true },
        stepped(Hold, stopped, stop),
        stepped(Into, stopped, step),
        stepped(Over, stopped, stop),
        stepped(Over, stopped, step),
        stepped(Into, per_step(3), stop),
        stepped(Over, per_step(20), step),
        stepped(Hold, per_step(20), step),
        stepped(Hold, real, step),
        stepped(Into, real, stop),
        stepped(Over, real, stop),
        stepped(Into, natural, stop),
        stepped(Over, natural, stop),
        stepped(Hold, natural, step),
        stepped(Over, natural, step),
        stepped(Hold, stopped, run),
        stepped(Into, stopped, run),
        stepped(Over, stopped, run),
    ]
}

#[test]
fn the_detector_finds_nothing_that_is_not_listed() {
    let mut found = Vec::new();
    let mut tells = Vec::new();
    for cpu in ["cortex-a57", "max"] {
        let of_cpu = detect(cpu, &rounds(), None).unwrap();
        found.extend(of_cpu.faults);
        tells.extend(of_cpu.tells);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    let allowed = Allowed::of_documentation();
    let never: Vec<_> =
        allowed.names().filter(|&name| !tells.iter().any(|tell| tell == name)).collect();
    assert!(never.is_empty(), "listed, and never found: {never:?}");
}

/// Reads its counter without end. X3: how far it went at most from one read to the next.
const READS: [u32; 9] = [
    0xd53b_e040, // mrs  x0, cntvct_el0
    0xd503_3fdf, // isb
    0xd53b_e041, // mrs  x1, cntvct_el0
    0xcb00_0022, // sub  x2, x1, x0
    0xeb03_005f, // cmp  x2, x3
    0x9a83_8043, // csel x3, x2, x3, hi
    0xaa01_03e0, // mov  x0, x1
    0x9100_0484, // add  x4, x4, #1
    0x17ff_fff9, // b    to the ISB
];
/// Ticks that are the guest's own from one read to the next, 8, and those that the way out of the guest and
/// in again takes before and after the counter is read there: some hundred, and more than once where it is
/// called out again at once.
const GAP_MAX: u64 = 1_000;

/// On a machine whose clock counts instructions, those of EL2 too, a stop costs the guest some hundred of
/// them, and not what all is done for it.
#[test]
fn a_stop_is_taken_out_of_the_guests_clock() {
    let code: Vec<u8> = READS.into_iter().flat_map(u32::to_le_bytes).collect();
    let (_machine, mut link) = launch_counting(&code, "cortex-a57").unwrap();
    contract::wait_for_stop(&mut link);
    let vcpu = VcpuId { domain: 0, vcpu: 0 };
    let mut turns = 0;
    for _ in 0..5 {
        link.resume(0).unwrap();
        sleep(Duration::from_millis(50));
        link.pause(0).unwrap();
        assert_eq!(contract::wait_for_stop(&mut link).0.reason, StopReason::Paused);
        let x = link.read_registers(vcpu).unwrap().x;
        assert!(x[4] > turns, "it runs");
        assert!(x[3] < GAP_MAX, "{} ticks", x[3]);
        turns = x[4];
    }
}
