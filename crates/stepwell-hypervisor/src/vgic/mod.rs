//! Virtual GICv3 of one domain (signatures first; bodies follow).
#![forbid(unsafe_code)]

use stepwell_arch::Ipa;

pub mod list_registers;
pub use list_registers::CpuInterface;

/// The domain's interrupt controller.
#[derive(Debug)]
pub struct Vgic {
    vcpus: usize,
    kicks: u8,
}

impl Vgic {
    /// At reset. SPIs are INTID 32..=287 as on QEMU's virt.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self { vcpus, kicks: 0 }
    }
    /// Whether the address is one of ours.
    #[must_use]
    pub fn contains(&self, address: Ipa) -> bool {
        address.0 < self.vcpus as u64
    }
    /// A guest's load. Call `sync` for `vcpu` before (as after every exit).
    pub fn mmio_read(&mut self, vcpu: usize, address: Ipa, bytes: u8) -> u64 {
        let _ = (vcpu, address, bytes);
        0
    }
    /// A guest's store. Call `sync` for `vcpu` before.
    pub fn mmio_write(&mut self, vcpu: usize, address: Ipa, bytes: u8, value: u64) {
        let _ = (vcpu, address, bytes, value);
    }
    /// Other vCPUs whose list registers hold the truth about what this register shows (pending and
    /// active state of SPIs); kick them, let them `sync`, then do the access, if you want it exact.
    #[must_use]
    pub fn holders(&self, vcpu: usize, address: Ipa) -> u8 {
        let _ = (vcpu, address);
        0
    }
    /// Drives an input: SPI (`vcpu` None) or PPI.
    pub fn set_line(&mut self, intid: u32, vcpu: Option<usize>, level: bool) {
        let _ = (intid, vcpu, level);
    }
    /// A rising edge and back.
    pub fn pulse(&mut self, intid: u32, vcpu: Option<usize>) {
        let _ = (intid, vcpu);
    }
    /// Trapped ICC_SGI1R_EL1.
    pub fn write_sgi1r(&mut self, from: usize, value: u64) {
        let _ = (from, value);
    }
    /// Trapped ICC_SGI0R_EL1 or ICC_ASGI1R_EL1 (the same with one Security state).
    pub fn write_sgi0r(&mut self, from: usize, value: u64) {
        let _ = (from, value);
    }
    /// Trapped ICC_DIR_EL1 (only while ICH_HCR_EL2.TDIR is set by `flush`).
    pub fn write_dir(&mut self, vcpu: usize, value: u64) {
        let _ = (vcpu, value);
    }
    /// Before entry: fills `interface.lr` and `.hcr`.
    pub fn flush(&mut self, vcpu: usize, hold: bool, interface: &mut CpuInterface) {
        let _ = (vcpu, hold, interface);
    }
    /// After exit, once per flush: takes the list registers back; returns the PPIs (bit = INTID) deactivated.
    pub fn sync(&mut self, vcpu: usize, interface: &CpuInterface) -> u32 {
        let _ = (vcpu, interface);
        0
    }
    /// WFI wake-up: would an interrupt be signalled (after `sync`), whatever PSTATE says?
    #[must_use]
    pub fn has_pending(&self, vcpu: usize, interface: &CpuInterface) -> bool {
        let _ = (vcpu, interface);
        false
    }
    /// vCPUs that must exit to notice something; clears the mask.
    pub fn take_kicks(&mut self) -> u8 {
        core::mem::take(&mut self.kicks)
    }
}
