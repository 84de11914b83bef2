//! The memory map of QEMU's `virt` board.
//!
//! What the board has and we do not emulate reads as zero and ignores writes, so that a kernel with
//! the board's own device tree finds dead hardware rather than an abort. The PCIe windows are there and
//! empty, at the top as well, where QEMU's default tree has them; so is configuration space, in both of
//! the places that a tree may name (`highmem=off` has the lower one). Where `virt` has nothing, neither
//! have we: the access is an external abort here and there.

use stepwell_arch::Ipa;

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
    /// PCIe configuration space, at this offset.
    PcieConfiguration(u64),
    /// A device of the board that we leave out: reads as zero, ignores writes.
    Zeros(&'static str),
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
            Self::Gicd | Self::Gicr | Self::Zeros(_) | Self::Ones | Self::Nothing => 8,
            Self::Pl011(_) | Self::Virtio(..) | Self::PcieConfiguration(_) => 4,
        }
    }
}

/// The PCIe windows: I/O and memory, and memory above RAM.
const PCIE_WINDOWS: [(u64, u64); 2] =
    [(0x1000_0000, 0x2f00_0000), (0x80_0000_0000, 0x80_0000_0000)];
/// PCIe configuration space: of 16 buses, and of 256.
const PCIE_CONFIGURATION: [(u64, u64); 2] =
    [(0x3f00_0000, 0x0100_0000), (0x40_1000_0000, 0x1000_0000)];

/// The devices left out: first address, bytes, name.
const LEFT_OUT: [(u64, u64, &str); 5] = [
    (0x0000_0000, 0x0800_0000, "flash"),
    (0x0808_0000, 0x0002_0000, "ITS"),
    (0x0901_0000, 0x0000_1000, "PL031"),
    (0x0902_0000, 0x0000_0018, "fw-cfg"),
    (0x0903_0000, 0x0000_1000, "PL061"),
];

/// Tells who answers at an address that is not RAM, in a domain of `vcpus` vCPUs.
#[must_use]
pub fn region(address: Ipa, vcpus: usize) -> Region {
    let within = |base: u64, bytes: u64| address.0.checked_sub(base).filter(|&o| o < bytes);
    let redistributors = GICR_BYTES * vcpus.min(VCPUS_MAX) as u64;
    if within(GICD_BASE.0, GICD_BYTES).is_some() {
        return Region::Gicd;
    }
    if within(GICR_BASE.0, redistributors).is_some() {
        return Region::Gicr;
    }
    if let Some(offset) = within(PL011_BASE.0, PL011_BYTES) {
        return Region::Pl011(offset);
    }
    if let Some(offset) = within(VIRTIO_BASE, SLOT_BYTES * SLOTS as u64) {
        let slot = usize::try_from(offset / SLOT_BYTES).unwrap_or(SLOTS);
        return Region::Virtio(slot, offset % SLOT_BYTES);
    }
    let in_any = |ranges: &[(u64, u64)]| ranges.iter().find_map(|&(base, size)| within(base, size));
    if let Some(offset) = in_any(&PCIE_CONFIGURATION) {
        return Region::PcieConfiguration(offset);
    }
    if in_any(&PCIE_WINDOWS).is_some() {
        return Region::Ones;
    }
    LEFT_OUT
        .iter()
        .find(|(base, bytes, _)| within(*base, *bytes).is_some())
        .map_or(Region::Nothing, |&(_, _, name)| Region::Zeros(name))
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
        assert_eq!(at(0x07ff_ffff), Region::Zeros("flash"));
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
