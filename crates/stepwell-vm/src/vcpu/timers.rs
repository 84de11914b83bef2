//! The guest's timers as values.

/// A guest's physical timer: CNTP_CTL_EL0 and CNTP_CVAL_EL0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PhysicalTimer {
    pub(super) control: u64,
    pub(super) compare: u64,
}

/// The interrupt lines of a vCPU's timers, as the GIC knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TimerLines {
    pub(super) virtual_timer: bool,
    pub(super) physical_timer: bool,
}

/// What it takes to write CNTVOFF_EL2, which on an emulated machine is as long as a device's access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OffsetWrite {
    least: u64,
    measured: u8,
}

impl OffsetWrite {
    /// How often it is measured. The least is taken: more, and the guest's clock would go back.
    const TIMES: u8 = 32;

    /// Ticks that it takes for sure.
    pub(super) fn ticks(self) -> u64 {
        if self.measured < Self::TIMES { 0 } else { self.least }
    }

    /// Measures it, while that is to be done.
    pub(super) fn measure(&mut self, took: impl FnOnce() -> u64) {
        if self.measured < Self::TIMES {
            let took = took();
            self.least = if self.measured == 0 { took } else { self.least.min(took) };
            self.measured = self.measured.saturating_add(1);
        }
    }
}
