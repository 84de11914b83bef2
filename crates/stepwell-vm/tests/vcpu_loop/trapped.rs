//! Instructions that trap, by their syndromes: what EL2 makes of each as the machine would have.

use crate::board::{Board, DATA, ENTRY, NOP, b, step};
use crate::cpu::FakeCpu;
use crate::memory::BYTES;
use crate::words::{LDM, LDRD, LDRD_POST, STR, STRD, TRAPPED};
use stepwell_arch::esr::ec;
use stepwell_arch::{Ipa, Pstate, SystemRegister};
use stepwell_protocol::Registers;
use stepwell_vm::cpu::{Cpu, DebugBank};
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::memory::GuestMemory;
use stepwell_wire::{Answer, Command};

const VECTOR: u64 = 0x4000_8000 + 0x200;
/// What registers hold before that no row sets.
const BEFORE: u64 = 0x5555_aaaa_1234_8765;

const fn syndrome(class: u8, iss: u64) -> u64 {
    (class as u64) << 26 | 1 << 25 | iss
}

/// A vCPU at an instruction that traps.
struct Trapped {
    /// In a box: there are many in one test, and each would fill its stack.
    board: Box<Board>,
    cpu: FakeCpu,
}

impl Trapped {
    fn new(class: u8, iss: u64) -> Self {
        let board = Box::new(Board::new(2, &[TRAPPED, NOP, b(0)]));
        let cpu = board.cpu(0);
        cpu.trap_with(syndrome(class, iss));
        board.machine.domains[0].vcpus[0].core.lock().context.x = [BEFORE; 31];
        Self { board, cpu }
    }

    /// At the instruction once more, with another syndrome.
    fn again(self, syndrome: u64) -> Self {
        self.board.machine.domains[0].vcpus[0].core.lock().context.elr = ENTRY;
        self.cpu.trap_with(syndrome);
        self
    }

    /// Of AArch32 code at EL0.
    fn in_aarch32(self, flags: u64) -> Self {
        let core = &self.board.machine.domains[0].vcpus[0].core;
        core.lock().context.spsr = Pstate::M_USER | flags;
        self
    }

    fn with(self, register: usize, value: u64) -> Self {
        self.board.machine.domains[0].vcpus[0].core.lock().context.x[register] = value;
        self
    }

    /// A system register, before.
    fn keeps(self, register: SystemRegister, value: u64) -> Self {
        let core = &self.board.machine.domains[0].vcpus[0].core;
        assert!(core.lock().snapshot.write(register, value), "{register}");
        self
    }

    /// A register, as the tool reads it.
    fn read(&self, register: SystemRegister) -> u64 {
        let register = register.0;
        let read = Command::ReadSystemRegister { domain: 0, vcpu: 0, register };
        match self.board.serve(&self.cpu, read) {
            Answer::Value(value) => value,
            other => panic!("a value, not {other:?}"),
        }
    }

    /// What it has come to after it.
    fn carried_out(&self) -> Registers {
        let registers = self.board.go(&self.cpu, step(1, false)).registers;
        assert_eq!(registers.pc, ENTRY + 4, "it has executed");
        registers
    }

    /// It is undefined, or kept from EL0 by the guest itself: what ESR_EL1 says.
    fn taken_to_el1(&self) -> u64 {
        let stop = self.board.go(&self.cpu, step(1, false));
        assert_eq!(stop.registers.pc & 0x7ff & !0x400, VECTOR & 0x7ff & !0x400, "a vector");
        assert_ne!(stop.registers.pc, ENTRY + 4);
        self.cpu.read(SystemRegister::ESR_EL1)
    }
}

fn system_syndrome(register: SystemRegister, rt: u64, read: bool) -> u64 {
    let part = |value: u8, shift: u32| u64::from(value) << shift;
    let (op0, op1, op2) = (register.op0(), register.op1(), register.op2());
    let named = part(op0, 20) | part(op2, 17) | part(op1, 14) | part(register.crn(), 10);
    let iss = named | rt << 5 | part(register.crm(), 1) | u64::from(read);
    syndrome(ec::SYSTEM_REGISTER, iss)
}

fn system(register: SystemRegister, rt: u64, read: bool) -> Trapped {
    Trapped::new(ec::SYSTEM_REGISTER, 0).again(system_syndrome(register, rt, read))
}

#[test]
fn reads_that_have_one_answer() {
    let rows = [
        (SystemRegister::ID_AA64MMFR2_EL1, 1 << 32),
        (SystemRegister::ID_AA64PFR0_EL1, 0),
        (SystemRegister::ERRIDR_EL1, 0),
        (SystemRegister::ACTLR_EL1, 0),
        (SystemRegister::CNTP_CTL_EL0, 0),
        (SystemRegister::CNTP_CVAL_EL0, 0),
        // The OS Lock is set at reset.
        (SystemRegister::OSLSR_EL1, 0b1010),
        (SystemRegister::MDSCR_EL1, 0),
        (SystemRegister::DBGBVR0_EL1, 0),
    ];
    for (register, value) in rows {
        let registers = system(register, 3, true).carried_out();
        assert_eq!(registers.x[3], value, "{register:?}");
        assert_eq!(registers.x[4], BEFORE, "{register:?}");
        // XZR stays what it is.
        assert_eq!(system(register, 31, true).carried_out().x, [BEFORE; 31]);
    }
}

#[test]
fn what_the_cpu_does_not_have_is_undefined() {
    let unknown = SystemRegister::new(3, 0, 15, 9, 7);
    for (register, read) in [
        (unknown, true),
        (unknown, false),
        (SystemRegister::ID_AA64PFR0_EL1, false),
        (SystemRegister::OSDLR_EL1, true),
        (SystemRegister::OSDLR_EL1, false),
    ] {
        let trapped = system(register, 3, read);
        assert_eq!(trapped.taken_to_el1(), 1 << 25, "{register:?} {read}: EC 0");
    }
}

/// By the guest's own MIDR_EL1, and the number of its vCPUs.
#[test]
fn implementation_defined_registers_are_those_of_its_cpu() {
    let l2ctlr = SystemRegister::new(3, 1, 11, 0, 2);
    let read = system(l2ctlr, 0, true);
    read.cpu.write(SystemRegister::MIDR_EL1, 0x411f_d070);
    assert_eq!(read.carried_out().x[0], 1 << 24, "two CPUs of a Cortex-A57");
    let written = system(l2ctlr, 0, false);
    written.cpu.write(SystemRegister::MIDR_EL1, 0x411f_d070);
    assert_eq!(written.carried_out().x[0], BEFORE);
    let other = system(l2ctlr, 0, true);
    other.cpu.write(SystemRegister::MIDR_EL1, 0x411f_d0c0);
    assert_eq!(other.taken_to_el1(), 1 << 25, "a Neoverse N1 has none");
}

#[test]
fn a_debug_register_keeps_what_the_cpu_keeps_of_it() {
    let written = system(SystemRegister::DBGBVR0_EL1, 5, false).with(5, 0x4000_1000);
    written.carried_out();
    assert_eq!(written.cpu.read_debug(DebugBank::BreakpointValue, 0), 0x4000_1000);
    let core = written.board.machine.domains[0].vcpus[0].core.lock();
    assert_eq!(core.debug.read(&written.cpu, SystemRegister::DBGBVR0_EL1), Some(0x4000_1000));
    drop(core);
    // The lock is the guest's, and never the CPU's.
    let unlocked = system(SystemRegister::OSLAR_EL1, 5, false).with(5, 0);
    unlocked.carried_out();
    let core = unlocked.board.machine.domains[0].vcpus[0].core.lock();
    assert_eq!(core.debug.read(&unlocked.cpu, SystemRegister::OSLSR_EL1), Some(0b1000));
    assert_eq!(unlocked.cpu.read(SystemRegister::OSLAR_EL1), 0);
    drop(core);
    // MDE.
    let enabled = system(SystemRegister::MDSCR_EL1, 5, false).with(5, 1 << 15);
    enabled.carried_out();
    let core = enabled.board.machine.domains[0].vcpus[0].core.lock();
    assert_eq!(core.debug.mdscr(), 1 << 15);
}

/// With a vCPU's own number in the list of targets, or all others.
#[test]
fn sgis_reach_the_vcpus_that_they_name() {
    let (one, others) = (1_u64 << 24 | 0b10, 1_u64 << 40 | 1 << 24);
    for (register, group1) in [
        (SystemRegister::ICC_SGI1R_EL1, true),
        (SystemRegister::ICC_SGI0R_EL1, false),
        (SystemRegister::ICC_ASGI1R_EL1, false),
    ] {
        for value in [one, others] {
            let sent = system(register, 2, false).with(2, value);
            let vgic = &sent.board.machine.domains[0].vgic;
            // GICR_IGROUPR0 of vCPU 1.
            let frame = stepwell_vm::vgic::GICR_BASE.0 + stepwell_vm::vgic::GICR_BYTES + 0x1_0000;
            let at = |offset| stepwell_arch::Ipa(frame + offset);
            vgic.change().mmio_write(1, at(0x80), 4, u64::from(group1) * 0xffff_ffff);
            sent.carried_out();
            // GICR_ISPENDR0.
            let pending = vgic.change().mmio_read(1, at(0x200), 4);
            assert_eq!(pending, 0b10, "{register:?} {value:#x}");
        }
    }
}

#[test]
fn timers_are_written_on_the_guests_clock() {
    let write = |register, value| {
        let written = system(register, 7, false).with(7, value);
        written.carried_out();
        (written.read(SystemRegister::CNTP_CTL_EL0), written.read(SystemRegister::CNTP_CVAL_EL0))
    };
    // ISTATUS is set as its time has come.
    assert_eq!(write(SystemRegister::CNTP_CTL_EL0, 0b11), (0b111, 0));
    assert_eq!(write(SystemRegister::CNTP_CTL_EL0, 0b110), (0b10, 0), "it is not to be written");
    assert_eq!(write(SystemRegister::CNTP_CVAL_EL0, 99), (0, 99));
    // The clock is stopped at 0.
    assert_eq!(write(SystemRegister::CNTP_TVAL_EL0, 50), (0, 50));
}

/// CV, COND, and the fields of MRC and MCR.
fn transfer(class: u8, [opc1, crn, crm, opc2]: [u64; 4], rt: u64, read: bool) -> Trapped {
    let condition = 1 << 24 | 0xe << 20;
    let iss = condition | opc2 << 17 | opc1 << 14 | crn << 10 | rt << 5 | crm << 1;
    Trapped::new(class, iss | u64::from(read)).in_aarch32(0)
}

/// Of registers 1 and 2.
fn pair_syndrome(class: u8, opc1: u64, crm: u64, read: bool) -> u64 {
    let iss = 1 << 24 | 0xe << 20 | opc1 << 16 | 2 << 10 | 1 << 5 | crm << 1;
    syndrome(class, iss | u64::from(read))
}

fn transfer_pair(class: u8, opc1: u64, crm: u64, read: bool) -> Trapped {
    Trapped::new(class, 0).again(pair_syndrome(class, opc1, crm, read)).in_aarch32(0)
}

#[test]
fn aarch32_reads_its_timers() {
    let control = transfer(ec::CP15_MCR_MRC, [0, 14, 2, 1], 3, true);
    assert_eq!(control.carried_out().x[3], 0);
    let written = transfer(ec::CP15_MCR_MRC, [0, 14, 2, 1], 3, false).with(3, 3);
    written.carried_out();
    assert_eq!(written.read(SystemRegister::CNTP_CTL_EL0), 0b111);
    // CNTP_CVAL, from two registers and into two.
    let compare = transfer_pair(ec::CP15_MCRR_MRRC, 2, 14, false).with(1, 0x8000_0001).with(2, 5);
    compare.carried_out();
    assert_eq!(compare.read(SystemRegister::CNTP_CVAL_EL0), 0x5_8000_0001);
    // The same vCPU reads it back, into the same two.
    let read = compare.again(pair_syndrome(ec::CP15_MCRR_MRRC, 2, 14, true)).with(1, 9).with(2, 9);
    let registers = read.carried_out();
    assert_eq!((registers.x[1], registers.x[2]), (0x8000_0001, 5));
}

#[test]
fn aarch32_transfers_of_nothing_are_undefined() {
    for trapped in [
        transfer(ec::CP15_MCR_MRC, [0, 9, 9, 9 & 7], 3, true),
        transfer(ec::CP14_MCR_MRC, [7, 0, 0, 0], 3, true),
        transfer_pair(ec::CP15_MCRR_MRRC, 7, 14, true),
        Trapped::new(ec::CP14_LDC_STC, 1 << 24 | 0xe << 20).in_aarch32(0),
    ] {
        assert_eq!(trapped.taken_to_el1() >> 26, 0);
    }
}

/// One whose condition fails does nothing, whatever it is.
#[test]
fn a_transfer_whose_condition_fails_is_skipped() {
    let equal = |class| Trapped::new(class, 1 << 24 | 5 << 5 | 1).in_aarch32(0);
    for class in
        [ec::CP15_MCR_MRC, ec::CP14_MCR_MRC, ec::CP15_MCRR_MRRC, ec::CP14_MRRC, ec::CP14_LDC_STC]
    {
        assert_eq!(equal(class).carried_out().x, [BEFORE; 31], "{class:#x}");
    }
}

#[test]
fn aarch32_debug_registers_have_nobody_at_the_other_end() {
    let debug = |what, rt, read| transfer(ec::CP14_MCR_MRC, what, rt, read);
    // DBGDIDR of a Cortex-A57: version 6, six breakpoints and four watchpoints, two for contexts.
    let id = debug([0, 0, 0, 0], 3, true);
    id.cpu.write(SystemRegister::MIDR_EL1, 0x411f_d070);
    id.cpu.write(SystemRegister::ID_AA64DFR0_EL1, 1 << 28 | 3 << 20 | 5 << 12 | 6);
    assert_eq!(id.carried_out().x[3], 0x3516_d000);
    // And of QEMU's `max`, in 7.2 and in 10.
    for (debug_version, version) in [(9, 6), (10, 10)] {
        let id = debug([0, 0, 0, 0], 3, true);
        id.cpu.write(SystemRegister::MIDR_EL1, 0x000f_0510);
        id.cpu.write(SystemRegister::ID_AA64DFR0_EL1, 1 << 28 | 3 << 20 | 5 << 12 | debug_version);
        assert_eq!(id.carried_out().x[3], 0x3510_d000 | version << 16, "{debug_version}");
    }
    // DBGDSCRint, into a register and into the flags; DBGDTRRXint, DBGDRAR and DBGDSAR.
    assert_eq!(debug([0, 0, 1, 0], 3, true).carried_out().x[3], 0);
    assert_eq!(debug([0, 0, 1, 0], 15, true).in_aarch32(0xf << 28).carried_out().pstate >> 28, 0);
    for what in [[0, 0, 5, 0], [0, 1, 0, 0], [0, 2, 0, 0]] {
        assert_eq!(debug(what, 3, true).carried_out().x[3], 0, "{what:?}");
    }
    // DBGDTRTXint is written, and gone.
    assert_eq!(debug([0, 0, 5, 0], 3, false).carried_out().x, [BEFORE; 31]);
    let addresses = transfer_pair(ec::CP14_MRRC, 0, 1, true).carried_out();
    assert_eq!((addresses.x[1], addresses.x[2]), (0, 0));
    // A kernel that keeps them from EL0 (MDSCR_EL1.TDCC) has the trap itself.
    for trapped in [debug([0, 0, 0, 0], 3, true), transfer_pair(ec::CP14_MRRC, 0, 1, true)] {
        let core = &trapped.board.machine.domains[0].vcpus[0].core;
        core.lock().debug.set_mdscr(1 << 12);
        assert_ne!(trapped.taken_to_el1() >> 26, 0, "its own syndrome");
    }
}

#[test]
fn classes_that_belong_to_nobody_are_undefined() {
    for class in [ec::UNKNOWN, ec::FP, ec::SVE] {
        assert_eq!(Trapped::new(class, 0).taken_to_el1(), 1 << 25, "{class:#x}");
    }
    // AArch32's BKPT goes to EL1 as it is.
    let bkpt = Trapped::new(ec::BKPT32, 0x12).in_aarch32(0);
    assert_eq!(bkpt.taken_to_el1(), syndrome(ec::BKPT32, 0x12));
}

/// A Breakpoint exception of the guest's own leaves in FAR_EL1, which is UNKNOWN then, what QEMU's CPU
/// leaves there where the guest runs.
#[test]
fn a_breakpoint_of_its_own_leaves_far_as_the_cpu_does() {
    const MDE_AND_KDE: u64 = 1 << 15 | 1 << 13;
    let unlocked = system(SystemRegister::OSLAR_EL1, 31, false);
    unlocked.carried_out();
    let Trapped { board, cpu } = unlocked;
    let on = system_syndrome(SystemRegister::MDSCR_EL1, 3, false);
    let on = Trapped { board, cpu }.again(on).with(3, MDE_AND_KDE);
    on.carried_out();
    let met = on.again(syndrome(ec::BREAKPOINT_LOWER, 0x22)).keeps(SystemRegister::FAR_EL1, BEFORE);
    met.board.machine.domains[0].vcpus[0].core.lock().context.spsr &= !Pstate::D;
    assert_eq!(met.taken_to_el1(), syndrome(ec::BREAKPOINT_SAME, 0x22));
    assert_eq!(met.cpu.read(SystemRegister::FAR_EL1), 0);
}

/// AT, of a guest whose tables lie where there is no RAM.
#[test]
fn an_address_translation_tells_of_its_faults() {
    /// Data abort with CM, of a stage-1 walk, where stage 2 has nothing at level 2.
    const WALK: u64 = 1 << 8 | 1 << 7 | 0b00_0110;
    const AT_S1E1R_X3: u32 = 0xd508_7803;
    const AT: u64 = 0x4444_0000;
    // PCIe's window reads as ones, whose output address is too large; beside it nothing answers.
    for (table, told) in [(0x2000_0000, Ok(1)), (0x0f00_0000, Err(0x15))] {
        let board = Box::new(Board::new(1, &[AT_S1E1R_X3, NOP, b(0)]));
        let cpu = board.cpu(0);
        board.machine.domains[0].vcpus[0].core.lock().context.x[3] = AT;
        // 4 KiB, 39 bits of address, 40 of output.
        let found = Trapped { board, cpu }
            .again(syndrome(ec::DABT_LOWER, WALK))
            .keeps(SystemRegister::TCR_EL1, 25 | 1 << 23 | 2 << 32)
            .keeps(SystemRegister::TTBR0_EL1, table)
            .keeps(SystemRegister::SCTLR_EL1, 1);
        match told {
            Ok(status) => {
                found.carried_out();
                assert_eq!(found.cpu.read(SystemRegister::PAR_EL1), 0x801 | status << 1);
            }
            Err(status) => {
                let cm = 1 << 8;
                assert_eq!(found.taken_to_el1(), syndrome(ec::DABT_SAME, cm | status));
                assert_eq!(found.cpu.read(SystemRegister::FAR_EL1), AT);
            }
        }
    }
}

/// A table in PCIe's window, which reads as ones: a page at the end of 48 bits, that may be read and
/// neither written nor executed. Seen on QEMU 7.2.
#[test]
fn a_table_of_ones_leads_to_a_page_where_nothing_is() {
    /// Of a walk, where stage 2 has nothing at level 2.
    const WALK: u64 = 1 << 7 | 0b00_0110;
    const CM: u64 = 1 << 8;
    const WNR: u64 = 1 << 6;
    const AT: u64 = 0x4444_0120;
    const AT_S1E1R_X3: u32 = 0xd508_7803;
    const AT_S1E1W_X3: u32 = 0xd508_7823;
    const DC_CVAC_X3: u32 = 0xd50b_7a23;
    let at_table = |word: u32, class, iss| {
        let board = Box::new(Board::new(1, &[word, NOP, b(0)]));
        let cpu = board.cpu(0);
        // 4 KiB, 39 bits of address, 48 of output.
        cpu.write(SystemRegister::ID_AA64MMFR0_EL1, 5);
        for (at, entry) in [(DATA + 8, (DATA + 0x1000) | 3), (DATA + 0x1110, 0x2000_0003)] {
            board.ram.write(Ipa(at), &u64::to_le_bytes(entry)).expect("it is RAM");
        }
        let trapped = Trapped { board, cpu }
            .again(syndrome(class, WALK | iss))
            .keeps(SystemRegister::TCR_EL1, 25 | 1 << 23 | 5 << 32)
            .keeps(SystemRegister::MAIR_EL1, 0xff << 56)
            .keeps(SystemRegister::TTBR0_EL1, DATA)
            .keeps(SystemRegister::SCTLR_EL1, 1);
        trapped.with(1, AT).with(3, AT)
    };
    let aborts = [
        (ec::DABT_LOWER, 0, ec::DABT_SAME, 0x10),
        (ec::DABT_LOWER, WNR, ec::DABT_SAME, WNR | 0x0f),
        (ec::IABT_LOWER, 0, ec::IABT_SAME, 0x0f),
    ];
    for (class, iss, taken, expected) in aborts {
        let found = at_table(TRAPPED, class, iss);
        assert_eq!(found.taken_to_el1(), syndrome(taken, expected));
        assert_eq!(found.cpu.read(SystemRegister::FAR_EL1), AT);
    }
    for (word, told) in [(AT_S1E1R_X3, 0xff00_ffff_ffff_fb80), (AT_S1E1W_X3, 0x81f)] {
        let found = at_table(word, ec::DABT_LOWER, CM | WNR);
        found.carried_out();
        assert_eq!(found.cpu.read(SystemRegister::PAR_EL1), told);
    }
    at_table(DC_CVAC_X3, ec::DABT_LOWER, CM | WNR).carried_out();
}

/// A vCPU at an A32 instruction with its base in R0, that stage 2 has refused at `far`.
fn refused(word: u32, iss: u64, r0: u64, far: u64) -> Trapped {
    let board = Box::new(Board::new(1, &[word, 0xe320_f000, b(0)]));
    let cpu = board.cpu(0);
    let at = Trapped { board, cpu }.again(syndrome(ec::DABT_LOWER, iss | 0b00_0111)).in_aarch32(0);
    [1, 6, 16, 24].into_iter().fold(at, |at, register| at.with(register, far)).with(0, r0)
}

#[test]
fn aarch32_accesses_a_device_in_every_form() {
    // PL011's identification registers, and its rates.
    const IDS: u64 = 0x0900_0fe0;
    const RATE: u64 = 0x0900_0024;
    const WNR: u64 = 1 << 6;
    let x = |word| refused(word, 0, IDS, IDS).carried_out().x;
    assert_eq!(x(LDRD)[2..4], [0x11, 0x10]);
    let after = x(LDRD_POST);
    assert_eq!((after[0], after[2], after[3]), (IDS + 8, 0x11, 0x10));
    let after = x(LDM);
    assert_eq!((after[0], after[1], after[2]), (IDS + 8, 0x11, 0x10));
    let stored = refused(STRD, WNR, RATE, RATE).with(2, 7).with(3, 8);
    stored.carried_out();
    let mut uart = stored.board.machine.domains[0].uart.lock();
    assert_eq!((uart.read(0x24, 4), uart.read(0x28, 4)), (7, 8));
}

/// A store of which stage 2 has refused the second page: FAR_EL2 is where that begins.
#[test]
fn aarch32_stores_what_is_before_the_end_of_ram() {
    const DESCRIBED: u64 = 1 << 24 | 2 << 22 | 2 << 16 | 1 << 6;
    let end = RAM_BASE.0 + BYTES;
    let found = refused(STR, DESCRIBED, end - 4, end).with(2, 0xa1a2_a3a4);
    assert_eq!(found.taken_to_el1(), syndrome(ec::DABT_LOWER, 0x50));
    assert_eq!(found.cpu.read(SystemRegister::FAR_EL1), end);
    let mut last = [0; 4];
    found.board.ram.read(Ipa(end - 4), &mut last).expect("it is RAM");
    assert_eq!(last, [0, 0xa4, 0xa3, 0xa2]);
}
