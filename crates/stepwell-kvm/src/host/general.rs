//! X0 to X30 of a vCPU that is not in its guest.
//!
//! KVM hands registers out one by one, and each time loads the vCPU and puts it away again, which is much
//! of what an entry costs. Most exits are about two or three of them: so they are fetched when somebody
//! asks, and given back where they have changed.

#![expect(unsafe_code, reason = "an ioctl that kvm-ioctls has for the vCPU's own thread")]

use super::registers;
use kvm_bindings::{KVMIO, kvm_one_reg};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use stepwell_vm::cpu::GENERAL;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

ioctl_iow_nr!(KVM_GET_ONE_REG, KVMIO, 0xab, kvm_one_reg);

/// All of them, one bit each.
const ALL: u32 = (1 << GENERAL) - 1;

/// Whoever reads a vCPU's registers, whichever thread that is.
pub struct Reader(OwnedFd);

impl Reader {
    /// Reads those of a vCPU.
    ///
    /// # Errors
    ///
    /// Where the process has no file descriptor left.
    pub fn of(vcpu: &impl AsRawFd) -> io::Result<Self> {
        // SAFETY: it is open as long as what it is borrowed from.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        Ok(Self(fd.try_clone_to_owned()?))
    }

    fn read(&self, id: u64) -> u64 {
        let mut value = 0_u64;
        let wanted = kvm_one_reg { id, addr: &raw mut value as u64 };
        // SAFETY: the kernel reads the structure, and writes as many bytes to `addr` as `id` says, 8.
        let _always_there = unsafe { ioctl_with_ref(&self.0, KVM_GET_ONE_REG(), &wanted) };
        value
    }
}

/// The registers.
pub struct General {
    values: [Cell<u64>; GENERAL],
    /// The value is the guest's: one bit each.
    known: Cell<u32>,
    /// KVM has another one.
    changed: u32,
    reader: Reader,
}

impl General {
    /// All of them zero.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self {
            values: [const { Cell::new(0) }; GENERAL],
            known: Cell::new(ALL),
            changed: ALL,
            reader,
        }
    }

    /// Reads Xn, where 31 is XZR.
    #[must_use]
    pub fn read(&self, n: u8) -> u64 {
        let Some(place) = self.values.get(usize::from(n)) else { return 0 };
        if self.known.get() >> n & 1 == 0 {
            place.set(self.reader.read(registers::x(n.into())));
            self.known.set(self.known.get() | 1 << n);
        }
        place.get()
    }

    /// Writes Xn, where 31 is XZR.
    pub fn write(&mut self, n: u8, value: u64) {
        if let Some(place) = self.values.get_mut(usize::from(n)) {
            place.set(value);
            self.known.set(self.known.get() | 1 << n);
            self.changed |= 1 << n;
        }
    }

    /// Gives back those that KVM has otherwise, as numbers and values.
    pub fn take_changed(&mut self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let changed = std::mem::take(&mut self.changed);
        let all = self.values.iter().map(Cell::get).enumerate();
        all.filter(move |(n, _)| changed >> n & 1 != 0)
    }

    /// The guest has executed something.
    pub fn forget(&self) {
        self.known.set(0);
    }
}
