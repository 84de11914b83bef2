//! Loads and stores of general-purpose registers that come without a syndrome.
//!
//! ESR_EL2.ISS leaves out pairs and whatever moves its base register; these are most of what a
//! compiler makes of copying and adding up memory. They are decoded from the instruction. Exclusives,
//! atomics and SIMD registers are not among them, nor forms that the architecture leaves open.
//!
//! Source: Arm ARM, DDI 0487 L.b, A64 instruction set encoding: Loads and Stores.

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Stores, not loads.
    pub write: bool,
    /// Bytes of each register in memory: 1, 2, 4 or 8.
    pub bytes: u8,
    /// The registers, in the order of memory; 31 is XZR.
    pub registers: [u8; 2],
    /// How many of them: 1 or 2.
    pub count: u8,
    sign_extend: bool,
    to_x: bool,
    /// Base register; 31 is the stack pointer.
    pub base: u8,
    /// Added to the base register for the address.
    pub offset: i64,
    /// Added to the base register afterwards.
    pub moved: i64,
}

const fn bits(word: u32, high: u32, low: u32) -> u32 {
    word << (31 - high) >> (31 - high + low)
}

/// A signed field.
const fn signed(word: u32, high: u32, low: u32) -> i64 {
    ((word << (31 - high)) as i32 >> (31 - high + low)) as i64
}

impl Transfer {
    /// Decodes an instruction; none where it is no such transfer.
    #[must_use]
    pub const fn decode(word: u32) -> Option<Self> {
        let transfer = match (bits(word, 29, 27), bits(word, 26, 24)) {
            (0b101, 0b000 | 0b001) => pair(word),
            (0b111, 0b000) if bits(word, 21, 21) == 0 => indexed(word),
            _ => None,
        };
        match transfer {
            Some(transfer) if transfer.is_defined() => Some(transfer),
            _ => None,
        }
    }

    /// Whether the architecture says what becomes of the registers.
    const fn is_defined(&self) -> bool {
        let [first, second] = self.registers;
        let moves = self.moved != 0 && self.base != 31;
        let is_own_base = moves && (first == self.base || (self.count == 2 && second == self.base));
        let is_twice = self.count == 2 && !self.write && first == second;
        !is_own_base && !is_twice
    }

    /// Returns what a load of `value` leaves in the 64-bit register.
    #[must_use]
    pub const fn load_result(&self, value: u64) -> u64 {
        let unused = 64 - 8 * self.bytes as u32;
        let extended = if self.sign_extend {
            (((value << unused) as i64) >> unused) as u64
        } else {
            value << unused >> unused
        };
        if self.to_x { extended } else { extended as u32 as u64 }
    }
}

/// LDP, STP and LDPSW, with or without write-back, and LDNP and STNP.
const fn pair(word: u32) -> Option<Transfer> {
    let (opc, load) = (bits(word, 31, 30), bits(word, 22, 22) == 1);
    let bytes = match (opc, load) {
        (0b00, _) | (0b01, true) => 4,
        (0b10, _) => 8,
        // STGP, and nothing.
        _ => return None,
    };
    let distance = signed(word, 21, 15) * bytes as i64;
    let (offset, moved) = match bits(word, 24, 23) {
        0b01 => (0, distance),
        0b11 => (distance, distance),
        _ => (distance, 0),
    };
    Some(Transfer {
        write: !load,
        bytes,
        registers: [bits(word, 4, 0) as u8, bits(word, 14, 10) as u8],
        count: 2,
        sign_extend: opc == 0b01,
        to_x: opc != 0b00,
        base: bits(word, 9, 5) as u8,
        offset,
        moved,
    })
}

/// LDR and STR of all sizes that move their base register.
const fn indexed(word: u32) -> Option<Transfer> {
    let (size, opc, distance) = (bits(word, 31, 30), bits(word, 23, 22), signed(word, 20, 12));
    let offset = match bits(word, 11, 10) {
        0b01 => 0,
        0b11 => distance,
        _ => return None,
    };
    if (size == 3 && opc > 1) || (size == 2 && opc == 3) {
        return None;
    }
    Some(Transfer {
        write: opc == 0,
        bytes: 1 << size,
        registers: [bits(word, 4, 0) as u8, 31],
        count: 1,
        sign_extend: opc > 1,
        to_x: size == 3 || opc == 2,
        base: bits(word, 9, 5) as u8,
        offset,
        moved: distance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(word: u32) -> Transfer {
        Transfer::decode(word).expect("it is a transfer")
    }

    #[test]
    fn pairs() {
        let stp = decoded(0xa9bf_7bfd); // stp x29, x30, [sp, #-16]!
        assert!(stp.write);
        assert_eq!((stp.bytes, stp.registers, stp.count, stp.base), (8, [29, 30], 2, 31));
        assert_eq!((stp.offset, stp.moved), (-16, -16));
        let ldp = decoded(0xa8c1_0801); // ldp x1, x2, [x0], #16
        assert_eq!((ldp.write, ldp.offset, ldp.moved, ldp.base), (false, 0, 16, 0));
        assert_eq!(ldp.load_result(u64::MAX), u64::MAX);
        let ldp = decoded(0x2942_0801); // ldp w1, w2, [x0, #16]
        assert_eq!((ldp.bytes, ldp.offset, ldp.moved), (4, 16, 0));
        assert_eq!(ldp.load_result(u64::MAX), 0xffff_ffff);
        let ldpsw = decoded(0x6943_0801); // ldpsw x1, x2, [x0, #24]
        assert_eq!((ldpsw.bytes, ldpsw.offset), (4, 24));
        assert_eq!(ldpsw.load_result(0x8000_0000), 0xffff_ffff_8000_0000);
        let ldnp = decoded(0xa840_0801); // ldnp x1, x2, [x0]
        assert_eq!((ldnp.offset, ldnp.moved), (0, 0));
    }

    #[test]
    fn moving_bases() {
        let ldr = decoded(0xf840_8401); // ldr x1, [x0], #8
        assert_eq!((ldr.bytes, ldr.count, ldr.offset, ldr.moved), (8, 1, 0, 8));
        let strb = decoded(0x381f_fc01); // strb w1, [x0, #-1]!
        assert_eq!((strb.write, strb.bytes, strb.offset, strb.moved), (true, 1, -1, -1));
        let ldrsh = decoded(0x7880_2401); // ldrsh x1, [x0], #2
        assert_eq!(ldrsh.load_result(0x8000), 0xffff_ffff_ffff_8000);
        let ldrsh = decoded(0x78c0_2401); // ldrsh w1, [x0], #2
        assert_eq!(ldrsh.load_result(0x8000), 0xffff_8000);
    }

    #[test]
    fn others_are_none() {
        for (word, name) in [
            (0xf940_0001, "ldr x1, [x0]"),
            (0xf840_0001, "ldur x1, [x0]"),
            (0xf840_0801, "ldtr x1, [x0]"),
            (0xf861_6801, "ldr x1, [x0, x1]"),
            (0xc85f_7c01, "ldxr x1, [x0]"),
            (0xad40_0400, "ldp q0, q1, [x0]"),
            (0x3cc1_0400, "ldr q0, [x0], #16"),
            (0x6900_0801, "stgp x1, x2, [x0]"),
            (0xf840_8400, "ldr x0, [x0], #8"),
            (0xa940_0401, "ldp x1, x1, [x0]"),
            (0xf880_8401, "nothing"),
            (0xe940_0801, "nothing"),
        ] {
            assert_eq!(Transfer::decode(word), None, "{name}");
        }
    }

    #[test]
    fn no_word_panics() {
        for word in (0..=u32::MAX).step_by(4093) {
            if let Some(transfer) = Transfer::decode(word) {
                assert!(matches!(transfer.bytes, 1 | 2 | 4 | 8), "{word:#x}");
                assert!(matches!(transfer.count, 1 | 2), "{word:#x}");
            }
        }
    }
}
