//! The few A32 instructions that matter.
//!
//! An exclusive with a should-be-one bit that is 0 is UNPREDICTABLE, and left to the CPU.
//!
//! Source: Arm ARM, DDI 0487 L.b, "A32 Instruction Set Encoding".

use super::{ALWAYS, ExclusiveFields, Found, Instruction, Size, coprocessor, exclusive};
use crate::bit_field::{bit, field};

/// The condition field of instructions that have no condition.
const UNCONDITIONAL: u32 = 0xf;

/// Decodes an A32 instruction word.
#[must_use]
pub const fn decode(word: u32) -> Found {
    if word >> 28 == UNCONDITIONAL {
        let is_clrex = word & 0xfff0_00f0 == 0xf570_0010;
        let instruction = if is_clrex { Instruction::ClearExclusive } else { Instruction::Other };
        return Found { instruction, bytes: 4, condition: ALWAYS };
    }
    Found { instruction: conditional(word), bytes: 4, condition: (word >> 28) as u8 }
}

const fn conditional(word: u32) -> Instruction {
    match word & 0x0fff_f0ff {
        0x0320_f002 => return Instruction::Wfe,
        0x0320_f003 => return Instruction::Wfi,
        0x0320_f010 => return Instruction::Esb,
        _ => {}
    }
    match word >> 24 & 0xf {
        0xf => Instruction::Svc,
        0xc | 0xe => coprocessor(word),
        // Synchronization primitives; bit 9 tells exclusives from LDA and STL.
        1 if word & 0x0080_0ef0 == 0x0080_0e90 => synchronization(word),
        _ => Instruction::Other,
    }
}

const fn synchronization(word: u32) -> Instruction {
    let wide = word as u64;
    let is_load = bit(wide, 20);
    let size = match field(wide, 22, 21) {
        0 => Size::Word,
        1 => Size::Double,
        2 => Size::Byte,
        _ => Size::Half,
    };
    let rt = if is_load { field(wide, 15, 12) } else { field(wide, 3, 0) } as u8;
    // The pair of LDREXD and STREXD is an even register and the next.
    let is_odd = matches!(size, Size::Double) && rt & 1 != 0;
    if is_odd || is_load && word & 0xf != 0xf {
        return Instruction::Other;
    }
    let fields = ExclusiveFields {
        is_load,
        size,
        rn: field(wide, 19, 16) as u8,
        offset: 0,
        rd: field(wide, 15, 12) as u8,
        rt,
        rt2: rt.wrapping_add(1),
    };
    match exclusive(fields) {
        Some(instruction) => instruction,
        None => Instruction::Other,
    }
}

/// Tells whether a word is BL or BLX.
#[must_use]
pub const fn is_call(word: u32) -> bool {
    let is_conditional = word >> 28 != UNCONDITIONAL;
    word >> 25 == 0x7d
        || is_conditional && word & 0x0f00_0000 == 0x0b00_0000
        || is_conditional && word & 0x0fff_fff0 == 0x012f_ff30
}
