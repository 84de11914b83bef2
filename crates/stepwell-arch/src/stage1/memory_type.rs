//! Memory types: what an attribute byte of MAIR_EL1 means.

use core::fmt;

/// Memory type and attributes, as one byte of MAIR_EL1 gives them.
///
/// Source: Arm ARM, DDI 0487 L.b, MAIR_EL1, Memory Attribute Indirection Register (EL1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryType(pub u8);

impl MemoryType {
    /// Device-nGnRnE: what data accesses get with the MMU off.
    pub const DEVICE_NGNRNE: Self = Self(0x00);
    /// Normal, Inner and Outer Non-cacheable.
    pub const NORMAL_NON_CACHEABLE: Self = Self(0x44);
    /// Normal, Inner and Outer Write-Through, Read-Allocate: instruction fetches with the MMU off
    /// and SCTLR_EL1.I = 1.
    pub const NORMAL_WRITE_THROUGH: Self = Self(0xaa);

    /// Tells whether this is Device memory, where exclusives and unaligned accesses do not belong.
    #[must_use]
    pub const fn is_device(self) -> bool {
        self.0 & 0xf0 == 0
    }

    /// Tells whether this is Normal memory, cacheable in the inner domain.
    #[must_use]
    pub const fn is_cacheable(self) -> bool {
        !self.is_device() && self.0 & 0x0f != 0x04
    }
}

impl fmt::Display for MemoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0x00 => "Device-nGnRnE",
            0x04 => "Device-nGnRE",
            0x08 => "Device-nGRE",
            0x0c => "Device-GRE",
            0x44 => "Normal, Non-cacheable",
            0xaa | 0xbb => "Normal, Write-Through",
            0xf0 => "Normal, tagged",
            0xff => "Normal, Write-Back",
            other if self.is_device() => return write!(f, "Device, attributes {other:#04x}"),
            other => return write!(f, "Normal, attributes {other:#04x}"),
        };
        f.write_str(text)
    }
}

/// Shareability domain, field SH of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shareability {
    /// Non-shareable.
    Non,
    /// Reserved encoding 0b01.
    Reserved,
    /// Outer Shareable.
    Outer,
    /// Inner Shareable.
    Inner,
}

impl Shareability {
    /// Decodes SH, of which only the low two bits count.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Non,
            1 => Self::Reserved,
            2 => Self::Outer,
            _ => Self::Inner,
        }
    }

    /// The field SH.
    #[must_use]
    pub const fn bits(self) -> u64 {
        match self {
            Self::Non => 0,
            Self::Reserved => 1,
            Self::Outer => 2,
            Self::Inner => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shareability_is_what_its_bits_are() {
        for bits in 0..4 {
            assert_eq!(Shareability::from_bits(bits).bits(), bits);
        }
    }
}
