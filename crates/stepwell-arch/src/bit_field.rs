//! Bit fields of a register value, by the bit numbers that Arm's manuals print.
//!
//! Written once with wrapping shifts, so that no accessor of a register layout has an arithmetic
//! panic path of its own.

/// Returns bits `high:low` of `value`, moved down to bit 0.
pub(crate) const fn field(value: u64, high: u32, low: u32) -> u64 {
    value.wrapping_shr(low) & mask(high.wrapping_sub(low))
}

/// Returns bits `high:low` of `value` as a two's complement number.
pub(crate) const fn signed_field(value: u64, high: u32, low: u32) -> i64 {
    let unused = 63_u32.wrapping_sub(high);
    (value.wrapping_shl(unused) as i64).wrapping_shr(unused.wrapping_add(low))
}

/// Returns bit `number` of `value`.
pub(crate) const fn bit(value: u64, number: u32) -> bool {
    value.wrapping_shr(number) & 1 != 0
}

/// Returns `value` with its bits `high:low` replaced by the low bits of `content`.
pub(crate) const fn with_field(value: u64, high: u32, low: u32, content: u64) -> u64 {
    let mask = mask(high.wrapping_sub(low));
    value & !mask.wrapping_shl(low) | (content & mask).wrapping_shl(low)
}

/// Returns `value` with all of the bits of `mask` set or cleared.
pub(crate) const fn with_bits(value: u64, mask: u64, set: bool) -> u64 {
    if set { value | mask } else { value & !mask }
}

/// Ones from bit `top` down to bit 0.
pub(crate) const fn mask(top: u32) -> u64 {
    u64::MAX.wrapping_shr(63_u32.wrapping_sub(top))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_inclusive_at_both_ends() {
        assert_eq!(field(0xabcd, 15, 8), 0xab);
        assert_eq!(field(u64::MAX, 63, 0), u64::MAX);
        assert_eq!(field(1 << 63, 63, 63), 1);
        assert!(bit(1 << 63, 63) && !bit(1 << 63, 62));
        assert_eq!(signed_field(0b0110_0000, 6, 5), -1);
        assert_eq!(signed_field(0b1010_0000, 6, 5), 1);
        assert_eq!(signed_field(1 << 63, 63, 63), -1);
    }

    #[test]
    fn replacing_a_field_leaves_its_neighbours() {
        assert_eq!(with_field(u64::MAX, 11, 4, 0), 0xffff_ffff_ffff_f00f);
        assert_eq!(with_field(0, 11, 4, 0x1ff), 0xff0, "surplus content bits are cut off");
        assert_eq!(with_bits(0b1000, 0b0011, true), 0b1011);
        assert_eq!(with_bits(0b1011, 0b0011, false), 0b1000);
    }
}
