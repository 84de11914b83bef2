//! Virtual interrupts while stepping: held, stepped into, run over.

use crate::board::{Board, ENTRY, ERET, NOP, b, step};
use crate::cpu::FakeCpu;
use stepwell_arch::{Ipa, Pstate};
use stepwell_vm::device::board::PL011_INTID;
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::vgic::GICD_BASE;
use stepwell_wire::{Command, InterruptPolicy};

const IRQ_VECTOR: u64 = 0x4000_8000 + 0x280;

/// A guest at an endless row of NOPs, with the UART's interrupt up and nothing masked.
fn interrupted() -> (Board, FakeCpu) {
    let mut program = [NOP; 32];
    program[31] = b(-31);
    let board = Board::new(1, &program);
    let cpu = board.cpu(0);
    // The handler masks nothing more and goes back.
    for (n, word) in (0..).zip([NOP, NOP, ERET]) {
        let at = Ipa(IRQ_VECTOR + 4 * n);
        board.ram.write(at, &u32::to_le_bytes(word)).expect("it is RAM");
    }
    let domain = &board.machine.domains[0];
    let mut vgic = domain.vgic.change();
    let (register, bit) = (u64::from(PL011_INTID / 32 * 4), 1_u64 << (PL011_INTID % 32));
    vgic.mmio_write(0, Ipa(GICD_BASE.0), 4, 0x13); // ARE, both groups
    vgic.mmio_write(0, Ipa(GICD_BASE.0 + 0x80 + register), 4, bit); // group 1
    vgic.mmio_write(0, Ipa(GICD_BASE.0 + 0x100 + register), 4, bit); // enabled
    vgic.mmio_write(0, Ipa(GICD_BASE.0 + 0x6100 + 8), 8, 0); // to vCPU 0
    vgic.set_line(PL011_INTID, None, true);
    drop(vgic);
    let mut core = domain.vcpus[0].core.lock();
    core.interface.vmcr = 0xff << 24 | 1 << 1; // all priorities, group 1
    core.context.spsr &= !Pstate::I;
    drop(core);
    (board, cpu)
}

fn policy(board: &Board, cpu: &FakeCpu, policy: InterruptPolicy) {
    board.serve(cpu, Command::SetInterruptPolicy { domain: 0, policy });
}

#[test]
fn held_interrupts_never_come() {
    let (board, cpu) = interrupted();
    policy(&board, &cpu, InterruptPolicy::Hold);
    let stop = board.go(&cpu, step(10, true));
    assert_eq!((stop.steps, stop.registers.pc), (10, ENTRY + 40));
    assert_eq!(board.recorded(), cpu.executed());
}

#[test]
fn an_interrupt_that_is_stepped_into_is_one_step() {
    let (board, cpu) = interrupted();
    policy(&board, &cpu, InterruptPolicy::Into);
    let stop = board.go(&cpu, step(1, true));
    assert_eq!((stop.steps, stop.registers.pc), (1, IRQ_VECTOR));
    let stop = board.go(&cpu, step(1, true));
    assert_eq!(stop.registers.pc, IRQ_VECTOR + 4);
}
