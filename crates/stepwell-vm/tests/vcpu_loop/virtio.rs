//! Queues that the tool serves, as the guest that notifies them sees it.

use crate::board::{Board, CONTINUE, ENTRY, NOP, SERVED, SERVED_AT, b, brk, cbnz, ldr, step};
use crate::cpu::FakeCpu;
use crate::memory::{BASE, BYTES};
use stepwell_arch::{Ipa, Va};
use stepwell_protocol::{Place, Refusal, StopReason};
use stepwell_vm::device::virtio::FIRST_INTID;
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::vgic::GICD_BASE;
use stepwell_wire::devices::QueueRequest;
use stepwell_wire::{Answer, Command};

const STR_W1_X2: u32 = 0xb900_0041;
const STR_W5_X6: u32 = 0xb900_00c5;
const SLOT: u64 = 31;
const REGISTERS: u64 = 0x0a00_0000 + SLOT * 0x200;
const NOTIFY: u64 = REGISTERS + 0x50;
const DRIVER: u64 = 0x4001_2000;
/// More than a vCPU that need not wait looks for an answer.
const MANY_LOOKS: usize = 20_001;

fn attach() -> Command {
    Command::AttachDevice {
        domain: 0,
        slot: SLOT as u8,
        device: 2,
        features: 1 << 32,
        queues: heapless::Vec::from_slice(&[128]).expect("one"),
        configuration: heapless::Vec::new(),
    }
}

/// A board whose guest has set a device up, and notifies its queue once.
fn board() -> (Board, FakeCpu) {
    board_with(&[STR_W1_X2, brk(0), b(0)])
}

fn board_with(program: &[u32]) -> (Board, FakeCpu) {
    let board = Board::new(1, program);
    let cpu = board.cpu(0);
    assert_eq!(board.try_to(&cpu, attach()), Ok(Answer::Done));
    assert_eq!(board.try_to(&cpu, attach()), Err(Refusal::Busy), "the slot is taken");
    let domain = &board.machine.domains[0];
    let mut virtio = domain.virtio.lock();
    for (offset, value) in [
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x38, 64),
        (0x80, 0x4001_1000),
        (0x90, DRIVER),
        (0xa0, 0x4001_3000),
        (0x44, 1),
        (0x70, 15),
    ] {
        let _no_effect = virtio.write(SLOT as usize, offset, 4, value);
    }
    drop(virtio);
    let mut core = domain.vcpus[0].core.lock();
    (core.context.x[1], core.context.x[2]) = (0, NOTIFY);
    drop(core);
    (board, cpu)
}

fn is_pending(board: &Board) -> bool {
    let intid = u64::from(FIRST_INTID) + SLOT;
    let ispendr = Ipa(GICD_BASE.0 + 0x200 + intid / 32 * 4);
    let word = board.machine.domains[0].vgic.change().mmio_read(0, ispendr, 4);
    word >> (intid % 32) & 1 != 0
}

#[test]
fn a_notified_queue_is_served_before_the_guest_goes_on() {
    for command in [CONTINUE, step(1, true)] {
        let (board, cpu) = board();
        let place = Place::Va(Va(ENTRY + 4));
        let is_free = command == CONTINUE;
        if is_free {
            board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        }
        let stop = board.go(&cpu, command);
        assert_eq!(stop.registers.pc, ENTRY + 4);
        let expected = QueueRequest {
            domain: 0,
            slot: SLOT as u8,
            queue: 0,
            size: 64,
            descriptors: 0x4001_1000,
            driver: DRIVER,
            device: 0x4001_3000,
            next_available: 0,
            next_used: 0,
            features: 1 << 32,
            ram: BASE.0,
            ram_bytes: BYTES,
        };
        assert_eq!(board.events.take_queues(), [expected]);
        let mut written = [0; SERVED.len()];
        board.ram.read(Ipa(SERVED_AT), &mut written).expect("it is RAM");
        assert_eq!(written, SERVED);
        assert!(is_pending(&board));
        let domain = &board.machine.domains[0];
        assert!(domain.virtio.lock().line(SLOT as usize));
        // One that has entered the guest since is alone again.
        let is_kept = domain.alone.has_been(0);
        assert_eq!(is_kept, is_free, "an exclusive sequence around it");
    }
}

fn was_written(board: &Board) -> bool {
    let mut written = [0; SERVED.len()];
    board.ram.read(Ipa(SERVED_AT), &mut written).expect("it is RAM");
    written == SERVED
}

#[test]
fn a_guest_that_runs_goes_on_while_a_queue_is_served() {
    // It waits for what is written, and the link tells of the answer.
    let (board, cpu) = board_with(&[STR_W1_X2, ldr(3, 4), cbnz(3, 2), b(-2), brk(0), b(0)]);
    board.machine.domains[0].vcpus[0].core.lock().context.x[4] = SERVED_AT + 3;
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY + 16)) });
    board.events.devices().looks_in_vain = MANY_LOOKS;
    cpu.call_by_link();
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!((stop.registers.pc, stop.registers.x[3]), (ENTRY + 16, 0x08_0706_0504));
    assert!(cpu.executed().len() > 3, "it has seen none before");
    assert!(was_written(&board) && is_pending(&board) && board.events.devices().was_left);
}

#[test]
fn a_stopped_guest_has_no_request_in_flight() {
    for (command, is_left) in [(CONTINUE, true), (step(1, true), false)] {
        let (board, cpu) = board();
        if command == CONTINUE {
            let place = Place::Va(Va(ENTRY + 4));
            board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        }
        board.events.devices().looks_in_vain = MANY_LOOKS + 100;
        let stop = board.go(&cpu, command);
        assert_eq!(stop.registers.pc, ENTRY + 4);
        assert!(was_written(&board) && is_pending(&board));
        assert_eq!(board.events.devices().was_left, is_left);
    }
}

#[test]
fn a_reset_waits_for_the_request_in_flight() {
    let (board, cpu) = board_with(&[STR_W1_X2, STR_W5_X6, brk(0), b(0)]);
    board.machine.domains[0].vcpus[0].core.lock().context.x[6] = REGISTERS + 0x70;
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY + 8)) });
    board.events.devices().looks_in_vain = MANY_LOOKS + 100;
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!(stop.registers.pc, ENTRY + 8);
    assert!(was_written(&board) && !is_pending(&board));
    assert_eq!(board.machine.domains[0].virtio.lock().read(SLOT as usize, 0x70, 4), 0);
}

#[test]
fn what_comes_by_itself_comes_while_the_guest_runs() {
    let program = [ldr(3, 4), cbnz(3, 2), b(-2), brk(0), b(0)];
    let (board, cpu) = board_with(&program);
    board.machine.domains[0].vcpus[0].core.lock().context.x[4] = SERVED_AT + 3;
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY + 12)) });
    board.events.devices().wanted = 1 << SLOT;
    cpu.call_by_link();
    stepwell_vm::vcpu::interrupt::take_all_at_el2(&board.machine, &cpu, 0);
    assert!(!was_written(&board), "not while it is stopped");
    cpu.call_by_link();
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!(stop.registers.pc, ENTRY + 12);
    assert!(was_written(&board) && is_pending(&board));
}

#[test]
fn a_driver_that_looks_by_itself_is_not_interrupted() {
    let (board, cpu) = board();
    board.ram.write(Ipa(DRIVER), &[1, 0]).expect("it is RAM");
    let _stop = board.go(&cpu, step(1, true));
    assert!(was_written(&board) && !is_pending(&board));
}

#[test]
fn a_queue_that_nobody_has_set_up_is_not_served() {
    let (board, cpu) = board();
    board.machine.domains[0].vcpus[0].core.lock().context.x[1] = 1;
    let stop = board.go(&cpu, step(1, true));
    assert_eq!(stop.registers.pc, ENTRY + 4);
    assert!(board.events.take_queues().is_empty() && !is_pending(&board));
}

#[test]
fn a_breakpoint_in_what_is_written_stays() {
    let (board, cpu) = board();
    let at = SERVED_AT & !3;
    board.ram.write(Ipa(at - 4), &NOP.to_le_bytes()).expect("it is RAM");
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Ipa(Ipa(at)) });
    let _stop = board.go(&cpu, step(1, true));
    board.machine.domains[0].vcpus[0].core.lock().context.elr = at - 4;
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!((stop.registers.pc, stop.reason), (at, StopReason::Breakpoint));
}
