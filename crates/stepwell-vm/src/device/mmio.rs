//! What a trapped load or store was, from the syndrome of its data abort.
//!
//! ESR_EL2.ISS describes the simple forms completely (ISV): one general-purpose register, no
//! writeback. The others (pairs, exclusives, SIMD, writeback) come without, and are for the caller
//! to refuse or to decode. See "ISS encoding for an exception from a Data Abort" in the Arm
//! Architecture Reference Manual (DDI 0487).

/// One load or store of a general-purpose register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioAccess {
    /// 1, 2, 4 or 8.
    pub bytes: u8,
    /// A store, not a load.
    pub write: bool,
    /// The register; 31 is XZR.
    pub register: u8,
    sign_extend: bool,
    to_x: bool,
}

impl MmioAccess {
    const ISV: u64 = 1 << 24; // the syndrome is valid
    const SSE: u64 = 1 << 21; // the load extends the sign
    const SF: u64 = 1 << 15; // the register is 64 bits wide
    const WNR: u64 = 1 << 6; // write, not read

    /// Decodes ESR_EL2 of a data abort; none when the syndrome does not describe the access.
    #[must_use]
    pub const fn decode(esr: u64) -> Option<Self> {
        if esr & Self::ISV == 0 {
            return None;
        }
        Some(Self {
            bytes: 1 << (esr >> 22 & 3),
            write: esr & Self::WNR != 0,
            register: (esr >> 16 & 0x1f) as u8,
            sign_extend: esr & Self::SSE != 0,
            to_x: esr & Self::SF != 0,
        })
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

    /// Returns what a store writes of the 64-bit register.
    #[must_use]
    pub const fn store_value(&self, register: u64) -> u64 {
        let unused = 64 - 8 * self.bytes as u32;
        register << unused >> unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn esr(size: u64, sign: bool, register: u64, to_x: bool, write: bool) -> u64 {
        0x9300_0007
            | size << 22
            | u64::from(sign) << 21
            | register << 16
            | u64::from(to_x) << 15
            | u64::from(write) << 6
    }

    #[test]
    fn a_store_of_a_word_is_decoded() {
        let access = MmioAccess::decode(esr(2, false, 3, false, true)).expect("ISV is set");
        assert_eq!((access.bytes, access.write, access.register), (4, true, 3));
        assert_eq!(access.store_value(0x1_2345_6789), 0x2345_6789);
    }

    #[test]
    fn without_valid_syndrome_there_is_no_access() {
        assert_eq!(MmioAccess::decode(0x9200_0047), None);
    }

    #[test]
    fn loads_extend_as_the_instruction_says() {
        let load = |size, sign, to_x, value| {
            let access = MmioAccess::decode(esr(size, sign, 0, to_x, false)).expect("ISV is set");
            access.load_result(value)
        };
        assert_eq!(load(0, false, false, 0xfff0), 0xf0); // LDRB
        assert_eq!(load(0, true, false, 0x80), 0xffff_ff80); // LDRSB W
        assert_eq!(load(1, true, true, 0x8000), 0xffff_ffff_ffff_8000); // LDRSH X
        assert_eq!(load(2, true, true, 0x8000_0000), 0xffff_ffff_8000_0000); // LDRSW
        assert_eq!(load(2, false, false, u64::MAX), 0xffff_ffff); // LDR W
        assert_eq!(load(3, false, true, u64::MAX), u64::MAX); // LDR X
    }
}
