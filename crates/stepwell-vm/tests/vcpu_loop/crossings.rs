//! Loads and stores that lie in two pages, of which stage 2 refuses the second: FAR_EL2 then names that
//! page and not where the access begins.

use crate::board::{Board, CONTINUE, DATA, ENTRY, NOP, b, ldr, step, str};
use crate::cpu::FakeCpu;
use crate::memory::BYTES;
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_protocol::{Place, Registers, StopReason, WatchAccess, Watchpoint};
use stepwell_vm::cpu::Cpu;
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::memory::GuestMemory;
use stepwell_wire::Command;

/// The second page.
const PAGE: u64 = DATA + 0x1000;
const BEFORE: u64 = 0x1122_3344_5566_7788;
const BEHIND: u64 = 0x99aa_bbcc_ddee_ff00;
const VALUE: u64 = 0xa1a2_a3a4_a5a6_a7a8;
const RAM_END: u64 = RAM_BASE.0 + BYTES;
const VBAR_SYNC: u64 = 0x4000_8000 + 0x200;

/// A machine whose X1 is to be stored, or loaded, at X2, with something on both sides of a border.
fn board(word: u32, x2: u64) -> (Board, FakeCpu) {
    let board = Board::new(1, &[word, NOP, b(0)]);
    let cpu = board.cpu(0);
    for at in [PAGE, RAM_END] {
        board.ram.write(Ipa(at - 8), &BEFORE.to_le_bytes()).expect("it is RAM");
    }
    board.ram.write(Ipa(PAGE), &BEHIND.to_le_bytes()).expect("it is RAM");
    {
        let mut core = board.machine.domains[0].vcpus[0].core.lock();
        (core.context.x[1], core.context.x[2]) = (VALUE, x2);
    }
    for va in [ENTRY + 4, VBAR_SYNC] {
        breakpoint(&board, &cpu, Place::Va(Va(va)));
    }
    (board, cpu)
}

fn breakpoint(board: &Board, cpu: &FakeCpu, place: Place) {
    board.serve(cpu, Command::SetBreakpoint { domain: 0, place });
}

/// Of a shape that no register holds: its pages are withheld.
fn watch(board: &Board, cpu: &FakeCpu, address: u64) {
    let access = WatchAccess::ReadWrite;
    let watchpoint = Watchpoint { address: Va(address), length: 24, access };
    board.serve(cpu, Command::SetWatchpoint { domain: 0, vcpu: 0, watchpoint });
}

fn around(board: &Board) -> [u8; 16] {
    let mut found = [0; 16];
    board.ram.read(Ipa(PAGE - 8), &mut found).expect("it is RAM");
    found
}

fn executed(board: &Board, cpu: &FakeCpu, order: Command) -> Registers {
    let stop = board.go(cpu, order);
    assert_eq!(stop.registers.pc, ENTRY + 4, "{:?}", stop.reason);
    assert!(!matches!(stop.reason, StopReason::Watchpoint { .. }));
    stop.registers
}

#[test]
fn both_pages_have_their_own_bytes() {
    let withheld: [fn(&Board, &FakeCpu); 4] = [
        |board, cpu| watch(board, cpu, PAGE + 0x100),
        |board, cpu| watch(board, cpu, PAGE - 0x100),
        |board, cpu| {
            watch(board, cpu, PAGE - 0x100);
            watch(board, cpu, PAGE + 0x100);
        },
        |board, cpu| breakpoint(board, cpu, Place::Ipa(Ipa(PAGE + 0x100))),
    ];
    let mut old = [0; 16];
    old[..8].copy_from_slice(&BEFORE.to_le_bytes());
    old[8..].copy_from_slice(&BEHIND.to_le_bytes());
    for (withhold, n) in withheld.iter().flat_map(|withhold| (1..8).map(move |n| (withhold, n))) {
        for order in [CONTINUE, step(1, false)] {
            let first = 8 - n;
            let (stored, cpu) = board(str(1, 2), PAGE - n as u64);
            withhold(&stored, &cpu);
            executed(&stored, &cpu, order.clone());
            let mut new = old;
            new[first..first + 8].copy_from_slice(&VALUE.to_le_bytes());
            assert_eq!(around(&stored), new, "{n} bytes before the page");
            let (loaded, cpu) = board(ldr(1, 2), PAGE - n as u64);
            withhold(&loaded, &cpu);
            let x1 = executed(&loaded, &cpu, order).x[1].to_le_bytes();
            assert_eq!(x1, old[first..first + 8], "{n} bytes before the page");
        }
    }
}

#[test]
fn watched_bytes_stop_those_accesses_that_touch_them() {
    // Where the access begins, what is watched, and where it is hit.
    let cases = [
        (PAGE - 1, PAGE, Some(PAGE)),
        (PAGE - 1, PAGE + 6, Some(PAGE + 6)),
        (PAGE - 1, PAGE + 7, None),
        (PAGE - 7, PAGE + 1, None),
        (PAGE - 4, PAGE - 24, Some(PAGE - 4)),
        (PAGE - 4, PAGE - 28, None),
        (PAGE, PAGE + 7, Some(PAGE + 7)),
        (PAGE, PAGE + 8, None),
    ];
    for (at, watched, hit) in cases {
        for order in [CONTINUE, step(1, false)] {
            for (word, access) in [(str(1, 2), WatchAccess::Write), (ldr(1, 2), WatchAccess::Read)]
            {
                let (board, cpu) = board(word, at);
                watch(&board, &cpu, watched);
                let Some(hit) = hit else {
                    executed(&board, &cpu, order.clone());
                    continue;
                };
                let stop = board.go(&cpu, order.clone());
                let expected = StopReason::Watchpoint { address: Va(hit), access };
                assert_eq!((stop.reason, stop.registers.pc), (expected, ENTRY), "{at:#x}");
            }
        }
    }
}

/// Seen on QEMU 7.2: the bytes that there are get stored, one by one.
#[test]
fn the_end_of_ram_is_where_it_aborts() {
    for n in 1..8 {
        for order in [CONTINUE, step(1, false)] {
            for (word, esr) in [(str(1, 2), 0x9600_0050), (ldr(1, 2), 0x9600_0010)] {
                let (board, cpu) = board(word, RAM_END - n as u64);
                let stop = board.go(&cpu, order.clone());
                assert_eq!(stop.registers.pc, VBAR_SYNC);
                assert_eq!(cpu.read(SystemRegister::ESR_EL1), esr);
                assert_eq!(cpu.read(SystemRegister::FAR_EL1), RAM_END);
                let mut last = [0; 8];
                board.ram.read(Ipa(RAM_END - 8), &mut last).expect("it is RAM");
                let mut expected = BEFORE.to_le_bytes();
                if word == str(1, 2) {
                    expected[8 - n..].copy_from_slice(&VALUE.to_le_bytes()[..n]);
                }
                assert_eq!(last, expected, "{n} bytes before the end");
            }
        }
    }
}
