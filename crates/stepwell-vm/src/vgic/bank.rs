//! State of 32 interrupts, one bit each: what a redistributor keeps for its SGIs and PPIs and the
//! distributor for each 32 SPIs.
//!
//! GICD_ISENABLER<n> and its like show 32 interrupts in a word, so words are also what we keep:
//! a register access is one operation, and so is the question which of 32 interrupts are worth
//! looking at before an entry.
//!
//! While an interrupt sits in a list register, hardware has the truth about its pending and active
//! bits. The words here then say what was loaded, plus what software did to it since, and
//! [`Bank::fold`] brings the two together after the exit. Two rules make that lossless: a write
//! that clears a bit wins over what comes back, and a pulse that arrives meanwhile is remembered in
//! `relatched`, because acknowledging the loaded interrupt must not swallow it.

/// 32 interrupts. Bit n is the n-th of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bank {
    /// GICx_IGROUPR: one is Group 1.
    pub group: u32,
    /// GICx_ISENABLER.
    pub enabled: u32,
    /// Pending by an edge or by a write, not by the level of the input.
    pub latch: u32,
    /// Level of the input.
    pub line: u32,
    /// GICx_ISACTIVER.
    pub active: u32,
    /// GICx_ICFGR: one is edge-triggered.
    pub edge: u32,
    /// In a list register of some vCPU.
    pub loaded: u32,
    /// Latched again while loaded.
    relatched: u32,
    /// GICx_IPRIORITYR, all eight bits of it.
    priority: [u8; 32],
    /// The priority at which an active interrupt was acknowledged.
    running: [u8; 32],
    /// The group in which an active interrupt was acknowledged: one is Group 1.
    running_group: u32,
    /// Active interrupts that were acknowledged, not made active by a write.
    acknowledged: u32,
}

/// The registers that show one bit for each interrupt, in the order of their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WordRegister {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

impl WordRegister {
    /// Decodes an offset into the distributor or into SGI_base, which agree from IGROUPR to
    /// ICACTIVER: the register, and which word of it.
    pub fn decode(offset: u64) -> Option<(Self, usize)> {
        let register = match offset & !0x7f {
            0x080 => Self::Group,
            0x100 => Self::SetEnable,
            0x180 => Self::ClearEnable,
            0x200 => Self::SetPending,
            0x280 => Self::ClearPending,
            0x300 => Self::SetActive,
            0x380 => Self::ClearActive,
            _ => return None,
        };
        let index = (offset & 0x7f) / 4;
        usize::try_from(index).ok().map(|index| (register, index))
    }

    /// Tells whether list registers may know better than the bank what this register shows.
    pub const fn shows_loaded_state(self) -> bool {
        matches!(self, Self::SetPending | Self::ClearPending | Self::SetActive | Self::ClearActive)
    }
}

/// What came back of one interrupt from a list register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Returned {
    pub was_pending: bool,
    pub was_active: bool,
    pub is_pending: bool,
    pub is_active: bool,
}

/// What [`Bank::fold`] made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Folded {
    /// The vCPU acknowledged it, and has not deactivated it yet.
    pub activated: bool,
    /// The vCPU deactivated it.
    pub deactivated: bool,
}

impl Bank {
    /// State at reset, with the given interrupts edge-triggered.
    pub const fn new(edge: u32) -> Self {
        Self {
            group: 0,
            enabled: 0,
            latch: 0,
            line: 0,
            active: 0,
            edge,
            loaded: 0,
            relatched: 0,
            priority: [0; 32],
            running: [0; 32],
            running_group: 0,
            acknowledged: 0,
        }
    }

    /// GICx_ISPENDR: latched, or level-sensitive with the input asserted.
    pub const fn pending(&self) -> u32 {
        self.latch | (self.line & !self.edge)
    }

    /// Those that a vCPU could be given now, with the groups of `groups` enabled.
    pub const fn deliverable(&self, groups: Groups) -> u32 {
        self.offered(groups) & !self.loaded
    }

    /// As [`Bank::deliverable`], whether in a list register already or not.
    pub const fn offered(&self, groups: Groups) -> u32 {
        self.pending() & self.enabled & groups.mask(self.group) & !self.active
    }

    /// Tells whether none is active, nor both pending and enabled.
    pub const fn is_idle(&self) -> bool {
        self.pending() & self.enabled | self.active == 0
    }

    /// Priority of one interrupt; the lower, the more urgent.
    pub fn priority(&self, bit: usize) -> u8 {
        self.priority.get(bit).copied().unwrap_or(0xff)
    }

    /// Sets the priority of one interrupt.
    pub fn set_priority(&mut self, bit: usize, value: u8) {
        if let Some(priority) = self.priority.get_mut(bit) {
            *priority = value;
        }
    }

    /// Priority at which an active interrupt was acknowledged, whatever it has become since.
    pub fn running(&self, bit: usize) -> u8 {
        self.running.get(bit).copied().unwrap_or(0xff)
    }

    /// Tells whether an active interrupt was acknowledged in Group 1, whatever it has become since.
    pub fn is_running_in_group1(&self, bit: usize) -> bool {
        self.running_group & bit_mask(bit) != 0
    }

    /// Tells whether an active interrupt was acknowledged: a handler is to end it.
    pub fn is_acknowledged(&self, bit: usize) -> bool {
        self.acknowledged & bit_mask(bit) != 0
    }

    /// Notes at which priority, and in which group, an interrupt was acknowledged.
    pub fn set_running(&mut self, bit: usize, value: u8, group1: bool) {
        if let Some(running) = self.running.get_mut(bit) {
            *running = value;
        }
        let mask = bit_mask(bit);
        self.running_group = self.running_group & !mask | if group1 { mask } else { 0 };
        self.acknowledged |= mask;
    }

    /// Reads a register of one bit per interrupt.
    pub const fn read(&self, register: WordRegister) -> u32 {
        match register {
            WordRegister::Group => self.group,
            WordRegister::SetEnable | WordRegister::ClearEnable => self.enabled,
            WordRegister::SetPending | WordRegister::ClearPending => self.pending(),
            WordRegister::SetActive | WordRegister::ClearActive => self.active,
        }
    }

    /// Writes a register of one bit per interrupt; returns the interrupts it changed.
    pub const fn write(&mut self, register: WordRegister, value: u32) -> u32 {
        let before = self.read(register);
        match register {
            WordRegister::Group => self.group = value,
            WordRegister::SetEnable => self.enabled |= value,
            WordRegister::ClearEnable => self.enabled &= !value,
            WordRegister::SetPending => return self.set_latch(value),
            WordRegister::ClearPending => {
                self.latch &= !value;
                self.relatched &= !value;
            }
            WordRegister::SetActive => {
                self.acknowledged &= !value | self.active;
                self.active |= value;
            }
            WordRegister::ClearActive => self.active &= !value,
        }
        before ^ self.read(register)
    }

    /// Latches interrupts as pending: an edge, a generated SGI, or a write. Returns those that
    /// this makes a difference to; a loaded one may have been acknowledged meanwhile.
    pub const fn set_latch(&mut self, bits: u32) -> u32 {
        let changed = bits & (!self.latch | self.loaded);
        self.latch |= bits;
        self.relatched |= bits & self.loaded;
        changed
    }

    /// Drives the inputs of `bits`; returns those whose level changed.
    pub const fn set_line(&mut self, bits: u32, level: bool) -> u32 {
        let before = self.line;
        if level {
            self.line |= bits;
            let _ = self.set_latch(bits & self.edge & !before);
        } else {
            self.line &= !bits;
        }
        before ^ self.line
    }

    /// Reads half of GICx_ICFGR: two bits for each of the 16 interrupts from `first`, of which the
    /// upper says edge.
    pub fn read_config(&self, first: usize) -> u32 {
        (0..16).fold(0, |word, n| {
            let edge = u32::from(self.edge & bit_mask(first + n) != 0);
            word | edge << (2 * n + 1)
        })
    }

    /// Writes half of GICx_ICFGR.
    pub fn write_config(&mut self, first: usize, value: u32) {
        for n in 0..16 {
            let bit = bit_mask(first + n);
            if value >> (2 * n + 1) & 1 == 1 {
                self.edge |= bit;
            } else {
                self.edge &= !bit;
            }
        }
    }

    /// Notes that an interrupt goes into a list register.
    pub const fn load(&mut self, bit: u32) {
        self.loaded |= bit;
        self.relatched &= !bit;
    }

    /// Takes an interrupt back from a list register.
    pub const fn fold(&mut self, bit: u32, returned: Returned) -> Folded {
        let Returned { was_pending, was_active, is_pending, is_active } = returned;
        self.loaded &= !bit;
        if was_pending && !is_pending {
            // Acknowledged: only what was latched since is still pending.
            self.latch &= !bit | self.relatched;
        }
        self.relatched &= !bit;
        let activated = is_active && !was_active;
        // Gone through active even if it was acknowledged and deactivated in one go. A pending and
        // active one that is now only one of the two was deactivated once.
        let deactivated = (was_active && !is_active)
            || (was_active && was_pending && !is_pending)
            || (was_pending && !is_pending && !is_active);
        if activated {
            self.active |= bit;
        } else if was_active && !is_active {
            self.active &= !bit;
        }
        Folded { activated, deactivated }
    }
}

/// Which of the two interrupt groups are enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    pub group0: bool,
    pub group1: bool,
}

impl Groups {
    /// Picks, from the group bits of 32 interrupts, those whose group is enabled.
    pub const fn mask(self, group: u32) -> u32 {
        (if self.group1 { group } else { 0 }) | (if self.group0 { !group } else { 0 })
    }
}

/// The word with bit `n` set; zero when there is no such bit.
pub(super) fn bit_mask(n: usize) -> u32 {
    u32::try_from(n).ok().and_then(|n| 1u32.checked_shl(n)).unwrap_or(0)
}

/// The set bits of a word, lowest first.
pub(super) fn bits(mut word: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.checked_sub(1)?;
        usize::try_from(bit).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADED_PENDING: Returned =
        Returned { was_pending: true, was_active: false, is_pending: true, is_active: false };

    #[test]
    fn words_of_registers_are_found_by_offset() {
        assert_eq!(WordRegister::decode(0x104), Some((WordRegister::SetEnable, 1)));
        assert_eq!(WordRegister::decode(0x3fc), Some((WordRegister::ClearActive, 31)));
        assert_eq!(WordRegister::decode(0x07c), None);
        assert_eq!(WordRegister::decode(0x400), None);
    }

    #[test]
    fn configuration_uses_the_upper_bit_of_each_pair() {
        let mut bank = Bank::new(0x0000_ffff);
        assert_eq!(bank.read_config(0), 0xaaaa_aaaa);
        assert_eq!(bank.read_config(16), 0);
        bank.write_config(16, 0x0000_000b);
        assert_eq!(bank.edge, 0x0003_ffff);
    }

    #[test]
    fn an_edge_while_loaded_survives_the_acknowledge_of_the_first() {
        let mut bank = Bank::new(1);
        bank.set_latch(1);
        bank.load(1);
        bank.set_latch(1);
        let folded =
            bank.fold(1, Returned { is_pending: false, is_active: true, ..LOADED_PENDING });
        assert!(folded.activated);
        assert_eq!((bank.latch, bank.active), (1, 1));
    }

    #[test]
    fn an_edge_while_loaded_merges_with_one_not_yet_acknowledged() {
        let mut bank = Bank::new(1);
        bank.set_latch(1);
        bank.load(1);
        bank.set_latch(1);
        bank.fold(1, LOADED_PENDING);
        bank.load(1);
        bank.fold(1, Returned { is_pending: false, is_active: false, ..LOADED_PENDING });
        assert_eq!(bank.latch, 0);
    }

    #[test]
    fn a_cleared_pending_bit_does_not_come_back_from_the_list_register() {
        let mut bank = Bank::new(1);
        bank.set_latch(1);
        bank.load(1);
        bank.write(WordRegister::ClearPending, 1);
        bank.fold(1, LOADED_PENDING);
        assert_eq!(bank.pending(), 0);
    }

    #[test]
    fn a_cleared_active_bit_does_not_come_back_either() {
        let mut bank = Bank::new(1);
        bank.active = 1;
        bank.load(1);
        bank.write(WordRegister::ClearActive, 1);
        let still_active =
            Returned { was_pending: false, was_active: true, is_pending: false, is_active: true };
        bank.fold(1, still_active);
        assert_eq!(bank.active, 0);
    }
}
