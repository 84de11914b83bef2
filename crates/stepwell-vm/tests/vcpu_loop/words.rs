//! What the fake CPU knows of instructions by their words.

/// An instruction that traps, with the syndrome that the test has chosen (UDF #1).
pub const TRAPPED: u32 = 1;

/// WFI and WFIT.
pub const fn is_wait(word: u32) -> bool {
    word == 0xd503_207f || word & !0x1f == 0xd503_1020
}

/// AT of the stage 1 that EL1 and EL0 have, and DC CVAC: they trap with that syndrome as well.
pub const fn is_by_address(word: u32) -> bool {
    word & 0xffff_fe00 == 0xd508_7800 || word & !0x1f == 0xd50b_7a20
}
