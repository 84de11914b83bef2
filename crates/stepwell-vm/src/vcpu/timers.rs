//! The guest's timers as values.

/// A guest's physical timer: CNTP_CTL_EL0 and CNTP_CVAL_EL0.
#[derive(Clone, Copy, Debug, Default)]
pub struct PhysicalTimer {
    pub(super) control: u64,
    pub(super) compare: u64,
}

/// The interrupt lines of a vCPU's timers, as the GIC knows them.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimerLines {
    pub(super) virtual_timer: bool,
    pub(super) physical_timer: bool,
}
