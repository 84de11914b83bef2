//! Loads and stores of what is not RAM, in every form, at full speed and under a step.

use crate::board::{Board, CONTINUE, ENTRY, HVC, NOP, b, brk, cbnz, ldr, ldxr, step, str, stxr};
use crate::cpu::FakeCpu;
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_protocol::{
    DomainEnding, FaultKind, Place, Registers, StopReason, WatchAccess, Watchpoint,
};
use stepwell_vm::cpu::Cpu;
use stepwell_wire::{Command, Event};

/// The UART: PL011's identification registers, a register that keeps what is written, its data.
const IDS: u64 = 0x0900_0fe0;
const BAUD: u64 = 0x0900_0024;
const DATA: u64 = 0x0900_0000;
const HOLE: u64 = 0x0a00_4000;
/// The clock's match register, and the power key's lines: by level or edge.
const CLOCK_MATCH: u64 = 0x0901_0004;
const LINES_SENSE: u64 = 0x0903_0404;
/// PCIe's configuration space, in both of its places.
const CONFIGURATION: [u64; 2] = [0x3f00_0000, 0x40_1000_0000];
const VBAR_SYNC: u64 = 0x4000_8000 + 0x200;

/// Executes one instruction with this in X2, stepped and not, and returns the registers after it.
fn after(word: u32, x2: u64, others: &[(usize, u64)]) -> (Registers, Board, FakeCpu) {
    let run = |command: Command| {
        let board = Board::new(1, &[word, brk(0), b(0)]);
        let cpu = board.cpu(0);
        let at = |pc| Command::SetBreakpoint { domain: 0, place: Place::Va(Va(pc)) };
        for pc in [ENTRY + 4, VBAR_SYNC] {
            if command == CONTINUE {
                board.serve(&cpu, at(pc));
            }
        }
        {
            let mut core = board.machine.domains[0].vcpus[0].core.lock();
            core.context.x[2] = x2;
            others.iter().for_each(|&(n, value)| core.context.x[n] = value);
        }
        let stop = board.go(&cpu, command);
        (stop.registers, board, cpu)
    };
    let (free, ..) = run(CONTINUE);
    let (stepped, board, cpu) = run(step(1, true));
    assert_eq!(free, stepped, "{word:#x}");
    assert_eq!(board.recorded(), [ENTRY], "{word:#x}");
    (stepped, board, cpu)
}

fn executed(word: u32, x2: u64, others: &[(usize, u64)]) -> [u64; 31] {
    let (registers, ..) = after(word, x2, others);
    assert_eq!(registers.pc, ENTRY + 4, "{word:#x}");
    registers.x
}

/// ESR_EL1 and FAR_EL1 of the exception that it leads to.
fn excepted(word: u32, x2: u64) -> (u64, u64) {
    let (registers, _, cpu) = after(word, x2, &[]);
    assert_eq!(registers.pc, VBAR_SYNC, "{word:#x}");
    assert_eq!(registers.x[2], x2, "the base has not moved");
    (cpu.read(SystemRegister::ESR_EL1), cpu.read(SystemRegister::FAR_EL1))
}

#[test]
fn loads_of_every_form_read_the_device() {
    let x = executed(0xb840_4441, IDS, &[]); // ldr w1, [x2], #4
    assert_eq!((x[1], x[2]), (0x11, IDS + 4));
    let x = executed(0x3840_4c41, IDS, &[]); // ldrb w1, [x2, #4]!
    assert_eq!((x[1], x[2]), (0x10, IDS + 4));
    let x = executed(0x2940_0c41, IDS, &[]); // ldp w1, w3, [x2]
    assert_eq!((x[1], x[3]), (0x11, 0x10));
    let x = executed(0xa8c1_0c41, IDS, &[]); // ldp x1, x3, [x2], #16
    assert_eq!((x[1], x[3], x[2]), (0x10_0000_0011, 0x14, IDS + 16));
    let x = executed(0xb863_6841, IDS, &[(3, 8)]); // ldr w1, [x2, x3]
    assert_eq!(x[1], 0x14);
    assert_eq!(executed(ldr(1, 2), IDS, &[])[1], 0x10_0000_0011);
    assert_eq!(executed(0x88df_fc41, IDS, &[])[1], 0x11); // ldar w1, [x2]
}

#[test]
fn what_is_not_aligned_comes_out_of_what_is() {
    // Seen on QEMU 7.2.
    assert_eq!(executed(0xb840_4441, IDS + 2, &[])[1], 0x0010_0000);
    assert_eq!(executed(0x7840_2441, IDS + 1, &[])[1], 0x1100); // ldrh w1, [x2], #2
}

#[test]
fn stores_of_every_form_reach_the_device() {
    let stored = |word, x2, others: &[(usize, u64)]| {
        let (registers, board, _) = after(word, x2, others);
        assert_eq!(registers.pc, ENTRY + 4, "{word:#x}");
        let mut uart = board.machine.domains[0].uart.lock();
        (uart.read(0x24, 4), uart.read(0x28, 4), registers.x[2])
    };
    assert_eq!(stored(0xb800_4441, BAUD, &[(1, 7)]), (7, 0, BAUD + 4)); // str w1, [x2], #4
    assert_eq!(stored(0x2900_0c41, BAUD, &[(1, 7), (3, 8)]), (7, 8, BAUD)); // stp w1, w3, [x2]
    assert_eq!(stored(str(1, 2), BAUD - 4, &[(1, 7 << 32)]), (7, 0, BAUD - 4));
    // ldadd w3, w1, [x2]; swp w3, w1, [x2]; cas w1, w3, [x2], where it compares and where not.
    assert_eq!(stored(0xb823_0041, BAUD, &[(3, 5)]).0, 5);
    assert_eq!(stored(0xb823_8041, BAUD, &[(3, 6)]).0, 6);
    assert_eq!(stored(0x88a1_7c43, BAUD, &[(1, 0), (3, 9)]).0, 9);
    assert_eq!(stored(0x88a1_7c43, BAUD, &[(1, 1), (3, 9)]).0, 0);
}

#[test]
fn the_clock_and_the_power_keys_lines_reach_the_interrupt_controller() {
    // Lines that are low, by level; a match with what the clock shows. Three words on is the mask.
    for (register, value, pending) in [(LINES_SENSE, 0xff, 1 << 7), (CLOCK_MATCH, 0, 1 << 2)] {
        for command in [CONTINUE, step(10, false)] {
            let board = Board::new(1, &[0xb900_0040, 0xb900_0c41, brk(0), b(0)]);
            let cpu = board.cpu(0);
            let at = Place::Va(Va(ENTRY + 8));
            board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: at });
            {
                let mut core = board.machine.domains[0].vcpus[0].core.lock();
                core.context.x[..3].copy_from_slice(&[value, 0xff, register]);
            }
            let found = || {
                let gicd_ispendr1 = Ipa(0x0800_0204);
                board.machine.domains[0].vgic.change().mmio_read(0, gicd_ispendr1, 4)
            };
            assert_eq!(found(), 0);
            board.go(&cpu, command);
            assert_eq!(found(), pending, "{register:#x}");
        }
    }
}

#[test]
fn the_bridge_to_pcie_keeps_what_is_written_in_either_place() {
    for (place, other) in [(0, 1), (1, 0)] {
        let (registers, board, _) = after(str(1, 2), CONFIGURATION[place], &[(1, u64::MAX)]);
        assert_eq!(registers.pc, ENTRY + 4);
        let configuration = board.machine.domains[0].peripherals.lock().registers.pcie;
        assert_eq!(configuration.read(0, 4), 0x0008_1b36);
        assert_eq!(configuration.read(4, 4), 0x507);
        let read = executed(ldr(1, 2), CONFIGURATION[other], &[]);
        assert_eq!(read[1], 0x0008_1b36, "another board's is as at reset");
    }
}

#[test]
fn zeroing_goes_byte_by_byte() {
    // DCZID_EL0 of this CPU is 0: a block has 4 bytes, and each of them is sent.
    let board = Board::new(1, &[0xd50b_7422, HVC]); // dc zva, x2
    let cpu = board.cpu(0);
    {
        let mut core = board.machine.domains[0].vcpus[0].core.lock();
        (core.context.x[2], core.context.x[0]) = (DATA + 2, 0x8400_0008);
    }
    board.serve(&cpu, CONTINUE);
    assert!(board.carry_out(&cpu));
    let sent: Vec<u8> = board
        .events
        .take()
        .iter()
        .filter_map(|event| match event {
            Event::Console { bytes, .. } => Some(bytes.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(sent, [0; 4]);
}

#[test]
fn an_exclusive_sequence_on_a_device_comes_to_its_end() {
    // Adds 1 to the register until the store succeeds.
    let program = [ldxr(1, 2), 0x9100_0421, stxr(3, 1, 2), cbnz(3, -3), NOP, brk(0), b(0)];
    for command in [CONTINUE, step(100, false)] {
        let board = Board::new(1, &program);
        let cpu = board.cpu(0);
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(ENTRY + 16)) });
        board.machine.domains[0].vcpus[0].core.lock().context.x[2] = BAUD - 4;
        let stop = board.go(&cpu, command);
        assert_eq!((stop.registers.pc, stop.registers.x[3]), (ENTRY + 16, 0));
        assert_eq!(board.machine.domains[0].uart.lock().read(0x20, 4), 1);
    }
    // Without its load it fails, and is no reason to do anything.
    let x = executed(stxr(3, 1, 2), BAUD - 4, &[(3, 7)]);
    assert_eq!(x[3], 1);
}

#[test]
fn nothing_answers_with_an_external_abort() {
    assert_eq!(excepted(ldr(1, 2), HOLE), (0x9600_0010, HOLE));
    assert_eq!(excepted(str(1, 2), HOLE), (0x9600_0050, HOLE));
    assert_eq!(excepted(0xb840_4441, HOLE), (0x9600_0010, HOLE)); // ldr w1, [x2], #4
    assert_eq!(excepted(0xd50b_7422, HOLE + 2), (0x9600_0050, HOLE)); // dc zva, x2
    // The second of a pair: the last word of a device, and the first of nothing.
    assert_eq!(excepted(0x2940_0c41, HOLE - 4), (0x9600_0010, HOLE)); // ldp w1, w3, [x2]
    // An instruction of SVE, of which nothing is known.
    assert_eq!(excepted(0xa540_a041, HOLE), (0x9600_0010, HOLE));
}

#[test]
fn nothing_is_executed_where_there_is_no_ram() {
    for (place, esr) in [(HOLE, 0x8600_0010), (0, 0x0200_0000), (DATA, 0x0200_0000)] {
        for command in [CONTINUE, step(1, false)] {
            let board = Board::new(1, &[NOP]);
            let cpu = board.cpu(0);
            board
                .serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Va(Va(VBAR_SYNC)) });
            board.machine.domains[0].vcpus[0].core.lock().context.elr = place;
            let stop = board.go(&cpu, command);
            assert_eq!(stop.registers.pc, VBAR_SYNC, "{place:#x}");
            assert_eq!(cpu.read(SystemRegister::ESR_EL1), esr, "{place:#x}");
            assert_eq!(cpu.read(SystemRegister::ELR_EL1), place);
        }
    }
}

#[test]
fn a_watched_register_of_a_device_stops_once() {
    for command in [CONTINUE, step(10, false)] {
        let board = Board::new(1, &[NOP, 0xb840_4441, NOP, b(0)]); // ldr w1, [x2], #4
        let cpu = board.cpu(0);
        board.machine.domains[0].vcpus[0].core.lock().context.x[2] = IDS;
        let watchpoint = Watchpoint { address: Va(IDS), length: 4, access: WatchAccess::Read };
        board.serve(&cpu, Command::SetWatchpoint { domain: 0, vcpu: 0, watchpoint });
        board.events.take();
        let stop = board.go(&cpu, command);
        let reason = StopReason::Watchpoint { address: Va(IDS), access: WatchAccess::Read };
        assert_eq!(stop.reason, reason);
        assert_eq!((stop.registers.pc, stop.registers.x[2]), (ENTRY + 4, IDS));
        let stop = board.go(&cpu, step(1, false));
        assert_eq!((stop.registers.pc, stop.registers.x[1]), (ENTRY + 8, 0x11));
    }
}

#[test]
fn a_guest_without_vectors_ends_where_it_reaches_for_nothing() {
    for (entry, x2, kind) in
        [(ENTRY, HOLE, FaultKind::UnmappedAccess), (HOLE, 0, FaultKind::UnmappedFetch)]
    {
        let board = Board::new(1, &[ldr(1, 2), b(0)]);
        let cpu = board.cpu(0);
        {
            let mut core = board.machine.domains[0].vcpus[0].core.lock();
            core.snapshot.write(SystemRegister::VBAR_EL1, 0);
            (core.context.x[2], core.context.elr) = (x2, entry);
        }
        board.serve(&cpu, CONTINUE);
        assert!(board.carry_out(&cpu));
        let events = board.events.take();
        let ended = events.iter().find_map(|event| match event {
            Event::DomainEnded { ending: DomainEnding::Fault(fault), .. } => Some(*fault),
            _ => None,
        });
        let fault = ended.expect("it ends");
        assert_eq!((fault.kind, fault.pc, fault.address), (kind, Va(entry), HOLE));
    }
}

/// The guest's own step of a load that EL2 carries out is told as the CPU's would be: ISV, and EX of a
/// load-exclusive.
#[test]
fn the_guests_own_step_of_a_load_from_a_device_says_what_was_stepped() {
    const STEPPED: u64 = 0x33 << 26 | 1 << 25 | 1 << 24 | 0x22;
    const EX: u64 = 1 << 6;
    for (word, syndrome) in [(ldr(1, 2), STEPPED), (ldxr(1, 2), STEPPED | EX)] {
        for order in [CONTINUE, step(3, false)] {
            let board = Board::new(1, &[word, NOP, b(0)]);
            let cpu = board.cpu(0);
            let place = Place::Va(Va(VBAR_SYNC));
            board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
            let mut core = board.machine.domains[0].vcpus[0].core.lock();
            core.context.x[2] = BAUD;
            core.context.spsr |= Pstate::SS;
            drop(core);
            board.debug_itself(&cpu, 1 << 13 | 1, &[]);
            let stop = board.go(&cpu, order);
            assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, VBAR_SYNC));
            assert_eq!(cpu.read(SystemRegister::ESR_EL1), syndrome, "{word:#x}");
        }
    }
}

/// Of an access that is not decoded the guest's own watchpoints are told of its first byte alone.
#[test]
fn a_watchpoint_behind_an_access_is_not_hit() {
    const LD1W_X2: u32 = 0xa540_a041;
    const WATCHPOINT: u64 = 0x35;
    for (watched, hits) in [(BAUD & !7, true), ((BAUD & !7) + 8, false), ((BAUD & !7) + 32, false)]
    {
        let board = Board::new(1, &[LD1W_X2, NOP, b(0)]);
        let cpu = board.cpu(0);
        let place = Place::Va(Va(VBAR_SYNC));
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        board.machine.domains[0].vcpus[0].core.lock().context.x[2] = BAUD;
        let own = [(6, watched), (7, 0x1fff)];
        let own = own.map(|(op2, value)| (SystemRegister::new(2, 0, 0, 0, op2), value));
        board.debug_itself(&cpu, 1 << 15 | 1 << 13, &own);
        let stop = board.go(&cpu, CONTINUE);
        assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, VBAR_SYNC));
        let class = cpu.read(SystemRegister::ESR_EL1) >> 26;
        assert_eq!(class == WATCHPOINT, hits, "{watched:#x}: {class:#x}");
    }
}
