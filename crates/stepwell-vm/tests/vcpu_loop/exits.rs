//! What the guest calls and faults for, at full speed and under a step.

use crate::board::{Board, CONTINUE, ENTRY, HVC, NOP, SMC, SVC, b, brk, step, str};
use crate::cpu::FakeCpu;
use stepwell_arch::{Pstate, SystemRegister};
use stepwell_protocol::{DomainEnding, Monitor, StopReason};
use stepwell_vm::cpu::Cpu;
use stepwell_wire::{Command, Event};

const PSCI_SYSTEM_OFF: u64 = 0x8400_0008;
const PSCI_VERSION: u64 = 0x8400_0000;
const VBAR_SYNC: u64 = 0x4000_8000 + 0x200;

fn ending(board: &Board, cpu: &FakeCpu, command: Command) -> DomainEnding {
    board.serve(cpu, command);
    assert!(board.carry_out(cpu));
    match &board.events.take()[..] {
        [.., Event::DomainEnded { ending, .. }] => *ending,
        other => panic!("the domain ends, not {other:?}"),
    }
}

fn with_x(board: &Board, register: usize, value: u64) {
    board.machine.domains[0].vcpus[0].core.lock().context.x[register] = value;
}

#[test]
fn a_guest_that_switches_off_ends_its_domain() {
    for command in [CONTINUE, step(10, false)] {
        let board = Board::new(1, &[NOP, HVC, b(0)]);
        let cpu = board.cpu(0);
        with_x(&board, 0, PSCI_SYSTEM_OFF);
        assert_eq!(ending(&board, &cpu, command), DomainEnding::PoweredOff);
        assert!(cpu.is_off(), "no domain is left");
        assert!(board.try_to(&cpu, CONTINUE).is_err());
    }
}

#[test]
fn a_call_is_one_step() {
    let board = Board::new(1, &[HVC, NOP, b(0)]);
    let cpu = board.cpu(0);
    with_x(&board, 0, PSCI_VERSION);
    let stop = board.go(&cpu, step(1, true));
    assert_eq!((stop.steps, stop.registers.pc), (1, ENTRY + 4));
    assert_eq!(stop.registers.x[0], 0x1_0001, "PSCI 1.1");
    assert_eq!(board.recorded(), [ENTRY]);
}

/// Its return from EL2 leaves the guest's own step pending, of which the syndrome tells nothing
/// (SoftwareStep_DidNotStep).
#[test]
fn a_call_is_no_instruction_that_the_guest_has_stepped() {
    for (word, syndrome) in [(NOP, 0xcf00_0022), (HVC, 0xce00_0022)] {
        let board = Board::new(1, &[word, NOP, b(0)]);
        let cpu = board.cpu(0);
        let mut core = board.machine.domains[0].vcpus[0].core.lock();
        core.context.x[0] = PSCI_VERSION;
        core.context.spsr |= Pstate::SS;
        drop(core);
        board.debug_itself(&cpu, 1 << 13 | 1, &[]);
        let stop = board.go(&cpu, step(2, false));
        assert_eq!(stop.registers.pc, VBAR_SYNC, "{word:#x}");
        assert_eq!(cpu.read(SystemRegister::ELR_EL1), ENTRY + 4);
        assert_eq!(cpu.read(SystemRegister::ESR_EL1), syndrome, "{word:#x}");
    }
}

#[test]
fn exceptions_of_the_guest_are_entered_once() {
    // SVC goes to EL1 by itself; BRK comes to EL2 while somebody debugs, and so does what is
    // undefined.
    for (word, class) in [(SVC, 0x15), (brk(3), 0x3c), (0, 0)] {
        let board = Board::new(1, &[NOP, word, b(0)]);
        let cpu = board.cpu(0);
        let stop = board.go(&cpu, step(2, true));
        assert_eq!((stop.steps, stop.registers.pc), (2, VBAR_SYNC), "{word:x}");
        let register = |register: SystemRegister| cpu.read(register);
        assert_eq!(register(SystemRegister::ESR_EL1) >> 26, class);
        assert_eq!(register(SystemRegister::SPSR_EL1) >> 21 & 1, 0, "no SS of ours is left");
        assert_eq!(board.recorded(), [ENTRY, ENTRY + 4]);
    }
}

#[test]
fn a_monitored_call_stops_once_and_then_takes_effect() {
    let board = Board::new(1, &[NOP, SMC, b(0)]);
    let cpu = board.cpu(0);
    let monitor = Monitor::PrivilegedCall;
    board.serve(&cpu, Command::SetMonitor { domain: 0, vcpu: None, monitor, on: true });
    board.events.take();
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!(stop.reason, StopReason::PrivilegedCall { immediate: 0 });
    assert_eq!(stop.registers.pc, ENTRY + 4);
    let stop = board.go(&cpu, step(1, false));
    assert_eq!(stop.registers.pc, VBAR_SYNC, "undefined on a board without EL3");
}

#[test]
fn the_console_is_sent_line_by_line() {
    // X1 := a byte; [UART] := X1, twice, then a line's end.
    let board = Board::new(1, &[str(1, 2), str(3, 2), HVC]);
    let cpu = board.cpu(0);
    with_x(&board, 2, 0x0900_0000);
    with_x(&board, 1, u64::from(b'x'));
    with_x(&board, 3, u64::from(b'\n'));
    with_x(&board, 0, PSCI_SYSTEM_OFF);
    board.serve(&cpu, CONTINUE);
    assert!(board.carry_out(&cpu));
    let texts: Vec<_> = board
        .events
        .take()
        .into_iter()
        .filter_map(|event| match event {
            Event::Console { bytes, .. } => Some(bytes.to_vec()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, [b"x\n".to_vec()]);
}
