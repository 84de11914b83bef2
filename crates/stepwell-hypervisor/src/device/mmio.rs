//! Decoding of a trapped load or store.

/// What the guest's instruction did, from ESR_EL2.ISS of a data abort with ISV set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// 1, 2, 4 or 8.
    pub bytes: u8,
    /// Load or store.
    pub write: bool,
    /// Register number, 31 is XZR.
    pub register: u8,
    sign_extend: bool,
    wide: bool,
}

impl Access {
    /// Decodes; `None` without ISV.
    #[must_use]
    pub const fn decode(esr: u64) -> Option<Self> {
        let _ = esr;
        None
    }
    /// What a load leaves in the register.
    #[must_use]
    pub const fn load_result(&self, value: u64) -> u64 {
        value
    }
    /// What a store writes, cut to size.
    #[must_use]
    pub const fn store_value(&self, register: u64) -> u64 {
        register
    }
}
