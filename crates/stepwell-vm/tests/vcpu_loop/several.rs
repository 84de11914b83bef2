//! Two vCPUs on two CPUs, stepped by turns: one order, whatever the threads do.

use crate::board::{Board, ENTRY, add, b, step};
use std::thread;
use stepwell_protocol::TraceRecord;
use stepwell_protocol::{OthersPolicy, StopReason};
use stepwell_vm::domain::Power;
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
