//! Each step is one instruction that has executed, told once, whatever came in between.

use crate::board::{Board, DATA, ENTRY, NOP, add, b, brk, cbnz, ldr, ldxr, step, str, stxr, sub};
use crate::cpu::Asynchronous;
use proptest::prelude::*;
use stepwell_arch::SystemRegister;
use stepwell_arch::Va;
use stepwell_protocol::{InterruptPolicy, StopReason, TimePolicy};
use stepwell_vm::cpu::Cpu;
use stepwell_wire::{Answer, Command};

/// X1 += 5, in a loop of three turns.
const LOOP: [u32; 5] = [add(2, 31, 3), add(1, 1, 5), sub(2, 2, 1), cbnz(2, -2), b(0)];

#[test]
fn so_many_steps_are_so_many_instructions() {
    for count in 1..30 {
        let board = Board::new(1, &LOOP);
        let cpu = board.cpu(0);
        let stop = board.go(&cpu, step(count, false));
        assert_eq!((stop.reason, stop.steps), (StopReason::Stepped, count));
        let executed = cpu.executed();
        assert_eq!(executed.len() as u64, count, "{executed:x?}");
    }
}

#[test]
fn plain_runs_are_taken_by_the_fast_path_and_counted() {
    let board = Board::new(1, &[NOP; 64]);
    let cpu = board.cpu(0);
    let stop = board.go(&cpu, step(40, true));
    assert_eq!((stop.steps, stop.registers.pc), (40, ENTRY + 160));
    assert_eq!(board.recorded(), cpu.executed());
}

#[test]
fn stepping_leaves_nothing_behind() {
    let board = Board::new(1, &LOOP);
    let cpu = board.cpu(0);
    cpu.write(SystemRegister::MDSCR_EL1, 0);
    let stop = board.go(&cpu, step(4, false));
    assert_eq!(stop.registers.pstate >> 21 & 1, 0, "PSTATE.SS is the guest's own");
    let vcpu = &board.machine.domains[0].vcpus[0];
    assert_eq!(vcpu.core.lock().debug.mdscr(), 0, "and so is MDSCR_EL1");
    board.serve(
        &cpu,
        Command::SetBreakpoint { domain: 0, place: stepwell_protocol::Place::Va(Va(ENTRY + 16)) },
    );
    let stop = board.go(&cpu, crate::board::CONTINUE);
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 16));
    assert_eq!(cpu.debug_controls().0 & 1, 0, "nothing steps while it runs");
}

#[test]
fn a_full_ring_stops_before_anything_is_lost() {
    let board = Board::new(1, &LOOP);
    let cpu = board.cpu(0);
    board.machine.ring.lock().as_mut().expect("there is one").capacity = 200;
    let stop = board.go(&cpu, step(10_000, true));
    assert_eq!(stop.reason, StopReason::RingFull);
    let executed = cpu.executed();
    assert_eq!(stop.steps, executed.len() as u64);
    assert_eq!(board.recorded(), executed);
}

#[test]
fn an_exclusive_sequence_comes_to_its_end_under_a_step() {
    // X3 := &DATA; do { X1 := [X3]; X1 += 1; W2 := stxr } while W2; X4 := [X3]
    let program = [ldxr(1, 3), add(1, 1, 1), stxr(2, 1, 3), cbnz(2, -3), ldr(4, 3), b(0)];
    let board = Board::new(1, &program);
    let cpu = board.cpu(0);
    board.machine.domains[0].vcpus[0].core.lock().context.x[3] = DATA;
    board.ram.store(stepwell_arch::Pa(crate::memory::BASE.0 + 0x1_0000), 8, 41);
    let stop = board.go(&cpu, step(5, true));
    assert_eq!((stop.registers.x[4], stop.registers.x[2]), (42, 0));
    assert_eq!(stop.registers.pc, ENTRY + 20);
    assert_eq!(board.recorded().len(), 5, "what EL2 carries out is recorded, too");
}

/// The interrupt is EL2's, and comes in the middle of a sequence, which on the guest's board nothing
/// would have broken.
#[test]
fn what_interrupts_a_running_guest_breaks_no_exclusive_sequence() {
    // X6 counts the stores that fail, X5 the turns that are left, of seven instructions each.
    let turn =
        [ldxr(1, 3), add(1, 1, 1), NOP, stxr(2, 1, 3), cbnz(2, 4), sub(5, 5, 1), cbnz(5, -6)];
    let failed = [b(0), add(6, 6, 1), b(-9)];
    let fails = |returned_to: u64| {
        let board = Board::new(1, &[turn.as_slice(), &failed].concat());
        let cpu = board.cpu(0);
        let place = stepwell_protocol::Place::Va(Va(ENTRY + 28));
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        {
            let mut core = board.machine.domains[0].vcpus[0].core.lock();
            (core.context.x[3], core.context.x[5]) = (DATA, 1000);
            core.snapshot.write(SystemRegister::ELR_EL1, returned_to);
        }
        let stop = board.go(&cpu, crate::board::CONTINUE);
        assert_eq!((stop.reason, stop.registers.x[5]), (StopReason::Breakpoint, 0));
        stop.registers.x[6]
    };
    assert_eq!(fails(0), 0);
    // An exception has returned there, as far as anybody knows since the load: that breaks it.
    assert_eq!(fails(ENTRY + 8), 1);
}

/// With FEAT_LSE2, which this CPU has, they need only lie within 16 bytes.
#[test]
fn an_exclusive_sequence_that_is_not_aligned_comes_to_its_end() {
    let program = [ldxr(1, 3), add(1, 1, 1), stxr(2, 1, 3), cbnz(2, -3), b(0)];
    for (offset, is_aligned) in [(4, true), (8, true), (9, false)] {
        let board = Board::new(1, &program);
        let cpu = board.cpu(0);
        board.machine.domains[0].vcpus[0].core.lock().context.x[3] = DATA + offset;
        let data = stepwell_arch::Pa(crate::memory::BASE.0 + 0x1_0000);
        for at in [0, 8, 16] {
            board.ram.store(data.offset(at), 8, 0x1111_2222_3333_4444);
        }
        let before = board.ram.load_unaligned(data.offset(offset), 8);
        let stop = board.go(&cpu, step(3, true));
        let stored = board.ram.load_unaligned(data.offset(offset), 8);
        if is_aligned {
            assert_eq!((stored, stop.registers.pc), (before + 1, ENTRY + 12), "{offset}");
            assert_eq!(board.ram.load(data, 4), 0x3333_4444, "what is beside it stays");
        } else {
            assert_eq!(stored, before);
            assert_eq!(cpu.read(SystemRegister::ESR_EL1) & 0x3f, 0x21, "alignment fault");
        }
    }
}

#[test]
fn until_and_ranges_stop_where_they_say() {
    let board = Board::new(1, &LOOP);
    let cpu = board.cpu(0);
    let until = Command::Step {
        domain: 0,
        vcpu: 0,
        count: 1000,
        until: Some(ENTRY + 16),
        record: false,
        all: false,
        within: None,
    };
    let stop = board.go(&cpu, until);
    assert_eq!((stop.reason, stop.steps), (StopReason::Until, 10));
    let board = Board::new(1, &LOOP);
    let cpu = board.cpu(0);
    let within = Command::Step {
        domain: 0,
        vcpu: 0,
        count: 1000,
        until: None,
        record: false,
        all: false,
        within: Some((ENTRY, ENTRY + 16)),
    };
    let stop = board.go(&cpu, within);
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::LeftRange, ENTRY + 16));
    assert_eq!(stop.steps, cpu.executed().len() as u64);
}

#[test]
fn the_clock_goes_by_steps() {
    let board = Board::new(1, &[NOP; 64]);
    let cpu = board.cpu(0);
    board.serve(&cpu, Command::SetTimePolicy { domain: 0, policy: TimePolicy::PerStep { ns: 16 } });
    let now = |board: &Board| {
        let register = SystemRegister::CNTVCT_EL0.0;
        match board.serve(&cpu, Command::ReadSystemRegister { domain: 0, vcpu: 0, register }) {
            Answer::Value(value) => value,
            other => panic!("a value, not {other:?}"),
        }
    };
    let before = now(&board);
    board.go(&cpu, step(20, false));
    assert_eq!(now(&board) - before, 20, "a tick has 16 ns");
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(NOP),
        Just(add(1, 1, 1)),
        Just(sub(2, 2, 1)),
        Just(ldr(4, 3)),
        Just(str(1, 3)),
        Just(ldxr(5, 3)),
        Just(stxr(6, 1, 3)),
        Just(b(1)),
        Just(b(2)),
        Just(cbnz(2, 2)),
        Just(brk(7)),
        Just(crate::board::SVC),
    ]
}

fn interference() -> impl Strategy<Value = Option<Asynchronous>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Asynchronous::Before)),
        1 => Just(Some(Asynchronous::After)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever comes between two instructions: the guest goes the way that it goes alone, each
    /// boundary is recorded once and in order, and the count is theirs.
    #[test]
    fn nothing_from_outside_changes_what_is_counted(
        words in proptest::collection::vec(word(), 1..40),
        script in proptest::collection::vec(interference(), 0..120),
        count in 1_u64..60,
    ) {
        let start = || {
            let board = Board::new(1, &words);
            let cpu = board.cpu(0);
            let policy = InterruptPolicy::Hold;
            board.serve(&cpu, Command::SetInterruptPolicy { domain: 0, policy });
            board.machine.domains[0].vcpus[0].core.lock().context.x[3] = DATA;
            (board, cpu)
        };
        let (board, quiet) = start();
        let expected = board.go(&quiet, step(count, true));
        let way = board.recorded();
        prop_assert_eq!(way.len() as u64, expected.steps);
        let (board, cpu) = start();
        cpu.script(script);
        let stop = board.go(&cpu, step(count, true));
        prop_assert_eq!(stop, expected);
        prop_assert_eq!(board.recorded(), way);
    }
}
