//! Where a stepped instruction has led, for those of which that is known beforehand.
//!
//! After a step the PC has to be asked for, which costs as much as the step. These need not be asked about:
//! instructions of A64's base that are allocated on every CPU, access no memory, and lead to the next one
//! or to a place that they name. All others may fault, or go either way.
//!
//! Encodings are those of the Arm ARM (DDI 0487), "A64 instruction set encoding".

use stepwell_arch::Va;

const NOP: u32 = 0xd503_201f;
const SF: u32 = 1 << 31;

const fn bits(word: u32, high: u32, low: u32) -> u32 {
    word >> low & ((1 << (high - low + 1)) - 1)
}

/// Tells whether the instruction executes wherever it is, and leads to the next one.
const fn leads_on(word: u32) -> bool {
    let is_64 = word & SF != 0;
    // Shifts by 32 and more are not allocated for W registers.
    let has_amount = is_64 || bits(word, 15, 15) == 0;
    match bits(word, 28, 24) {
        // ADR, ADRP.
        0b10000 => true,
        // ADD and SUB of an immediate; those of tags are another matter.
        0b10001 => bits(word, 23, 23) == 0,
        // MOVN, MOVZ and MOVK, beside logical immediates.
        0b10010 => {
            let is_move = bits(word, 23, 23) == 1 && bits(word, 30, 29) != 0b01;
            is_move && (is_64 || bits(word, 22, 22) == 0)
        }
        // AND, ORR, EOR and their like, of shifted registers.
        0b01010 => has_amount,
        // ADD and SUB of shifted registers, beside those of extended ones.
        0b01011 => bits(word, 21, 21) == 0 && bits(word, 23, 22) != 0b11 && has_amount,
        _ => word == NOP,
    }
}

/// Where the instruction at `pc` leads, if that is known beforehand.
#[must_use]
pub const fn behind(pc: Va, word: u32) -> Option<Va> {
    // B and BL.
    if bits(word, 30, 26) == 0b00101 {
        let words = (word << 6) as i32 >> 6;
        return Some(Va(pc.0.wrapping_add_signed(words as i64 * 4)));
    }
    if leads_on(word) { Some(Va(pc.0.wrapping_add(4))) } else { None }
}

/// Tells whether the instruction at `pc` has executed, and led to the next one, `behind` it, by no branch that
/// leaves PSTATE.BTYPE for that.
#[must_use]
pub const fn is_followed(pc: Va, word: u32, behind: Va) -> bool {
    // BR and BLR are of this class, with RET and ERET.
    bits(word, 31, 25) != 0b110_1011 && behind.0 == pc.0.wrapping_add(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_engine::attention::needs_attention;

    const PC: Va = Va(0xffff_8000_0800_0000);

    #[test]
    fn what_cannot_fault_leads_on() {
        for (word, name) in [
            (0x1000_4000, "adr x0, .+0x800"),
            (0x9100_0400, "add x0, x0, #1"),
            (0xf100_0484, "subs x4, x4, #1"),
            (0x5282_0001, "mov w1, #0x1000"),
            (0xd282_0001, "mov x1, #0x1000"),
            (0xf2bf_ffe1, "movk x1, #0xffff, lsl #16"),
            (0xca01_0042, "eor x2, x2, x1"),
            (0x2a01_03e0, "mov w0, w1"),
            (0x8b06_00a5, "add x5, x5, x6"),
            (NOP, "nop"),
        ] {
            assert_eq!(behind(PC, word), Some(Va(PC.0 + 4)), "{name}");
            assert!(!needs_attention(word), "{name}");
        }
        assert_eq!(behind(PC, 0x17ff_fffe), Some(Va(PC.0 - 8)), "b .-8");
        assert_eq!(behind(PC, 0x9400_0006), Some(Va(PC.0 + 0x18)), "bl .+0x18");
    }

    #[test]
    fn an_indirect_branch_to_the_next_one_is_still_a_branch() {
        let next = Va(PC.0 + 4);
        assert!(is_followed(PC, 0xf940_0065, next) && is_followed(PC, 0x5400_0041, next));
        assert!(!is_followed(PC, 0xf940_0065, Va(0x200)), "taken to a vector");
        assert!(!is_followed(PC, 0xd61f_0000, next), "br x0");
        assert!(!is_followed(PC, 0xd63f_0000, next), "blr x0");
    }

    #[test]
    fn of_others_the_pc_is_asked_for() {
        for (word, name) in [
            (0xf940_0065, "ldr x5, [x3]"),
            (0x5400_0041, "b.ne .+8"),
            (0xb500_004a, "cbnz x10, .+8"),
            (0x3600_0040, "tbz w0, #0, .+8"),
            (0xd65f_03c0, "ret"),
            (0xd61f_0000, "br x0"),
            (0x0000_0000, "udf #0"),
            (0x9180_0000, "addg x0, x0, #0, #0"),
            (0x3282_0001, "unallocated: move wide, opc 01"),
            (0x52c0_0001, "unallocated: mov w1, lsl #32"),
            (0x0a01_8042, "unallocated: and w2, w2, w1, lsl #32"),
            (0x8bc1_0042, "unallocated: add, shift 3"),
            (0x0b01_8042, "unallocated: add w2, w2, w1, lsl #32"),
            (0x1e60_4000, "fmov d0, d0: may trap"),
            (0xd503_203f, "yield"),
            (0xd400_0001, "svc #0"),
        ] {
            assert_eq!(behind(PC, word), None, "{name}");
        }
    }
}
