//! Two vCPUs on two CPUs, stepped by turns: one order, whatever the threads do.

use crate::board::{Board, CONTINUE, ENTRY, NOP, add, b, step};
use std::thread;
use stepwell_arch::Va;
use stepwell_protocol::{OthersPolicy, Place, StopReason, TraceRecord};
use stepwell_vm::domain::Power;
use stepwell_vm::vcpu;
use stepwell_vm::vcpu::running::End;
use stepwell_wire::Command;
use stepwell_wire::ring::Decoder;

/// The order in which two vCPUs have moved: vCPU, PC and length of each run.
fn order() -> Vec<(u8, u64, u32)> {
    let board = Board::new(2, &[add(1, 1, 1), add(1, 1, 1), b(-2), add(2, 2, 1), b(-1)]);
    let domain = &board.machine.domains[0];
    domain.vcpus[1].core.lock().reset(&board.machine.reset, ENTRY + 12, 0);
    domain.control.lock().power[1] = Power::On;
    let cpu = board.cpu(0);
    let policy = OthersPolicy::Step { quantum: 50 };
    board.serve(&cpu, Command::SetOthersPolicy { domain: 0, policy });
    board.serve(&cpu, step(500, true));
    let other = board.cpu(1);
    let shared = &board;
    thread::scope(|scope| {
        scope.spawn(move || assert!(shared.carry_out(&other)));
        assert!(shared.carry_out(&cpu));
    });
    let stop = board.stop();
    assert_eq!((stop.vcpu, stop.reason, stop.steps), (0, StopReason::Stepped, 500));
    let words = std::mem::take(&mut board.machine.ring.lock().as_mut().expect("it is").words);
    let mut decoder = Decoder::default();
    let records = words.into_iter().filter_map(|word| decoder.push(word).expect("it is one"));
    let runs = records.filter_map(|record| match record {
        TraceRecord::Run { vcpu, pc, length } => Some((vcpu, pc.0, length)),
        _ => None,
    });
    runs.collect()
}

#[test]
fn turns_have_one_order() {
    let first = order();
    let of = |vcpu: u8| -> u64 {
        first.iter().filter(|run| run.0 == vcpu).map(|run| u64::from(run.2)).sum()
    };
    assert_eq!(of(0), 500, "the focus has stepped what was asked for");
    assert!((400..=500).contains(&of(1)), "the other one had as many turns: {}", of(1));
    for _ in 0..5 {
        assert_eq!(order(), first);
    }
}

/// A pause is to be told of the first vCPU, which stops at a breakpoint for it, and gives way to a
/// breakpoint of the second one: that the first is at one has not been told.
#[test]
fn whoever_parked_for_a_pause_that_gave_way_was_not_told_of() {
    let board = Board::new(2, &[NOP, NOP]);
    board.switch_on(1, ENTRY);
    let cpu = board.cpu(0);
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY)) });
    let domain = &board.machine.domains[0];
    domain.vcpus[0].core.lock().acknowledged = None;
    board.serve(&cpu, CONTINUE);
    board.serve(&cpu, Command::Pause { domain: 0 });
    vcpu::park(&board.machine, domain, 0, &cpu, End::Asked);
    vcpu::park(&board.machine, domain, 1, &cpu, End::Stop(StopReason::Breakpoint));
    let stop = board.stop();
    assert_eq!((stop.vcpu, stop.reason), (1, StopReason::Breakpoint));
    let is_told = |n: usize| domain.vcpus[n].core.lock().acknowledged_here().is_some();
    assert_eq!((is_told(0), is_told(1)), (false, true));
}
