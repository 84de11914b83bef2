//! What the architecture leaves to whoever builds a PE, and where QEMU departs from it.
//!
//! A [`Choice`](crate::Choice) is made anew at each event; what is here one PE does always alike,
//! so the explorer begins once with each.

/// How a PE does what it may do in more than one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Implementation {
    /// ISS.ISV stays 1 over an exception that came between an instruction and its step.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Syndrome information for Software Step exceptions".
    pub isv_kept: bool,
    /// ISS.ISV is 1 after a stepped ISB or ERET.
    ///
    /// Source: as above.
    pub isv_after_synchronization: bool,
    /// An asynchronous exception never comes between an instruction and its step exception. The
    /// architecture defines no order; QEMU has this one.
    pub step_before_interrupts: bool,
    /// A direct write of a debug register is seen by the next instruction. The architecture
    /// allows it; QEMU does it, so that a missing ISB does not show there.
    pub writes_seen_at_once: bool,
    /// *Departs:* the OS Lock and the OS Double Lock do not disable Software Step.
    pub ignores_os_lock: bool,
    /// *Departs:* WFI and WFE do not trap while Software Step is active.
    pub steps_past_wfx: bool,
    /// *Departs:* the local monitor compares values, and does not see a write of what was there.
    pub monitor_compares_values: bool,
}

impl Implementation {
    /// Everything that is open decided one way.
    pub const STRICT: Self = Self {
        isv_kept: false,
        isv_after_synchronization: true,
        step_before_interrupts: false,
        writes_seen_at_once: false,
        ignores_os_lock: false,
        steps_past_wfx: false,
        monitor_compares_values: false,
    };

    /// Everything that is open in a syndrome decided the other way.
    pub const LOOSE: Self =
        Self { isv_kept: true, isv_after_synchronization: false, ..Self::STRICT };

    /// QEMU 7.2's TCG, as its probes show it (docs/qemu.md).
    pub const QEMU: Self = Self {
        isv_kept: false,
        isv_after_synchronization: true,
        step_before_interrupts: true,
        writes_seen_at_once: true,
        ignores_os_lock: true,
        steps_past_wfx: true,
        monitor_compares_values: true,
    };
}
