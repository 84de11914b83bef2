//! Devices of the guest's board, and the decoding of how it reaches them.

pub mod board;
pub mod flash;
pub mod form;
pub mod form32;
pub mod fw_cfg;
pub mod mmio;
pub mod pcie;
pub mod peripherals;
pub mod pl011;
pub mod pl031;
pub mod pl061;
pub mod psci;
pub mod transfer;
pub mod virtio;
