//! The virtual GIC of one domain: a GICv3, or a GICv2 in front of the same interrupts.
//!
//! The guest's distributor and redistributors are emulated here; its CPU interface is hardware's,
//! fed through list registers. The rule that keeps the two consistent is the simplest there is:
//! list registers are filled from software state before every entry ([`Vgic::flush`]) and taken
//! back into it after every exit ([`Vgic::sync`]). Between those, software state is the whole
//! truth, so that holding interrupts back, changing their priority or moving them to another vCPU
//! needs no special case.
//!
//! What runs on other CPUs meanwhile is the one subtlety: [`bank`] says how a change to an
//! interrupt in a list register of a running vCPU is kept, [`Vgic::take_kicks`] whom it concerns,
//! and [`Vgic::holders`] whom to stop for a reading that is exact.
//!
//! Invariants: an SPI is in the list registers of at most one vCPU. An active interrupt is in those
//! of the vCPU that acknowledged it, room permitting. Nothing here indexes by a guest's number
//! unchecked.
//!
//! A GICv2 has another distributor ([`gicv2`]), and a CPU interface in memory ([`gicc`]), which is ours:
//! for a CPU that does not let list registers be filled.
//!
//! Not in here: hardware interrupts (no list register has HW set; the physical timer's interrupt is
//! resampled into [`Vgic::set_line`] by the vCPU loop), LPIs, the ITS.

mod bank;
mod gicc;
mod gicd;
mod gicr;
mod gicv2;
pub mod list_registers;
mod load;
mod sgi;
#[cfg(test)]
mod tests;

use bank::{Bank, WordRegister, bit_mask, bits};
pub use gicc::GICC_BYTES;
use gicd::{Change, Distributor, FIRST_SPI, SPI_BANKS};
use gicr::Redistributor;
use gicv2::Version2;
pub use list_registers::{CpuInterface, ListRegister, Signal};
use load::{Entry, Loaded};
use sgi::SgiRequest;
use stepwell_arch::Ipa;

/// The most vCPUs a domain can have.
pub const VCPUS_MAX: usize = 8;
/// Where the guest finds the distributor.
pub const GICD_BASE: Ipa = Ipa(0x0800_0000);
/// Bytes of the distributor's frame.
pub const GICD_BYTES: u64 = 0x1_0000;
/// Where the guest finds the redistributors.
pub const GICR_BASE: Ipa = Ipa(0x080a_0000);
/// Where the guest finds the CPU interface, if it has a GICv2.
pub const GICC_BASE: Ipa = Ipa(0x0801_0000);
/// Bytes of redistributor frames for each vCPU.
pub const GICR_BYTES: u64 = gicr::FRAMES;

/// The domain's interrupt controller. SPIs are INTIDs 32 to 287, as on QEMU's `virt`; the affinity
/// of vCPU n is n in Aff0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vgic {
    vcpus: usize,
    distributor: Distributor,
    redistributors: [Redistributor; VCPUS_MAX],
    /// What each vCPU's list registers were filled with.
    loaded: [Loaded; VCPUS_MAX],
    kicks: u8,
    /// Who waits for whose list registers.
    awaited: Awaited,
    /// What a GICv2 has beside all that; none in a GICv3.
    version_2: Option<Version2>,
}

/// An address of ours, taken apart.
#[derive(Clone, Copy)]
enum Frame {
    Distributor(u64),
    Redistributor { vcpu: usize, offset: u64 },
}

impl Vgic {
    /// Returns the controller at reset, for 1 to [`VCPUS_MAX`] vCPUs.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            vcpus: vcpus.clamp(1, VCPUS_MAX),
            distributor: Distributor::new(),
            redistributors: [const { Redistributor::new() }; VCPUS_MAX],
            loaded: [const { Loaded::new() }; VCPUS_MAX],
            kicks: 0,
            awaited: Awaited::default(),
            version_2: None,
        }
    }

    /// Tells whether the controller answers at an address.
    #[must_use]
    pub fn contains(&self, address: Ipa) -> bool {
        self.frame(address).is_some()
    }

    fn frame(&self, address: Ipa) -> Option<Frame> {
        if let Some(offset) =
            address.0.checked_sub(GICR_BASE.0).filter(|_| self.version_2.is_none())
        {
            let vcpu = usize::try_from(offset / GICR_BYTES).ok().filter(|&n| n < self.vcpus)?;
            return Some(Frame::Redistributor { vcpu, offset: offset % GICR_BYTES });
        }
        let offset = address.0.checked_sub(GICD_BASE.0).filter(|&offset| offset < GICD_BYTES)?;
        Some(Frame::Distributor(offset))
    }

    /// Performs a guest's load of 1, 2, 4 or 8 bytes. `vcpu` has been synced since its exit.
    #[must_use]
    pub fn mmio_read(&mut self, vcpu: usize, address: Ipa, bytes: u8) -> u64 {
        if !address.is_aligned(u64::from(bytes)) {
            return 0;
        }
        match self.frame(address) {
            Some(Frame::Distributor(offset)) if self.is_version_2() => {
                self.read_distributor_2(vcpu, offset, bytes)
            }
            Some(Frame::Distributor(offset)) => self.distributor.read(offset, bytes),
            Some(Frame::Redistributor { vcpu, offset }) => self
                .redistributors
                .get(vcpu)
                .map_or(0, |r| r.read(offset, bytes, gicr::typer(vcpu, self.vcpus))),
            None => 0,
        }
    }

    /// Performs a guest's store of 1, 2, 4 or 8 bytes. `vcpu` has been synced since its exit.
    pub fn mmio_write(&mut self, vcpu: usize, address: Ipa, bytes: u8, value: u64) {
        if !address.is_aligned(u64::from(bytes)) {
            return;
        }
        match self.frame(address) {
            Some(Frame::Distributor(offset)) if self.is_version_2() => {
                self.write_distributor_2(vcpu, offset, bytes, value);
            }
            Some(Frame::Distributor(offset)) => {
                self.write_distributor(vcpu, offset, bytes, value);
            }
            Some(Frame::Redistributor { vcpu: owner, offset }) => {
                let Some(redistributor) = self.redistributors.get_mut(owner) else { return };
                let changed = redistributor.write(offset, bytes, value);
                self.notice_private(owner, changed, Some(vcpu));
            }
            None => {}
        }
    }

    fn write_distributor(&mut self, vcpu: usize, offset: u64, bytes: u8, value: u64) {
        match self.distributor.write(offset, bytes, value) {
            Change::None => {}
            Change::Spis { bank, bits: changed } => {
                if matches!(WordRegister::decode(offset), Some((WordRegister::SetActive, _))) {
                    self.settle_active(bank, changed);
                }
                self.notice_spis(bank, changed, Some(vcpu));
            }
            Change::Everything => {
                self.kicks |= mask_of(self.vcpus) & !bit_of(vcpu);
            }
        }
    }

    /// Gives SPIs that a write made active, and no vCPU acknowledged, a vCPU to be active on.
    fn settle_active(&mut self, bank: usize, changed: u32) {
        for bit in bits(changed) {
            let spi = bank * 32 + bit;
            let target = self.distributor.target(spi, self.vcpus).unwrap_or(0);
            self.distributor.set_home(spi, target);
        }
    }

    /// Returns the other vCPUs whose list registers hold interrupts that this register tells the
    /// pending or active state of. Before an access they are to exit and be synced: what they have
    /// acknowledged and ended since their last entry is known to their list registers alone.
    #[must_use]
    pub fn holders(&self, vcpu: usize, address: Ipa) -> u8 {
        let shows = |offset| {
            WordRegister::decode(offset).filter(|(register, _)| register.shows_loaded_state())
        };
        let holders = match self.frame(address) {
            Some(Frame::Distributor(offset)) => {
                let Some((_, word)) = shows(offset) else { return 0 };
                self.holders_of_spis(|intid| intid / 32 == word)
            }
            Some(Frame::Redistributor { vcpu: owner, offset }) => {
                let Some((_, 0)) = offset.checked_sub(0x1_0000).and_then(shows) else { return 0 };
                let holds = self.redistributors.get(owner).is_some_and(|r| r.bank.loaded != 0);
                if holds { bit_of(owner) } else { 0 }
            }
            None => 0,
        };
        holders & !bit_of(vcpu)
    }

    /// As [`Vgic::holders`], of the one interrupt that a write of ICC_DIR_EL1 names.
    #[must_use]
    pub fn holder_of(&self, vcpu: usize, value: u64) -> u8 {
        self.holders_of_spis(|intid| intid as u64 == value & 0xff_ffff) & !bit_of(vcpu)
    }

    fn holders_of_spis(&self, is_meant: impl Fn(usize) -> bool) -> u8 {
        let is_one = |entry: &Entry| entry.intid >= FIRST_SPI as usize && is_meant(entry.intid);
        let vcpus = (0..).zip(&self.loaded).filter(|(_, loaded)| loaded.entries().any(is_one));
        vcpus.fold(0, |mask, (n, _)| mask | bit_of(n))
    }

    /// Has `vcpu` wait until each of `others` has been synced once, or no longer where there are none.
    pub fn wait_for(&mut self, vcpu: usize, others: u8) {
        self.awaited.set(vcpu, others);
    }

    /// Those that `vcpu` still waits for.
    #[must_use]
    pub fn awaited_by(&self, vcpu: usize) -> u8 {
        self.awaited.by(vcpu)
    }

    /// Drives an interrupt input: an SPI with `vcpu` none, a PPI of `vcpu` else.
    pub fn set_line(&mut self, intid: u32, vcpu: Option<usize>, level: bool) {
        self.drive(intid, vcpu, |bank, bit| bank.set_line(bit, level));
    }

    /// Tells whether a PPI or SGI of a vCPU is pending, not active, and would be in a list register
    /// of it: between `sync` and `flush`; or was put into one, between `flush` and the entry.
    #[must_use]
    pub fn is_offered(&self, vcpu: usize, intid: u32) -> bool {
        let groups = self.distributor.groups();
        let bank = self.redistributors.get(vcpu).map(|redistributor| &redistributor.bank);
        let bit = 1_u32.checked_shl(intid).unwrap_or(0);
        bank.is_some_and(|bank| bank.offered(groups) & bit != 0)
    }

    /// Gives an interrupt input a rising edge and takes it back: an edge-triggered interrupt
    /// becomes pending, a level-sensitive one only was for no time at all.
    pub fn pulse(&mut self, intid: u32, vcpu: Option<usize>) {
        self.drive(intid, vcpu, |bank, bit| bank.set_latch(bit & bank.edge));
    }

    fn drive(&mut self, intid: u32, vcpu: Option<usize>, act: impl Fn(&mut Bank, u32) -> u32) {
        let Ok(number) = usize::try_from(intid) else { return };
        match vcpu {
            Some(owner) if (16..32).contains(&number) && owner < self.vcpus => {
                let Some(redistributor) = self.redistributors.get_mut(owner) else { return };
                let changed = act(&mut redistributor.bank, bit_mask(number));
                self.notice_private(owner, changed, None);
            }
            None if intid >= FIRST_SPI => {
                let index = number / 32 - 1;
                let Some(bank) = self.distributor.bank_mut(index) else { return };
                let changed = act(bank, bit_mask(number % 32));
                self.notice_spis(index, changed, None);
            }
            _ => {}
        }
    }

    /// Performs a trapped write of ICC_SGI1R_EL1: SGIs for vCPUs that have them in Group 1.
    pub fn write_sgi1r(&mut self, from: usize, value: u64) {
        self.generate_sgi(from, value, true);
    }

    /// Performs a trapped write of ICC_SGI0R_EL1: SGIs for vCPUs that have them in Group 0. With
    /// one Security state ICC_ASGI1R_EL1 does the same.
    pub fn write_sgi0r(&mut self, from: usize, value: u64) {
        self.generate_sgi(from, value, false);
    }

    fn generate_sgi(&mut self, from: usize, value: u64, group1: bool) {
        let request = SgiRequest::decode(value);
        let bit = bit_mask(request.intid);
        for target in (0..self.vcpus).filter(|&vcpu| request.reaches(vcpu, from)) {
            let Some(redistributor) = self.redistributors.get_mut(target) else { continue };
            let bank = &mut redistributor.bank;
            if (bank.group & bit != 0) == group1 {
                let changed = bank.set_latch(bit);
                self.notice_private(target, changed, Some(from));
            }
        }
    }

    /// Returns the vCPUs that must exit and flush again to notice what happened to their
    /// interrupts since the last call. The vCPU on whose behalf the caller acts may be among them.
    pub fn take_kicks(&mut self) -> u8 {
        core::mem::take(&mut self.kicks)
    }

    /// Kicks a vCPU whose SGIs or PPIs changed, unless it changed them itself.
    fn notice_private(&mut self, owner: usize, changed: u32, from: Option<usize>) {
        let groups = self.distributor.groups();
        let Some(redistributor) = self.redistributors.get(owner) else { return };
        let bank = &redistributor.bank;
        if from != Some(owner) && changed & (bank.deliverable(groups) | bank.loaded) != 0 {
            self.kicks |= bit_of(owner);
        }
    }

    /// Kicks the vCPUs that changed SPIs concern, apart from the one that changed them.
    fn notice_spis(&mut self, index: usize, changed: u32, from: Option<usize>) {
        let groups = self.distributor.groups();
        let Some(bank) = self.distributor.bank(index) else { return };
        let loaded = bank.loaded;
        for bit in bits(changed & (bank.deliverable(groups) | loaded)) {
            let spi = index * 32 + bit;
            let concerned = if loaded & bit_mask(bit) != 0 {
                self.loaded.iter().position(|loaded| loaded.entries().any(|e| e.intid == spi + 32))
            } else {
                self.distributor.target(spi, self.vcpus)
            };
            if let Some(vcpu) = concerned.filter(|&vcpu| from != Some(vcpu)) {
                self.kicks |= bit_of(vcpu);
            }
        }
    }
}

/// Which vCPUs each vCPU waits for: eight bits for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Awaited(u64);

impl Awaited {
    fn by(self, vcpu: usize) -> u8 {
        self.0.to_le_bytes().get(vcpu).copied().unwrap_or(0)
    }

    fn set(&mut self, vcpu: usize, others: u8) {
        let mut bytes = self.0.to_le_bytes();
        if let Some(byte) = bytes.get_mut(vcpu) {
            *byte = others;
        }
        self.0 = u64::from_le_bytes(bytes);
    }

    /// Nobody waits for this one any more.
    fn no_longer(&mut self, vcpu: usize) {
        self.0 &= !(u64::from(bit_of(vcpu)) * 0x0101_0101_0101_0101);
    }
}

/// The mask of one vCPU; zero when there is no such vCPU.
fn bit_of(vcpu: usize) -> u8 {
    u32::try_from(vcpu).ok().and_then(|n| 1u8.checked_shl(n)).unwrap_or(0)
}

/// The mask of the first `vcpus`.
fn mask_of(vcpus: usize) -> u8 {
    (0..vcpus).fold(0, |mask, vcpu| mask | bit_of(vcpu))
}

const _: () = assert!(SPI_BANKS * 32 <= 1020 - 32, "SPIs end at INTID 1019");
