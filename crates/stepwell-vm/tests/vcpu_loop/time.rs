//! What of the time that the debugger takes is seen by a guest that runs freely.

use crate::board::{Board, CONTINUE, DATA, ENTRY, HVC, NOP, add, b, ldr, step, wfit};
use crate::cpu::{Asynchronous, FakeCpu};
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_protocol::{Place, StopReason, TimePolicy};
use stepwell_vm::domain::Power;
use stepwell_vm::vcpu::state::VcpuCore;
use stepwell_wire::{Answer, Command};

const AT_EL2: u64 = 1000;

fn clock(board: &Board, cpu: &FakeCpu) -> u64 {
    let register = SystemRegister::CNTVCT_EL0.0;
    match board.serve(cpu, Command::ReadSystemRegister { domain: 0, vcpu: 0, register }) {
        Answer::Value(value) => value,
        other => panic!("a value, not {other:?}"),
    }
}

fn core<T>(board: &Board, act: impl FnOnce(&mut VcpuCore<FakeCpu>) -> T) -> T {
    act(&mut board.machine.domains[0].vcpus[0].core.lock())
}

/// Eight instructions in a circle, all of which are come to by breakpoints.
fn circle(words: [u32; 7]) -> (Board, FakeCpu) {
    let mut program = words.to_vec();
    program.push(b(-7));
    let board = Board::new(1, &program);
    let cpu = board.cpu(0);
    core(&board, |core| core.context.x[3] = DATA);
    let place = Place::Va(Va(ENTRY + 28));
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
    cpu.take_time_at_el2(AT_EL2);
    (board, cpu)
}

fn go_round(board: &Board, cpu: &FakeCpu) -> u64 {
    let stop = board.go(cpu, CONTINUE);
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 28));
    clock(board, cpu)
}

#[test]
fn a_stop_takes_none_of_the_guests_time() {
    let (board, cpu) = circle([NOP; 7]);
    let mut before = go_round(&board, &cpu);
    for _ in 0..5 {
        cpu.pass_time(1_000_000);
        assert_eq!(clock(&board, &cpu), before, "it is stopped");
        let now = go_round(&board, &cpu);
        // The first instruction goes past the breakpoint by a step, which is less than a tick.
        assert_eq!(now - before, 7, "seven instructions");
        before = now;
    }
}

#[test]
fn what_interrupts_el2_takes_none_either() {
    let (board, cpu) = circle([NOP; 7]);
    let before = go_round(&board, &cpu);
    cpu.script([None, Some(Asynchronous::Before), Some(Asynchronous::Before)]);
    assert_eq!(go_round(&board, &cpu) - before, 7);
}

#[test]
fn what_el2_answers_takes_none() {
    let (board, cpu) = circle([NOP, NOP, HVC, NOP, NOP, NOP, NOP]);
    core(&board, |core| core.context.x[0] = 0x8400_0000); // PSCI_VERSION
    let before = go_round(&board, &cpu);
    core(&board, |core| core.context.x[0] = 0x8400_0000);
    // The call itself takes less than a tick.
    assert_eq!(go_round(&board, &cpu) - before, 6);
}

#[test]
fn a_page_with_a_breakpoint_is_read_in_no_time() {
    let (board, cpu) = circle([NOP, ldr(4, 3), NOP, ldr(5, 3), NOP, add(1, 1, 1), NOP]);
    let before = go_round(&board, &cpu);
    let place = Place::Ipa(Ipa(DATA + 8));
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
    let now = go_round(&board, &cpu);
    assert_eq!(now - before, 7 - 2, "both loads are carried out at EL2");
}

/// By the machine's clock everything is seen: that is what was asked for.
#[test]
fn in_real_time_all_of_it_is_seen() {
    let (board, cpu) = circle([NOP; 7]);
    let before = go_round(&board, &cpu);
    board.serve(&cpu, Command::SetTimePolicy { domain: 0, policy: TimePolicy::Real });
    cpu.pass_time(1_000_000);
    assert!(go_round(&board, &cpu) - before > 1_000_000);
}

/// Another vCPU goes by the same clock: nothing may be taken out of it while that runs.
#[test]
fn beside_another_vcpu_nothing_is_taken_out() {
    let board = Board::new(2, &[NOP, NOP, NOP, NOP, b(-4)]);
    let (cpu, other) = (board.cpu(0), board.cpu(1));
    board.machine.domains[0].control.lock().power[1] = Power::On;
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY + 16)) });
    cpu.take_time_at_el2(AT_EL2);
    let before = clock(&board, &cpu);
    cpu.script([None, Some(Asynchronous::Before), Some(Asynchronous::Before)]);
    board.serve(&cpu, CONTINUE);
    assert!(board.carry_out(&cpu) && board.carry_out(&other));
    let stop = board.stop();
    assert_eq!((stop.vcpu, stop.reason), (0, StopReason::Breakpoint));
    assert!(clock(&board, &cpu) - before > AT_EL2);
}

/// A WFIT waits until the guest's counter is where its register says, and no longer.
#[test]
fn a_wait_with_a_timeout_ends_by_the_guests_clock() {
    for policy in [TimePolicy::Stopped, TimePolicy::PerStep { ns: 16 }, TimePolicy::Real] {
        let board = Board::new(1, &[wfit(3), wfit(4), add(1, 1, 1), b(-1)]);
        let cpu = board.cpu(0);
        board.serve(&cpu, Command::SetTimePolicy { domain: 0, policy });
        let wakes_at = clock(&board, &cpu) + 1000;
        core(&board, |core| (core.context.x[3], core.context.x[4]) = (wakes_at, wakes_at - 500));
        let stop = board.go(&cpu, step(1, true));
        assert_eq!((stop.steps, stop.registers.pc), (1, ENTRY + 4), "{policy}");
        let now = clock(&board, &cpu);
        assert!((wakes_at..wakes_at + 200).contains(&now), "{policy}: {now}, {wakes_at}");
        let stop = board.go(&cpu, step(1, true));
        assert_eq!((stop.steps, stop.registers.pc), (1, ENTRY + 8), "{policy}");
        assert!(clock(&board, &cpu) < now + 200, "{policy}: its time was up");
        assert_eq!(core(&board, |core| core.wakes_at), u64::MAX, "it waits for nothing");
    }
}

/// A natural clock: the same for any number of steps at a time, recorded or not, and in every run; by
/// class of instruction, and another one with another seed.
#[test]
fn a_natural_clock_depends_on_the_guest_and_the_seed_alone() {
    let words = [NOP, ldr(4, 3), add(1, 1, 1), add(1, 1, 1), ldr(5, 3), NOP, HVC];
    let shows = |words: [u32; 7], seed: u64, each: u64, record: bool| {
        let (board, cpu) = circle(words);
        let place = Place::Va(Va(ENTRY + 28));
        board.serve(&cpu, Command::ClearBreakpoint { domain: 0, place });
        let policy = TimePolicy::Natural { seed };
        board.serve(&cpu, Command::SetTimePolicy { domain: 0, policy });
        let before = clock(&board, &cpu);
        for _ in 0..1200 / each {
            board.go(&cpu, step(each, record));
            board.recorded();
        }
        clock(&board, &cpu) - before
    };
    let one = shows(words, 1, 1, false);
    for (each, record) in [(1200, false), (1200, true), (8, false), (40, true)] {
        assert_eq!(shows(words, 1, each, record), one, "{each} steps at a time");
    }
    assert_ne!(shows(words, 2, 1, false), one);
    let plain = shows([NOP; 7], 1, 1200, false);
    assert!(one > plain + plain / 4, "loads and calls cost more: {one}, {plain}");
}
