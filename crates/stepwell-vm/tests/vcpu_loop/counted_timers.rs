//! The timer of a guest whose instructions are counted: its interrupt comes at one position, however
//! that is come to.

use crate::board::{Board, ENTRY, ERET, NOP, Sharing, add, b, cbnz, ldr, ldxr, stxr, sub};
use crate::cpu::FakeCpu;
use crate::sharing::{go_until, run_until, timeline};
use crate::words::TRAPPED;
use stepwell_arch::{Ipa, Pstate, SystemRegister};
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::vgic::{GICD_BASE, GICR_BASE};

const IRQ_VECTOR: u64 = 0x4000_8000 + 0x280;
/// A register of the UART's that keeps what is written.
const DEVICE: u64 = 0x0900_0024;
const WORD: u64 = ENTRY + 0x1_0000;
const PHYSICAL_TIMER: u64 = 30;
/// Instructions before the program's own.
const BEGIN: u64 = 2;
const TURNS: [u64; 2] = [7, 1000];

/// What a trapped MSR leaves in ESR_EL2.
fn msr(register: SystemRegister, rt: u64) -> u64 {
    let (op0, op1) = (u64::from(register.op0()), u64::from(register.op1()));
    let (crn, crm) = (u64::from(register.crn()), u64::from(register.crm()));
    let op2 = u64::from(register.op2());
    0x18 << 26 | 1 << 25 | op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1
}

/// A guest before its third instruction. Its physical timer goes off when its clock shows `compare`, and
/// its handler switches that off.
fn timed(program: &[u32], turn: u64, compare: u64) -> (Board, FakeCpu) {
    let whole: Vec<u32> = [TRAPPED, TRAPPED].iter().chain(program).copied().collect();
    let board: Board = Board::with(1, &whole, Sharing::Counted(turn));
    let cpu = board.cpu(0);
    for (n, word) in (0..).zip([TRAPPED, ERET]) {
        board.ram.write(Ipa(IRQ_VECTOR + 4 * n), &u32::to_le_bytes(word)).expect("it is RAM");
    }
    let domain = &board.machine.domains[0];
    let mut vgic = domain.vgic.change();
    let frame = GICR_BASE.0 + 0x1_0000;
    vgic.mmio_write(0, Ipa(GICD_BASE.0), 4, 0x13); // ARE, both groups
    vgic.mmio_write(0, Ipa(frame + 0x80), 4, 1 << PHYSICAL_TIMER); // group 1
    vgic.mmio_write(0, Ipa(frame + 0x100), 4, 1 << PHYSICAL_TIMER); // enabled
    drop(vgic);
    let mut core = domain.vcpus[0].core.lock();
    core.interface.vmcr = 0xff << 24 | 1 << 1; // all priorities, group 1
    core.context.spsr &= !Pstate::I;
    core.context.x[2..10].copy_from_slice(&[DEVICE, WORD, 0, 0, 0, compare, 1, 0]);
    drop(core);
    cpu.trap_with(msr(SystemRegister::CNTP_CVAL_EL0, 7));
    run_until(&board, &cpu, 1);
    cpu.trap_with(msr(SystemRegister::CNTP_CTL_EL0, 8));
    run_until(&board, &cpu, BEGIN);
    cpu.trap_with(msr(SystemRegister::CNTP_CTL_EL0, 9));
    (board, cpu)
}

/// A load that EL2 carries out: a timer that is due behind it comes before the next instruction.
#[test]
fn a_timer_comes_right_behind_what_el2_carries_out() {
    let program = [NOP, ldr(1, 2), NOP, NOP, ldr(1, 2), ldr(1, 2), NOP, b(-7)];
    for turn in TURNS {
        for (compare, position) in (3..14).flat_map(|c| (3..20).map(move |p| (c, p))) {
            let (ran, cpu) = timed(&program, turn, compare);
            run_until(&ran, &cpu, position);
            let (stepped, other) = timed(&program, turn, compare);
            go_until(&stepped, &other, position, true);
            let (ran, stepped) = (timeline(&ran, &cpu), timeline(&stepped, &other));
            assert_eq!(stepped, ran, "due at {compare}, at {position} in turns of {turn}");
        }
    }
}

/// The handler of an interrupt that broke a sequence is stepped. What it has in mind of a load-exclusive whose
/// store is never come to is not taken for that of the next sequence, however far away that is.
#[test]
fn a_load_exclusive_without_a_store_fails_no_later_store() {
    const END: u64 = 160;
    let program = [ldxr(1, 3), add(1, 1, 1), NOP, stxr(4, 1, 3), cbnz(4, -4), add(5, 5, 1), b(-6)];
    for turns in 20..36 {
        let far = [ldxr(10, 3), add(11, 9, turns), sub(11, 11, 1), cbnz(11, -1)];
        let handler = [&[TRAPPED], &far[..], &[ldxr(12, 3), stxr(14, 12, 3), ERET]].concat();
        for compare in 3..10 {
            let ready = || {
                let (board, cpu) = timed(&program, 1000, compare);
                for (n, &word) in (0..).zip(&handler) {
                    board.ram.write(Ipa(IRQ_VECTOR + 4 * n), &word.to_le_bytes()).expect("RAM");
                }
                board.machine.domains[0].vcpus[0].core.lock().context.x[14] = 7;
                (board, cpu)
            };
            let (ran, cpu) = ready();
            run_until(&ran, &cpu, END);
            assert_eq!(ran.machine.domains[0].vcpus[0].core.lock().context.x[14], 0);
            for stop in [BEGIN, END - 40] {
                let (stepped, other) = ready();
                run_until(&stepped, &other, stop);
                go_until(&stepped, &other, END, true);
                let (stepped, ran) = (timeline(&stepped, &other), timeline(&ran, &cpu));
                assert_eq!(stepped, ran, "due at {compare}, {turns} turns, stepped from {stop}");
            }
        }
    }
}

/// Its store fails, since a handler has returned into the sequence: also where there was a stop in
/// between.
#[test]
fn a_stop_behind_a_handler_does_not_mend_the_sequence_that_it_broke() {
    const END: u64 = 40;
    let program = [ldxr(1, 3), add(1, 1, 1), NOP, stxr(4, 1, 3), cbnz(4, -4), add(5, 5, 1), b(-6)];
    for compare in 3..16 {
        let (ran, cpu) = timed(&program, 1000, compare);
        run_until(&ran, &cpu, END);
        let expected = timeline(&ran, &cpu);
        for (stop, by_steps) in (3..END).flat_map(|stop| [(stop, false), (stop, true)]) {
            let (stopped, other) = timed(&program, 1000, compare);
            run_until(&stopped, &other, stop);
            go_until(&stopped, &other, END, by_steps);
            let came_to = timeline(&stopped, &other);
            assert_eq!(came_to, expected, "due at {compare}, stopped at {stop}, {by_steps}");
        }
    }
}
