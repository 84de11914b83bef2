//! The EL1&0 regime: what SCTLR_EL1, TCR_EL1 and the TTBRs say about an address.

use super::{Access, AccessKind, FaultKind, TranslationFault};
use crate::Va;
use crate::bit_field::{bit, field, mask};

/// Registers that control stage 1 of the EL1&0 regime.
///
/// Source: Arm ARM, DDI 0487 L.b, SCTLR_EL1, System Control Register (EL1); TCR_EL1, Translation
/// Control Register (EL1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regime {
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// TCR_EL1.
    pub tcr: u64,
    /// TTBR0_EL1.
    pub ttbr0: u64,
    /// TTBR1_EL1.
    pub ttbr1: u64,
    /// MAIR_EL1.
    pub mair: u64,
    /// Physical address bits that the vCPU reports, see [`Regime::pa_bits_of`]. Limited to the
    /// range 32 to 52.
    pub pa_bits: u8,
}

/// Translation granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granule {
    /// 4 KiB.
    Kib4,
    /// 16 KiB.
    Kib16,
    /// 64 KiB.
    Kib64,
}

impl Granule {
    /// Address bits within a page: 12, 14 or 16.
    #[must_use]
    pub const fn page_bits(self) -> u8 {
        match self {
            Self::Kib4 => 12,
            Self::Kib16 => 14,
            Self::Kib64 => 16,
        }
    }

    /// Address bits that one level of full tables resolves: 9, 11 or 13.
    #[must_use]
    pub const fn index_bits(self) -> u8 {
        self.page_bits().wrapping_sub(3)
    }

    /// Tells whether a block descriptor is allowed at `level`. With 52-bit addresses there is one
    /// level more of them.
    #[must_use]
    pub const fn allows_block(self, level: i8, is_52_bit: bool) -> bool {
        let first = match (self, is_52_bit) {
            (Self::Kib4, true) => 0,
            (Self::Kib4, false) | (Self::Kib16 | Self::Kib64, true) => 1,
            (Self::Kib16 | Self::Kib64, false) => 2,
        };
        first <= level && level <= 2
    }

    /// Lowest address bit that the table index of `level` (-1 to 3) uses.
    pub(super) const fn shift(self, level: i8) -> u8 {
        let below = 3_i8.wrapping_sub(level) as u8;
        self.page_bits().wrapping_add(self.index_bits().wrapping_mul(below))
    }

    /// Largest TxSZ, as with FEAT_TTST; a guest without it has no business above 39.
    const fn txsz_max(self) -> u8 {
        match self {
            Self::Kib4 | Self::Kib16 => 48,
            Self::Kib64 => 47,
        }
    }
}

/// Smallest TxSZ without 52-bit addresses.
const TXSZ_MIN: u8 = 16;
/// Smallest TxSZ with them.
const TXSZ_MIN_52: u8 = 12;

/// How descriptors and TTBRs hold an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressFormat {
    /// Bits 47 and below.
    Bits48,
    /// FEAT_LPA, for 64 KiB pages: bits 51:48 are in bits 15:12.
    Lpa,
    /// FEAT_LPA2, for smaller ones: bits 51:50 are where the shareability is otherwise.
    Lpa2,
}

/// One of the two address ranges, with everything that the walk needs to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) ttbr: u64,
    pub(super) granule: Granule,
    /// TxSZ, which the address must have as many equal bits at its top of.
    txsz: u8,
    /// EPDx: this range is not walked.
    disabled: bool,
    /// E0PDx: this range is not walked for EL0.
    disabled_for_el0: bool,
    /// HPDx: the hierarchical permissions of table descriptors are ignored.
    pub(super) hierarchy_disabled: bool,
    /// SHx: with FEAT_LPA2 the shareability of all that it maps.
    pub(super) shareability: u64,
    /// Addresses have 52 bits, virtual ones and where the vCPU has as many, physical ones.
    pub(super) is_52_bit: bool,
    /// Bits of the addresses that descriptors hold.
    pub(super) output_bits: u8,
}

impl Range {
    /// Bits of the address that are translated.
    pub(super) const fn input_bits(&self) -> u8 {
        64_u8.wrapping_sub(self.txsz)
    }

    /// How its tables hold addresses.
    pub(super) const fn address_format(&self) -> AddressFormat {
        match (self.granule, self.is_52_bit) {
            (Granule::Kib64, true) if self.output_bits > 48 => AddressFormat::Lpa,
            (Granule::Kib4 | Granule::Kib16, true) => AddressFormat::Lpa2,
            _ => AddressFormat::Bits48,
        }
    }

    /// Level at which the walk begins: the lowest whose table resolves all of the input.
    pub(super) const fn start_level(&self) -> i8 {
        let input_bits = self.input_bits();
        if input_bits > self.granule.shift(-1) {
            -1
        } else if input_bits > self.granule.shift(0) {
            0
        } else if input_bits > self.granule.shift(1) {
            1
        } else if input_bits > self.granule.shift(2) {
            2
        } else {
            3
        }
    }
}

impl Regime {
    /// Decodes ID_AA64MMFR0_EL1.PARange or TCR_EL1.IPS into bits, 52 at most.
    #[must_use]
    pub const fn pa_bits_of(parange: u64) -> u8 {
        match parange & 0xf {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        }
    }

    /// SCTLR_EL1.M: stage 1 is on.
    #[must_use]
    pub const fn mmu_enabled(&self) -> bool {
        bit(self.sctlr, 0)
    }

    /// SCTLR_EL1.I: instruction fetches with the MMU off are cacheable.
    #[must_use]
    pub const fn instruction_cacheable(&self) -> bool {
        bit(self.sctlr, 12)
    }

    /// SCTLR_EL1.WXN: what is writable is not executable.
    #[must_use]
    pub const fn wxn(&self) -> bool {
        bit(self.sctlr, 19)
    }

    /// SCTLR_EL1.EE: tables (and EL1's data) are big-endian.
    #[must_use]
    pub const fn big_endian(&self) -> bool {
        bit(self.sctlr, 25)
    }

    /// SCTLR_EL1.EPAN: PAN covers what EL0 may only execute.
    #[must_use]
    pub const fn epan(&self) -> bool {
        bit(self.sctlr, 57)
    }

    /// TCR_EL1.HA: hardware sets the access flag, so that its being clear is no fault.
    #[must_use]
    pub const fn hardware_access_flag(&self) -> bool {
        bit(self.tcr, 39)
    }

    /// TCR_EL1.HA and HD: a read-only descriptor with DBM is writable.
    #[must_use]
    pub const fn hardware_dirty_state(&self) -> bool {
        self.hardware_access_flag() && bit(self.tcr, 40)
    }

    /// Physical address bits that the vCPU implements, 32 to 52.
    #[must_use]
    pub const fn implemented_bits(&self) -> u8 {
        match self.pa_bits {
            0..=31 => 32,
            53.. => 52,
            bits => bits,
        }
    }

    /// TCR_EL1.DS: addresses of 4 KiB and 16 KiB pages have 52 bits (FEAT_LPA2). A vCPU without it
    /// reads the bit as 0.
    #[must_use]
    pub const fn has_lpa2(&self) -> bool {
        bit(self.tcr, 59)
    }

    /// Whether a range of this granule has 52-bit addresses. For 64 KiB pages nothing says so but the
    /// size of physical ones (FEAT_LPA), and FEAT_LVA is taken to come with that.
    const fn is_52_bit(&self, granule: Granule) -> bool {
        match granule {
            Granule::Kib4 | Granule::Kib16 => self.has_lpa2(),
            Granule::Kib64 => self.implemented_bits() == 52,
        }
    }

    /// Output address bits: TCR_EL1.IPS, limited to what the vCPU implements and descriptors hold.
    fn output_bits(&self, is_52_bit: bool) -> u8 {
        let ips = Self::pa_bits_of(field(self.tcr, 34, 32));
        let held = if is_52_bit { 52 } else { 48 };
        ips.min(self.implemented_bits()).min(held)
    }

    /// Whether the top byte of `va` is ignored (TBI0 or TBI1, and TBID for instruction fetches).
    #[must_use]
    pub const fn top_byte_ignored(&self, va: Va, kind: AccessKind) -> bool {
        let (tbi, tbid) = if bit(va.0, 55) { (38, 52) } else { (37, 51) };
        let data_only = matches!(kind, AccessKind::Execute) && bit(self.tcr, tbid);
        bit(self.tcr, tbi) && !data_only
    }

    /// Chooses the range that `va` lies in, or the fault for lying in neither.
    pub(super) fn range_of(&self, va: Va, access: Access) -> Result<Range, TranslationFault> {
        let upper = bit(va.0, 55);
        let range = if upper { self.upper_range() } else { self.lower_range() };
        let top: u32 = if self.top_byte_ignored(va, access.kind) { 55 } else { 63 };
        let txsz_min = if range.is_52_bit { TXSZ_MIN_52 } else { TXSZ_MIN };
        let in_range = (txsz_min..=range.granule.txsz_max()).contains(&range.txsz) && {
            let low = u32::from(range.input_bits());
            let expected = if upper { mask(top.wrapping_sub(low)) } else { 0 };
            field(va.0, top, low) == expected
        };
        let disabled = range.disabled || access.el0 && range.disabled_for_el0;
        if !in_range || disabled {
            return Err(TranslationFault { kind: FaultKind::Translation, level: 0 });
        }
        Ok(range)
    }

    /// The range of TTBR0_EL1. The reserved granule encoding is taken for 4 KiB.
    fn lower_range(&self) -> Range {
        let granule = match field(self.tcr, 15, 14) {
            0b01 => Granule::Kib64,
            0b10 => Granule::Kib16,
            _ => Granule::Kib4,
        };
        let is_52_bit = self.is_52_bit(granule);
        Range {
            ttbr: self.ttbr0,
            granule,
            txsz: field(self.tcr, 5, 0) as u8,
            disabled: bit(self.tcr, 7),
            disabled_for_el0: bit(self.tcr, 55),
            hierarchy_disabled: bit(self.tcr, 41),
            shareability: field(self.tcr, 13, 12),
            is_52_bit,
            output_bits: self.output_bits(is_52_bit),
        }
    }

    /// The range of TTBR1_EL1. The reserved granule encoding is taken for 4 KiB.
    fn upper_range(&self) -> Range {
        let granule = match field(self.tcr, 31, 30) {
            0b01 => Granule::Kib16,
            0b11 => Granule::Kib64,
            _ => Granule::Kib4,
        };
        let is_52_bit = self.is_52_bit(granule);
        Range {
            ttbr: self.ttbr1,
            granule,
            txsz: field(self.tcr, 21, 16) as u8,
            disabled: bit(self.tcr, 23),
            disabled_for_el0: bit(self.tcr, 56),
            hierarchy_disabled: bit(self.tcr, 42),
            shareability: field(self.tcr, 29, 28),
            is_52_bit,
            output_bits: self.output_bits(is_52_bit),
        }
    }
}
