//! Which general registers an A64 instruction reads and writes, and where a direct branch leads.
//!
//! Where an instruction is not known, it is taken to read and write all that its fields may name: who asks
//! wants to know that a register has *not* changed.
//!
//! Source: Arm ARM, DDI 0487 L.b, "A64 instruction set encoding".

use crate::bit_field::{bit, field, signed_field};
use crate::load_store::{Address, Direction, LoadStore};

/// Sets of registers: bit n is Xn, bit 31 the stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operands {
    /// Those that are read, at most.
    pub reads: u32,
    /// Those that are written, at most.
    pub writes: u32,
}

const SP: u32 = 1 << 31;
const LINK: u32 = 1 << 30;

/// The set of the register that bits `low + 4` to `low` name, of which 31 is the zero register.
const fn at(word: u32, low: u32) -> u32 {
    named(word, low) & !SP
}

/// The same, of which 31 is the stack pointer.
const fn named(word: u32, low: u32) -> u32 {
    1_u32.wrapping_shl(word.wrapping_shr(low) & 31)
}

const fn every(word: u32) -> u32 {
    named(word, 0) | named(word, 5) | named(word, 10) | named(word, 16)
}

impl Operands {
    const NONE: Self = Self { reads: 0, writes: 0 };

    /// Decodes an instruction word.
    #[must_use]
    pub const fn decode(word: u32) -> Self {
        match word >> 25 & 0xf {
            0b1000 | 0b1001 => immediate(word),
            0b1010 | 0b1011 => branch(word),
            0b0101 | 0b1101 => register(word),
            0b0100 | 0b0110 | 0b1100 | 0b1110 => load_or_store(word),
            // SIMD: some have a general register for their result.
            0b0111 | 0b1111 => Self { reads: every(word), writes: at(word, 0) },
            // SVE, and what is not allocated.
            _ => Self { reads: every(word), writes: every(word) },
        }
    }
}

/// Data processing with an immediate.
const fn immediate(word: u32) -> Operands {
    let (rd, rn) = (named(word, 0), named(word, 5));
    let is_64 = bit(word as u64, 31);
    match word >> 23 & 7 {
        // ADR and ADRP.
        0 | 1 => Operands { reads: 0, writes: at(word, 0) },
        // ADD and SUB: those that set flags have no stack pointer for a destination.
        2 if word & 1 << 29 != 0 => Operands { reads: rn, writes: rd & !SP },
        2 => Operands { reads: rn, writes: rd },
        4 if word >> 29 & 3 == 3 => Operands { reads: rn & !SP, writes: rd & !SP },
        4 => Operands { reads: rn & !SP, writes: rd },
        // MOVK, MOVZ and MOVN.
        5 if word >> 29 & 3 == 3 => Operands { reads: rd & !SP, writes: rd & !SP },
        5 => Operands { reads: 0, writes: rd & !SP },
        // BFM, SBFM and UBFM.
        6 => Operands { reads: (rn | rd) & !SP, writes: rd & !SP },
        // EXTR.
        7 if is_64 == bit(word as u64, 22) => {
            Operands { reads: (rn | named(word, 16)) & !SP, writes: rd & !SP }
        }
        _ => Operands { reads: every(word), writes: every(word) },
    }
}

/// Branches, exceptions and system instructions.
const fn branch(word: u32) -> Operands {
    let rt = at(word, 0);
    match word >> 24 {
        // B.cond, B, hints and barriers.
        0x54 | 0x14..=0x17 => Operands::NONE,
        0x94..=0x97 => Operands { reads: 0, writes: LINK },
        // CBZ, CBNZ, TBZ and TBNZ.
        0x34..=0x37 | 0xb4..=0xb7 => Operands { reads: rt, writes: 0 },
        0xd5 => system(word, rt),
        _ => Operands { reads: at(word, 5) | rt, writes: every(word) | LINK },
    }
}

const fn system(word: u32, rt: u32) -> Operands {
    // MSR of SP_EL0, and of SPSel.
    let is_stack = word & !31 == 0xd518_4100 || word & !0xf1f == 0xd500_40a0;
    let writes = if is_stack { SP } else { 0 };
    // MRS and SYSL.
    if word & 1 << 21 != 0 {
        Operands { reads: 0, writes: rt | writes }
    } else {
        Operands { reads: rt, writes }
    }
}

/// Data processing with registers.
const fn register(word: u32) -> Operands {
    let rd = named(word, 0);
    let (rn, rm) = (named(word, 5), named(word, 16));
    match word >> 24 & 0x1f {
        // ADD and SUB of an extended register may write the stack pointer.
        0x0b if word & 1 << 21 != 0 => {
            let writes = if word & 1 << 29 == 0 { rd } else { rd & !SP };
            Operands { reads: rn | rm, writes }
        }
        0x0a | 0x0b => Operands { reads: (rn | rm) & !SP, writes: rd & !SP },
        // Those of three sources, and of others.
        _ => Operands { reads: (rn | rm | named(word, 10)) & !SP, writes: rd & !SP },
    }
}

const fn load_or_store(word: u32) -> Operands {
    let wide = word as u64;
    let Some(what) = LoadStore::decode(word) else {
        // PRFM, and what is not known: tags, copies of memory.
        let is_prefetch = word & 0xffc0_0000 == 0xf980_0000;
        let writes = if is_prefetch { 0 } else { every(word) };
        return Operands { reads: every(word), writes };
    };
    let base = match what.address {
        Address::Base { rn, .. } | Address::Block { rn } | Address::Authenticated { rn, .. } => {
            1_u32.wrapping_shl(rn as u32)
        }
        Address::Indexed { rn, rm, .. } => {
            1_u32.wrapping_shl(rn as u32) | 1_u32.wrapping_shl(rm as u32) & !SP
        }
        Address::Literal { .. } => 0,
    };
    let second = if what.count > 1 { at(word, 10) } else { 0 };
    let data = if what.simd { 0 } else { at(word, 0) | second };
    let moved = if writes_back(wide) { named(word, 5) } else { 0 };
    match what.direction {
        Direction::Load => Operands { reads: base, writes: data | moved },
        // The status of a store-exclusive.
        Direction::Store => Operands { reads: base | data, writes: moved | status(word) },
        // Atomics, CAS and CASP: what is compared is read and written, and may be a pair.
        Direction::Both => {
            let compared = at(word, 16);
            let all = data | data.wrapping_shl(1) & !SP | compared | compared.wrapping_shl(1) & !SP;
            Operands { reads: base | all, writes: all }
        }
    }
}

const fn status(word: u32) -> u32 {
    let is_exclusive = word & 0x3fc0_0000 == 0x0800_0000;
    if is_exclusive { at(word, 16) } else { 0 }
}

const fn writes_back(word: u64) -> bool {
    match field(word, 29, 27) {
        // LDP and STP, before and behind.
        0b101 => bit(word, 23),
        // LDR and STR, likewise, and LDRAA's.
        0b111 => !bit(word, 24) && bit(word, 10),
        // LD1 to LD4, and ST1 to ST4.
        0b001 => bit(word, 26) && bit(word, 23),
        _ => false,
    }
}

/// A branch whose target is in its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectBranch {
    /// Distance from the instruction itself, in instructions.
    pub instructions: i64,
    /// What comes behind it may be executed next.
    pub is_conditional: bool,
}

impl DirectBranch {
    /// Decodes B, BL, B.cond, CBZ, CBNZ, TBZ and TBNZ.
    #[must_use]
    pub const fn decode(word: u32) -> Option<Self> {
        let wide = word as u64;
        let (instructions, is_conditional) = match word >> 24 {
            0x14..=0x17 | 0x94..=0x97 => (signed_field(wide, 25, 0), false),
            0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => (signed_field(wide, 23, 5), true),
            0x36 | 0x37 | 0xb6 | 0xb7 => (signed_field(wide, 18, 5), true),
            _ => return None,
        };
        Some(Self { instructions, is_conditional })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn x(n: u32) -> u32 {
        1 << n
    }

    #[test]
    fn registers_are_those_of_the_manual() {
        let rows = [
            (0x1000_0005, 0, x(5)),                  // adr x5, .
            (0x9100_0421, x(1), x(1)),               // add x1, x1, #1
            (0x9100_43ff, SP, SP),                   // add sp, sp, #16
            (0xf100_041f, x(0), 0),                  // cmp x0, #1
            (0x9240_0041, x(2), x(1)),               // and x1, x2, #1
            (0xf240_005f, x(2), 0),                  // tst x2, #1
            (0xd280_0aa2, 0, x(2)),                  // mov x2, #0x55
            (0xf2a0_0022, x(2), x(2)),               // movk x2, #1, lsl #16
            (0x8b02_0020, x(1) | x(2), x(0)),        // add x0, x1, x2
            (0xeb02_003f, x(1) | x(2), 0),           // cmp x1, x2
            (0xaa02_03e1, x(2), x(1)),               // mov x1, x2
            (0xb400_0060, x(0), 0),                  // cbz x0, .+12
            (0x3600_0060, x(0), 0),                  // tbz w0, #0, .+12
            (0x5400_0061, 0, 0),                     // b.ne .+12
            (0x9400_0001, 0, LINK),                  // bl .+4
            (0xd538_0404, 0, x(4)),                  // mrs x4, id_aa64pfr0_el1
            (0xd518_1004, x(4), 0),                  // msr sctlr_el1, x4
            (0xd503_42ff, 0, 0),                     // msr daifclr, #2
            (0xd503_3fdf, 0, 0),                     // isb
            (0xb940_1964, x(11), x(4)),              // ldr w4, [x11, #0x18]
            (0xf900_0020, x(0) | x(1), 0),           // str x0, [x1]
            (0xf840_8420, x(1), x(0) | x(1)),        // ldr x0, [x1], #8
            (0xa940_0be1, SP, x(1) | x(2)),          // ldp x1, x2, [sp]
            (0xa9bf_0be1, SP | x(1) | x(2), SP),     // stp x1, x2, [sp, #-16]!
            (0xc85f_7c20, x(1), x(0)),               // ldxr x0, [x1]
            (0xc87f_0c22, x(1), x(2) | x(3)),        // ldxp x2, x3, [x1]
            (0xc802_7c20, x(0) | x(1), x(2)),        // stxr w2, x0, [x1]
            (0xf862_6823, x(1) | x(2), x(3)),        // ldr x3, [x1, x2]
            (0x1e26_0020, every(0x1e26_0020), x(0)), // fmov w0, s1
            (0xd344_2c41, x(1) | x(2), x(1)),        // ubfx x1, x2, #4, #8
            (0x93c2_0c20, x(1) | x(2), x(0)),        // extr x0, x1, x2, #3
            (0x8b21_43e0, SP | x(1), x(0)),          // add x0, sp, w1, uxtw
            (0xeb21_43ff, SP | x(1), 0),             // cmp sp, w1, uxtw
            (0x5800_0043, 0, x(3)),                  // ldr x3, .+8
            (0xc8a0_7c22, x(0) | x(1) | x(2) | x(3), x(0) | x(1) | x(2) | x(3)), // cas x0, x2, [x1]
            (0xf980_0020, every(0xf980_0020), 0),    // prfm pldl1keep, [x1]
            (0xd920_0820, every(0xd920_0820), every(0xd920_0820)), // stg x0, [x1]
            (0x13c2_0c20, every(0x13c2_0c20), every(0x13c2_0c20)), // EXTR of a word, with N
        ];
        for (word, reads, writes) in rows {
            assert_eq!(Operands::decode(word), Operands { reads, writes }, "{word:#x}");
        }
    }

    #[test]
    fn branches_lead_where_they_do() {
        let rows = [
            (0x1400_0001, 1, false),
            (0x97ff_ffff, -1, false),
            (0x5400_0061, 3, true),
            (0x35ff_ffa2, -3, true),
            (0xb400_0060, 3, true),
            (0x3607_ffe0, -1, true),
        ];
        for (word, instructions, is_conditional) in rows {
            let branch = DirectBranch { instructions, is_conditional };
            assert_eq!(DirectBranch::decode(word), Some(branch), "{word:#x}");
        }
        assert_eq!(DirectBranch::decode(0xd65f_03c0), None);
    }
}
