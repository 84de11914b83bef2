//! Several vCPUs on one CPU, in turns of time and of instructions.

use crate::board::{
    Board, CONTINUE, DATA, ENTRY, HVC, Sharing, Stop, WFI, add, b, cbnz, ldr, ldxr, step, str,
    stxr, wfit,
};
use crate::cpu::FakeCpu;
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_protocol::{OthersPolicy, Place, Refusal, StopReason, VcpuState};
use stepwell_vm::cpu::Context as _;
use stepwell_vm::cpu::Cpu;
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::timeline::Timeline;
use stepwell_wire::{Answer, Command};

const PSCI_CPU_ON: u64 = 0xc400_0003;
const PSCI_CPU_OFF: u64 = 0x8400_0002;
/// As many turns as any of these needs.
const TURNS: usize = 60;

/// Two vCPUs on one CPU, each of which adds up in a register of its own.
fn adding(sharing: Sharing) -> (Board, FakeCpu) {
    let board = Board::with(2, &[add(1, 1, 1), b(-1), add(2, 2, 1), b(-1)], sharing);
    board.switch_on(1, ENTRY + 8);
    let cpu = cpu_of(&board);
    (board, cpu)
}

/// The CPU that all share. Where turns are of some time, one is over after a few entries.
pub fn cpu_of(board: &Board) -> FakeCpu {
    let cpu = board.cpu(0);
    cpu.take_time_at_el2(cpu.frequency_hz() / 2_000);
    cpu
}

fn x(board: &Board, vcpu: usize, n: u8) -> u64 {
    board.machine.domains[0].vcpus[vcpu].core.lock().context.register(n)
}

fn pause(board: &Board, cpu: &FakeCpu) -> Stop {
    board.serve(cpu, Command::Pause { domain: 0 });
    board.share(cpu, 4);
    board.stop()
}

/// Lets all run for a while, and stops them.
fn go(board: &Board, cpu: &FakeCpu, sharing: Sharing) {
    match sharing {
        Sharing::Counted(_) => drop(run_until(board, cpu, 1000)),
        _ => {
            board.serve(cpu, CONTINUE);
            board.share(cpu, 8);
            pause(board, cpu);
        }
    }
}

#[test]
fn both_move_and_both_stop() {
    let (board, cpu) = adding(Sharing::ByTime);
    board.serve(&cpu, CONTINUE);
    board.share(&cpu, 8);
    let registers = Command::ReadRegisters { domain: 0, vcpu: 1 };
    assert_eq!(board.try_to(&cpu, registers), Err(Refusal::NotStopped), "whoever has the CPU");
    let stop = pause(&board, &cpu);
    assert_eq!(stop.reason, StopReason::Paused);
    let (first, second) = (x(&board, 0, 1), x(&board, 1, 2));
    assert!(first > 5_000 && second > 5_000, "{first} and {second}");
    assert!(first.abs_diff(second) < first, "fairly: {first} and {second}");
    assert_eq!((x(&board, 0, 2), x(&board, 1, 1)), (0, 0), "each its own registers");
    board.serve(&cpu, CONTINUE);
    board.share(&cpu, 8);
    pause(&board, &cpu);
    assert!(x(&board, 0, 1) > first && x(&board, 1, 2) > second, "and they go on");
}

#[test]
fn one_that_waits_leaves_the_cpu_and_can_be_stopped() {
    for sharing in [Sharing::ByTime, Sharing::Counted(100)] {
        let board = Board::with(2, &[WFI, b(-1), add(2, 2, 1), b(-1)], sharing);
        board.switch_on(1, ENTRY + 8);
        let cpu = cpu_of(&board);
        go(&board, &cpu, sharing);
        assert!(x(&board, 1, 2) > 100, "the other one has it");
        let waiting = board.machine.domains[0].vcpus[0].core.lock().context.elr;
        assert_eq!(waiting, ENTRY + 4, "WFI has executed, and waits still");
    }
}

#[test]
fn all_that_wait_can_be_stopped() {
    for sharing in [Sharing::ByTime, Sharing::Counted(100)] {
        let board = Board::with(2, &[WFI, b(-1)], sharing);
        board.switch_on(1, ENTRY);
        let cpu = cpu_of(&board);
        board.serve(&cpu, CONTINUE);
        board.share(&cpu, 8);
        assert_eq!(pause(&board, &cpu).reason, StopReason::Paused);
    }
}

#[test]
fn one_switches_the_other_on_and_itself_off() {
    for sharing in [Sharing::ByTime, Sharing::Counted(100)] {
        let board = Board::with(2, &[HVC, add(0, 20, 0), HVC, b(0), add(2, 2, 1), b(-1)], sharing);
        let cpu = cpu_of(&board);
        let mut core = board.machine.domains[0].vcpus[0].core.lock();
        core.context.x[..3].copy_from_slice(&[PSCI_CPU_ON, 1, ENTRY + 16]);
        core.context.x[20] = PSCI_CPU_OFF;
        drop(core);
        go(&board, &cpu, sharing);
        assert!(x(&board, 1, 2) > 100, "it is on, and runs");
        let Answer::Vcpus(vcpus) = board.serve(&cpu, Command::Status { domain: 0 }) else {
            panic!("the state of vCPUs")
        };
        let states: Vec<_> = vcpus.iter().map(|&(state, _)| state).collect();
        assert_eq!(states, [VcpuState::Off, VcpuState::Stopped]);
    }
}

#[test]
fn a_breakpoint_of_one_stops_the_other_too() {
    let (board, cpu) = adding(Sharing::ByTime);
    let place = Place::Va(Va(ENTRY + 12));
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
    board.serve(&cpu, CONTINUE);
    board.share(&cpu, TURNS);
    let stop = board.stop();
    assert_eq!((stop.vcpu, stop.reason), (1, StopReason::Breakpoint));
    assert_eq!(stop.registers.pc, ENTRY + 12);
    // It goes on past it, and comes round to it again.
    board.serve(&cpu, CONTINUE);
    board.share(&cpu, TURNS);
    assert_eq!((board.stop().reason, x(&board, 1, 2)), (StopReason::Breakpoint, 2));
}

#[test]
fn steps_in_turns_have_one_order_on_one_cpu_too() {
    let (board, cpu) = adding(Sharing::ByTime);
    let policy = OthersPolicy::Step { quantum: 10 };
    board.serve(&cpu, Command::SetOthersPolicy { domain: 0, policy });
    board.serve(&cpu, step(100, false));
    board.share(&cpu, TURNS);
    let stop = board.stop();
    assert_eq!((stop.vcpu, stop.reason, stop.steps), (0, StopReason::Stepped, 100));
    assert_eq!((x(&board, 0, 1), x(&board, 1, 2)), (50, 45), "nine turns of ten in between");
}

#[test]
fn a_stepped_vcpu_gets_what_another_has_to_do() {
    // One waits for a word that the other writes.
    let program = [ldr(1, 3), cbnz(1, 2), b(-2), b(0), str(4, 3), b(0)];
    let board = Board::with(2, &program, Sharing::ByTime);
    board.switch_on(1, ENTRY + 16);
    let cpu = cpu_of(&board);
    for vcpu in 0..2 {
        let mut core = board.machine.domains[0].vcpus[vcpu].core.lock();
        (core.context.x[3], core.context.x[4]) = (DATA, 7);
    }
    let until = Some(ENTRY + 12);
    let (count, record, all, within) = (1_000_000, false, false, None);
    board.serve(&cpu, Command::Step { domain: 0, vcpu: 0, count, until, record, all, within });
    board.share(&cpu, 2_000);
    let stop = board.stop();
    assert_eq!((stop.reason, stop.registers.x[1]), (StopReason::Until, 7));
}

#[test]
fn an_exclusive_sequence_beside_one_that_runs_is_whole() {
    // Both count in the same word; the stepped one has the other quiesced, which is on no CPU.
    let program = [ldxr(1, 3), add(1, 1, 1), stxr(2, 1, 3), cbnz(2, -3), b(-4)];
    let board = Board::with(2, &program, Sharing::ByTime);
    board.switch_on(1, ENTRY);
    let cpu = cpu_of(&board);
    for vcpu in 0..2 {
        board.machine.domains[0].vcpus[vcpu].core.lock().context.x[3] = DATA;
    }
    board.serve(&cpu, Command::SetOthersPolicy { domain: 0, policy: OthersPolicy::Run });
    board.serve(&cpu, step(200, false));
    board.share(&cpu, 400);
    let stop = board.stop();
    assert_eq!((stop.reason, stop.steps), (StopReason::Stepped, 200));
    let mut bytes = [0; 8];
    board.ram.read(Ipa(DATA), &mut bytes).expect("it is RAM");
    assert!(u64::from_le_bytes(bytes) > 40, "both have counted");
}

pub fn run_until(board: &Board, cpu: &FakeCpu, position: u64) -> Stop {
    go_until(board, cpu, position, false)
}

pub fn go_until(board: &Board, cpu: &FakeCpu, position: u64, record: bool) -> Stop {
    board.serve(cpu, Command::RunUntil { domain: 0, position, clock: 0, turn: None, record });
    board.share(cpu, 10 * TURNS);
    board.stop()
}

pub fn timeline(board: &Board, cpu: &FakeCpu) -> stepwell_wire::Timeline {
    match board.serve(cpu, Command::ReadTimeline { domain: 0 }) {
        Answer::Timeline(timeline) => timeline,
        other => panic!("a timeline, not {other:?}"),
    }
}

#[test]
fn turns_of_instructions_are_exact() {
    let (board, cpu) = adding(Sharing::Counted(10));
    let stop = run_until(&board, &cpu, 94);
    assert_eq!(stop.reason, StopReason::Reached);
    let now = timeline(&board, &cpu);
    assert_eq!((now.position, now.clock, &now.executed[..3]), (94, 94, &[90, 94, 0][..]));
    assert_eq!((x(&board, 0, 1), x(&board, 1, 2)), (25, 22), "five turns, and four and a part");
}

/// By QEMU's TLB, which has no ASIDs: elsewhere the CPU has to forget.
#[test]
fn who_lives_by_the_same_tables_keeps_the_tlb_between_counted_turns() {
    let (board, cpu) = adding(Sharing::Counted(10));
    for position in [45, 85] {
        run_until(&board, &cpu, position);
        let kept = cpu.kept_tlb();
        // A debugger may have written anything while both were stopped.
        let (first, later) = kept.split_at(2);
        assert_eq!(first, [false; 2]);
        assert!(later.len() > 2 && later.iter().all(|&kept| kept), "{later:?}");
    }
    let other = &board.machine.domains[0].vcpus[1];
    assert!(other.core.lock().snapshot.write(SystemRegister::TTBR0_EL1, 0x1000));
    run_until(&board, &cpu, 125);
    let has_forgotten = |kept: Vec<bool>| kept.len() > 2 && kept.iter().all(|kept| !kept);
    assert!(has_forgotten(cpu.kept_tlb()));

    let (board, cpu) = adding(Sharing::ByTime);
    go(&board, &cpu, Sharing::ByTime);
    assert!(has_forgotten(cpu.kept_tlb()));
}

#[test]
fn it_stops_where_a_vcpu_has_its_turn() {
    let (board, cpu) = adding(Sharing::Counted(10));
    let go = |turn, position| {
        let turn = Some(turn);
        let clock = 0;
        let command = Command::RunUntil { domain: 0, position, clock, turn, record: false };
        board.serve(&cpu, command);
        board.share(&cpu, TURNS);
        assert_eq!(board.stop().reason, StopReason::Reached);
        timeline(&board, &cpu).position
    };
    assert_eq!(go(0, 100), 0, "it has it already");
    assert_eq!(go(1, 100), 10);
    assert_eq!(go(1, 100), 10);
    assert_eq!(run_until(&board, &cpu, 13).reason, StopReason::Reached);
    assert_eq!(go(0, 100), 20);
    assert_eq!(go(1, 25), 25, "the position comes before its turn");
}

#[test]
fn a_machine_that_counts_nothing_has_no_positions() {
    let (board, cpu) = adding(Sharing::ByTime);
    for command in [
        Command::ReadTimeline { domain: 0 },
        Command::RunUntil { domain: 0, position: 1, clock: 0, turn: None, record: false },
    ] {
        assert_eq!(board.try_to(&cpu, command), Err(Refusal::NotCounted));
    }
}

/// Two vCPUs that count in one word by exclusives, and one that waits now and then for its timer.
fn contended() -> (Board, FakeCpu) {
    let count = [ldxr(1, 3), add(1, 1, 1), stxr(2, 1, 3), cbnz(2, -3), add(5, 5, 1)];
    let program = [count.as_slice(), &[b(-5)], &count, &[HVC, b(-6)]].concat();
    let board = Board::with(2, &program, Sharing::Counted(13));
    board.switch_on(1, ENTRY + 24);
    let cpu = cpu_of(&board);
    for vcpu in 0..2 {
        board.machine.domains[0].vcpus[vcpu].core.lock().context.x[3] = DATA;
    }
    (board, cpu)
}

#[test]
fn a_stop_changes_nothing_that_comes_after_it() {
    let end = 157;
    let at_end = |stops: &[u64]| {
        let (board, cpu) = contended();
        for &position in stops {
            let stop = run_until(&board, &cpu, position);
            assert_eq!(stop.reason, StopReason::Reached);
            assert_eq!(timeline(&board, &cpu).position, position);
        }
        run_until(&board, &cpu, end);
        let mut bytes = [0; 8];
        board.ram.read(Ipa(DATA), &mut bytes).expect("it is RAM");
        (timeline(&board, &cpu), bytes)
    };
    let straight = at_end(&[]);
    for position in 1..end {
        assert_eq!(at_end(&[position]), straight, "after a stop at {position}");
    }
    let all: Vec<_> = (1..end).collect();
    assert_eq!(at_end(&all), straight, "after a stop at each");
}

/// A WFIT, which has executed and waits behind it, wakes when its time is up, alone or beside others.
#[test]
fn a_wait_with_a_timeout_ends() {
    for others in [false, true] {
        let program = [wfit(3), add(1, 1, 1), b(-1), add(2, 2, 1), b(-1)];
        let board = Board::with(2, &program, Sharing::Counted(10));
        let cpu = cpu_of(&board);
        board.machine.domains[0].vcpus[0].core.lock().context.x[3] = 100;
        if others {
            board.switch_on(1, ENTRY + 12);
        }
        run_until(&board, &cpu, if others { 200 } else { 41 });
        let (first, clock) = (x(&board, 0, 1), timeline(&board, &cpu).clock);
        if others {
            assert!((20..30).contains(&first), "half of what is left after 100: {first}");
        } else {
            assert_eq!((first, clock), (20, 140), "it slept from 1 to 100");
        }
    }
}

/// Two vCPUs that wait for some ticks more each time.
fn waiting() -> (Board, FakeCpu) {
    let program = [wfit(3), add(3, 3, 40), b(-2), wfit(3), add(1, 1, 1), add(3, 3, 27), b(-3)];
    let board = Board::with(2, &program, Sharing::Counted(10));
    board.switch_on(1, ENTRY + 12);
    let cpu = cpu_of(&board);
    for vcpu in 0..2 {
        board.machine.domains[0].vcpus[vcpu].core.lock().context.x[3] = 30;
    }
    (board, cpu)
}

/// All that a domain goes on from: whose turn it is, who waits, and what they have counted.
fn state(board: &Board) -> (Timeline, Vec<(bool, u64, u64)>) {
    let domain = &board.machine.domains[0];
    let mut timeline = domain.timeline.as_ref().expect("it is counted").lock().clone();
    let _until = timeline.stop_at(None, None);
    let vcpus = domain.vcpus.iter().enumerate().map(|(index, vcpu)| {
        let is_suspended = vcpu.core.lock().is_suspended;
        (is_suspended, x(board, index, 1), x(board, index, 3))
    });
    (timeline, vcpus.collect())
}

/// Where the user stops a guest between two turns, its replay stops at the same moment, from which
/// another one can have the turn then: whoever is typed for.
#[test]
fn a_pause_between_turns_is_a_stop_at_its_moment() {
    const END: u64 = 400;
    let mut moments = 0;
    for turns in 1..TURNS {
        let (recorded, cpu) = waiting();
        recorded.serve(&cpu, CONTINUE);
        recorded.share(&cpu, turns);
        pause(&recorded, &cpu);
        let (replayed, other) = waiting();
        let stepwell_wire::Timeline { position, clock, .. } = timeline(&recorded, &cpu);
        let go_to = |board: &Board, cpu: &FakeCpu, position, clock| {
            let until = Command::RunUntil { domain: 0, position, clock, turn: None, record: false };
            board.serve(cpu, until);
            board.share(cpu, 1000);
            assert_eq!(board.stop().reason, StopReason::Reached);
            state(board)
        };
        assert_eq!(go_to(&replayed, &other, position, clock), state(&recorded), "{position}");
        moments += u64::from(clock > position);
        let ends = [(&replayed, &other), (&recorded, &cpu)].map(|(b, cpu)| go_to(b, cpu, END, 0));
        assert_eq!(ends[0], ends[1], "after {position}, {clock}");
    }
    assert!(moments > 10, "they have slept: {moments}");
}

/// Also where one has waited, and another has the turn: it goes on waiting until it has its own.
#[test]
fn steps_come_to_what_a_run_comes_to() {
    for (boards, end) in
        [contended, waiting].into_iter().flat_map(|b| (1..157).map(move |e| (b, e)))
    {
        let (ran, cpu) = boards();
        run_until(&ran, &cpu, end);
        let (stepped, other) = boards();
        assert_eq!(go_until(&stepped, &other, end, true).reason, StopReason::Reached);
        assert_eq!(timeline(&stepped, &other), timeline(&ran, &cpu), "at {end}");
        let recorded = stepped.recorded().len() as u64;
        assert!(recorded >= end, "{recorded} of {end}: each is told");
    }
}

/// Whoever has the turn writes into the ring what it has executed in it, and not with its next one.
#[test]
fn instructions_are_recorded_in_the_order_in_which_they_execute() {
    let (board, cpu) = adding(Sharing::Counted(7));
    for position in [45, 47, 100] {
        go_until(&board, &cpu, position, true);
        assert_eq!(board.recorded(), cpu.executed(), "up to {position}");
    }
}
