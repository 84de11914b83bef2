//! System registers by number and by name.
//!
//! A [`SystemRegister`] is bits 20:5 of the MSR or MRS that accesses it, so a decoded instruction,
//! a trapped one's syndrome and a name typed by a person all meet in one `u16`. The table of names
//! is in order of encoding; registers that it lacks are printed in Arm's generic form
//! `S3_0_C15_C2_1`, which [`SystemRegister::from_name`] reads too.

use core::fmt;

mod table;

/// Encoding of a system register: op0:op1:CRn:CRm:op2, exactly bits 20:5 of MSR and MRS.
///
/// Bits 15:14 are op0, 13:11 op1, 10:7 CRn, 6:3 CRm and 2:0 op2. MSR and MRS have op0 = 2 (debug)
/// or 3; a trapped System instruction (DC, IC, TLBI, AT) has op0 = 1.
///
/// Source: Arm ARM, DDI 0487 L.b, System instruction class encoding overview.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemRegister(pub u16);

impl SystemRegister {
    /// Packs an encoding; surplus bits of the arguments are cut off.
    #[must_use]
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        Self(
            (op0 as u16 & 3) << 14
                | (op1 as u16 & 7) << 11
                | (crn as u16 & 15) << 7
                | (crm as u16 & 15) << 3
                | (op2 as u16 & 7),
        )
    }

    /// op0, 0 to 3.
    #[must_use]
    pub const fn op0(self) -> u8 {
        (self.0 >> 14) as u8
    }

    /// op1, 0 to 7.
    #[must_use]
    pub const fn op1(self) -> u8 {
        (self.0 >> 11) as u8 & 7
    }

    /// CRn, 0 to 15.
    #[must_use]
    pub const fn crn(self) -> u8 {
        (self.0 >> 7) as u8 & 15
    }

    /// CRm, 0 to 15.
    #[must_use]
    pub const fn crm(self) -> u8 {
        (self.0 >> 3) as u8 & 15
    }

    /// op2, 0 to 7.
    #[must_use]
    pub const fn op2(self) -> u8 {
        self.0 as u8 & 7
    }

    /// Tells whether this is in the space of feature ID registers (op0 3, op1 0, CRn 0, CRm 1 to
    /// 7), where what no register has been given to reads as zero.
    #[must_use]
    pub const fn is_feature_id(self) -> bool {
        self.op0() == 3 && self.op1() == 0 && self.crn() == 0 && matches!(self.crm(), 1..=7)
    }

    /// Number n of `DBGBVR<n>_EL1`, `DBGBCR<n>_EL1`, `DBGWVR<n>_EL1` or `DBGWCR<n>_EL1` (op2 4 to 7
    /// respectively), if this is one of them.
    #[must_use]
    pub const fn debug_pair_index(self) -> Option<u8> {
        if self.0 & !(15 << 3 | 3) == Self::DBGBVR0_EL1.0 { Some(self.crm()) } else { None }
    }

    /// The instruction `mrs x<rt>, <register>`.
    #[must_use]
    pub const fn mrs(self, rt: u8) -> u32 {
        0xd520_0000 | (self.0 as u32) << 5 | (rt as u32 & 31)
    }

    /// The instruction `msr <register>, x<rt>`.
    #[must_use]
    pub const fn msr(self, rt: u8) -> u32 {
        0xd500_0000 | (self.0 as u32) << 5 | (rt as u32 & 31)
    }

    /// Arm's name, in upper case, if the table has it. Where one encoding has a name for reading
    /// and another for writing, it is the one for reading.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.name)
    }

    /// Title of the register in the Arm ARM or the GIC specification.
    #[must_use]
    pub fn title(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.title)
    }

    fn entry(self) -> Option<&'static table::Entry> {
        let at = table::ENTRIES.binary_search_by_key(&self.0, |entry| entry.register.0).ok()?;
        table::ENTRIES.get(at)
    }

    /// Finds a register by its name in whatever case, or by its generic form `S3_0_C1_C0_0`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        table::ENTRIES
            .iter()
            .find(|entry| entry.name.eq_ignore_ascii_case(name))
            .map(|entry| entry.register)
            .or_else(|| Self::from_generic_name(name))
    }

    fn from_generic_name(name: &str) -> Option<Self> {
        // Bytes rather than text: splitting a str has a panic path that nothing rules out.
        let mut parts = name.as_bytes().split(|&byte| byte == b'_');
        let mut next = |prefix: Option<u8>, largest: u8| {
            let digits = match (parts.next()?, prefix) {
                (part, None) => part,
                ([letter, digits @ ..], Some(prefix)) if letter.eq_ignore_ascii_case(&prefix) => {
                    digits
                }
                _ => return None,
            };
            decimal(digits).filter(|&number| number <= largest)
        };
        let register = Self::new(
            next(Some(b'S'), 3)?,
            next(None, 7)?,
            next(Some(b'C'), 15)?,
            next(Some(b'C'), 15)?,
            next(None, 7)?,
        );
        parts.next().is_none().then_some(register)
    }

    /// Every register that has a name, in order of encoding.
    pub fn all() -> impl Iterator<Item = Self> {
        table::ENTRIES.iter().map(|entry| entry.register)
    }
}

/// Reads a number of decimal digits and nothing else, if it fits.
fn decimal(digits: &[u8]) -> Option<u8> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u8, |number, digit| {
        let value = digit.is_ascii_digit().then_some(digit & 0xf)?;
        number.checked_mul(10)?.checked_add(value)
    })
}

impl fmt::Display for SystemRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(
                f,
                "S{}_{}_C{}_C{}_{}",
                self.op0(),
                self.op1(),
                self.crn(),
                self.crm(),
                self.op2()
            ),
        }
    }
}

impl fmt::Debug for SystemRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
