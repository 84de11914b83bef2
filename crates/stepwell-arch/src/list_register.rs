//! One list register of the virtual CPU interface: a virtual interrupt on its way to a guest.

use crate::bit_field::{bit, field, with_bits, with_field};

/// State of an interrupt in a list register.
///
/// Source: Arm GIC Architecture Specification, IHI 0069 H, `ICH_LR<n>_EL2`, Interrupt Controller
/// List Registers, field State.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InterruptState {
    /// Not in use.
    Invalid,
    /// Pending.
    Pending,
    /// Acknowledged, not ended.
    Active,
    /// Acknowledged, not ended, and pending again.
    PendingAndActive,
}

/// `ICH_LR<n>_EL2`.
///
/// Source: Arm GIC Architecture Specification, IHI 0069 H, `ICH_LR<n>_EL2`, Interrupt Controller
/// List Registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListRegister(pub u64);

impl ListRegister {
    /// HW: ending the virtual interrupt deactivates physical interrupt pINTID.
    pub const HW: u64 = 1 << 61;
    /// Group: 1 for group 1.
    pub const GROUP: u64 = 1 << 60;
    /// EOI: raises a maintenance interrupt when ended. Only with HW = 0 (it is pINTID\[9\]).
    pub const EOI: u64 = 1 << 41;

    /// A pending, purely virtual group 1 interrupt.
    #[must_use]
    pub const fn pending(vintid: u32, priority: u8) -> Self {
        Self(Self::GROUP | vintid as u64)
            .with_priority(priority)
            .with_state(InterruptState::Pending)
    }

    /// State.
    #[must_use]
    pub const fn state(self) -> InterruptState {
        match field(self.0, 63, 62) {
            0 => InterruptState::Invalid,
            1 => InterruptState::Pending,
            2 => InterruptState::Active,
            _ => InterruptState::PendingAndActive,
        }
    }

    /// Returns the list register with its state replaced.
    #[must_use]
    pub const fn with_state(self, state: InterruptState) -> Self {
        let bits = match state {
            InterruptState::Invalid => 0,
            InterruptState::Pending => 1,
            InterruptState::Active => 2,
            InterruptState::PendingAndActive => 3,
        };
        Self(with_field(self.0, 63, 62, bits))
    }

    /// Whether the interrupt is linked to a physical one (HW).
    #[must_use]
    pub const fn hw(self) -> bool {
        bit(self.0, 61)
    }

    /// Returns the list register linked to physical interrupt `pintid` (HW = 1, pINTID).
    #[must_use]
    pub const fn with_pintid(self, pintid: u32) -> Self {
        Self(with_field(self.0 | Self::HW, 44, 32, pintid as u64))
    }

    /// Whether the interrupt is in group 1.
    #[must_use]
    pub const fn group1(self) -> bool {
        bit(self.0, 60)
    }

    /// Returns the list register with its group replaced.
    #[must_use]
    pub const fn with_group1(self, group1: bool) -> Self {
        Self(with_bits(self.0, Self::GROUP, group1))
    }

    /// Priority; 0 is the highest.
    #[must_use]
    pub const fn priority(self) -> u8 {
        field(self.0, 55, 48) as u8
    }

    /// Returns the list register with its priority replaced.
    #[must_use]
    pub const fn with_priority(self, priority: u8) -> Self {
        Self(with_field(self.0, 55, 48, priority as u64))
    }

    /// Physical interrupt to deactivate (pINTID), with HW = 1.
    #[must_use]
    pub const fn pintid(self) -> u32 {
        field(self.0, 44, 32) as u32
    }

    /// Whether ending the interrupt raises a maintenance interrupt (EOI), with HW = 0.
    #[must_use]
    pub const fn eoi(self) -> bool {
        !self.hw() && bit(self.0, 41)
    }

    /// Returns the list register with EOI set or cleared, and HW cleared.
    #[must_use]
    pub const fn with_eoi(self, eoi: bool) -> Self {
        Self(with_bits(with_field(self.0 & !Self::HW, 44, 32, 0), Self::EOI, eoi))
    }

    /// Virtual interrupt number (vINTID).
    #[must_use]
    pub const fn vintid(self) -> u32 {
        field(self.0, 31, 0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_interrupt_has_every_field_in_its_place() {
        let virtual_timer = ListRegister::pending(27, 0xa0);
        assert_eq!(virtual_timer.0, 0x50a0_0000_0000_001b);
        assert_eq!(virtual_timer.vintid(), 27);
        assert_eq!(virtual_timer.priority(), 0xa0);
        assert!(virtual_timer.group1() && !virtual_timer.hw() && !virtual_timer.eoi());
        assert!(!virtual_timer.with_group1(false).group1());
    }

    #[test]
    fn states_round_trip() {
        for state in [
            InterruptState::Invalid,
            InterruptState::Pending,
            InterruptState::Active,
            InterruptState::PendingAndActive,
        ] {
            assert_eq!(ListRegister::pending(32, 0).with_state(state).state(), state);
        }
        assert_eq!(ListRegister::default().state(), InterruptState::Invalid);
    }

    #[test]
    fn eoi_and_pintid_share_bits() {
        let linked = ListRegister::pending(27, 0).with_pintid(0x1fff);
        assert!(linked.hw() && !linked.eoi());
        assert_eq!(linked.pintid(), 0x1fff);
        let maintained = linked.with_eoi(true);
        assert!(!maintained.hw() && maintained.eoi());
        assert_eq!(maintained.0, ListRegister::pending(27, 0).0 | ListRegister::EOI);
        assert!(!maintained.with_eoi(false).eoi());
    }
}
