//! The distributor (GICD_*): the SPIs, where they go, and which groups are on.
//!
//! It has what QEMU's `virt` shows, read back register by register from QEMU 7.2, so that a guest
//! takes the same path through its driver here and there: one Security state (CTLR.DS), affinity
//! routing always on, 256 SPIs of which TYPER.ITLinesNumber admits 224, LPIs advertised though no
//! ITS exists to make one, no 1-of-N routing (TYPER.No1N). A reserved register, or an access of a
//! size its register does not have, reads as zero and ignores writes.

use super::bank::{Bank, Groups, WordRegister, bit_mask};

/// INTID of the first SPI.
pub(super) const FIRST_SPI: u32 = 32;
/// Words of SPIs.
pub(super) const SPI_BANKS: usize = 8;
const SPIS: usize = SPI_BANKS * 32;

const CTLR: u64 = 0x0000;
const TYPER: u64 = 0x0004;
const IIDR: u64 = 0x0008;
const IPRIORITYR: u64 = 0x0400;
const IPRIORITYR_END: u64 = 0x0800;
const ICFGR: u64 = 0x0c00;
const ICFGR_END: u64 = 0x0d00;
const IROUTER: u64 = 0x6000;
const IROUTER_END: u64 = 0x7fe0;
/// First of the identification registers, PIDR4 to CIDR3, the same in both frames.
pub(super) const ID_REGISTERS: u64 = 0xffd0;

const CTLR_ENABLE_GRP0: u32 = 1 << 0;
const CTLR_ENABLE_GRP1: u32 = 1 << 1;
const CTLR_ARE: u32 = 1 << 4; // affinity routing, fixed
const CTLR_DS: u32 = 1 << 6; // one Security state, fixed

// No1N, A3V, 16 bits of INTID, LPIS, ITLinesNumber 7.
const TYPER_VALUE: u32 = 1 << 25 | 1 << 24 | 0xf << 19 | 1 << 17 | 7;
/// IIDR of both frames: Arm, revision 0.
pub(super) const IIDR_VALUE: u32 = 0x43b;
const PIDR0: u8 = 0x92;

const IROUTER_IRM: u64 = 1 << 31;
const IROUTER_AFFINITY: u64 = 0xff_00ff_ffff;

/// What a write may have changed about interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// The `bits` of the distributor's `bank`.
    Spis { bank: usize, bits: u32 },
    /// All interrupts of all vCPUs.
    Everything,
}

/// GICD.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Distributor {
    enables: u32,
    spis: [Bank; SPI_BANKS],
    routes: [u64; SPIS],
    /// Which vCPU acknowledged an active SPI: its list registers must hold it.
    homes: [u8; SPIS],
}

impl Distributor {
    pub fn new() -> Self {
        Self {
            enables: 0,
            spis: [const { Bank::new(0) }; SPI_BANKS],
            routes: [0; SPIS],
            homes: [0; SPIS],
        }
    }

    /// Which groups CTLR enables.
    pub const fn groups(&self) -> Groups {
        Groups {
            group0: self.enables & CTLR_ENABLE_GRP0 != 0,
            group1: self.enables & CTLR_ENABLE_GRP1 != 0,
        }
    }

    pub fn bank(&self, index: usize) -> Option<&Bank> {
        self.spis.get(index)
    }

    pub fn bank_mut(&mut self, index: usize) -> Option<&mut Bank> {
        self.spis.get_mut(index)
    }

    /// Words of SPIs, with their numbers.
    pub fn banks(&self) -> impl Iterator<Item = (usize, &Bank)> {
        self.spis.iter().enumerate()
    }

    /// The vCPU that a pending SPI goes to, of `vcpus`.
    ///
    /// TYPER.No1N says that Interrupt Routing Mode is not implemented. A guest that sets it all the
    /// same is served by the vCPU it names, else by the first.
    pub fn target(&self, spi: usize, vcpus: usize) -> Option<usize> {
        let route = *self.routes.get(spi)?;
        let named = usize::try_from(route & IROUTER_AFFINITY).ok().filter(|&n| n < vcpus);
        named.or((route & IROUTER_IRM != 0).then_some(0))
    }

    /// CTLR's enables of the two groups.
    pub const fn group_enables(&self) -> u32 {
        self.enables
    }

    /// Has an SPI go to a vCPU of this affinity.
    pub fn set_affinity(&mut self, spi: usize, affinity: u64) {
        if let Some(route) = self.routes.get_mut(spi) {
            *route = affinity;
        }
    }

    /// The vCPU that acknowledged an active SPI.
    pub fn home(&self, spi: usize) -> usize {
        self.homes.get(spi).copied().map_or(0, usize::from)
    }

    pub fn set_home(&mut self, spi: usize, vcpu: usize) {
        if let (Some(home), Ok(vcpu)) = (self.homes.get_mut(spi), u8::try_from(vcpu)) {
            *home = vcpu;
        }
    }

    /// A guest's load. `offset` is a multiple of `bytes`.
    pub fn read(&self, offset: u64, bytes: u8) -> u64 {
        match bytes {
            1 => priority_index(offset).map_or(0, |spi| u64::from(self.priority(spi))),
            4 => u64::from(self.read_word(offset)),
            8 if (IROUTER..IROUTER_END).contains(&offset) => self.route(offset),
            _ => 0,
        }
    }

    fn read_word(&self, offset: u64) -> u32 {
        if let Some((register, word)) = WordRegister::decode(offset) {
            return word.checked_sub(1).and_then(|n| self.bank(n)).map_or(0, |b| b.read(register));
        }
        match offset {
            CTLR => CTLR_DS | CTLR_ARE | self.enables,
            TYPER => TYPER_VALUE,
            IIDR => IIDR_VALUE,
            IPRIORITYR..IPRIORITYR_END => {
                let priority = |n| priority_index(offset + n).map_or(0, |spi| self.priority(spi));
                u32::from_le_bytes([priority(0), priority(1), priority(2), priority(3)])
            }
            ICFGR..ICFGR_END => config_index(offset)
                .and_then(|(bank, first)| self.bank(bank).map(|b| b.read_config(first)))
                .unwrap_or(0),
            IROUTER..IROUTER_END => (self.route(offset & !7) >> (8 * (offset & 4))) as u32,
            ID_REGISTERS.. => id_register(offset, PIDR0),
            _ => 0,
        }
    }

    /// A guest's store. `offset` is a multiple of `bytes`.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) -> Change {
        match bytes {
            1 => priority_index(offset)
                .map_or(Change::None, |spi| self.set_priority(spi, value as u8)),
            4 => self.write_word(offset, value as u32),
            8 if (IROUTER..IROUTER_END).contains(&offset) => self.set_route(offset, value),
            _ => Change::None,
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) -> Change {
        if let Some((register, word)) = WordRegister::decode(offset) {
            return self.write_bits(register, word, value);
        }
        match offset {
            CTLR => {
                self.enables = value & (CTLR_ENABLE_GRP0 | CTLR_ENABLE_GRP1);
                Change::Everything
            }
            IPRIORITYR..IPRIORITYR_END => {
                let mut change = Change::None;
                for (n, priority) in (0..).zip(value.to_le_bytes()) {
                    if let Some(spi) = priority_index(offset + n) {
                        change = change.and(self.set_priority(spi, priority));
                    }
                }
                change
            }
            ICFGR..ICFGR_END => {
                let Some((bank, first)) = config_index(offset) else { return Change::None };
                let Some(spis) = self.bank_mut(bank) else { return Change::None };
                spis.write_config(first, value);
                Change::Spis { bank, bits: u32::MAX }
            }
            IROUTER..IROUTER_END => {
                let shift = 8 * (offset & 4);
                let kept = self.route(offset & !7) & !(0xffff_ffff << shift);
                self.set_route(offset & !7, kept | u64::from(value) << shift)
            }
            _ => Change::None,
        }
    }

    fn write_bits(&mut self, register: WordRegister, word: usize, value: u32) -> Change {
        let Some(bank) = word.checked_sub(1) else { return Change::None };
        let Some(spis) = self.bank_mut(bank) else { return Change::None };
        Change::Spis { bank, bits: spis.write(register, value) }
    }

    fn priority(&self, spi: usize) -> u8 {
        self.bank(spi / 32).map_or(0, |bank| bank.priority(spi % 32))
    }

    fn set_priority(&mut self, spi: usize, value: u8) -> Change {
        let Some(bank) = self.bank_mut(spi / 32) else { return Change::None };
        bank.set_priority(spi % 32, value);
        Change::Spis { bank: spi / 32, bits: bit_mask(spi % 32) }
    }

    fn route(&self, offset: u64) -> u64 {
        route_index(offset).and_then(|spi| self.routes.get(spi)).copied().unwrap_or(0)
    }

    fn set_route(&mut self, offset: u64, value: u64) -> Change {
        let Some(spi) = route_index(offset) else { return Change::None };
        let Some(route) = self.routes.get_mut(spi) else { return Change::None };
        *route = value;
        Change::Spis { bank: spi / 32, bits: bit_mask(spi % 32) }
    }
}

impl Change {
    /// Both changes; within one write they concern the same bank.
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Spis { bank, bits }, Self::Spis { bits: more, .. }) => {
                Self::Spis { bank, bits: bits | more }
            }
            (Self::None, other) => other,
            (this, _) => this,
        }
    }
}

/// Number of the SPI (from 0) of a byte of IPRIORITYR.
fn priority_index(offset: u64) -> Option<usize> {
    let intid = offset.checked_sub(IPRIORITYR).filter(|_| offset < IPRIORITYR_END)?;
    spi_number(intid)
}

/// Number of the SPI (from 0) of an IROUTER.
fn route_index(offset: u64) -> Option<usize> {
    spi_number(offset.checked_sub(IROUTER)? / 8)
}

/// Bank and first interrupt in it of a word of ICFGR.
fn config_index(offset: u64) -> Option<(usize, usize)> {
    let first = spi_number(offset.checked_sub(ICFGR)? * 4)?;
    Some((first / 32, first % 32))
}

fn spi_number(intid: u64) -> Option<usize> {
    usize::try_from(intid.checked_sub(u64::from(FIRST_SPI))?).ok().filter(|&spi| spi < SPIS)
}

/// The identification registers PIDR4..7, PIDR0..3, CIDR0..3: a GICv3 by Arm.
pub(super) fn id_register(offset: u64, pidr0: u8) -> u32 {
    let values = [0x44, 0, 0, 0, pidr0, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];
    let index = offset.checked_sub(ID_REGISTERS).and_then(|bytes| usize::try_from(bytes / 4).ok());
    index.and_then(|n| values.get(n)).copied().map_or(0, u32::from)
}
