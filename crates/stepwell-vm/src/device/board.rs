//! The memory map of QEMU's `virt` board.
//!
//! What the board has and we do not emulate (the ITS) reads as zero and ignores writes, so that a kernel
//! with the board's own device tree finds dead hardware rather than an abort; so do flash and fw_cfg where
//! there is no firmware. The PCIe windows are there and
//! empty, at the top as well, where QEMU's default tree has them; so is configuration space, in both of
//! the places that a tree may name (`highmem=off` has the lower one). Where `virt` has nothing, neither
//! have we: the access is an external abort here and there.

use stepwell_arch::Ipa;

use crate::device::flash;
use crate::device::fw_cfg::{FW_CFG_BASE, FW_CFG_BYTES};
use crate::device::virtio::{SLOT_BYTES, SLOTS, VIRTIO_BASE};
use crate::vgic::{GICD_BASE, GICD_BYTES, GICR_BASE, GICR_BYTES, VCPUS_MAX};

/// First address of RAM.
pub const RAM_BASE: Ipa = Ipa(0x4000_0000);
/// The PL011.
pub const PL011_BASE: Ipa = Ipa(0x0900_0000);
/// Bytes of the PL011's frame.
pub const PL011_BYTES: u64 = 0x1000;
/// INTID of the PL011: SPI 1.
pub const PL011_INTID: u32 = 33;

/// The PL031.
pub const PL031_BASE: u64 = 0x0901_0000;
/// INTID of the PL031: SPI 2.
pub const PL031_INTID: u32 = 34;
/// The PL061.
pub const PL061_BASE: u64 = 0x0903_0000;
/// INTID of the PL061: SPI 7.
pub const PL061_INTID: u32 = 39;
/// Bytes of the frame of either.
pub const PRIMECELL_BYTES: u64 = 0x1000;

/// Who answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// The distributor: ask [`crate::vgic::Vgic`].
    Gicd,
    /// A redistributor: ask [`crate::vgic::Vgic`].
    Gicr,
    /// The UART, at this offset into its frame.
    Pl011(u64),
    /// A slot of virtio-mmio, at this offset.
    Virtio(usize, u64),
    /// A bank of flash, at this offset: memory, if the board has any.
    Flash(usize, u64),
    /// fw_cfg, at this offset.
    FwCfg(u64),
    /// The clock, at this offset into its frame.
    Pl031(u64),
    /// The power key's lines, at this offset into their frame.
    Pl061(u64),
    /// PCIe configuration space, at this offset.
    PcieConfiguration(u64),
    /// A device of the board that we leave out: reads as zero, ignores writes.
    Zeros,
    /// A PCIe window that nothing lies in: reads as ones, ignores writes.
    Ones,
    /// Nobody.
    Nothing,
}

impl Region {
    /// Bytes of the widest access that reaches it in one piece; wider ones go in words.
    #[must_use]
    pub const fn widest_bytes(&self) -> u8 {
        match self {
            Self::Gicd | Self::Gicr | Self::FwCfg(_) | Self::Zeros | Self::Ones | Self::Nothing => {
                8
            }
            Self::Pl011(_)
            | Self::Virtio(..)
            | Self::Flash(..)
            | Self::Pl031(_)
            | Self::Pl061(_)
            | Self::PcieConfiguration(_) => 4,
        }
    }
}

/// The PCIe windows: I/O and memory, and memory above RAM.
const PCIE_WINDOWS: [(u64, u64); 2] =
    [(0x1000_0000, 0x2f00_0000), (0x80_0000_0000, 0x80_0000_0000)];
/// PCIe configuration space: of 16 buses, and of 256.
const PCIE_CONFIGURATION: [(u64, u64); 2] =
    [(0x3f00_0000, 0x0100_0000), (0x40_1000_0000, 0x1000_0000)];

/// The ITS, which is left out: first address, bytes.
const ITS: (u64, u64) = (0x0808_0000, 0x0002_0000);

/// Tells who answers at an address that is not RAM, in a domain of `vcpus` vCPUs.
#[must_use]
pub fn region(address: Ipa, vcpus: usize) -> Region {
    let within = |base: u64, bytes: u64| address.0.checked_sub(base).filter(|&o| o < bytes);
    // First what most guests reach for most.
    if let Some(offset) = within(PL011_BASE.0, PL011_BYTES) {
        return Region::Pl011(offset);
    }
    let redistributors = GICR_BYTES * vcpus.min(VCPUS_MAX) as u64;
    if within(GICD_BASE.0, GICD_BYTES).is_some() {
        return Region::Gicd;
    }
    if within(GICR_BASE.0, redistributors).is_some() {
        return Region::Gicr;
    }
    if let Some(offset) = within(VIRTIO_BASE, SLOT_BYTES * SLOTS as u64) {
        let slot = usize::try_from(offset / SLOT_BYTES).unwrap_or(SLOTS);
        return Region::Virtio(slot, offset % SLOT_BYTES);
    }
    if let Some((bank, offset)) = flash::place(address) {
        return Region::Flash(bank, offset);
    }
    if let Some(offset) = within(FW_CFG_BASE, FW_CFG_BYTES) {
        return Region::FwCfg(offset);
    }
    if let Some(offset) = within(PL031_BASE, PRIMECELL_BYTES) {
        return Region::Pl031(offset);
    }
    if let Some(offset) = within(PL061_BASE, PRIMECELL_BYTES) {
        return Region::Pl061(offset);
    }
    let in_any = |ranges: &[(u64, u64)]| ranges.iter().find_map(|&(base, size)| within(base, size));
    if let Some(offset) = in_any(&PCIE_CONFIGURATION) {
        return Region::PcieConfiguration(offset);
    }
    if in_any(&PCIE_WINDOWS).is_some() {
        return Region::Ones;
    }
    if within(ITS.0, ITS.1).is_some() { Region::Zeros } else { Region::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_answers_at_their_own_addresses() {
        let at = |address| region(Ipa(address), 2);
        assert_eq!(at(0x0800_ffff), Region::Gicd);
        assert_eq!(at(0x080d_ffff), Region::Gicr);
        assert_eq!(at(0x080e_0000), Region::Nothing);
        assert_eq!(at(0x0900_0018), Region::Pl011(0x18));
        assert_eq!(at(0x0900_1000), Region::Nothing);
        assert_eq!(at(0x07ff_ffff), Region::Flash(1, 0x03ff_ffff));
        assert_eq!(at(0x0808_0000), Region::Zeros);
        assert_eq!(at(0x0901_0000), Region::Pl031(0));
        assert_eq!(at(0x0902_0017), Region::FwCfg(0x17));
        assert_eq!(at(0x0902_0018), Region::Nothing);
        assert_eq!(at(0x0903_0ffc), Region::Pl061(0xffc));
        assert_eq!(at(0x0a00_0000), Region::Virtio(0, 0));
        assert_eq!(at(0x0a00_3fff), Region::Virtio(31, 0x1ff));
        assert_eq!(at(0x0a00_4000), Region::Nothing);
        assert_eq!(at(0x0801_0000), Region::Nothing, "no CPU interface of GICv2's");
        assert_eq!(at(0x1000_0000), Region::Ones);
        assert_eq!(at(0x3eff_ffff), Region::Ones);
        assert_eq!(at(0x3fff_ffff), Region::PcieConfiguration(0xff_ffff));
        assert_eq!(at(0x40_0fff_ffff), Region::Nothing);
        assert_eq!(at(0x40_1000_0004), Region::PcieConfiguration(4));
        assert_eq!(at(0x40_2000_0000), Region::Nothing);
        assert_eq!(at(0xff_ffff_fff8), Region::Ones);
        assert_eq!(at(0x100_0000_0000), Region::Nothing);
        assert_eq!(at(0x4000_0000), Region::Nothing);
        assert_eq!(at(u64::MAX), Region::Nothing);
    }
}
