//! vCPUs that are switched on, and the commands about those that are not.

use crate::board::{Board, ENTRY, HVC, NOP, b, step};
use stepwell_protocol::{Refusal, StopReason, VcpuState};
use stepwell_vm::image_layout::{Images, layout};
use stepwell_wire::{Answer, Command};

const PSCI_CPU_ON: u64 = 0xc400_0003;
/// EL1h, all masked, and Z.
const AT_RESET: u64 = 0x4000_03c5;

fn states(board: &Board, cpu: &crate::cpu::FakeCpu) -> Vec<VcpuState> {
    match board.serve(cpu, Command::Status { domain: 0 }) {
        Answer::Vcpus(vcpus) => vcpus.iter().map(|&(state, _)| state).collect(),
        other => panic!("vCPUs, not {other:?}"),
    }
}

#[test]
fn one_vcpu_switches_another_on() {
    let board = Board::new(2, &[HVC, NOP, b(0), NOP, b(0)]);
    let cpu = board.cpu(0);
    assert_eq!(states(&board, &cpu), [VcpuState::Stopped, VcpuState::Off]);
    let registers = |vcpu| board.try_to(&cpu, Command::ReadRegisters { domain: 0, vcpu });
    assert_eq!(registers(1), Err(Refusal::Off));
    assert_eq!(registers(2), Err(Refusal::NoSuchVcpu));
    let mut core = board.machine.domains[0].vcpus[0].core.lock();
    core.context.x[..4].copy_from_slice(&[PSCI_CPU_ON, 1, ENTRY + 12, 77]);
    drop(core);
    let stop = board.go(&cpu, step(1, false));
    assert_eq!((stop.reason, stop.registers.x[0]), (StopReason::Stepped, 0));
    assert_eq!(states(&board, &cpu), [VcpuState::Stopped, VcpuState::Stopped]);
    let Ok(Answer::Registers(other)) = registers(1) else { panic!("it is on now") };
    assert_eq!((other.pc, other.x[0]), (ENTRY + 12, 77));
    assert_eq!((other.x[4], other.pstate), (0, AT_RESET));
}

#[test]
fn a_guest_begins_with_the_registers_that_boot_code_leaves() {
    let images = Images { header: &[0; 64], kernel_bytes: 64, ..Images::default() };
    let places = layout(images, 128 << 20);
    let board = Board::new(1, &[NOP]);
    let mut core = board.machine.domains[0].vcpus[0].core.lock();
    core.begin(&board.machine.reset, &places);
    let registers = core.registers();
    let (entry, x) = (0x4008_0000, registers.x);
    assert_eq!((registers.pc, registers.pstate), (entry, AT_RESET));
    assert_eq!((x[0], x[4]), (places.argument, entry));
    assert!((1..31).all(|n| n == 4 || x[n] == 0));
}
