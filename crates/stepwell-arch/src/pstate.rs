//! Process state in the SPSR format: what ERET restores and what exception entry saves.
//!
//! One type serves SPSR_EL2, SPSR_EL1 and the PSTATE that a debugger reads and writes. Whether it
//! is AArch32 is told by M\[4\], nothing else: M\[3\] is set for AArch64 EL2 and EL3 too.

use core::fmt;

use crate::bit_field::{bit, field, with_bits, with_field};

/// PSTATE laid out as SPSR_ELx.
///
/// Source: Arm ARM, DDI 0487 L.b, SPSR_EL2, Saved Program Status Register (EL2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pstate(pub u64);

/// The mode that PSTATE's M field selects.
///
/// Source: Arm ARM, DDI 0487 L.b, SPSR_EL2, Saved Program Status Register (EL2), field M.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// AArch64 EL0 with SP_EL0.
    El0t,
    /// AArch64 EL1 with SP_EL0.
    El1t,
    /// AArch64 EL1 with SP_EL1.
    El1h,
    /// AArch64 EL2 with SP_EL0.
    El2t,
    /// AArch64 EL2 with SP_EL2.
    El2h,
    /// AArch64 EL3 with SP_EL0.
    El3t,
    /// AArch64 EL3 with SP_EL3.
    El3h,
    /// An AArch32 mode, M\[3:0\].
    AArch32(u8),
    /// An M\[4:0\] without a meaning: returning to it is an illegal exception return.
    Reserved(u8),
}

impl Pstate {
    /// M\[4:0\] of AArch64 EL0 with SP_EL0.
    pub const M_EL0T: u64 = 0b00000;
    /// M\[4:0\] of AArch64 EL1 with SP_EL0.
    pub const M_EL1T: u64 = 0b00100;
    /// M\[4:0\] of AArch64 EL1 with SP_EL1.
    pub const M_EL1H: u64 = 0b00101;
    /// M\[4:0\] of AArch64 EL2 with SP_EL2.
    pub const M_EL2H: u64 = 0b01001;
    /// The M field, M\[4:0\].
    pub const M_MASK: u64 = 0b11111;
    /// M\[4\]: AArch32 state.
    pub const M_AARCH32: u64 = 1 << 4;
    /// T, AArch32 only: T32 rather than A32.
    pub const T: u64 = 1 << 5;
    /// F: FIQ masked.
    pub const F: u64 = 1 << 6;
    /// I: IRQ masked.
    pub const I: u64 = 1 << 7;
    /// A: SError masked.
    pub const A: u64 = 1 << 8;
    /// D, AArch64 only: debug exceptions from the current level masked. AArch32 has E here.
    pub const D: u64 = 1 << 9;
    /// E, AArch32 only: data is big-endian.
    pub const E: u64 = 1 << 9;
    /// M\[4:0\] of AArch32 EL0, User mode.
    pub const M_USER: u64 = 0b10000;
    /// D, A, I and F.
    pub const DAIF: u64 = Self::D | Self::A | Self::I | Self::F;
    /// BTYPE, AArch64 only: branch type, FEAT_BTI.
    pub const BTYPE: u64 = 0b11 << 10;
    /// SSBS, AArch64 only: speculative store bypass safe, FEAT_SSBS.
    pub const SSBS: u64 = 1 << 12;
    /// ALLINT, AArch64 only: all interrupts masked, FEAT_NMI.
    pub const ALLINT: u64 = 1 << 13;
    /// IL: Illegal Execution state.
    pub const IL: u64 = 1 << 20;
    /// SS: Software Step, 1 for active-not-pending.
    pub const SS: u64 = 1 << 21;
    /// PAN: privileged access never.
    pub const PAN: u64 = 1 << 22;
    /// UAO, AArch64: user access override. AArch32 has SSBS here.
    pub const UAO: u64 = 1 << 23;
    /// DIT: data-independent timing.
    pub const DIT: u64 = 1 << 24;
    /// TCO, AArch64 only: tag check override, FEAT_MTE.
    pub const TCO: u64 = 1 << 25;
    /// V: overflow flag.
    pub const V: u64 = 1 << 28;
    /// C: carry flag.
    pub const C: u64 = 1 << 29;
    /// Z: zero flag.
    pub const Z: u64 = 1 << 30;
    /// N: negative flag.
    pub const N: u64 = 1 << 31;
    /// N, Z, C and V.
    pub const NZCV: u64 = Self::N | Self::Z | Self::C | Self::V;

    /// The state at a warm reset into EL1 or at PSCI CPU_ON: EL1h with everything masked.
    pub const EL1H_MASKED: Self = Self(Self::DAIF | Self::M_EL1H);

    /// Tells whether this is AArch32 state, by M\[4\].
    #[must_use]
    pub const fn is_aarch32(self) -> bool {
        self.0 & Self::M_AARCH32 != 0
    }

    /// Exception level, 0 to 3. AArch32: User is 0, Hyp 2, Monitor 3, all other modes 1.
    #[must_use]
    pub const fn el(self) -> u8 {
        if !self.is_aarch32() {
            return field(self.0, 3, 2) as u8;
        }
        match field(self.0, 3, 0) {
            0b0000 => 0,
            0b1010 => 2,
            0b0110 => 3,
            _ => 1,
        }
    }

    /// The mode that M\[4:0\] selects.
    #[must_use]
    pub const fn mode(self) -> Mode {
        let m = field(self.0, 4, 0) as u8;
        match m {
            0b00000 => Mode::El0t,
            0b00100 => Mode::El1t,
            0b00101 => Mode::El1h,
            0b01000 => Mode::El2t,
            0b01001 => Mode::El2h,
            0b01100 => Mode::El3t,
            0b01101 => Mode::El3h,
            0b10000..=0b10011 | 0b10110 | 0b10111 | 0b11010 | 0b11011 | 0b11111 => {
                Mode::AArch32(m & 0xf)
            }
            _ => Mode::Reserved(m),
        }
    }

    /// Returns the state with M\[4:0\] replaced.
    #[must_use]
    pub const fn with_mode_bits(self, m: u64) -> Self {
        Self(with_field(self.0, 4, 0, m))
    }

    /// Tells whether SP_ELx is in use rather than SP_EL0 (AArch64 only; false in AArch32).
    #[must_use]
    pub const fn uses_sp_elx(self) -> bool {
        !self.is_aarch32() && bit(self.0, 0)
    }

    /// PSTATE.SS.
    #[must_use]
    pub const fn ss(self) -> bool {
        self.0 & Self::SS != 0
    }

    /// Returns the state with SS set or cleared.
    #[must_use]
    pub const fn with_ss(self, ss: bool) -> Self {
        Self(with_bits(self.0, Self::SS, ss))
    }

    /// Returns the state with the bits of `mask` set or cleared.
    #[must_use]
    pub const fn with(self, mask: u64, set: bool) -> Self {
        Self(with_bits(self.0, mask, set))
    }

    /// Tells whether debug exceptions from the current level are masked (D). False in AArch32,
    /// which has no D.
    #[must_use]
    pub const fn debug_masked(self) -> bool {
        !self.is_aarch32() && self.0 & Self::D != 0
    }

    /// Tells whether SErrors are masked (A).
    #[must_use]
    pub const fn serror_masked(self) -> bool {
        self.0 & Self::A != 0
    }

    /// Tells whether IRQs are masked (I).
    #[must_use]
    pub const fn irq_masked(self) -> bool {
        self.0 & Self::I != 0
    }

    /// Tells whether FIQs are masked (F).
    #[must_use]
    pub const fn fiq_masked(self) -> bool {
        self.0 & Self::F != 0
    }

    /// Tells whether this is Illegal Execution state (IL).
    #[must_use]
    pub const fn il(self) -> bool {
        self.0 & Self::IL != 0
    }

    /// PSTATE.PAN.
    #[must_use]
    pub const fn pan(self) -> bool {
        self.0 & Self::PAN != 0
    }

    /// Branch type (BTYPE), 0 to 3; 0 in AArch32.
    #[must_use]
    pub const fn btype(self) -> u8 {
        if self.is_aarch32() { 0 } else { field(self.0, 11, 10) as u8 }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::El0t => "EL0t",
            Self::El1t => "EL1t",
            Self::El1h => "EL1h",
            Self::El2t => "EL2t",
            Self::El2h => "EL2h",
            Self::El3t => "EL3t",
            Self::El3h => "EL3h",
            Self::AArch32(0b0000) => "AArch32 usr",
            Self::AArch32(0b0001) => "AArch32 fiq",
            Self::AArch32(0b0010) => "AArch32 irq",
            Self::AArch32(0b0011) => "AArch32 svc",
            Self::AArch32(0b0110) => "AArch32 mon",
            Self::AArch32(0b0111) => "AArch32 abt",
            Self::AArch32(0b1010) => "AArch32 hyp",
            Self::AArch32(0b1011) => "AArch32 und",
            Self::AArch32(_) => "AArch32 sys",
            Self::Reserved(m) => return write!(f, "reserved mode {m:#04x}"),
        };
        f.write_str(name)
    }
}

/// Decodes for people: `nZCv daIF EL1h SS PAN`. A capital letter is a set bit; the names after
/// the mode are given only when set.
impl fmt::Display for Pstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |f: &mut fmt::Formatter<'_>, mask: u64, name: char| {
            let set = self.0 & mask != 0;
            write!(f, "{}", if set { name } else { name.to_ascii_lowercase() })
        };
        for (mask, name) in [(Self::N, 'N'), (Self::Z, 'Z'), (Self::C, 'C'), (Self::V, 'V')] {
            letter(f, mask, name)?;
        }
        f.write_str(" ")?;
        if !self.is_aarch32() {
            letter(f, Self::D, 'D')?;
        }
        for (mask, name) in [(Self::A, 'A'), (Self::I, 'I'), (Self::F, 'F')] {
            letter(f, mask, name)?;
        }
        write!(f, " {}", self.mode())?;
        let both = [(Self::SS, "SS"), (Self::IL, "IL"), (Self::PAN, "PAN"), (Self::DIT, "DIT")];
        let aarch32 = [(Self::T, "T"), (Self::D, "E"), (Self::UAO, "SSBS")];
        let aarch64 = [
            (Self::UAO, "UAO"),
            (Self::TCO, "TCO"),
            (Self::SSBS, "SSBS"),
            (Self::ALLINT, "ALLINT"),
        ];
        let own: &[(u64, &str)] = if self.is_aarch32() { &aarch32 } else { &aarch64 };
        for (mask, name) in both.iter().chain(own) {
            if self.0 & mask != 0 {
                write!(f, " {name}")?;
            }
        }
        match self.btype() {
            0 => Ok(()),
            btype => write!(f, " BTYPE={btype}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aarch32_is_told_by_m4_alone() {
        assert!(!Pstate(Pstate::M_EL2H).is_aarch32(), "EL2h has M[3] set and is AArch64");
        assert!(Pstate(0b10000).is_aarch32());
        assert!(Pstate(0b10011).is_aarch32());
    }

    #[test]
    fn modes_have_their_level_and_name() {
        let expected = [
            (0b00000, 0, "EL0t"),
            (0b00100, 1, "EL1t"),
            (0b00101, 1, "EL1h"),
            (0b01000, 2, "EL2t"),
            (0b01001, 2, "EL2h"),
            (0b01100, 3, "EL3t"),
            (0b01101, 3, "EL3h"),
            (0b10000, 0, "AArch32 usr"),
            (0b10001, 1, "AArch32 fiq"),
            (0b10010, 1, "AArch32 irq"),
            (0b10011, 1, "AArch32 svc"),
            (0b10110, 3, "AArch32 mon"),
            (0b10111, 1, "AArch32 abt"),
            (0b11010, 2, "AArch32 hyp"),
            (0b11011, 1, "AArch32 und"),
            (0b11111, 1, "AArch32 sys"),
            (0b00010, 0, "reserved mode 0x02"),
            (0b10100, 1, "reserved mode 0x14"),
        ];
        for (m, el, name) in expected {
            let state = Pstate(Pstate::NZCV).with_mode_bits(m);
            assert_eq!(state.el(), el, "{name}");
            assert_eq!(state.mode().to_string(), name);
            assert_eq!(state.0 & !Pstate::M_MASK, Pstate::NZCV, "other bits stay");
        }
    }

    #[test]
    fn each_mask_bit_has_its_accessor() {
        let clear = Pstate(Pstate::M_EL1H);
        assert!(!clear.debug_masked() && clear.with(Pstate::D, true).debug_masked());
        assert!(!clear.serror_masked() && clear.with(Pstate::A, true).serror_masked());
        assert!(!clear.irq_masked() && clear.with(Pstate::I, true).irq_masked());
        assert!(!clear.fiq_masked() && clear.with(Pstate::F, true).fiq_masked());
        assert!(!clear.il() && clear.with(Pstate::IL, true).il());
        assert!(!clear.pan() && clear.with(Pstate::PAN, true).pan());
        assert!(!clear.ss() && clear.with_ss(true).ss());
        assert_eq!(clear.with_ss(true).with_ss(false), clear);
        assert!(clear.uses_sp_elx() && !Pstate(Pstate::M_EL1T).uses_sp_elx());
        assert!(!Pstate(0b10011).uses_sp_elx(), "AArch32 has no SP selection");
        assert!(!Pstate(0b10011 | Pstate::D).debug_masked(), "bit 9 is E in AArch32");
        assert_eq!(clear.with(Pstate::BTYPE, true).btype(), 3);
        assert_eq!(Pstate(0b10000 | Pstate::BTYPE).btype(), 0, "IT bits, not BTYPE");
    }

    #[test]
    fn display_decodes() {
        let state = Pstate(0x6020_00c5).with(Pstate::PAN, true);
        assert_eq!(state.to_string(), "nZCv daIF EL1h SS PAN");
        assert_eq!(Pstate::EL1H_MASKED.to_string(), "nzcv DAIF EL1h");
        assert_eq!(Pstate(0x8000_0630).to_string(), "Nzcv aif AArch32 usr T E");
        let all = Pstate(0xf3f0_3fc5);
        assert_eq!(all.to_string(), "NZCV DAIF EL1h SS IL PAN DIT UAO TCO SSBS ALLINT BTYPE=3");
    }
}
