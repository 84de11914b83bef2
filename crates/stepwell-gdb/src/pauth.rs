//! Which bits of a pointer are its signature, where the CPU authenticates pointers.
//!
//! A signed return address on the stack is no address before those bits are put back to what bit 55
//! says. GDB has masks for it, read like registers (`org.gnu.gdb.aarch64.pauth_v2`, from GDB 14 on;
//! an older GDB takes them for registers that mean nothing); LLDB asks how many bits an address has.
//!
//! Source: Arm ARM, DDI 0487 L.b, AddPAC(), and TCR_EL1, Translation Control Register (EL1).

use stepwell_arch::SystemRegister;
use stepwell_debuggee::{Error, SystemRegisters, VcpuId};

/// The half of the address space that a pointer is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// TTBR0_EL1's: bit 55 is clear.
    Low,
    /// TTBR1_EL1's: bit 55 is set.
    High,
}

/// What a pointer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pointer {
    Data,
    Code,
}

/// The masks, in the order that GDB has them in.
pub(crate) const MASKS: [(&str, Pointer, Half); 4] = [
    ("pauth_dmask", Pointer::Data, Half::Low),
    ("pauth_cmask", Pointer::Code, Half::Low),
    ("pauth_dmask_high", Pointer::Data, Half::High),
    ("pauth_cmask_high", Pointer::Code, Half::High),
];

/// Address bits where the guest has not chosen yet: Linux with 4 KiB pages.
const USUAL_BITS: u64 = 48;

/// Tells whether a vCPU authenticates pointers by any algorithm.
pub(crate) fn is_there(registers: &mut dyn SystemRegisters, vcpu: VcpuId) -> Result<bool, Error> {
    // APA and API; APA3. (GPA, GPI and GPA3 are of an instruction that signs data.)
    let fields = [("ID_AA64ISAR1_EL1", 0xff0), ("ID_AA64ISAR2_EL1", 0xf000)];
    for (name, field) in fields {
        let Some(register) = SystemRegister::from_name(name) else { continue };
        match registers.read_system_register(vcpu, register.0) {
            Ok(value) if value & field != 0 => return Ok(true),
            Ok(_) | Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Bits of an address under TCR_EL1, by TxSZ.
const fn address_bits(tcr: u64, half: Half) -> u64 {
    let shift = match half {
        Half::Low => 0,
        Half::High => 16,
    };
    64 - (tcr >> shift & 0x3f)
}

/// The bits of a pointer that a signature takes under TCR_EL1. Bit 55 is never one of them.
pub(crate) const fn mask(tcr: u64, pointer: Pointer, half: Half) -> u64 {
    const BELOW_55: u64 = (1 << 55) - 1;
    const TOP_BYTE: u64 = 0xff << 56;
    let tbi = 37 + half as u64;
    let tbid = 51 + half as u64;
    let is_ignored =
        tcr >> tbi & 1 == 1 && (matches!(pointer, Pointer::Data) || tcr >> tbid & 1 == 0);
    let top = if is_ignored { 0 } else { TOP_BYTE };
    // TxSZ is 0 before anybody has written it.
    let below = match address_bits(tcr, half) {
        bits @ 0..55 => BELOW_55 & !((1 << bits) - 1),
        _ => 0,
    };
    top | below
}

/// How many bits of an address count, for a client that asks once. `sctlr` and `tcr` are EL1's.
pub(crate) const fn significant_bits(sctlr: u64, tcr: u64) -> u64 {
    let is_translated = sctlr & 1 == 1;
    match address_bits(tcr, Half::High) {
        bits @ 0..55 if is_translated => bits,
        _ => USUAL_BITS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux on QEMU's `max`: 48 bits, TBI0 and not TBI1.
    const LINUX: u64 = 1 << 37 | 16 << 16 | 16;

    #[test]
    fn a_signature_takes_what_an_address_leaves() {
        for (pointer, half, expected) in [
            (Pointer::Data, Half::Low, 0x007f_0000_0000_0000),
            (Pointer::Code, Half::Low, 0x007f_0000_0000_0000),
            (Pointer::Data, Half::High, 0xff7f_0000_0000_0000),
            (Pointer::Code, Half::High, 0xff7f_0000_0000_0000),
        ] {
            assert_eq!(mask(LINUX, pointer, half), expected, "{pointer:?} {half:?}");
        }
        // TBID0: the top byte of data pointers alone is ignored.
        let data_only = LINUX | 1 << 51;
        assert_eq!(mask(data_only, Pointer::Code, Half::Low), 0xff7f_0000_0000_0000);
        assert_eq!(mask(data_only, Pointer::Data, Half::Low), 0x007f_0000_0000_0000);
        // Each half has a size of its own.
        assert_eq!(mask(25 << 16 | 16, Pointer::Code, Half::High), 0xff7f_ff80_0000_0000);
    }

    #[test]
    fn any_value_gives_a_mask_without_bit_55() {
        for size in 0..64 {
            for tcr in [size, size << 16, size | size << 16 | 1 << 37 | 1 << 38] {
                for (_, pointer, half) in MASKS {
                    assert_eq!(mask(tcr, pointer, half) & 1 << 55, 0, "{tcr:#x}");
                }
                assert!((1..55).contains(&significant_bits(1, tcr)), "{tcr:#x}");
            }
        }
    }

    #[test]
    fn before_there_is_a_translation_addresses_are_as_long_as_usual() {
        assert_eq!(significant_bits(0, 25 << 16), 48);
        assert_eq!(significant_bits(1, 0), 48);
        assert_eq!(significant_bits(1, 25 << 16), 39);
    }
}
