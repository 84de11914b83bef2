//! The few T32 instructions that matter, and how long each one is.
//!
//! An exclusive with a should-be-one bit that is 0 is UNPREDICTABLE, and left to the CPU.
//!
//! Source: Arm ARM, DDI 0487 L.b, "T32 Instruction Set Encoding".

use super::{ALWAYS, ExclusiveFields, Found, Instruction, Size, coprocessor, exclusive};
use crate::bit_field::{bit, field};

/// Tells whether an instruction that begins with this halfword has a second one.
#[must_use]
pub const fn is_wide(first: u16) -> bool {
    first >> 11 > 0b11100
}

/// Decodes a T32 instruction. Of a 2-byte one `second` is not looked at.
#[must_use]
pub const fn decode(first: u16, second: u16) -> Found {
    if is_wide(first) {
        let instruction = wide(first, (first as u32) << 16 | second as u32);
        return Found { instruction, bytes: 4, condition: ALWAYS };
    }
    let instruction = match first {
        0xbf20 => Instruction::Wfe,
        0xbf30 => Instruction::Wfi,
        0xdf00..=0xdfff => Instruction::Svc,
        _ => Instruction::Other,
    };
    Found { instruction, bytes: 2, condition: ALWAYS }
}

const fn wide(first: u16, word: u32) -> Instruction {
    match word & 0xfff0_d7ff {
        0xf3a0_8002 => return Instruction::Wfe,
        0xf3a0_8003 => return Instruction::Wfi,
        0xf3a0_8010 => return Instruction::Esb,
        _ => {}
    }
    if word & 0xfff0_d0f0 == 0xf3b0_8020 {
        return Instruction::ClearExclusive;
    }
    match first & 0xfff0 {
        0xe840 | 0xe850 => with_offset(word),
        0xe8c0 | 0xe8d0 => without_offset(word),
        0xec40 | 0xec50 => coprocessor(word),
        0xee00..=0xeeff => coprocessor(word),
        _ => Instruction::Other,
    }
}

/// LDREX and STREX: words, with an offset in words.
const fn with_offset(word: u32) -> Instruction {
    let wide = word as u64;
    let is_load = bit(wide, 20);
    if is_load && word & 0x0f00 != 0x0f00 {
        return Instruction::Other;
    }
    let fields = ExclusiveFields {
        is_load,
        size: Size::Word,
        rn: field(wide, 19, 16) as u8,
        offset: (field(wide, 7, 0) << 2) as u16,
        rd: field(wide, 11, 8) as u8,
        rt: field(wide, 15, 12) as u8,
        rt2: 0,
    };
    or_other(exclusive(fields))
}

/// The others, and, with bit 6 clear, table branches, LDA and STL.
const fn without_offset(word: u32) -> Instruction {
    let wide = word as u64;
    let size = match field(wide, 7, 4) {
        0b0100 | 0b1100 => Size::Byte,
        0b0101 | 0b1101 => Size::Half,
        0b1110 => Size::Word,
        0b0111 | 0b1111 => Size::Double,
        _ => return Instruction::Other,
    };
    let is_load = bit(wide, 20);
    let has_second = matches!(size, Size::Double);
    if is_load && word & 0xf != 0xf || !has_second && word & 0x0f00 != 0x0f00 {
        return Instruction::Other;
    }
    let fields = ExclusiveFields {
        is_load,
        size,
        rn: field(wide, 19, 16) as u8,
        offset: 0,
        rd: field(wide, 3, 0) as u8,
        rt: field(wide, 15, 12) as u8,
        rt2: field(wide, 11, 8) as u8,
    };
    or_other(exclusive(fields))
}

const fn or_other(instruction: Option<Instruction>) -> Instruction {
    match instruction {
        Some(instruction) => instruction,
        None => Instruction::Other,
    }
}

/// Tells whether an instruction is BL or BLX.
#[must_use]
pub const fn is_call(first: u16, second: u16) -> bool {
    first & 0xff87 == 0x4780 || first & 0xf800 == 0xf000 && second & 0xc000 == 0xc000
}
