//! The local exclusive monitor, for the one line of memory that programs here exchange by.

use crate::state::SpecMachine;

impl SpecMachine {
    /// `AArch64.SetExclusiveMonitors`, and the load: the line is marked.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Exclusive access instructions and Non-shareable memory
    /// locations".
    pub const fn set_exclusive_monitors(&mut self) {
        self.loaded = self.line;
        self.monitor = true;
    }

    /// `AArch64.ExclusiveMonitorsPass`: whether a store-exclusive may succeed. It may fail all the
    /// same.
    ///
    /// Source: as [`SpecMachine::set_exclusive_monitors`].
    #[must_use]
    pub const fn exclusive_monitors_pass(&self) -> bool {
        let same = !self.implementation.monitor_compares_values || self.loaded == self.line;
        self.monitor && same
    }

    /// `ClearExclusiveLocal`: CLREX, exception entry and exception return.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Exclusive access instructions and Non-shareable memory
    /// locations", and `AArch64.ExceptionReturn` of the shared pseudocode.
    pub const fn clear_exclusive_local(&mut self) {
        self.monitor = false;
    }

    /// Another PE writes the line, which opens the monitors of all others.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Exclusive access instructions and Shareable memory
    /// locations".
    pub const fn written_by_another(&mut self, value: u8) {
        self.line = value;
        self.monitor &= self.implementation.monitor_compares_values;
    }
}

/// What a store-exclusive writes after a load-exclusive read `loaded`.
#[must_use]
pub const fn stored(loaded: u8) -> u8 {
    loaded.wrapping_add(1) % 4
}
