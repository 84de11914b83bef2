//! The programs: what they begin with, their instructions, and the table that the guest reads.

use crate::random::chance::Chance;

/// Where the guest looks for the table.
pub const TABLE: u64 = 0x4080_0000;
/// Bytes of a program's page.
pub const PAGE: u64 = 0x1000;
/// Where its code is, in its page.
pub const CODE: u64 = 0x100;
/// Where its log is.
pub const LOG: u64 = 0x400;
/// Exceptions that the handler logs before it gives a program up.
pub const EVENTS_MAX: usize = 48;
/// Where its data is.
pub const DATA: u64 = 0xf00;
/// The UART's flag register, which programs read.
pub const DEVICE: u64 = 0x0900_0018;
/// Where the handler's answers are.
const ANSWERS: usize = 0x90;

/// MDSCR_EL1.SS.
pub const SS: u64 = 1;
/// MDSCR_EL1.KDE.
pub const KDE: u64 = 1 << 13;
/// MDSCR_EL1.MDE.
pub const MDE: u64 = 1 << 15;
/// SPSR: EL1 with SP_EL0, and the masks.
const EL1T: u64 = 0b0100;
const D: u64 = 1 << 9;
const AIF: u64 = 0b111 << 6;
/// SPSR.SS.
const SPSR_SS: u64 = 1 << 21;

/// An instruction that programs are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `add x1, x1, #1`.
    Count,
    /// `mrs xzr, cntvct_el0`.
    Counter,
    /// ISB.
    Isb,
    /// A load or store.
    Access {
        /// It stores.
        write: bool,
        /// Two registers.
        pair: bool,
        /// Bytes of each.
        bytes: u8,
        /// Where in the data.
        offset: u8,
    },
    /// `ldxr x3, [x10]`.
    LoadExclusive,
    /// `ldr w5, [x14, #0x18]`.
    Device,
    /// `b` over one instruction.
    Skip,
    /// `cbz x1` over one instruction.
    SkipIfZero,
    /// SVC. 0xff ends the program.
    Svc(u8),
    /// BRK.
    Brk,
    /// An undefined instruction.
    Undefined,
    /// `msr daifset, #8` or `msr daifclr, #8`.
    Mask(bool),
    /// `msr mdscr_el1` of X11 or X12.
    WriteMdscr(u8),
    /// `msr oslar_el1` of X13, or of XZR.
    WriteLock(bool),
    /// `adr x9` of the instruction after the ERET, six on.
    Target,
    /// `msr elr_el1, x9`.
    WriteElr,
    /// `movz x9` of the low half of SPSR.
    SpsrLow(u16),
    /// `movk x9` of the high half.
    SpsrHigh(u16),
    /// `msr spsr_el1, x9`.
    WriteSpsr,
    /// ERET.
    Eret,
}

impl Op {
    /// The instruction.
    #[must_use]
    pub fn word(self) -> u32 {
        match self {
            Self::Count => 0x9100_0421,
            Self::Counter => 0xd53b_e05f,
            Self::Isb => 0xd503_3fdf,
            Self::Access { write, pair: true, offset, .. } => {
                let load = u32::from(!write) << 22;
                0xa900_0d42 | load | u32::from(offset / 8) << 15
            }
            Self::Access { write, bytes, offset, .. } => {
                let size = bytes.trailing_zeros();
                let scaled = u32::from(offset) >> size;
                0x3900_0142 | size << 30 | u32::from(!write) << 22 | scaled << 10
            }
            Self::LoadExclusive => 0xc85f_7d43,
            Self::Device => 0xb940_19c5,
            Self::Skip => 0x1400_0002,
            Self::SkipIfZero => 0xb400_0041,
            Self::Svc(number) => 0xd400_0001 | u32::from(number) << 5,
            Self::Brk => 0xd420_00a0,
            Self::Undefined => 0,
            Self::Mask(set) => {
                if set {
                    0xd503_48df
                } else {
                    0xd503_48ff
                }
            }
            Self::WriteMdscr(rt) => 0xd510_0240 | u32::from(rt),
            Self::WriteLock(lock) => 0xd510_1080 | if lock { 13 } else { 31 },
            Self::Target => 0x1000_0000 | 6 << 5 | 9,
            Self::WriteElr => 0xd518_4029,
            Self::SpsrLow(half) => 0xd280_0009 | u32::from(half) << 5,
            Self::SpsrHigh(half) => 0xf2a0_0009 | u32::from(half) << 5,
            Self::WriteSpsr => 0xd518_4009,
            Self::Eret => 0xd69f_03e0,
        }
    }
}

/// A breakpoint or watchpoint: value and control.
pub type Pair = (u64, u64);

/// A program, and what it begins with.
#[derive(Clone, Debug)]
pub struct Program {
    /// MDSCR_EL1.
    pub mdscr: u64,
    /// OSLAR_EL1.
    pub os_lock: bool,
    /// Breakpoints.
    pub breakpoints: [Pair; 3],
    /// Watchpoints.
    pub watchpoints: [Pair; 2],
    /// SPSR_EL1 of the ERET that begins it.
    pub spsr: u64,
    /// X11 to X13.
    pub constants: [u64; 3],
    /// What the handler does about each exception: SS, whether D, MDSCR_EL1.SS and the OS Lock change.
    pub answers: [u8; EVENTS_MAX],
    /// Its instructions.
    pub code: Vec<Op>,
    /// Its page.
    pub page: u64,
}

fn mdscr(chance: &mut Chance) -> u64 {
    let bit = |chance: &mut Chance, bit: u64| if chance.one_in(3) { 0 } else { bit };
    let (ss, kde) = (bit(chance, SS), bit(chance, KDE));
    ss | kde | bit(chance, MDE)
}

fn spsr(chance: &mut Chance, el1: bool) -> u64 {
    let level = if el1 { EL1T } else { 0 };
    let masked = if chance.one_in(3) { D } else { 0 };
    level | AIF | masked | if chance.one_in(3) { 0 } else { SPSR_SS }
}

fn access(chance: &mut Chance) -> Op {
    let (write, pair) = (chance.one_in(2), chance.one_in(4));
    let bytes = if pair { 8 } else { 1 << chance.below(4) };
    let offset =
        (chance.below(6) as u8 * 8) + if bytes < 8 { bytes * chance.below(2) as u8 } else { 0 };
    Op::Access { write, pair, bytes, offset }
}

fn code(chance: &mut Chance, mut el1: bool) -> Vec<Op> {
    let mut code = Vec::new();
    for _ in 0..chance.between(6, 24) {
        let op = match chance.below(if el1 { 20 } else { 13 }) {
            0..=2 => Op::Count,
            3 | 4 => access(chance),
            5 => Op::LoadExclusive,
            6 => Op::Device,
            7 => Op::Svc(1),
            8 => Op::Brk,
            9 => Op::Undefined,
            10 => *chance.pick(&[Op::Skip, Op::SkipIfZero]),
            11 => Op::Counter,
            12 => Op::Isb,
            13 | 14 => Op::Mask(chance.one_in(2)),
            15 | 16 => Op::WriteMdscr(11 + chance.below(2) as u8),
            17 => Op::WriteLock(chance.one_in(3)),
            _ => {
                el1 = chance.one_in(2);
                let spsr = spsr(chance, el1);
                let (low, high) = (spsr as u16, (spsr >> 16) as u16);
                let first = [Op::Target, Op::WriteElr, Op::SpsrLow(low), Op::SpsrHigh(high)];
                code.extend(first);
                code.push(Op::WriteSpsr);
                Op::Eret
            }
        };
        code.push(op);
    }
    // What is skipped may be the end.
    code.extend([Op::Svc(0xff), Op::Svc(0xff)]);
    code
}

impl Program {
    /// The program of a seed, the `number`th of its table.
    #[must_use]
    pub fn new(seed: u64, number: u64) -> Self {
        let chance = &mut Chance::fork(seed, number);
        let page = TABLE + PAGE * (number + 1);
        let el1 = chance.one_in(2);
        let spsr = spsr(chance, el1);
        let code = code(chance, el1);
        let breakpoints = [(); 3].map(|()| {
            let at = page + CODE + 4 * u64::from(chance.below(code.len() as u32));
            let enabled = u64::from(!chance.one_in(3));
            (at, enabled | u64::from(chance.between(1, 3)) << 1 | 0xf << 5)
        });
        let watchpoints = [(); 2].map(|()| {
            let (at, bytes) = if chance.one_in(4) {
                (DEVICE, 0x0f)
            } else {
                let bytes = *chance.pick(&[0xff, 0x0f, 0xf0, 0x01, 0x3c]);
                (page + DATA + 8 * u64::from(chance.below(7)), bytes)
            };
            let (enabled, kind) = (u64::from(!chance.one_in(4)), u64::from(chance.between(1, 3)));
            (at, enabled | u64::from(chance.between(1, 3)) << 1 | kind << 3 | bytes << 5)
        });
        let constants = [mdscr(chance), mdscr(chance), 1];
        let answers = [(); EVENTS_MAX].map(|()| {
            let rarely = |chance: &mut Chance, bit: u8| if chance.one_in(6) { bit } else { 0 };
            let step = u8::from(!chance.one_in(4));
            step | rarely(chance, 2) | rarely(chance, 4) | rarely(chance, 8) | rarely(chance, 16)
        });
        let (mdscr, os_lock) = (mdscr(chance), chance.one_in(8));
        Self { mdscr, os_lock, breakpoints, watchpoints, spsr, constants, answers, code, page }
    }

    /// Its page, as the guest reads it, with an empty log.
    #[must_use]
    fn bytes(&self) -> Vec<u8> {
        let mut words = vec![self.mdscr, u64::from(self.os_lock)];
        words.extend(self.breakpoints.iter().flat_map(|&(value, control)| [value, control]));
        words.extend(self.watchpoints.iter().flat_map(|&(value, control)| [value, control]));
        words.extend([self.spsr, self.page + CODE]);
        words.extend(self.constants);
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.resize(ANSWERS, 0);
        bytes.extend(self.answers);
        bytes.resize(CODE as usize, 0);
        bytes.extend(self.code.iter().flat_map(|op| op.word().to_le_bytes()));
        bytes.resize(PAGE as usize, 0);
        bytes
    }
}

/// The table of some programs, for [`TABLE`].
#[must_use]
pub fn table(programs: &[Program]) -> Vec<u8> {
    let mut bytes = (programs.len() as u64).to_le_bytes().to_vec();
    bytes.resize(PAGE as usize, 0);
    bytes.extend(programs.iter().flat_map(Program::bytes));
    bytes
}
