//! What the tool reads and writes of a stopped machine, and what it is refused.

use crate::board::{Board, CONTINUE, DATA, ENTRY, NOP, b, step};
use crate::cpu::FakeCpu;
use heapless::Vec as Bytes;
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_protocol::{
    Monitor, OthersPolicy, Place, Refusal, SimdRegisters, StopReason, SveRegister, VcpuState,
    VectorLength,
};
use stepwell_vm::cpu::Cpu;
use stepwell_vm::simd::SimdRegisters as Simd;
use stepwell_wire::{Answer, Command, Event, VERSION};

const VCPU: (u8, u8) = (0, 0);

fn stopped() -> (Box<Board>, FakeCpu) {
    let board = Box::new(Board::new(2, &[NOP, b(-1)]));
    let cpu = board.cpu(0);
    (board, cpu)
}

#[test]
fn a_tool_of_another_version_is_told_which_one_is_spoken() {
    let (board, cpu) = stopped();
    let hello = |version| board.try_to(&cpu, Command::Hello { version });
    assert_eq!(hello(VERSION + 1), Err(Refusal::Version(VERSION)));
    match hello(VERSION) {
        Ok(Answer::Hello { cpus: 2, domains: 1, vcpus, mailbox: false, ring_bytes, .. }) => {
            assert_eq!((&vcpus[..], ring_bytes), (&[2][..], 8 << 16));
        }
        other => panic!("{other:?}"),
    }
    board.serve(&cpu, Command::PowerOff);
    assert!(cpu.is_off());
}

#[test]
fn registers_are_written_but_for_a_pstate_that_no_guest_has() {
    let (board, cpu) = stopped();
    let (domain, vcpu) = VCPU;
    let read = || match board.serve(&cpu, Command::ReadRegisters { domain, vcpu }) {
        Answer::Registers(registers) => registers,
        other => panic!("{other:?}"),
    };
    let mut registers = read();
    (registers.x[3], registers.pc, registers.sp) = (77, ENTRY + 4, DATA);
    for pstate in [Pstate::M_EL1H, Pstate::M_EL1T, Pstate::M_EL0T, Pstate::M_USER] {
        registers.pstate = pstate;
        if pstate == Pstate::M_USER {
            // SP is R13 there.
            registers.x[13] = DATA;
        }
        board.serve(&cpu, Command::WriteRegisters { domain, vcpu, registers: registers.clone() });
        assert_eq!(read(), registers, "{pstate:#x}");
    }
    let el2 = stepwell_protocol::Registers { pstate: 0b1001, ..registers.clone() };
    let write = Command::WriteRegisters { domain, vcpu, registers: el2 };
    assert_eq!(board.try_to(&cpu, write), Err(Refusal::BadValue));
    assert_eq!(read(), registers, "nothing has changed");
    for (vcpu, refusal) in [(1, Refusal::Off), (2, Refusal::NoSuchVcpu)] {
        assert_eq!(board.try_to(&cpu, Command::ReadRegisters { domain, vcpu }), Err(refusal));
    }
    let elsewhere = Command::ReadRegisters { domain: 1, vcpu };
    assert_eq!(board.try_to(&cpu, elsewhere), Err(Refusal::NoSuchVcpu));
}

#[test]
fn system_registers_are_those_of_the_vcpu() {
    let (board, cpu) = stopped();
    let (domain, vcpu) = VCPU;
    cpu.write(SystemRegister::MIDR_EL1, 0x411f_d070);
    let read = |register: SystemRegister| {
        board.try_to(&cpu, Command::ReadSystemRegister { domain, vcpu, register: register.0 })
    };
    let write = |register: SystemRegister, value| {
        let register = register.0;
        board.try_to(&cpu, Command::WriteSystemRegister { domain, vcpu, register, value })
    };
    for (register, value) in [
        (SystemRegister::MPIDR_EL1, 1 << 31),
        (SystemRegister::MIDR_EL1, 0x411f_d070),
        (SystemRegister::CNTFRQ_EL0, 62_500_000),
        (SystemRegister::ID_AA64MMFR2_EL1, 1 << 32),
        (SystemRegister::OSLSR_EL1, 0b1010),
    ] {
        assert_eq!(read(register), Ok(Answer::Value(value)), "{register:?}");
    }
    for register in [SystemRegister::SP_EL0, SystemRegister::VBAR_EL1, SystemRegister::MDSCR_EL1] {
        assert_eq!(write(register, 0x8000), Ok(Answer::Done));
        assert_eq!(read(register), Ok(Answer::Value(0x8000)), "{register:?}");
    }
    // No SVE, and what nobody has.
    let nobodys = SystemRegister::new(3, 0, 15, 9, 7);
    for register in [SystemRegister::ZCR_EL1, nobodys] {
        assert_eq!(read(register), Err(Refusal::NoSuchRegister), "{register:?}");
        assert_eq!(write(register, 1), Err(Refusal::NoSuchRegister), "{register:?}");
    }
}

#[test]
fn memory_is_written_whole_or_not_at_all() {
    let (board, cpu) = stopped();
    let (domain, vcpu) = VCPU;
    let write = |place, bytes: &[u8]| {
        let bytes = Bytes::from_slice(bytes).expect("it is short");
        board.try_to(&cpu, Command::WriteMemory { domain, vcpu, place, bytes })
    };
    let read =
        |place, length| board.try_to(&cpu, Command::ReadMemory { domain, vcpu, place, length });
    // Over the border of two pages; stage 1 is off.
    let border = Va(DATA + 0xffe);
    assert_eq!(write(Place::Va(border), &[1, 2, 3, 4]), Ok(Answer::Done));
    let read_back = Answer::Memory(Bytes::from_slice(&[1, 2, 3, 4]).expect("it is short"));
    assert_eq!(read(Place::Ipa(Ipa(border.0)), 4), Ok(read_back));
    let end = Ipa(0x4000_0000 + crate::memory::BYTES - 2);
    assert_eq!(write(Place::Ipa(end), &[9; 4]), Err(Refusal::NotMapped(end.0 + 2)));
    let untouched = Answer::Memory(Bytes::from_slice(&[0, 0]).expect("it is short"));
    assert_eq!(read(Place::Ipa(end), 2), Ok(untouched));
    assert!(matches!(read(Place::Ipa(Ipa(DATA)), u16::MAX), Err(Refusal::TooLong(_))));
    let translate = |va| board.try_to(&cpu, Command::Translate { domain, vcpu, va });
    assert_eq!(translate(DATA + 5), Ok(Answer::Value(DATA + 5)));
}

#[test]
fn vectors_are_one_register_under_two_names() {
    let (board, cpu) = stopped();
    let (domain, vcpu) = VCPU;
    let sve = |register| board.try_to(&cpu, Command::ReadSve { domain, vcpu, register });
    let length = || board.try_to(&cpu, Command::VectorLength { domain, vcpu });
    assert_eq!(sve(SveRegister::Z(0)), Err(Refusal::NoSuchRegister), "this CPU has none");
    assert_eq!(length(), Err(Refusal::NoSuchRegister));
    // Of 32 bytes at most, of which the guest has chosen 16.
    let mut lengths = [32; 16];
    lengths[0] = 16;
    board.machine.domains[0].vcpus[0].core.lock().simd = Simd::at_reset(Some((0, lengths)));
    let expected = VectorLength { longest: 32, current: 16 };
    assert_eq!(length(), Ok(Answer::VectorLength(expected)));
    let mut v = [0; 32];
    v[7] = 0x1234;
    let registers = SimdRegisters { v, fpcr: 3, fpsr: 4 };
    board.serve(&cpu, Command::WriteSimd { domain, vcpu, registers });
    let mut z7 = [0; 32];
    z7[..2].copy_from_slice(&[0x34, 0x12]);
    let z = |bytes: &[u8]| Answer::Memory(Bytes::from_slice(bytes).expect("it is short"));
    assert_eq!(sve(SveRegister::Z(7)), Ok(z(&z7)));
    let write = |register, bytes: &[u8]| {
        let bytes = Bytes::from_slice(bytes).expect("it is short");
        board.try_to(&cpu, Command::WriteSve { domain, vcpu, register, bytes })
    };
    assert_eq!(write(SveRegister::Z(7), &[5; 16]), Ok(Answer::Done));
    match board.serve(&cpu, Command::ReadSimd { domain, vcpu }) {
        Answer::Simd(read) => {
            assert_eq!(read.v[7].to_le_bytes(), [5; 16]);
            assert_eq!((read.fpcr, read.fpsr), (3, 4));
        }
        other => panic!("{other:?}"),
    }
    for register in [SveRegister::P(3), SveRegister::Ffr] {
        assert_eq!(write(register, &[6, 7]), Ok(Answer::Done));
        assert_eq!(sve(register), Ok(z(&[6, 7, 0, 0])), "{register:?}");
    }
    // Beyond what the guest has chosen, or there is; and a register that there is not.
    assert_eq!(write(SveRegister::Z(7), &[5; 17]), Err(Refusal::BadValue));
    assert_eq!(write(SveRegister::Z(7), &[5; 33]), Err(Refusal::TooLong(32)));
    assert_eq!(write(SveRegister::Z(32), &[5; 2]), Err(Refusal::NoSuchRegister));
    assert_eq!(sve(SveRegister::P(16)), Err(Refusal::NoSuchRegister));
}

#[test]
fn a_machine_says_how_it_is() {
    let (board, cpu) = stopped();
    let status = || match board.serve(&cpu, Command::Status { domain: 0 }) {
        Answer::Vcpus(vcpus) => vcpus.iter().map(|(state, _)| *state).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(), [VcpuState::Stopped, VcpuState::Off]);
    board.serve(&cpu, CONTINUE);
    assert_eq!(status(), [VcpuState::Running, VcpuState::Off]);
    // Nothing of it is read or changed meanwhile.
    assert_eq!(
        board.try_to(&cpu, Command::ReadRegisters { domain: 0, vcpu: 0 }),
        Err(Refusal::NotStopped)
    );
    board.serve(&cpu, Command::Pause { domain: 0 });
    assert!(board.carry_out(&cpu));
    assert_eq!(board.stop().reason, StopReason::Paused);
    // One that is stopped says so again.
    board.serve(&cpu, Command::Pause { domain: 0 });
    assert!(matches!(
        board.events.take()[..],
        [Event::Stopped { reason: StopReason::Paused, steps: 0, .. }]
    ));
    stepwell_vm::command::run_freely(&cpu, &board.machine.domains[0]).expect("it is stopped");
    assert_eq!(status()[0], VcpuState::Running);
}

#[test]
fn what_is_typed_waits_for_the_guest() {
    let (board, cpu) = stopped();
    let type_in = |bytes: &[u8]| {
        let bytes = Bytes::from_slice(bytes).expect("it is short");
        board.try_to(&cpu, Command::ConsoleInput { domain: 0, bytes })
    };
    assert_eq!(type_in(b"ls\n"), Ok(Answer::Done));
    let uart = &board.machine.domains[0].uart;
    // UARTDR.
    assert_eq!(uart.lock().read(0, 4) & 0xff, u64::from(b'l'));
    let room = uart.lock().input_room();
    let fill = |length| type_in(&vec![b'x'; length]);
    let mut left = room;
    while left > 0 {
        let length = left.min(64);
        assert_eq!(fill(length), Ok(Answer::Done));
        left -= length;
    }
    assert_eq!(type_in(b"x"), Err(Refusal::Busy));
}

#[test]
fn orders_that_cannot_be_are_refused() {
    let (board, cpu) = stopped();
    let to = |command| board.try_to(&cpu, command);
    assert_eq!(to(step(0, false)), Err(Refusal::NoSteps));
    let go_on = |vcpu| to(Command::Continue { domain: 0, vcpu });
    assert_eq!(go_on(Some(2)), Err(Refusal::NoSuchVcpu));
    assert_eq!(go_on(Some(1)), Err(Refusal::Off));
    let policy = OthersPolicy::Step { quantum: 0 };
    assert_eq!(to(Command::SetOthersPolicy { domain: 0, policy }), Err(Refusal::EmptyTurn));
    let monitor = |vcpu, on| {
        to(Command::SetMonitor { domain: 0, vcpu, monitor: Monitor::PrivilegedCall, on })
    };
    assert_eq!(monitor(Some(2), true), Err(Refusal::NoSuchVcpu));
    assert_eq!(monitor(Some(0), false), Err(Refusal::AlreadySet(false)));
    assert_eq!(monitor(Some(0), true), Ok(Answer::Done));
    assert_eq!(monitor(Some(0), true), Err(Refusal::AlreadySet(true)));
}

/// Single-step monitoring: each go-ahead is one instruction.
#[test]
fn a_monitored_vcpu_stops_after_each_instruction() {
    let (board, cpu) = stopped();
    let monitor = Monitor::SingleStep;
    board.serve(&cpu, Command::SetMonitor { domain: 0, vcpu: Some(0), monitor, on: true });
    board.events.take();
    for n in 1..4 {
        let stop = board.go(&cpu, Command::Continue { domain: 0, vcpu: Some(0) });
        assert_eq!((stop.reason, stop.steps), (StopReason::Stepped, 1));
        assert_eq!(stop.registers.pc, ENTRY + 4 * (n % 2));
    }
}
