//! Devices of the guest's board, and the decoding of how it reaches them.

pub mod board;
pub mod form;
pub mod mmio;
pub mod pcie;
pub mod pl011;
pub mod psci;
pub mod transfer;
pub mod virtio;
