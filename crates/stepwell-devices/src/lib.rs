//! What is behind the guest's virtio devices, on the tool's side: disks, a network, shared folders, random bytes,
//! and the queues by which they are asked for.
//!
//! The transport is EL2's (`stepwell_vm::device::virtio`). For a queue that was notified EL2 asks here
//! ([`stepwell_wire::devices`]), and the vCPU waits for the answer. A thread of its own serves
//! ([`Serving`]), so that nothing that the tool does meanwhile keeps a guest waiting.
//!
//! Queues are read by rust-vmm's `virtio-queue`, from a mapping of the guest's RAM that cannot be written:
//! what a device writes goes back as an answer, and EL2 writes it. What the indices of a queue are is
//! EL2's to keep; nothing is known here from one request to the next but the disks themselves.
//!
//! **Whatever a driver does**, the guest alone suffers: what is not in its RAM is not touched, a chain
//! that is none breaks its device until that is reset, as on QEMU's board, and no request takes more
//! than its buffers can hold.

mod block;
mod entropy;
#[cfg(test)]
mod hostile;
mod image;
mod memory;
mod network;
mod queue;
mod server;
mod share;

pub use block::Disk;
pub use entropy::{Entropy, Source};
pub use image::{DiskError, DiskOptions, Image};
pub use memory::GuestRam;
pub use network::{Network, NetworkError, NetworkOptions};
pub use queue::{Answer, Broken, Buffers, Device, Identity, serve};
pub use server::{Devices, Serving, Wake};
pub use share::{Share, ShareError, ShareOptions, ShareOptionsError, demand_names_differ};
