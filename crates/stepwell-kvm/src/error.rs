//! Why a machine could not be made.

use std::io;

/// Why a machine could not be made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The host cannot run arm64 guests.
    #[error("this is no arm64 Linux, where KVM could run the guest: use --machine qemu")]
    OtherHost,
    /// There is no such device.
    #[error(
        "there is no /dev/kvm: the kernel has no KVM, or was not started at EL2; use --machine qemu"
    )]
    NoDevice,
    /// The device is there, for others.
    #[error(
        "/dev/kvm may not be opened by this user: it belongs to the group {group}; as root: \
         usermod -aG {group} USER, then log in again"
    )]
    NoPermission {
        /// The device's group.
        group: String,
    },
    /// KVM lacks what cannot be done without.
    #[error(
        "this kernel's KVM cannot {0}: use a newer kernel (6.1 is known to do), or --machine qemu"
    )]
    Lacks(&'static str),
    /// What is loaded does not fit.
    #[error("kernel, ramdisk and device tree do not fit into the guest's {mib} MiB: give it more")]
    DoesNotFit {
        /// The guest's memory.
        mib: u64,
    },
    /// Memory was refused.
    #[error("the host has no {mib} MiB of memory for the guest ({error}): give it less")]
    NoMemory {
        /// The guest's memory.
        mib: u64,
        /// The kernel's reason.
        error: io::Error,
    },
    /// More vCPUs than there can be.
    #[error(
        "a guest has at most {most} vCPU here, and not {wanted} ({why}): --machine qemu has more"
    )]
    Vcpus {
        /// How many were asked for.
        wanted: usize,
        /// How many there can be.
        most: usize,
        /// What keeps it from more.
        why: &'static str,
    },
    /// A system call failed.
    #[error("KVM refused to {what}: {error}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The kernel's reason.
        error: io::Error,
    },
}
