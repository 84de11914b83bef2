//! What the fake CPU knows of instructions by their words.

/// An instruction that traps, with the syndrome that the test has chosen (UDF #1).
pub const TRAPPED: u32 = 1;

/// WFI and WFIT.
pub const fn is_wait(word: u32) -> bool {
    word == 0xd503_207f || word & !0x1f == 0xd503_1020
}

/// AT of the stage 1 that EL1 and EL0 have, DC CVAC, and some of A32: they trap with that syndrome as well,
/// at the address in the register that the low bits tell.
pub const fn is_by_address(word: u32) -> bool {
    matches!(word, LDRD | LDRD_POST | LDM | STRD | STR)
        || word & 0xffff_fe00 == 0xd508_7800
        || word & !0x1f == 0xd50b_7a20
}

/// `ldrd r2, r3, [r0]`, at X16.
pub const LDRD: u32 = 0xe1c0_20d0;
/// `ldrd r2, r3, [r0], #8`, at X24.
pub const LDRD_POST: u32 = 0xe0c0_20d8;
/// `ldm r0!, {r1, r2}`, at X6.
pub const LDM: u32 = 0xe8b0_0006;
/// `strd r2, r3, [r0]`, at X16.
pub const STRD: u32 = 0xe1c0_20f0;
/// `str r2, [r0, #1]`, at X1.
pub const STR: u32 = 0xe580_2001;
/// `clrex`.
pub const CLREX: u32 = 0xd503_3f5f;

/// Where B, BL, CBZ and CBNZ of X registers, and RET lead, and whether X30 is written.
pub fn branch(word: u32, pc: u64, read: impl Fn(u8) -> u64) -> Option<(u64, bool)> {
    let by = |distance: i32| pc.wrapping_add(distance as i64 as u64);
    let far = by((word << 6) as i32 >> 4);
    let is_zero = || read((word & 0x1f) as u8) == 0;
    match word >> 24 {
        0x14..=0x17 => Some((far, false)),
        0x94..=0x97 => Some((far, true)),
        0xb4 | 0xb5 => {
            let is_taken = is_zero() == (word >> 24 == 0xb4);
            let target = if is_taken { by((word << 8) as i32 >> 13 << 2) } else { pc + 4 };
            Some((target, false))
        }
        _ => (word == 0xd65f_03c0).then(|| (read(30), false)),
    }
}
