//! Whether a data access hits a watchpoint: for accesses that EL2 carries out, which no CPU sees.
//!
//! Functions bear the names of the manual's pseudocode. Of what it leaves CONSTRAINED UNPREDICTABLE,
//! a BAS that is not contiguous selects just the bytes that it names, and a reserved MASK matches
//! nothing. Not here: Secure state and EL2, where no guest of ours is, and VMID matches, which a
//! board without EL2 does not have.
//!
//! Source: Arm ARM, DDI 0487 L.b, `DBGWCR<n>_EL1`, "Watchpoint data address comparisons", and
//! pseudocode `AArch64.WatchpointMatch`, `AArch64.WatchpointByteMatch`, `AArch64.StateMatch`.

use super::{HardwareBreakpoint, Watchpoint};
use crate::bit_field::{bit, field, mask};

/// Bit 55: what is above it in an address may be a tag.
const ADDRESS_TOP: u32 = 55;

/// An access that a watchpoint may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAccess {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
    /// It reads.
    pub read: bool,
    /// It writes.
    pub write: bool,
    /// It is made with EL0's rights: from there, or by LDTR, STTR and relatives.
    pub el0: bool,
}

impl Watchpoint {
    /// `AArch64.WatchpointMatch`: the first byte of an access that it hits, if it does.
    ///
    /// `is_linked_match` tells whether the breakpoint of this number, which is linked to, matches.
    #[must_use]
    pub fn first_match(
        self,
        access: DataAccess,
        is_linked_match: impl Fn(usize) -> bool,
    ) -> Option<u64> {
        let linked = self.linked_to();
        let is_about = self.is_enabled()
            && self.state_match(access)
            && self.load_store_match(access)
            && linked.is_none_or(is_linked_match);
        if !is_about {
            return None;
        }
        let mut bytes = (0..access.bytes).map(|n| access.address.wrapping_add(n));
        bytes.find(|&address| self.byte_match(address))
    }

    /// The number of the breakpoint that it is linked to (WT, LBN).
    #[must_use]
    pub const fn linked_to(self) -> Option<usize> {
        if bit(self.control, 20) { Some(field(self.control, 19, 16) as usize) } else { None }
    }

    /// `AArch64.StateMatch`, from Non-secure EL1 and EL0: PAC by level, and SSC by Security state.
    const fn state_match(self, access: DataAccess) -> bool {
        let by_level = if access.el0 { bit(self.control, 2) } else { bit(self.control, 1) };
        let by_security = match field(self.control, 15, 14) {
            0b00 | 0b01 => true,
            0b10 => false,
            // HMC: EL2 too, in both states; without it Secure state alone.
            _ => bit(self.control, 13),
        };
        by_level && by_security
    }

    /// LSC: loads, stores, or either.
    const fn load_store_match(self, access: DataAccess) -> bool {
        access.read && bit(self.control, 3) || access.write && bit(self.control, 4)
    }

    /// `AArch64.WatchpointByteMatch`.
    const fn byte_match(self, address: u64) -> bool {
        let differs = (address ^ self.value) & mask(ADDRESS_TOP);
        let (selected, masked) = (field(self.control, 12, 5), field(self.control, 28, 24) as u32);
        match masked {
            0 => {
                // A value that is a multiple of 4 alone is about that word.
                let (bottom, select) = if bit(self.value, 2) { (2, 0b11) } else { (3, 0b111) };
                let byte = (address & select) as u32;
                differs.wrapping_shr(bottom) == 0 && bit(selected, byte)
            }
            1 | 2 => false,
            masked => differs.wrapping_shr(masked) == 0 && selected == 0xff,
        }
    }
}

impl HardwareBreakpoint {
    /// `AArch64.BreakpointValueMatch` of one that another is linked to: whether it compares with
    /// CONTEXTIDR_EL1 (BT 0b0011 and 0b0111), and that is the guest's.
    #[must_use]
    pub const fn linked_context_match(self, contextidr: u64) -> bool {
        let compares_context = matches!(field(self.control, 23, 20), 0b0011 | 0b0111);
        self.is_enabled() && compares_context && field(self.value ^ contextidr, 31, 0) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Va;
    use crate::debug::WatchAccess;

    const LOAD: DataAccess =
        DataAccess { address: 0x1004, bytes: 4, read: true, write: false, el0: false };
    const STORE: DataAccess = DataAccess { read: false, write: true, ..LOAD };

    fn hits(watch: Watchpoint, access: DataAccess) -> Option<u64> {
        watch.first_match(access, |_| true)
    }

    fn watch(address: u64, size: u64, access: WatchAccess) -> Watchpoint {
        Watchpoint::new(Va(address), size, access).unwrap()
    }

    #[test]
    fn bytes_that_both_have_are_hit_and_the_first_is_told() {
        let watched = watch(0x1002, 4, WatchAccess::ReadWrite);
        let rows = [
            (0x1000, 2, None),
            (0x1000, 4, Some(0x1002)),
            (0x1000, 16, Some(0x1002)),
            (0x1005, 1, Some(0x1005)),
            (0x1006, 8, None),
            (0x0ffc, 8, Some(0x1002)),
            (0x2002, 4, None),
        ];
        for (address, bytes, expected) in rows {
            assert_eq!(
                hits(watched, DataAccess { address, bytes, ..LOAD }),
                expected,
                "{address:#x}"
            );
        }
    }

    #[test]
    fn a_tag_in_the_address_is_not_compared() {
        let tagged = DataAccess { address: 0x5a00_0000_0000_1004, ..LOAD };
        assert_eq!(hits(watch(0x1000, 8, WatchAccess::Read), tagged), Some(tagged.address));
    }

    #[test]
    fn a_mask_covers_a_power_of_two() {
        let watched = watch(0x2000, 0x1000, WatchAccess::ReadWrite);
        let at = |address| hits(watched, DataAccess { address, ..LOAD });
        assert_eq!((at(0x2ffc), at(0x3000)), (Some(0x2ffc), None));
        let reserved = Watchpoint { control: watched.control & !(0x1f << 24) | 2 << 24, ..watched };
        assert_eq!(hits(reserved, DataAccess { address: 0x2000, ..LOAD }), None);
        let holes = Watchpoint { control: watched.control & !(1 << 5), ..watched };
        assert_eq!(hits(holes, DataAccess { address: 0x2000, ..LOAD }), None);
    }

    #[test]
    fn a_value_of_a_word_has_four_bytes_to_select() {
        let word = Watchpoint { value: 0x1004, control: 0b0010 << 5 | 0b11 << 3 | 0b111 };
        assert_eq!(hits(word, LOAD), Some(0x1005));
        assert_eq!(hits(word, DataAccess { address: 0x1000, ..LOAD }), None);
    }

    #[test]
    fn loads_and_stores_are_told_apart() {
        let both = DataAccess { write: true, ..LOAD };
        let rows = [
            (WatchAccess::Read, true, false),
            (WatchAccess::Write, false, true),
            (WatchAccess::ReadWrite, true, true),
        ];
        for (access, load, store) in rows {
            let watched = watch(0x1000, 8, access);
            assert_eq!(hits(watched, LOAD).is_some(), load, "{access:?}");
            assert_eq!(hits(watched, STORE).is_some(), store, "{access:?}");
            assert!(hits(watched, both).is_some(), "{access:?}");
        }
    }

    #[test]
    fn levels_and_security_states_are_told_apart() {
        let all = watch(0x1000, 8, WatchAccess::ReadWrite);
        let with = |control| Watchpoint { control, ..all };
        let (pac, ssc, hmc) = (0b11 << 1, 0b11 << 14, 1 << 13);
        let user = DataAccess { el0: true, ..LOAD };
        let kernels = with(all.control & !pac | 0b01 << 1);
        assert!(hits(kernels, LOAD).is_some() && hits(kernels, user).is_none());
        let users = with(all.control & !pac | 0b10 << 1);
        assert!(hits(users, LOAD).is_none() && hits(users, user).is_some());
        for (bits, expected) in [(1 << 14, true), (1 << 15, false), (ssc, false), (ssc | hmc, true)]
        {
            assert_eq!(hits(with(all.control | bits), LOAD).is_some(), expected, "{bits:#x}");
        }
        assert_eq!(hits(with(all.control & !1), LOAD), None, "not enabled");
    }

    #[test]
    fn a_context_matches_where_it_is_compared() {
        let context = HardwareBreakpoint { value: 7, control: 0x1e7 | 3 << 20 };
        assert!(context.linked_context_match(0xffff_ffff_0000_0007));
        assert!(!context.linked_context_match(8));
        let rows = [(0x1e6 | 3 << 20, false), (0x1e7, false), (0x1e7 | 7 << 20, true)];
        for (control, expected) in rows {
            let other = HardwareBreakpoint { control, ..context };
            assert_eq!(other.linked_context_match(7), expected, "{control:#x}");
        }
    }

    #[test]
    fn a_linked_one_hits_where_its_breakpoint_matches() {
        let all = watch(0x1000, 8, WatchAccess::ReadWrite);
        let linked = Watchpoint { control: all.control | 1 << 20 | 5 << 16, ..all };
        assert_eq!((all.linked_to(), linked.linked_to()), (None, Some(5)));
        assert!(linked.first_match(LOAD, |n| n == 5).is_some());
        assert!(linked.first_match(LOAD, |n| n != 5).is_none());
    }
}
