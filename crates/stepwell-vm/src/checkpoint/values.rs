//! What a domain is at a moment, but for its RAM: as values.

use crate::device::peripherals::Registers;
use crate::device::pl011::Pl011;
use crate::device::virtio::Virtio;
use crate::timeline::Timeline;
use crate::vcpu::state::VcpuValues;
use crate::vgic::Vgic;
use alloc::vec::Vec;

/// The values of a domain whose vCPUs are all stopped.
pub(super) struct Values {
    pub(super) timeline: Option<Timeline>,
    pub(super) vgic: Vgic,
    pub(super) uart: Pl011,
    pub(super) virtio: Virtio,
    pub(super) peripherals: Registers,
    /// vCPUs that are on: one bit each.
    pub(super) on: u8,
    pub(super) vcpus: Vec<VcpuValues>,
}
