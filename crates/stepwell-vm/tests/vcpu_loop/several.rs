//! Two vCPUs on two CPUs, stepped by turns: one order, whatever the threads do.

use crate::board::{
    Board, CONTINUE, DATA, ENTRY, HVC, NOP, WFI, add, b, cbnz, ldxr, step, str, stxr,
};
use std::thread;
use stepwell_arch::{Ipa, Va};
use stepwell_protocol::{OthersPolicy, Place, StopReason, TraceRecord};
use stepwell_vm::domain::Power;
use stepwell_vm::memory::GuestMemory as _;
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

/// A debugger that stops everybody again before they have moved keeps nobody from moving.
#[test]
fn who_is_let_go_executes_an_instruction_before_it_stops() {
    let board = Board::new(2, &[add(1, 1, 1), b(-1)]);
    board.switch_on(1, ENTRY);
    let cpus = [board.cpu(0), board.cpu(1)];
    for turn in 1..=6_u64 {
        board.serve(&cpus[0], CONTINUE);
        board.serve(&cpus[0], Command::Pause { domain: 0 });
        assert!(board.carry_out(&cpus[0]) && board.carry_out(&cpus[1]));
        let stop = board.stop();
        assert_eq!((stop.reason, stop.registers.x[1]), (StopReason::Paused, turn.div_ceil(2)));
    }
    assert_eq!(board.machine.domains[0].vcpus[1].core.lock().context.x[1], 3);
}

/// As GDB does with a thread that waits in a loop around a load-exclusive with a breakpoint at it: steps
/// it off that, within a sequence then, lets all go, and is told of the same breakpoint at once.
#[test]
fn who_is_let_go_begins_its_sequence_though_another_is_always_in_one() {
    // At the load, and behind it.
    for breakpoint in [ENTRY, ENTRY + 4] {
        begins_its_sequence(breakpoint);
    }
}

fn begins_its_sequence(breakpoint: u64) {
    // The second one comes to EL2 in each round: nothing calls a CPU of these out of its guest.
    let other = [ldxr(1, 3), stxr(2, 3, 3), add(6, 6, 1), HVC, b(-4)];
    let board = Board::new(2, &[[ldxr(1, 3), b(-1)].as_slice(), &other].concat());
    board.switch_on(1, ENTRY + 8);
    let cpu = board.cpu(0);
    for vcpu in &board.machine.domains[0].vcpus {
        vcpu.core.lock().context.x[3] = DATA;
    }
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(breakpoint)) });
    let policy = OthersPolicy::Freeze;
    board.serve(&cpu, Command::SetOthersPolicy { domain: 0, policy });
    let stored = || board.machine.domains[0].vcpus[1].core.lock().context.x[6];
    for round in 0..8 {
        board.go(&cpu, step(1, false));
        board.serve(&cpu, CONTINUE);
        let (shared, other) = (&board, board.cpu(1));
        thread::scope(|scope| {
            scope.spawn(move || assert!(shared.carry_out(&other)));
            assert!(shared.carry_out(&cpu));
        });
        assert_eq!(board.stop().vcpu, 0);
        let least = (round + 1) / 3;
        assert!(stored() >= least, "{breakpoint:#x}: {} stores after round {round}", stored());
    }
}

/// Neither for a WFI nor for a loop that waits for another's store.
#[test]
fn others_that_are_frozen_never_move() {
    let board = Board::new(2, &[WFI, ldxr(1, 3), cbnz(1, -1), add(1, 1, 1), b(-1)]);
    board.switch_on(1, ENTRY + 12);
    let cpu = board.cpu(0);
    let domain = &board.machine.domains[0];
    domain.vcpus[0].core.lock().context.x[3] = DATA;
    let data = domain.ram.locate(Ipa(DATA), 8).expect("it is RAM");
    domain.ram.poke(data, 8, 1).expect("it is RAM");
    let policy = OthersPolicy::Freeze;
    board.serve(&cpu, Command::SetOthersPolicy { domain: 0, policy });
    let stop = board.go(&cpu, step(100_001, false));
    assert_eq!(
        (stop.reason, stop.steps, stop.registers.pc),
        (StopReason::Stepped, 100_001, ENTRY + 4)
    );
    let other = domain.vcpus[1].core.lock();
    assert_eq!((other.pc(), other.context.x[1]), (Va(ENTRY + 12), 0));
}

/// Whoever is slower comes to be told of, too, however many there are.
#[test]
fn breakpoints_are_told_of_in_turns() {
    let board = Board::new(4, &[b(0)]);
    for vcpu in 1..4 {
        board.switch_on(vcpu, ENTRY);
    }
    let cpus = [0, 1, 2, 3].map(|number| board.cpu(number));
    board.serve(&cpus[0], Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY)) });
    let told: Vec<u8> = (0..12)
        .map(|_| {
            board.serve(&cpus[0], CONTINUE);
            assert!(cpus.iter().all(|cpu| board.carry_out(cpu)));
            let stop = board.stop();
            assert_eq!(stop.reason, StopReason::Breakpoint);
            stop.vcpu
        })
        .collect();
    assert_eq!(told, [0, 1, 2, 3].repeat(3));
}

/// Where it has gone round an exclusive sequence, nothing was told of.
#[test]
fn a_breakpoint_is_met_where_a_sequence_has_led() {
    // A load-exclusive whose store is never come to.
    let board = Board::new(2, &[NOP, b(-1), ldxr(1, 3), b(-1)]);
    board.switch_on(1, ENTRY + 8);
    let cpus = [board.cpu(0), board.cpu(1)];
    let core = &board.machine.domains[0].vcpus[1].core;
    core.lock().context.x[3] = DATA;
    board.serve(&cpus[0], CONTINUE);
    board.serve(&cpus[0], Command::Pause { domain: 0 });
    assert!(board.carry_out(&cpus[0]) && board.carry_out(&cpus[1]));
    assert_eq!(board.stop().vcpu, 0);
    let pc = core.lock().pc();
    board.serve(&cpus[0], Command::SetBreakpoint { domain: 0, place: Place::Va(pc) });
    board.serve(&cpus[0], CONTINUE);
    assert!(board.carry_out(&cpus[1]) && board.carry_out(&cpus[0]));
    let stop = board.stop();
    assert_eq!((stop.vcpu, stop.reason, Va(stop.registers.pc)), (1, StopReason::Breakpoint, pc));
    assert!(cpus[1].executed().len() < 64, "no more than when it was let go");
}

/// What a load-exclusive has read is not what lies there when nobody else runs any more.
#[test]
fn a_store_exclusive_fails_where_another_has_written_and_stopped() {
    // X6 counts the stores that fail.
    let turn =
        [ldxr(1, 3), add(1, 1, 1), NOP, stxr(2, 1, 3), cbnz(2, 2), b(0), add(6, 6, 1), b(-7)];
    let board: &Board = Box::leak(Box::new(Board::new(2, &turn)));
    board.switch_on(1, ENTRY);
    let cpu = board.cpu(0);
    let domain = &board.machine.domains[0];
    domain.vcpus[0].core.lock().context.x[3] = DATA;
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY + 20)) });
    board.serve(&cpu, CONTINUE);
    let other = board.cpu(1);
    cpu.after(ENTRY + 4, move || {
        let data = domain.ram.locate(Ipa(DATA), 8).expect("it is RAM");
        domain.ram.poke(data, 8, 7).expect("it is RAM");
        vcpu::park(&board.machine, domain, 1, &other, End::SwitchedOff);
    });
    assert!(board.carry_out(&cpu));
    let stop = board.stop();
    assert_eq!((stop.reason, stop.registers.x[1]), (StopReason::Breakpoint, 8));
    assert_eq!(stop.registers.x[6], 1);
}

/// Nor is it for one that goes on after another was stepped, even if it looks the same.
#[test]
fn a_store_exclusive_fails_where_another_was_stepped_meanwhile() {
    let board = Board::new(2, &[ldxr(1, 3), stxr(2, 1, 3), str(4, 3), str(5, 3), b(0)]);
    board.switch_on(1, ENTRY + 8);
    for vcpu in &board.machine.domains[0].vcpus {
        vcpu.core.lock().context.x[3..6].copy_from_slice(&[DATA, 1, 0]);
    }
    let (cpu, other) = (board.cpu(0), board.cpu(1));
    assert_eq!(board.go(&cpu, step(1, false)).registers.x[1], 0);
    let two = Command::Step {
        domain: 0,
        vcpu: 1,
        count: 2,
        until: None,
        record: false,
        all: false,
        within: None,
    };
    board.go(&other, two);
    assert_eq!(board.go(&cpu, step(1, false)).registers.x[2], 1, "it was 1 in between");
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
