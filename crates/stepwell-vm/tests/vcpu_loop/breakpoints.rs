//! Stops at full speed: at breakpoints of either kind, and past them once they were told.

use crate::board::{Board, CONTINUE, DATA, ENTRY, NOP, add, b, ldr, step, str};
use crate::cpu::FakeCpu;
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_protocol::{Place, Refusal, StopReason, WatchAccess, Watchpoint};
use stepwell_vm::cpu::Cpu as _;
use stepwell_wire::{Answer, Command};

fn set(board: &Board, cpu: &FakeCpu, place: Place) {
    board.serve(cpu, Command::SetBreakpoint { domain: 0, place });
}

#[test]
fn a_loop_meets_its_breakpoint_each_time_round() {
    for place in [Place::Va(Va(ENTRY + 4)), Place::Ipa(Ipa(ENTRY + 4))] {
        let board = Board::new(1, &[NOP, add(1, 1, 1), b(-2)]);
        let cpu = board.cpu(0);
        set(&board, &cpu, place);
        for turn in 0..5 {
            let stop = board.go(&cpu, CONTINUE);
            assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 4));
            assert_eq!(stop.registers.x[1], turn, "it has not executed yet");
        }
        // A step goes past it, too.
        let stop = board.go(&cpu, step(1, false));
        assert_eq!((stop.registers.pc, stop.registers.x[1]), (ENTRY + 8, 5));
    }
}

/// The abort of a fetch comes before a breakpoint there, and a CPU may have them the other way round.
#[test]
fn a_breakpoint_is_not_met_where_nothing_can_be_fetched() {
    let board = Board::new(1, &[NOP, add(1, 1, 1), NOP, b(-3)]);
    let cpu = board.cpu(0);
    let absent = ENTRY + 4;
    set(&board, &cpu, Place::Va(Va(absent)));
    set(&board, &cpu, Place::Va(Va(ENTRY + 8)));
    cpu.unmap(Some(absent));
    for (turn, order) in [(1, CONTINUE), (2, CONTINUE), (3, step(9, false))] {
        let stop = board.go(&cpu, order);
        assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 8));
        assert_eq!(stop.registers.x[1], turn, "it went past the other");
    }
    cpu.unmap(None);
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, absent));
}

#[test]
fn a_hidden_breakpoint_cannot_be_read_back() {
    // The guest reads the page that it executes in.
    let board = Board::new(1, &[ldr(1, 2), NOP, b(-2)]);
    let cpu = board.cpu(0);
    board.machine.domains[0].vcpus[0].core.lock().context.x[2] = ENTRY;
    set(&board, &cpu, Place::Ipa(Ipa(ENTRY + 4)));
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 4));
    assert_eq!(stop.registers.x[1], u64::from(ldr(1, 2)) | u64::from(NOP) << 32);
    board.serve(&cpu, Command::ClearBreakpoint { domain: 0, place: Place::Ipa(Ipa(ENTRY + 4)) });
    assert_eq!(
        board.try_to(
            &cpu,
            Command::ClearBreakpoint { domain: 0, place: Place::Ipa(Ipa(ENTRY + 4)) }
        ),
        Err(Refusal::Breakpoint)
    );
}

#[test]
fn a_watched_page_stops_before_the_store() {
    let board = Board::new(1, &[add(1, 1, 7), str(1, 2), add(1, 1, 1), b(-2)]);
    let cpu = board.cpu(0);
    board.machine.domains[0].vcpus[0].core.lock().context.x[2] = DATA;
    // No register holds this shape: its page is withheld.
    let watchpoint = Watchpoint { address: Va(DATA), length: 24, access: WatchAccess::Write };
    board.serve(&cpu, Command::SetWatchpoint { domain: 0, vcpu: 0, watchpoint });
    let read = |board: &Board| {
        let command =
            Command::ReadMemory { domain: 0, vcpu: 0, place: Place::Ipa(Ipa(DATA)), length: 8 };
        match board.serve(&cpu, command) {
            Answer::Memory(bytes) => bytes[0],
            other => panic!("memory, not {other:?}"),
        }
    };
    for stored in [0, 7, 8] {
        let stop = board.go(&cpu, CONTINUE);
        let expected = StopReason::Watchpoint { address: Va(DATA), access: WatchAccess::Write };
        assert_eq!((stop.reason, stop.registers.pc), (expected, ENTRY + 4));
        assert_eq!(read(&board), stored);
    }
    board.serve(&cpu, Command::ClearWatchpoint { domain: 0, watchpoint });
}

/// As memory that a process shares is after a fork, until it is accessed.
#[test]
fn what_is_not_mapped_yet_is_watched_once_it_is() {
    let board = Board::new(1, &[add(1, 1, 7), str(1, 2), b(-2)]);
    let cpu = board.cpu(0);
    board.machine.domains[0].vcpus[0].core.lock().context.x[2] = DATA;
    cpu.unmap(Some(DATA));
    let watchpoint = Watchpoint { address: Va(DATA), length: 24, access: WatchAccess::Write };
    board.serve(&cpu, Command::SetWatchpoint { domain: 0, vcpu: 0, watchpoint });
    cpu.unmap(None);
    let stop = board.go(&cpu, CONTINUE);
    let expected = StopReason::Watchpoint { address: Va(DATA), access: WatchAccess::Write };
    assert_eq!((stop.reason, stop.registers.pc), (expected, ENTRY + 4));
}

#[test]
fn what_is_refused_changes_nothing() {
    let board = Board::new(1, &[NOP, b(-1)]);
    let cpu = board.cpu(0);
    let set = |place| board.try_to(&cpu, Command::SetBreakpoint { domain: 0, place });
    assert_eq!(set(Place::Ipa(Ipa(2))), Err(Refusal::Misaligned(2)));
    assert_eq!(set(Place::Ipa(Ipa(0))), Err(Refusal::NotMapped(0)));
    // Six in the CPU, less two that are kept back.
    for n in 0..4 {
        assert_eq!(set(Place::Va(Va(0x100 + n * 4))), Ok(Answer::Done));
    }
    assert_eq!(set(Place::Va(Va(0x100))), Err(Refusal::Breakpoint));
    // All further ones follow their addresses, which A32 and T32 code cannot.
    assert_eq!(set(Place::Va(Va(0x202))), Err(Refusal::NoBreakpointLeft(4)));
    assert_eq!(set(Place::Va(Va(0x200))), Ok(Answer::Done));
    assert_eq!(set(Place::Va(Va(0x200))), Err(Refusal::Breakpoint));
    let clear = |place| board.try_to(&cpu, Command::ClearBreakpoint { domain: 0, place });
    assert_eq!(clear(Place::Va(Va(0x200))), Ok(Answer::Done));
    assert_eq!(clear(Place::Va(Va(0x200))), Err(Refusal::Breakpoint));
}

#[test]
fn there_are_more_by_virtual_address_than_a_cpu_has() {
    let board = Board::new(1, &[NOP, NOP, NOP, NOP, NOP, NOP, NOP, b(-7)]);
    let cpu = board.cpu(0);
    for n in 1..8 {
        board
            .serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY + n * 4)) });
    }
    for round in 0..2 {
        for n in 1..8 {
            let stop = board.go(&cpu, CONTINUE);
            let expected = (StopReason::Breakpoint, ENTRY + n * 4);
            assert_eq!((stop.reason, stop.registers.pc), expected, "round {round}");
        }
    }
    // They count while it is stepped, too.
    assert_eq!(board.go(&cpu, step(10, false)).reason, StopReason::Breakpoint);
}

/// As by KVM: the page is withheld from the guest, which executes, reads and writes it all the same.
#[test]
fn a_page_that_cannot_be_copied_is_stepped_through() {
    let program = [ldr(1, 2), add(3, 3, 1), str(3, 4), NOP, b(-4)];
    let board: Board<FakeCpu<false>> = Board::around(1, &program);
    let cpu = board.cpu_of_kind(0);
    let place = |n: u64| Place::Ipa(Ipa(ENTRY + 4 * n));
    {
        let mut core = board.machine.domains[0].vcpus[0].core.lock();
        // It reads its first instructions, and writes behind its last.
        (core.context.x[2], core.context.x[4]) = (ENTRY, ENTRY + 0x20);
    }
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: place(3) });
    for turn in 1..4 {
        let stop = board.go(&cpu, CONTINUE);
        assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 12));
        assert_eq!(stop.registers.x[3], turn);
        assert_eq!(stop.registers.x[1], u64::from(ldr(1, 2)) | u64::from(add(3, 3, 1)) << 32);
    }
    let stop = board.go(&cpu, step(7, false));
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 12));
    assert_eq!(stop.steps, 5);
    // Within the page whose bytes are watched, as it is executed and where it is not.
    board.serve(&cpu, Command::ClearBreakpoint { domain: 0, place: place(3) });
    let access = WatchAccess::ReadWrite;
    let watchpoint = Watchpoint { address: Va(ENTRY + 0x20), length: 24, access };
    board.serve(&cpu, Command::SetWatchpoint { domain: 0, vcpu: 0, watchpoint });
    let written = StopReason::Watchpoint { address: Va(ENTRY + 0x20), access: WatchAccess::Write };
    for order in [CONTINUE, step(100, false)] {
        let stop = board.go(&cpu, order);
        assert_eq!((stop.reason, stop.registers.pc), (written, ENTRY + 8));
    }
    board.serve(&cpu, Command::ClearWatchpoint { domain: 0, watchpoint });
    assert_eq!(board.go(&cpu, step(100, false)).reason, StopReason::Stepped);
}

/// The guest has all six of the CPU's breakpoints on, and the debugger four: each hits, whether the guest
/// runs or is stepped.
#[test]
fn the_guests_own_breakpoints_are_not_displaced() {
    const ELSEWHERE: u64 = ENTRY + 0x1000;
    const VECTOR: u64 = 0x4000_8200;
    const ON_AT_EL1: u64 = 0x1e7;
    const BREAKPOINT_SAME: u64 = 0x31;
    for (number, order) in (0..6).flat_map(|n| [(n, CONTINUE), (n, step(100, false))]) {
        let board = Board::new(1, &[NOP, add(1, 1, 1), NOP, b(-3)]);
        let cpu = board.cpu(0);
        // It comes to the first, or past its own to the second.
        for va in [VECTOR, ENTRY + 12, ELSEWHERE + 0x100, ELSEWHERE + 0x104] {
            set(&board, &cpu, Place::Va(Va(va)));
        }
        let own = (0..6).flat_map(|n| {
            let va = if n == number { ENTRY + 8 } else { ELSEWHERE + 4 * u64::from(n) };
            [(4, va), (5, ON_AT_EL1)]
                .map(|(op2, value)| (SystemRegister::new(2, 0, 0, n, op2), value))
        });
        board.debug_itself(&cpu, 1 << 15 | 1 << 13, &own.collect::<Vec<_>>());
        let stop = board.go(&cpu, order);
        assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, VECTOR), "{number}");
        assert_eq!(stop.registers.x[1], 1, "{number}");
        assert_eq!(cpu.read(SystemRegister::ELR_EL1), ENTRY + 8);
        assert_eq!(cpu.read(SystemRegister::ESR_EL1) >> 26, BREAKPOINT_SAME);
    }
}
