//! List registers, and the virtual CPU interface behind them as EL2 sees it.
//!
//! The guest's ICC_* accesses go to hardware (ICV_*); EL2 only offers it interrupts, through the
//! list registers ICH_LR<n>_EL2. This file is the layout of those registers and the question
//! whether hardware would now signal one of them: the step engine must know before it enters the
//! guest whether the next thing that happens is an instruction or an interrupt.
//!
//! The sources are the GIC architecture specification (IHI 0069, issue H): ICH_LR<n>_EL2,
//! ICH_HCR_EL2, ICH_VMCR_EL2, and "Priority grouping". One active-priorities register each is
//! kept, which is what 5 bits of preemption need; all Arm cores and QEMU have 5.

/// A list register, ICH_LR<n>_EL2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListRegister(pub u64);

impl ListRegister {
    const STATE_PENDING: u64 = 1 << 62;
    const STATE_ACTIVE: u64 = 1 << 63;
    const GROUP: u64 = 1 << 60;
    const PRIORITY_SHIFT: u32 = 48;
    // With HW = 0, pINTID[9] asks for a maintenance interrupt on deactivation.
    const EOI: u64 = 1 << 41;
    /// Who has sent an SGI, as a GICv2's list registers have it (GICH_LR<n>.CPUID), where a GICv3's have
    /// zeros.
    const SENDER_SHIFT: u32 = 32;

    /// Builds the entry of a virtual interrupt (HW = 0).
    #[must_use]
    pub const fn new(
        intid: u32,
        priority: u8,
        group1: bool,
        pending: bool,
        active: bool,
        eoi: bool,
    ) -> Self {
        let mut value = intid as u64;
        value |= (priority as u64 & IMPLEMENTED_PRIORITY as u64) << Self::PRIORITY_SHIFT;
        if group1 {
            value |= Self::GROUP;
        }
        if pending {
            value |= Self::STATE_PENDING;
        }
        if active {
            value |= Self::STATE_ACTIVE;
        }
        if eoi {
            value |= Self::EOI;
        }
        Self(value)
    }

    /// Pending, or pending and active.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        self.0 & Self::STATE_PENDING != 0
    }

    /// Active, or pending and active.
    #[must_use]
    pub const fn is_active(self) -> bool {
        self.0 & Self::STATE_ACTIVE != 0
    }

    /// Asks for a maintenance interrupt on deactivation.
    #[must_use]
    pub const fn eoi(self) -> bool {
        self.0 & Self::EOI != 0
    }

    /// The virtual interrupt.
    #[must_use]
    pub const fn intid(self) -> u32 {
        self.0 as u32
    }

    /// The same, of an SGI that a vCPU has sent.
    pub(super) const fn sent_by(self, vcpu: u8) -> Self {
        Self(self.0 | (vcpu as u64 & 7) << Self::SENDER_SHIFT)
    }

    /// Who has sent it: see [`ListRegister::sent_by`].
    pub(super) const fn sender(self) -> u64 {
        self.0 >> Self::SENDER_SHIFT & 7
    }

    /// The same, active in place of pending.
    pub(super) const fn acknowledged(self) -> Self {
        Self(self.0 & !Self::STATE_PENDING | Self::STATE_ACTIVE)
    }

    /// The same, active no more.
    pub(super) const fn deactivated(self) -> Self {
        Self(self.0 & !Self::STATE_ACTIVE)
    }

    /// Group 1 is signalled as IRQ, Group 0 as FIQ.
    #[must_use]
    pub const fn is_group1(self) -> bool {
        self.0 & Self::GROUP != 0
    }

    /// Priority; the lower, the more urgent.
    #[must_use]
    pub const fn priority(self) -> u8 {
        (self.0 >> Self::PRIORITY_SHIFT) as u8
    }
}

/// Bits of a priority that a virtual CPU interface implements: the upper five.
pub(super) const IMPLEMENTED_PRIORITY: u8 = 0xf8;
/// Nothing is active.
const IDLE_PRIORITY: u8 = 0xff;

/// ICH_HCR_EL2, the bits that [`super::Vgic::flush`] owns.
pub(super) mod hcr {
    pub const EN: u64 = 1 << 0; // the virtual CPU interface works at all
    pub const LRENPIE: u64 = 1 << 2; // maintenance: an EOI without a list register happened
    pub const NPIE: u64 = 1 << 3; // maintenance: no list register is pending any more
    pub const VGRP0EIE: u64 = 1 << 4; // maintenance: the guest enabled Group 0
    pub const VGRP1EIE: u64 = 1 << 6; // maintenance: the guest enabled Group 1
    pub const TDIR: u64 = 1 << 14; // traps ICC_DIR_EL1
    pub const EOICOUNT_SHIFT: u32 = 27;
    pub const EOICOUNT: u64 = 0x1f << EOICOUNT_SHIFT; // EOIs without a list register
    pub const OWNED: u64 = EN | LRENPIE | NPIE | VGRP0EIE | VGRP1EIE | TDIR | EOICOUNT;
}

/// ICH_VMCR_EL2.
pub(super) mod vmcr {
    pub const VENG0: u64 = 1 << 0;
    pub const VENG1: u64 = 1 << 1;
    pub const VACKCTL: u64 = 1 << 2;
    pub const VFIQEN: u64 = 1 << 3;
    pub const VCBPR: u64 = 1 << 4;
    pub const VEOIM: u64 = 1 << 9;
    pub const VBPR1_SHIFT: u32 = 18;
    pub const VBPR0_SHIFT: u32 = 21;
    pub const VPMR_SHIFT: u32 = 24;
}

/// Which exception the virtual CPU interface asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// A Group 1 interrupt: virtual IRQ.
    Irq,
    /// A Group 0 interrupt: virtual FIQ.
    Fiq,
}

/// What the vCPU loop loads into the ICH_*_EL2 registers before an entry, and reads back after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CpuInterface {
    /// ICH_LR<n>_EL2.
    pub lr: [u64; 16],
    /// How many of them the machine has: ICH_VTR_EL2.ListRegs + 1.
    pub lr_count: usize,
    /// ICH_HCR_EL2. `flush` writes En, LRENPIE, NPIE, VGrp0EIE, VGrp1EIE, TDIR and EOIcount; the
    /// other bits stay as the caller has them.
    pub hcr: u64,
    /// ICH_VMCR_EL2.
    pub vmcr: u64,
    /// ICH_AP0R0_EL2.
    pub ap0r0: u64,
    /// ICH_AP1R0_EL2.
    pub ap1r0: u64,
}

impl CpuInterface {
    /// Returns the state at reset: groups disabled, everything masked, the finest binary points.
    #[must_use]
    pub const fn new(lr_count: usize) -> Self {
        // Five bits of preemption: the least Binary Point is 2, for Group 1 one more.
        let vmcr = vmcr::VFIQEN | 3 << vmcr::VBPR1_SHIFT | 2 << vmcr::VBPR0_SHIFT;
        Self { lr: [0; 16], lr_count, hcr: 0, vmcr, ap0r0: 0, ap1r0: 0 }
    }

    /// Tells whether a virtual IRQ would be taken if PSTATE.I were 0, going by what is in the
    /// list registers now.
    #[must_use]
    pub fn deliverable(&self) -> bool {
        self.signal() == Some(Signal::Irq)
    }

    /// Tells what the virtual CPU interface signals, going by the list registers.
    #[must_use]
    pub fn signal(&self) -> Option<Signal> {
        if self.hcr & hcr::EN == 0 {
            return None;
        }
        let pending = self.list_registers().filter(|register| {
            register.is_pending() && !register.is_active() && self.enables(register.is_group1())
        });
        // `min_by_key` keeps the first of equals, as hardware takes the lowest list register.
        let best = pending.min_by_key(|register| register.priority())?;
        self.can_preempt(best.priority(), best.is_group1())
            .then_some(self.signal_of(best.is_group1()))
    }

    /// What an interrupt of a group is signalled as. A GICv3's VFIQEn is 1 for good.
    pub(super) const fn signal_of(&self, group1: bool) -> Signal {
        if group1 || self.vmcr & vmcr::VFIQEN == 0 { Signal::Irq } else { Signal::Fiq }
    }

    /// Tells whether an interrupt was ended that EL2 is to be told of: its maintenance interrupt is up.
    #[must_use]
    pub fn has_ended_for_el2(&self) -> bool {
        let has_ended = |one: ListRegister| one.eoi() && !one.is_pending() && !one.is_active();
        self.hcr & hcr::EN != 0 && self.list_registers().any(has_ended)
    }

    /// Tells whether there is more than what found room, for which whoever fills the list registers is to
    /// be asked.
    pub(super) const fn asks_for_more(&self) -> bool {
        self.hcr & (hcr::NPIE | hcr::LRENPIE) != 0
    }

    /// The list registers that exist.
    pub(super) fn list_registers(&self) -> impl Iterator<Item = ListRegister> {
        self.lr.iter().take(self.lr_count).map(|&value| ListRegister(value))
    }

    /// Tells whether the guest's CPU interface has the group enabled.
    pub(super) const fn enables(&self, group1: bool) -> bool {
        self.vmcr & (if group1 { vmcr::VENG1 } else { vmcr::VENG0 }) != 0
    }

    /// Tells whether the guest deactivates by ICC_DIR_EL1, separately from the priority drop.
    pub const fn splits_eoi(&self) -> bool {
        self.vmcr & vmcr::VEOIM != 0
    }

    /// Tells whether an interrupt gets past the priority mask and what is being handled.
    pub(super) const fn can_preempt(&self, priority: u8, group1: bool) -> bool {
        let priority = priority & IMPLEMENTED_PRIORITY;
        let mask = (self.vmcr >> vmcr::VPMR_SHIFT) as u8;
        if priority >= mask {
            return false;
        }
        let running = self.running_priority();
        let group_priority = self.group_priority_mask(group1);
        running == IDLE_PRIORITY || priority & group_priority < running & group_priority
    }

    /// Takes down that an interrupt was acknowledged.
    pub(super) const fn raise_priority(&mut self, register: ListRegister) {
        let group1 = register.is_group1();
        let level = 1 << ((register.priority() & self.group_priority_mask(group1)) >> 3);
        if group1 {
            self.ap1r0 |= level;
        } else {
            self.ap0r0 |= level;
        }
    }

    /// Takes down that the handler of the most urgent one has ended.
    pub(super) const fn drop_priority(&mut self) {
        let first = (self.ap0r0 | self.ap1r0).trailing_zeros();
        let kept = match 1_u64.checked_shl(first) {
            Some(level) => !level,
            None => u64::MAX,
        };
        self.ap0r0 &= kept;
        self.ap1r0 &= kept;
    }

    /// Priority of what is being handled, from the active priorities.
    pub(super) const fn running_priority(&self) -> u8 {
        let active = (self.ap0r0 | self.ap1r0) as u32;
        if active == 0 { IDLE_PRIORITY } else { (active.trailing_zeros() as u8) << 3 }
    }

    /// Bits of a priority that count for preemption, by the binary point.
    const fn group_priority_mask(&self, group1: bool) -> u8 {
        let bpr0 = (self.vmcr >> vmcr::VBPR0_SHIFT & 7) as u32;
        let bpr1 = (self.vmcr >> vmcr::VBPR1_SHIFT & 7) as u32;
        // Group 1 without VCBPR splits one bit further up than the same number in Group 0.
        let split =
            if group1 && self.vmcr & vmcr::VCBPR == 0 { bpr1.saturating_sub(1) } else { bpr0 };
        (0xffu32 << (split + 1)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> CpuInterface {
        let mut interface = CpuInterface::new(4);
        interface.hcr = hcr::EN;
        interface.vmcr |= vmcr::VENG1 | 0xf8 << vmcr::VPMR_SHIFT;
        interface
    }

    fn pending(intid: u32, priority: u8) -> u64 {
        ListRegister::new(intid, priority, true, true, false, false).0
    }

    #[test]
    fn a_list_register_has_the_architected_layout() {
        let register = ListRegister::new(27, 0xa5, true, true, false, true);
        assert_eq!(register.0, 0x50a0_0200_0000_001b);
        assert_eq!(register.intid(), 27);
        assert!(register.is_pending() && !register.is_active() && register.eoi());
    }

    #[test]
    fn binary_points_split_priorities_as_architected() {
        let mut interface = CpuInterface::new(4);
        assert_eq!(interface.group_priority_mask(true), 0xf8);
        assert_eq!(interface.group_priority_mask(false), 0xf8);
        interface.vmcr = 7 << vmcr::VBPR0_SHIFT | 7 << vmcr::VBPR1_SHIFT;
        assert_eq!(interface.group_priority_mask(false), 0);
        assert_eq!(interface.group_priority_mask(true), 0x80);
        interface.vmcr |= vmcr::VCBPR;
        assert_eq!(interface.group_priority_mask(true), 0);
    }

    #[test]
    fn the_priority_mask_must_be_above() {
        let mut interface = ready();
        interface.lr[0] = pending(27, 0xa0);
        assert!(interface.deliverable());
        interface.vmcr = interface.vmcr & !(0xff << vmcr::VPMR_SHIFT) | 0xa0 << vmcr::VPMR_SHIFT;
        assert!(!interface.deliverable());
    }

    #[test]
    fn the_running_priority_holds_equals_off() {
        let mut interface = ready();
        interface.lr[0] = pending(27, 0xa0);
        interface.ap1r0 = 1 << (0xa0 >> 3);
        assert!(!interface.deliverable());
        interface.ap1r0 = 1 << (0xa8 >> 3);
        assert!(interface.deliverable());
        // With a coarser binary point the two are one group priority.
        interface.vmcr = interface.vmcr & !(7 << vmcr::VBPR1_SHIFT) | 5 << vmcr::VBPR1_SHIFT;
        assert!(!interface.deliverable());
    }

    #[test]
    fn groups_and_the_interface_must_be_enabled() {
        let mut interface = ready();
        interface.lr[0] = pending(27, 0xa0);
        interface.vmcr &= !vmcr::VENG1;
        assert_eq!(interface.signal(), None);
        interface.vmcr |= vmcr::VENG1;
        interface.hcr = 0;
        assert_eq!(interface.signal(), None);
    }

    #[test]
    fn a_more_urgent_group_0_interrupt_is_signalled_as_fiq_instead() {
        let mut interface = ready();
        interface.lr[0] = pending(27, 0xa0);
        interface.lr[1] = ListRegister::new(3, 0x10, false, true, false, false).0;
        assert_eq!(interface.signal(), Some(Signal::Irq));
        interface.vmcr |= vmcr::VENG0;
        assert_eq!(interface.signal(), Some(Signal::Fiq));
    }

    #[test]
    fn pending_and_active_waits_for_its_deactivation() {
        let mut interface = ready();
        interface.lr[0] = ListRegister::new(3, 0x10, true, true, true, false).0;
        assert!(!interface.deliverable());
    }

    #[test]
    fn list_registers_the_machine_lacks_do_not_count() {
        let mut interface = ready();
        interface.lr[4] = pending(27, 0xa0);
        assert!(!interface.deliverable());
    }
}
