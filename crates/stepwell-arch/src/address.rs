//! Address newtypes: which address space a number belongs to is part of its type.
//!
//! A guest's address goes through two translations: its own stage 1 turns a [`Va`] into an
//! [`Ipa`], our stage 2 turns that into a [`Pa`]. Mixing two of them up is the classic hypervisor
//! bug, and here it does not compile.

use core::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the address `bytes` further on, wrapping as the machine's adders do.
            #[must_use]
            pub const fn offset(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// Returns the address rounded down to a multiple of `size`, a power of two.
            #[must_use]
            pub const fn align_down(self, size: u64) -> Self {
                Self(self.0 & !(size.wrapping_sub(1)))
            }

            /// Tells whether the address is a multiple of `size`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, size: u64) -> bool {
                self.0 & size.wrapping_sub(1) == 0
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// Virtual address: what the guest's instructions use, before its stage-1 translation.
    Va
);
address!(
    /// Intermediate physical address: what the guest takes for physical.
    Ipa
);
address!(
    /// Physical address of the machine.
    Pa
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_is_about_multiples_of_powers_of_two() {
        assert_eq!(Ipa(0x4000_1fff).align_down(0x1000), Ipa(0x4000_1000));
        assert!(Pa(0x4020_0000).is_aligned(0x20_0000) && !Pa(0x4010_0000).is_aligned(0x20_0000));
    }

    #[test]
    fn offsets_wrap_as_the_machine_does() {
        assert_eq!(Va(u64::MAX).offset(2), Va(1));
        assert_eq!(Va(0xffff_8000_0801_0000).offset(4), Va(0xffff_8000_0801_0004));
    }

    #[test]
    fn addresses_print_in_hexadecimal() {
        assert_eq!(Va(0xffff_8000).to_string(), "0xffff8000");
        assert_eq!(format!("{:016x}", Ipa(0x4000_0000)), "0000000040000000");
    }
}
