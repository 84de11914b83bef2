//! The guest's machine on a stock Linux host, in this process: the vCPU loop of `stepwell-vm` over
//! `/dev/kvm`.
//!
//! A vCPU is a thread, and what executes it a [`Cpu`](stepwell_vm::cpu::Cpu) whose `enter` is KVM_RUN.
//! What EL2 would be told by an exception KVM tells by an exit, and [`syndrome`] turns the one into the
//! other, so that the loop cannot tell. Everything of the board is ours: KVM has no interrupt controller
//! (the guest's is a GICv2 of `stepwell-vm`), and the level of each vCPU's interrupt line is what the
//! loop loads.
//!
//! What KVM does by itself, and does not ask us for, is in docs/kvm.md: PSCI, debug registers, ID
//! registers, the physical timer.
//!
//! The tool speaks with the machine as with a hypervisor in QEMU, over a stream; so all that is true of
//! one debuggee is true of the other.
//!
//! On other hosts there is nothing but the answer that there is no KVM for arm64.

#[cfg(target_os = "linux")]
pub mod calls;
mod channel;
mod error;
pub mod files;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod host;
#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
mod nowhere;
pub mod straight;
pub mod syndrome;

/// Where the guest's RAM begins: the first byte of its file is there.
pub const RAM_BASE: u64 = stepwell_vm::device::board::RAM_BASE.0;
/// Most vCPUs of a guest: its GICv2 has as many CPU interfaces.
pub const VCPUS_MAX: usize = stepwell_vm::domain::MAX_VCPUS;

pub use channel::ChannelWords;
pub use error::KvmError;
pub use files::Files;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub use host::{KvmMachine, Ring, describe};
#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
pub use nowhere::{KvmMachine, Ring, describe};
