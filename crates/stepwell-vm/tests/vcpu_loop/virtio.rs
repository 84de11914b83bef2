//! Queues that the tool serves, as the guest that notifies them sees it.

use crate::board::{Board, CONTINUE, ENTRY, NOP, SERVED, SERVED_AT, b, brk, step};
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
const SLOT: u64 = 31;
const NOTIFY: u64 = 0x0a00_0000 + SLOT * 0x200 + 0x50;

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
    let board = Board::new(1, &[STR_W1_X2, brk(0), b(0)]);
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
        (0x90, 0x4001_2000),
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
        if command == CONTINUE {
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
            driver: 0x4001_2000,
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
        let virtio = board.machine.domains[0].virtio.lock();
        assert!(virtio.line(SLOT as usize));
    }
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
