//! Debug registers: MDSCR_EL1, MDCR_EL2, the OS Lock, and the breakpoint and watchpoint pairs.
//!
//! Software step is armed by [`mdscr_el1::SS`] here together with `Pstate::SS`; the breakpoint
//! and watchpoint builders make the one form Stepwell uses (unlinked, at EL0 and EL1). The guest's
//! are passed through; what of them EL2 has to know is in `data_match` and [`placement`].

mod data_match;
pub mod placement;

pub use data_match::DataAccess;

use core::fmt;

use crate::Va;
use crate::bit_field::{bit, mask, with_field};

/// Bits of MDSCR_EL1.
///
/// Source: Arm ARM, DDI 0487 L.b, MDSCR_EL1, Monitor Debug System Control Register.
pub mod mdscr_el1 {
    /// SS: enables Software Step where debug exceptions are enabled.
    pub const SS: u64 = 1 << 0;
    /// ERR: saves and restores EDSCR.ERR; read/write only while the OS Lock is locked.
    pub const ERR: u64 = 1 << 6;
    /// TDCC: traps EL0 accesses to the Debug Communication Channel to EL1.
    pub const TDCC: u64 = 1 << 12;
    /// KDE: enables debug exceptions from ELd itself, subject to PSTATE.D.
    pub const KDE: u64 = 1 << 13;
    /// HDE: enables Halting debug; read/write only while the OS Lock is locked.
    pub const HDE: u64 = 1 << 14;
    /// MDE: enables Breakpoint, Watchpoint and Vector Catch exceptions.
    pub const MDE: u64 = 1 << 15;
    /// SC2: saves and restores EDSCR.SC2 under the OS Lock.
    pub const SC2: u64 = 1 << 19;
    /// TDA: saves and restores EDSCR.TDA under the OS Lock.
    pub const TDA: u64 = 1 << 21;
    /// INTdis: saves and restores EDSCR.INTdis under the OS Lock.
    pub const INTDIS: u64 = 0b11 << 22;
    /// TXU: saves and restores EDSCR.TXU under the OS Lock.
    pub const TXU: u64 = 1 << 26;
    /// RXO: saves and restores EDSCR.RXO under the OS Lock.
    pub const RXO: u64 = 1 << 27;
    /// TXfull: saves and restores EDSCR.TXfull under the OS Lock.
    pub const TXFULL: u64 = 1 << 29;
    /// RXfull: saves and restores EDSCR.RXfull under the OS Lock.
    pub const RXFULL: u64 = 1 << 30;
    /// TFO: saves and restores EDSCR.TFO under the OS Lock, FEAT_TRF.
    pub const TFO: u64 = 1 << 31;
    /// EMBWE: enables more than 16 breakpoints and watchpoints, FEAT_Debugv8p9.
    pub const EMBWE: u64 = 1 << 32;
}

/// Bits of MDCR_EL2.
///
/// Source: Arm ARM, DDI 0487 L.b, MDCR_EL2, Monitor Debug Configuration Register (EL2).
pub mod mdcr_el2 {
    /// HPMN: number of event counters that EL1 and EL0 may use. Must be PMCR_EL0.N for all.
    pub const HPMN_MASK: u64 = 0x1f;
    /// TPMCR: traps accesses to PMCR_EL0 to EL2.
    pub const TPMCR: u64 = 1 << 5;
    /// TPM: traps accesses to all Performance Monitors registers to EL2.
    pub const TPM: u64 = 1 << 6;
    /// HPME: enables the event counters reserved for EL2.
    pub const HPME: u64 = 1 << 7;
    /// TDE: routes debug exceptions from EL1 and EL0 to EL2; acts as TDRA = TDOSA = TDA = 1.
    pub const TDE: u64 = 1 << 8;
    /// TDA: traps accesses to the debug registers that TDRA and TDOSA do not name to EL2.
    pub const TDA: u64 = 1 << 9;
    /// TDOSA: traps accesses to the OS Lock and power-down registers to EL2.
    pub const TDOSA: u64 = 1 << 10;
    /// TDRA: traps accesses to MDRAR_EL1 (and AArch32 DBGDRAR, DBGDSAR) to EL2.
    pub const TDRA: u64 = 1 << 11;
    /// E2PB: owner of the Statistical Profiling buffer; 0b00 traps it to EL2.
    pub const E2PB_MASK: u64 = 0b11 << 12;
    /// TPMS: traps accesses to the Statistical Profiling registers to EL2.
    pub const TPMS: u64 = 1 << 14;
    /// HPMD: stops the guest's event counters at EL2, FEAT_PMUv3p1.
    pub const HPMD: u64 = 1 << 17;
    /// TTRF: traps accesses to TRFCR_EL1 to EL2, FEAT_TRF.
    pub const TTRF: u64 = 1 << 19;
    /// HCCD: stops PMCCNTR_EL0 at EL2, FEAT_PMUv3p5.
    pub const HCCD: u64 = 1 << 23;
    /// E2TB: owner of the trace buffer; 0b00 traps it to EL2, FEAT_TRBE.
    pub const E2TB_MASK: u64 = 0b11 << 24;
    /// HLP: makes the counters reserved for EL2 64 bits wide, FEAT_PMUv3p5.
    pub const HLP: u64 = 1 << 26;
    /// TDCC: traps accesses to the Debug Communication Channel to EL2, FEAT_FGT.
    pub const TDCC: u64 = 1 << 27;
    /// EnSTEPOP: lets EL1 and EL0 use the Step Instruction, FEAT_STEP2. Stays 0.
    pub const ENSTEPOP: u64 = 1 << 50;
}

/// Bits of OSLSR_EL1, OSLAR_EL1 and OSDLR_EL1.
///
/// Source: Arm ARM, DDI 0487 L.b, OSLSR_EL1, OS Lock Status Register; OSLAR_EL1, OS Lock Access
/// Register; OSDLR_EL1, OS Double Lock Register.
pub mod os_lock {
    /// OSLSR_EL1.OSLK: the OS Lock is locked, and no debug exception but BRK is generated.
    pub const OSLSR_OSLK: u64 = 1 << 1;
    /// OSLSR_EL1.OSLM, bits 3 and 0: 0b10 tells that the OS Lock is implemented.
    pub const OSLSR_OSLM_IMPLEMENTED: u64 = 1 << 3;
    /// OSLAR_EL1.OSLK: the value to write to lock; 0 unlocks.
    pub const OSLAR_OSLK: u64 = 1 << 0;
    /// OSDLR_EL1.DLK: OS Double Lock.
    pub const OSDLR_DLK: u64 = 1 << 0;

    /// OSLSR_EL1 as a guest reads it when its OS Lock is `locked` or not.
    #[must_use]
    pub const fn oslsr(locked: bool) -> u64 {
        OSLSR_OSLM_IMPLEMENTED | if locked { OSLSR_OSLK } else { 0 }
    }
}

/// E, bit 0 of DBGBCR and DBGWCR: enabled.
const ENABLE: u64 = 1 << 0;

/// A hardware breakpoint: the values of one `DBGBVR<n>_EL1` and `DBGBCR<n>_EL1`.
///
/// Source: Arm ARM, DDI 0487 L.b, `DBGBCR<n>_EL1`, Debug Breakpoint Control Registers, and
/// Execution conditions for which a breakpoint generates Breakpoint exceptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardwareBreakpoint {
    /// `DBGBVR<n>_EL1`.
    pub value: u64,
    /// `DBGBCR<n>_EL1`.
    pub control: u64,
}

impl HardwareBreakpoint {
    /// Matches the instruction at `address`, at EL1 and EL0: BT 0b0000 (unlinked address match),
    /// HMC 0, SSC 0b00, PMC 0b11, E 1, BAS 0b1111 (an A64 or A32 instruction, or T32 at the same
    /// address). Where the address is not a multiple of 4 only T32 can be there, and BAS is 0b1100.
    #[must_use]
    pub const fn execute(address: Va) -> Self {
        let mut control = ENABLE;
        control = with_field(control, 2, 1, 0b11); // PMC: EL1 and EL0
        // BAS: all four bytes, or the upper halfword.
        let bytes = if address.0 & 0b10 == 0 { 0b1111 } else { 0b1100 };
        control = with_field(control, 8, 5, bytes);
        Self { value: address.0 & !0b11, control }
    }

    /// Whether the breakpoint is enabled (E).
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        bit(self.control, 0)
    }
}

/// Which accesses a watchpoint matches (DBGWCR.LSC).
///
/// Source: Arm ARM, DDI 0487 L.b, `DBGWCR<n>_EL1`, Debug Watchpoint Control Registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum WatchAccess {
    /// Loads.
    Read,
    /// Stores.
    Write,
    /// Both.
    ReadWrite,
}

/// Why one watchpoint cannot cover a range. The debugger is to blame: it can split the range.
///
/// Source: Arm ARM, DDI 0487 L.b, Watchpoint data address comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchRangeError {
    /// The range is empty.
    Empty,
    /// The range neither lies in one doubleword nor is a power of two in size.
    NotPowerOfTwo,
    /// The range is a power of two in size but does not begin at a multiple of it.
    Unaligned,
    /// The range is larger than 2 GiB.
    TooLarge,
}

impl fmt::Display for WatchRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a watchpoint must cover at least one byte",
            Self::NotPowerOfTwo => {
                "a watchpoint across doublewords must cover a power of two in bytes"
            }
            Self::Unaligned => "a watchpoint must begin at a multiple of its size",
            Self::TooLarge => "a watchpoint covers 2 GiB at most",
        })
    }
}

impl core::error::Error for WatchRangeError {}

/// A watchpoint: the values of one `DBGWVR<n>_EL1` and `DBGWCR<n>_EL1`.
///
/// Source: Arm ARM, DDI 0487 L.b, `DBGWCR<n>_EL1`, Debug Watchpoint Control Registers, and
/// Watchpoint data address comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Watchpoint {
    /// `DBGWVR<n>_EL1`.
    pub value: u64,
    /// `DBGWCR<n>_EL1`.
    pub control: u64,
}

impl Watchpoint {
    /// Matches accesses to the `size` bytes at `address`, at EL1 and EL0.
    ///
    /// A range within one doubleword is expressed by BAS, larger ones by MASK.
    ///
    /// # Errors
    ///
    /// Returns why the range cannot be covered by one watchpoint.
    pub const fn new(address: Va, size: u64, access: WatchAccess) -> Result<Self, WatchRangeError> {
        if size == 0 {
            return Err(WatchRangeError::Empty);
        }
        let mut control = ENABLE;
        control = with_field(control, 2, 1, 0b11); // PAC: EL1 and EL0
        let lsc = match access {
            WatchAccess::Read => 0b01,
            WatchAccess::Write => 0b10,
            WatchAccess::ReadWrite => 0b11,
        };
        control = with_field(control, 4, 3, lsc);
        let first = address.0 & 7;
        if size <= 8_u64.wrapping_sub(first) {
            let bytes = mask(size.wrapping_sub(1) as u32).wrapping_shl(first as u32);
            control = with_field(control, 12, 5, bytes);
            return Ok(Self { value: address.0 & !7, control });
        }
        if !size.is_power_of_two() {
            return Err(WatchRangeError::NotPowerOfTwo);
        }
        if !address.is_aligned(size) {
            return Err(WatchRangeError::Unaligned);
        }
        if size > 1 << 31 {
            return Err(WatchRangeError::TooLarge);
        }
        control = with_field(control, 12, 5, 0xff); // BAS: must be all ones with MASK
        control = with_field(control, 28, 24, size.trailing_zeros() as u64); // MASK
        Ok(Self { value: address.0, control })
    }

    /// Whether the watchpoint is enabled (E).
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        bit(self.control, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execute_breakpoint_matches_at_el1_and_el0() {
        let breakpoint = HardwareBreakpoint::execute(Va(0xffff_8000_0801_0001));
        assert_eq!(breakpoint.value, 0xffff_8000_0801_0000);
        assert_eq!(breakpoint.control, 0x1e7);
        let halfword = HardwareBreakpoint::execute(Va(0x8020_1002));
        assert_eq!((halfword.value, halfword.control), (0x8020_1000, 0x187), "T32 alone");
        assert!(breakpoint.is_enabled());
        assert!(!HardwareBreakpoint::default().is_enabled());
    }

    #[test]
    fn a_watchpoint_within_a_doubleword_selects_bytes() {
        let watch = Watchpoint::new(Va(0x1002), 2, WatchAccess::Write).unwrap();
        assert_eq!(watch, Watchpoint { value: 0x1000, control: 0b0_1100 << 5 | 0b10 << 3 | 0b111 });
        let watch = Watchpoint::new(Va(0x1000), 8, WatchAccess::ReadWrite).unwrap();
        assert_eq!(watch.control, 0xff << 5 | 0b11 << 3 | 0b111);
        let watch = Watchpoint::new(Va(0x1007), 1, WatchAccess::Read).unwrap();
        assert_eq!(watch.control, 0x80 << 5 | 0b01 << 3 | 0b111);
        assert!(watch.is_enabled() && !Watchpoint::default().is_enabled());
    }

    #[test]
    fn a_larger_watchpoint_masks_address_bits() {
        let watch = Watchpoint::new(Va(0x2000), 0x1000, WatchAccess::Write).unwrap();
        assert_eq!(watch, Watchpoint { value: 0x2000, control: 12 << 24 | 0xff << 5 | 0b10111 });
        let watch = Watchpoint::new(Va(0x8000_0000), 1 << 31, WatchAccess::Write).unwrap();
        assert_eq!(watch.control >> 24, 31);
    }

    #[test]
    fn ranges_that_one_watchpoint_cannot_cover_are_refused() {
        let new = |address, size| Watchpoint::new(Va(address), size, WatchAccess::Write);
        assert_eq!(new(0x1000, 0), Err(WatchRangeError::Empty));
        assert_eq!(new(0x1007, 2), Err(WatchRangeError::Unaligned));
        assert_eq!(new(0x1000, 12), Err(WatchRangeError::NotPowerOfTwo));
        assert_eq!(new(0, 1 << 32), Err(WatchRangeError::TooLarge));
        for error in [
            WatchRangeError::Empty,
            WatchRangeError::NotPowerOfTwo,
            WatchRangeError::Unaligned,
            WatchRangeError::TooLarge,
        ] {
            assert!(error.to_string().starts_with("a watchpoint"));
        }
    }

    #[test]
    fn os_lock_status() {
        assert_eq!(os_lock::oslsr(true), 0b1010);
        assert_eq!(os_lock::oslsr(false), 0b1000);
    }
}
