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
    /// When the virtual timer was due, if its line has gone up since, where instructions are counted.
    pub(super) virtual_timer_due: u64,
    pub(super) physical_timer: bool,
}

/// What it takes to write CNTVOFF_EL2, which on an emulated machine is as long as a device's access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OffsetWrite {
    least: u64,
    measured: u8,
}

impl OffsetWrite {
    /// How often it is measured before it is taken out. The least is: more, and the guest's clock would
    /// go back.
    const TIMES: u8 = 32;

    /// Ticks that it takes for sure.
    pub(super) fn ticks(self) -> u64 {
        if self.measured < Self::TIMES { 0 } else { self.least }
    }

    /// Learns how long it took, once [`Self::ticks`] were taken out for it. Returns by how many ticks
    /// that was too much, which is to be put back: a host that was busy while this was measured can be
    /// faster now.
    pub(super) fn took(&mut self, took: u64) -> u64 {
        let too_much = self.ticks().saturating_sub(took);
        self.least = if self.measured == 0 { took } else { self.least.min(took) };
        self.measured = self.measured.saturating_add(1).min(Self::TIMES);
        too_much
    }
}

#[cfg(test)]
mod tests {
    use super::OffsetWrite;

    /// What is taken out is never more than what it took, whenever it was measured.
    #[test]
    fn a_clock_that_is_hidden_does_not_go_back() {
        let mut write = OffsetWrite::default();
        for _ in 0..OffsetWrite::TIMES {
            assert_eq!(write.ticks(), 0, "not known yet");
            assert_eq!(write.took(10), 0);
        }
        assert_eq!(write.ticks(), 10);
        assert_eq!(write.took(14), 0);
        assert_eq!(write.took(4), 6, "put back");
        assert_eq!(write.ticks(), 4);
    }
}
