//! VMSAv8-64 stage-1 descriptors, without permission indirection.

use super::permission::PermissionBits;
use super::regime::AddressFormat;
use crate::Ipa;
use crate::bit_field::{bit, field, mask};

/// A descriptor in host order.
///
/// Source: Arm ARM, DDI 0487 L.b, VMSAv8-64 translation table format descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor(pub(super) u64);

impl Descriptor {
    pub(super) const fn is_valid(self) -> bool {
        bit(self.0, 0)
    }

    /// Bit 1: a table above level 3, a page at level 3; a block otherwise.
    pub(super) const fn is_table_or_page(self) -> bool {
        bit(self.0, 1)
    }

    /// What the descriptor points to, whose bits below `low` are 0.
    pub(super) const fn address(self, low: u8, format: AddressFormat) -> Ipa {
        let aligned = !mask((low as u32).wrapping_sub(1));
        Ipa(match format {
            AddressFormat::Bits48 => self.0 & mask(47) & aligned,
            AddressFormat::Lpa => self.0 & mask(47) & aligned | field(self.0, 15, 12) << 48,
            AddressFormat::Lpa2 => self.0 & mask(49) & aligned | field(self.0, 9, 8) << 50,
        })
    }

    /// AttrIndx.
    pub(super) const fn attribute_index(self) -> u32 {
        field(self.0, 4, 2) as u32
    }

    /// SH, where it is no part of the address.
    pub(super) const fn shareability(self) -> u64 {
        field(self.0, 9, 8)
    }

    /// AF.
    pub(super) const fn access_flag(self) -> bool {
        bit(self.0, 10)
    }

    /// AP, PXN and UXN of a block or page. DBM makes it writable where hardware manages the dirty
    /// state: a write would clear AP\[2\] and go on.
    pub(super) const fn permission_bits(self, hardware_dirty_state: bool) -> PermissionBits {
        PermissionBits {
            read_only: bit(self.0, 7) && !(hardware_dirty_state && bit(self.0, 51)),
            el0: bit(self.0, 6),
            pxn: bit(self.0, 53),
            uxn: bit(self.0, 54),
        }
    }

    /// APTable, PXNTable and UXNTable of a table descriptor.
    pub(super) const fn hierarchy(self) -> Hierarchy {
        Hierarchy {
            read_only: bit(self.0, 62),
            no_el0: bit(self.0, 61),
            uxn: bit(self.0, 60),
            pxn: bit(self.0, 59),
        }
    }
}

/// Restrictions that table descriptors put on everything below them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchy {
    read_only: bool,
    no_el0: bool,
    uxn: bool,
    pxn: bool,
}

impl Hierarchy {
    /// Both restrictions together.
    pub(super) const fn and(self, below: Self) -> Self {
        Self {
            read_only: self.read_only || below.read_only,
            no_el0: self.no_el0 || below.no_el0,
            uxn: self.uxn || below.uxn,
            pxn: self.pxn || below.pxn,
        }
    }

    /// What they leave of a page's own permissions.
    pub(super) const fn restrict(self, bits: PermissionBits) -> PermissionBits {
        PermissionBits {
            read_only: bits.read_only || self.read_only,
            el0: bits.el0 && !self.no_el0,
            uxn: bits.uxn || self.uxn,
            pxn: bits.pxn || self.pxn,
        }
    }
}
