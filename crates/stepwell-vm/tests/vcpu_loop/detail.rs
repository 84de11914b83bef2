//! Recordings that tell more than PCs: registers that change, and what is loaded and stored.

use crate::board::{Board, DATA, ENTRY, ERET, SVC, add, ldr, ldxr, step, str, stxr};
use stepwell_arch::Va;
use stepwell_protocol::{MemoryAccess, MemoryAccessKind, TraceRecord};
use stepwell_wire::Command;
use stepwell_wire::ring::Decoder;

/// ADD X1, X1, #7; stores, loads, and an exclusive pair, all at X2.
const PROGRAM: [u32; 6] = [add(1, 1, 7), str(1, 2), ldr(3, 2), ldxr(4, 2), stxr(5, 1, 2), SVC];

fn records(board: &Board) -> Vec<TraceRecord> {
    let words =
        std::mem::take(&mut board.machine.ring.lock().as_mut().expect("there is one").words);
    let mut decoder = Decoder::default();
    words.into_iter().filter_map(|word| decoder.push(word).expect("it is one")).collect()
}

fn recorded(registers: bool, memory: bool) -> Vec<TraceRecord> {
    let board = Board::new(1, &PROGRAM);
    let cpu = board.cpu(0);
    board.machine.domains[0].vcpus[0].core.lock().context.x[2] = DATA;
    board.serve(&cpu, Command::SetDetail { domain: 0, registers, memory });
    let stop = board.go(&cpu, step(5, true));
    assert_eq!((stop.steps, stop.registers.pc), (5, ENTRY + 20));
    records(&board)
}

#[test]
fn registers_are_told_when_they_change() {
    let records = recorded(true, false);
    let changes: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            TraceRecord::Register { register, value, found: false, .. } => {
                Some((register.number(), *value))
            }
            _ => None,
        })
        .collect();
    // X1 by ADD, X3 and X4 by the loads; the status is 0 as it was.
    assert_eq!(changes, [(1, 7), (3, 7), (4, 7)]);
    // All 33 are found at the beginning.
    let found = records.iter().filter(|it| matches!(it, TraceRecord::Register { found: true, .. }));
    assert_eq!(found.count(), 33);
    assert!(!records.iter().any(|it| matches!(it, TraceRecord::Memory(_))));
}

#[test]
fn what_is_loaded_and_stored_is_told_with_its_value() {
    let records = recorded(false, true);
    let accesses: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            TraceRecord::Memory(access) => Some(*access),
            _ => None,
        })
        .collect();
    let at = |access| MemoryAccess { vcpu: 0, access, address: Va(DATA), size: 8, value: Some(7) };
    use MemoryAccessKind::{Load, Store};
    // STR, LDR, LDXR, STXR.
    assert_eq!(accesses, [at(Store), at(Load), at(Load), at(Store)]);
    assert!(!records.iter().any(|it| matches!(it, TraceRecord::Register { .. })));
}

/// What an instruction before which something else comes would have done is not told.
#[test]
fn exceptions_and_their_returns_are_told_and_nothing_of_what_they_came_before() {
    let board = Board::new(1, &[SVC, str(1, 2)]);
    let cpu = board.cpu(0);
    let vector = stepwell_arch::Ipa(0x4000_8000 + 0x200);
    stepwell_vm::memory::GuestMemory::write(&board.ram, vector, &ERET.to_le_bytes())
        .expect("it is RAM");
    board.machine.domains[0].vcpus[0].core.lock().context.x[2] = DATA;
    board.serve(&cpu, Command::SetDetail { domain: 0, registers: true, memory: true });
    board.go(&cpu, step(3, true));
    let records = records(&board);
    let entries = records.iter().filter(|it| matches!(it, TraceRecord::ExceptionEntry(_)));
    assert_eq!(entries.count(), 1);
    let returns = records.iter().any(|it| {
        matches!(it, TraceRecord::ExceptionReturn { to: Va(to), el: 1, .. } if *to == ENTRY + 4)
    });
    assert!(returns, "{records:?}");
    let stores = records.iter().filter(|it| matches!(it, TraceRecord::Memory(_))).count();
    assert_eq!(stores, 1, "of STR");
}
