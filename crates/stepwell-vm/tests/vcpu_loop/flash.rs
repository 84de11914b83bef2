//! Flash: memory to run from and to read, and commands where it is stored to.

use crate::board::{Board, CONTINUE, ENTRY, NOP, Sharing, b, brk, ldr, ldxr, step, str, stxr};
use crate::cpu::FakeCpu;
use crate::memory::Ram;
use stepwell_arch::{Ipa, Va};
use stepwell_protocol::{Place, StopReason, WatchAccess, Watchpoint};
use stepwell_vm::memory::GuestMemory;
use stepwell_wire::{Command, Event};

/// In the bank of variables.
const VARIABLES: u64 = 0x0400_0000;
/// Both words of a doubleword are this command.
const fn twice(command: u64) -> u64 {
    command << 32 | command
}

/// A board with flash, its program in RAM, and these registers.
fn board(program: &[u32], registers: &[(usize, u64)]) -> (Board, FakeCpu) {
    let board: Board = Board::on(Ram::new().with_flash(), 1, program, Sharing::None);
    let cpu = board.cpu(0);
    let mut core = board.machine.domains[0].vcpus[0].core.lock();
    registers.iter().for_each(|&(n, value)| core.context.x[n] = value);
    drop(core);
    (board, cpu)
}

/// What a program leaves, stepped and not: registers, and what the tool was told.
fn after(program: &[u32], registers: &[(usize, u64)]) -> ([u64; 31], Vec<Event>) {
    let end = ENTRY + 4 * program.len() as u64;
    let program = [program, &[brk(0), b(0)]].concat();
    let run = |command: Command| {
        let (board, cpu) = board(&program, registers);
        let place = Place::Va(Va(end));
        if command == CONTINUE {
            board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        }
        board.serve(&cpu, command);
        assert!(board.carry_out(&cpu));
        let (mut flash, mut stopped) = (Vec::new(), None);
        for event in board.events.take() {
            match event {
                Event::Stopped { registers, .. } => stopped = Some(registers),
                other => flash.push(other),
            }
        }
        let registers = stopped.expect("it stops");
        assert_eq!(registers.pc, end);
        (registers.x, flash)
    };
    let free = run(CONTINUE);
    assert_eq!(free, run(step(program.len() as u64 - 2, true)));
    free
}

#[test]
fn what_is_programmed_is_read_back_and_told() {
    // Two words each: program, and with what; the status; memory again.
    let program = [str(1, 2), ldr(3, 2), str(4, 2), ldr(5, 2)];
    let at = VARIABLES + 0x100;
    let registers = [(1, 0x1234_5678_0040_0040), (2, at), (4, twice(0x00ff_00ff))];
    let (x, events) = after(&program, &registers);
    assert_eq!(x[3], twice(0x0080_0080));
    assert_eq!(x[5], 0x1234_5678_0000_0000);
    let bytes = heapless::Vec::from_slice(&0x1234_5678_u32.to_le_bytes()).expect("four");
    assert_eq!(events, [Event::FlashProgrammed { domain: 0, offset: 0x104, bytes }]);
}

#[test]
fn a_block_is_erased() {
    let program = [str(1, 2), str(4, 2), ldr(5, 2)];
    let registers = [(1, 0x00d0_00d0_0020_0020), (2, VARIABLES + 0x8), (4, twice(0x00ff_00ff))];
    let (x, events) = after(&program, &registers);
    assert_eq!(x[5], u64::MAX);
    assert_eq!(events, [Event::FlashErased { domain: 0, offset: 0, bytes: 0x4_0000 }]);
}

#[test]
fn a_store_exclusive_is_a_command_too() {
    // Its load marks what it has read, and the store is one of the status command.
    let program = [ldxr(1, 2), stxr(3, 4, 2), ldr(5, 2)];
    let (x, events) = after(&program, &[(2, VARIABLES), (4, twice(0x0070_0070))]);
    assert_eq!((x[3], x[5]), (0, 0), "stored, and the status is clear");
    assert!(events.is_empty());
}

#[test]
fn firmware_runs_in_flash_under_breakpoints_that_nobody_can_read() {
    for (place, command) in [
        (Place::Ipa(Ipa(0x108)), CONTINUE),
        (Place::Va(Va(0x108)), CONTINUE),
        (Place::Ipa(Ipa(0x108)), step(1000, true)),
    ] {
        let (board, cpu) = board(&[], &[(2, 0x108)]);
        let code = [NOP, ldr(1, 2), NOP, b(-3)];
        for (n, word) in (0..).zip(code) {
            board.ram.write(Ipa(0x100 + 4 * n), &word.to_le_bytes()).expect("there is flash");
        }
        let mut core = board.machine.domains[0].vcpus[0].core.lock();
        core.reset(&board.machine.reset, 0x100, 0);
        core.context.x[2] = 0x108;
        drop(core);
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        for _ in 0..2 {
            let stop = board.go(&cpu, command.clone());
            assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, 0x108));
            let original = u64::from(b(-3)) << 32 | u64::from(NOP);
            assert_eq!(stop.registers.x[1], original, "{place:?}");
        }
    }
}

#[test]
fn a_bank_that_shows_something_else_keeps_breakpoints_out_of_sight() {
    // The code bank shows its identity meanwhile; what is beside the breakpoint reads as before.
    let program = [str(1, 2), ldr(3, 2), str(4, 2), ldr(5, 2)];
    let (board, cpu) = board(
        &[program.as_slice(), &[brk(0), b(0)]].concat(),
        &[(1, twice(0x0090_0090)), (2, 0x100), (4, twice(0x00ff_00ff))],
    );
    board.ram.write(Ipa(0x100), &twice(NOP.into()).to_le_bytes()).expect("there is flash");
    for place in [Place::Ipa(Ipa(0x104)), Place::Ipa(Ipa(ENTRY + 16))] {
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
    }
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!(stop.registers.pc, ENTRY + 16);
    assert_eq!(stop.registers.x[3], 0, "there is no identity at 0x40");
    assert_eq!(stop.registers.x[5], twice(NOP.into()));
}

#[test]
fn commands_are_stores_to_a_watchpoint() {
    let (board, cpu) = board(&[str(1, 2), brk(0)], &[(1, twice(0x0070_0070)), (2, VARIABLES)]);
    let watchpoint = Watchpoint { address: Va(VARIABLES), length: 8, access: WatchAccess::Write };
    board.serve(&cpu, Command::SetWatchpoint { domain: 0, vcpu: 0, watchpoint });
    let stop = board.go(&cpu, step(1, true));
    assert!(matches!(stop.reason, StopReason::Watchpoint { .. }), "{:?}", stop.reason);
    assert_eq!(stop.registers.pc, ENTRY);
}
