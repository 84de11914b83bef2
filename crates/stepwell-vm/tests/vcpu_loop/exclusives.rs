//! Exclusive sequences of a guest that runs, which EL2 breaks: a store succeeds only if its load has
//! executed, and nothing has opened the monitor since.

use crate::board::{
    Board, CONTINUE, DATA, ENTRY, ERET, NOP, SVC, Sharing, add, b, bl, cbnz, cbz, ldr, ldxr, str,
    stxr, sub,
};
use crate::cpu::FakeCpu;
use crate::sharing::{go_until, run_until, timeline};
use crate::words::CLREX;
use stepwell_arch::{Ipa, Va};
use stepwell_protocol::{Place, StopReason};
use stepwell_vm::memory::GuestMemory;
use stepwell_wire::Command;

/// A register of the UART's that keeps what is written: X2. Its load comes to EL2.
const DEVICE: u64 = 0x0900_0024;
const RET: u32 = 0xd65f_03c0;
const SVC_VECTOR: u64 = 0x4000_8000 + 0x200;
const SEEN: u64 = 7;
/// XZR.
const ZERO: u32 = 31;

/// A guest in which X3 points at 7, and whose SVC adds 100 to that.
fn board(program: &[u32], sharing: Sharing) -> (Board, FakeCpu) {
    let board: Board = Board::with(1, program, sharing);
    let cpu = board.cpu(0);
    let handler = [ldr(9, 7), add(9, 9, 100), str(9, 7), ERET];
    for (n, word) in (0..).zip(handler) {
        board.ram.write(Ipa(SVC_VECTOR + 4 * n), &u32::to_le_bytes(word)).expect("it is RAM");
    }
    board.ram.write(Ipa(DATA), &SEEN.to_le_bytes()).expect("it is RAM");
    let x = [DEVICE, DATA, 2, 0, 0, DATA, 4];
    board.machine.domains[0].vcpus[0].core.lock().context.x[2..9].copy_from_slice(&x);
    (board, cpu)
}

/// What X4 says of the store-exclusive, and what lies there: where the program comes to `end`.
fn stored(program: &[u32], end: u64) -> (u64, u64) {
    let (board, cpu) = board(program, Sharing::None);
    let place = Place::Va(Va(ENTRY + 4 * end));
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 4 * end));
    let mut bytes = [0; 8];
    board.ram.read(Ipa(DATA), &mut bytes).expect("it is RAM");
    (stop.registers.x[4], u64::from_le_bytes(bytes))
}

#[test]
fn what_el2_carries_out_breaks_no_sequence_of_one_that_runs_alone() {
    let sequence = |inside: &[u32]| {
        let program = [&[ldxr(1, 3)], inside, &[ldr(6, 2), stxr(4, 1, 3), b(0)]].concat();
        stored(&program, program.len() as u64 - 1)
    };
    assert_eq!(sequence(&[]), (0, SEEN));
    assert_eq!(sequence(&[add(1, 1, 1), add(1, 1, 1)]), (0, SEEN + 2));
    // What is called is looked at.
    let program = [ldxr(1, 3), bl(4), ldr(6, 2), stxr(4, 1, 3), b(0), add(1, 1, 1), RET];
    assert_eq!(stored(&program, 4), (0, SEEN + 1));
}

#[test]
fn a_store_fails_whose_update_would_be_lost() {
    // In what was called.
    let program = [ldxr(1, 3), bl(5), ldr(6, 2), add(5, 1, 1), stxr(4, 5, 3), b(0), SVC, RET];
    assert_eq!(stored(&program, 5), (1, SEEN + 100), "called");
    // Deeper than is looked.
    let program = [ldxr(1, 3), bl(4), ldr(6, 2), stxr(4, 1, 3), b(0), cbnz(ZERO, 2), SVC, RET];
    assert_eq!(stored(&program, 4), (1, SEEN + 100), "called, and not seen");
    // Out of line, behind the store.
    let program = [ldxr(1, 3), cbz(ZERO, 4), ldr(6, 2), stxr(4, 1, 3), b(0), SVC, b(-4)];
    assert_eq!(stored(&program, 4), (1, SEEN + 100), "out of line");
    // By itself.
    let program = [ldxr(1, 3), str(8, 3), ldr(6, 2), stxr(4, 1, 3), b(0)];
    assert_eq!(stored(&program, 4), (1, 4), "its own");
}

#[test]
fn a_store_fails_whose_load_has_not_executed() {
    // X1 is what the load would have read, or is not.
    for seen in [0, SEEN as u32] {
        let read = add(1, 10, seen);
        let program = [read, CLREX, cbz(ZERO, 2), ldxr(1, 3), ldr(6, 2), stxr(4, 8, 3), b(0)];
        assert_eq!(stored(&program, 6), (1, SEEN), "{seen}");
    }
    // Not from there.
    let program = [ldxr(1, 3), add(3, 3, 8), ldr(6, 2), stxr(4, 8, 3), b(0)];
    assert_eq!(stored(&program, 4).0, 1);
}

/// It may fail in one turn and not in every one.
#[test]
fn every_loop_comes_to_its_end() {
    // Fails are in X6, of which 20 end it, too.
    let end = [cbz(4, 4), add(6, 6, 1), sub(11, 6, 20)];
    let bodies: [&[u32]; 5] = [
        &[ldr(9, 2), NOP],
        &[str(8, 12), ldr(9, 2)],
        &[b(1), ldr(9, 2)],
        // A subroutine with a branch in it, and one that comes to EL2 itself.
        &[bl(9), ldr(9, 2)],
        &[bl(11), NOP],
    ];
    for (n, body) in bodies.iter().enumerate() {
        let begin = [&[ldxr(1, 3)], *body, &[stxr(4, 1, 3)], &end].concat();
        // Behind it: back, and the end.
        let program =
            [begin.as_slice(), &[cbnz(11, -7), b(0), NOP, cbnz(ZERO, 1), RET, ldr(9, 2), RET]]
                .concat();
        let (board, cpu) = board(&program, Sharing::None);
        board.machine.domains[0].vcpus[0].core.lock().context.x[12] = DATA + 8;
        let place = Place::Va(Va(ENTRY + 4 * 8));
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        let stop = board.go(&cpu, CONTINUE);
        assert_eq!(stop.reason, StopReason::Breakpoint);
        assert_eq!((stop.registers.x[4], stop.registers.x[6] <= 1), (0, true), "body {n}");
    }
}

/// Where instructions are counted: stopped anywhere, by any means, it comes to the same.
#[test]
fn a_stop_in_a_sequence_changes_nothing_that_comes_after_it() {
    const END: u64 = 40;
    let programs: [&[u32]; 5] = [
        &[ldxr(1, 3), ldr(6, 2), stxr(4, 1, 3), cbnz(4, -3), add(5, 5, 1), b(-5)],
        &[
            ldxr(1, 3),
            add(1, 1, 1),
            ldr(6, 2),
            NOP,
            stxr(4, 1, 3),
            cbnz(4, -5),
            add(5, 5, 1),
            b(-7),
        ],
        // Registers do not tell what it has read.
        &[
            ldxr(1, 3),
            cbz(1, 2),
            add(1, 10, 3),
            NOP,
            stxr(4, 1, 3),
            cbnz(4, -5),
            add(5, 5, 1),
            b(-7),
        ],
        &[
            ldxr(1, 3),
            bl(6),
            NOP,
            stxr(4, 1, 3),
            cbnz(4, -4),
            add(5, 5, 1),
            b(-6),
            add(1, 1, 1),
            RET,
        ],
        // It opens the monitor in each turn.
        &[ldxr(1, 3), bl(6), ldr(6, 2), stxr(4, 1, 3), add(5, 5, 1), NOP, b(-6), SVC, RET],
    ];
    for (n, program) in programs.into_iter().enumerate() {
        let (ran, cpu) = board(program, Sharing::Counted(1000));
        run_until(&ran, &cpu, END);
        let expected = (timeline(&ran, &cpu), x(&ran));
        for (stop, by_steps) in (1..END).flat_map(|stop| [(stop, false), (stop, true)]) {
            let (stopped, other) = board(program, Sharing::Counted(1000));
            run_until(&stopped, &other, stop);
            go_until(&stopped, &other, END, by_steps);
            let came_to = (timeline(&stopped, &other), x(&stopped));
            assert_eq!(came_to, expected, "program {n}, stopped at {stop}, {by_steps}");
        }
    }
}

fn x(board: &Board) -> [u64; 15] {
    let core = board.machine.domains[0].vcpus[0].core.lock();
    core::array::from_fn(|n| match n {
        13 => core.context.elr,
        14 => core.context.spsr,
        _ => core.context.x[n],
    })
}
