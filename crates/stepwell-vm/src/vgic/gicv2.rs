//! The distributor of a GICv2, in front of the same interrupts.
//!
//! SGIs and PPIs are banked in the distributor rather than in redistributors, an SPI names its vCPUs by
//! a bit each (GICD_ITARGETSR), and an SGI tells who has sent it: one that several have sent is pending
//! once for each.
//!
//! It is that of a Cortex-A15 as QEMU's `virt` with `gic-version=2` has it: two groups, no Security
//! Extensions. An SPI for several vCPUs goes to the first of them, as the architecture leaves open
//! ("1-N model"). A reserved register, or an access of a size that its register does not have, reads
//! as zero and ignores writes.
//!
//! Source: Arm Generic Interrupt Controller, architecture version 2.0 (IHI 0048), "Distributor register
//! descriptions".

use super::bank::{WordRegister, bit_mask, bits};
use super::gicd::SPI_BANKS;
use super::{VCPUS_MAX, Vgic, bit_of, mask_of};

const SPIS: usize = SPI_BANKS * 32;
const SGIS: usize = 16;
/// SGIs among the interrupts of a word.
const SGI_BITS: u32 = 0xffff;
/// Where an SPI goes that names nobody: no vCPU has this affinity.
const NOWHERE: u64 = 0xff_0000_0000;

const CTLR: u64 = 0x000;
const TYPER: u64 = 0x004;
const IIDR: u64 = 0x008;
const BANKED_WORD_END: u64 = 0x80;
const IPRIORITYR: u64 = 0x400;
const BANKED_PRIORITY_END: u64 = 0x420;
const ITARGETSR: u64 = 0x800;
const ITARGETSR_END: u64 = 0xc00;
const ICFGR: u64 = 0xc00;
const BANKED_CONFIG_END: u64 = 0xc08;
const SGIR: u64 = 0xf00;
const CPENDSGIR: u64 = 0xf10;
const SPENDSGIR: u64 = 0xf20;
const SPENDSGIR_END: u64 = 0xf30;
const ID_REGISTERS: u64 = 0xfd0;
/// Bytes of the registers; the frame is longer.
const REGISTERS_END: u64 = 0x1000;
/// SGI_base in the frames of a redistributor, which has the same registers as the banked ones.
const SGI_BASE: u64 = 0x1_0000;

/// ITLinesNumber 8: SGIs, PPIs and 256 SPIs.
const TYPER_VALUE: u32 = 8;
/// Where TYPER has the number of CPU interfaces, less one.
const TYPER_CPUS_SHIFT: u32 = 5;
/// Arm, revision 0.
const IIDR_VALUE: u32 = 0x43b;
/// PIDR4 to 7, PIDR0 to 3, CIDR0 to 3: a GICv2 by Arm.
const ID_VALUES: [u8; 12] = [0x04, 0, 0, 0, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 0x05, 0xb1];

/// What a GICv2 keeps beside what both have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version2 {
    /// GICD_ITARGETSR of the SPIs.
    targets: [u8; SPIS],
    /// Who has sent an SGI that is pending, by its receiver and its number: one bit each.
    senders: [[u8; SGIS]; VCPUS_MAX],
}

impl Version2 {
    const fn new() -> Self {
        Self { targets: [0; SPIS], senders: [[0; SGIS]; VCPUS_MAX] }
    }

    pub(super) fn senders(&mut self, to: usize, sgi: usize) -> Option<&mut u8> {
        self.senders.get_mut(to)?.get_mut(sgi)
    }
}

impl Vgic {
    /// Returns a GICv2 at reset, for 1 to [`VCPUS_MAX`] vCPUs.
    #[must_use]
    pub fn version_2(vcpus: usize) -> Self {
        let mut vgic = Self { version_2: Some(Version2::new()), ..Self::new(vcpus) };
        for redistributor in &mut vgic.redistributors {
            // SGIs cannot be disabled.
            redistributor.bank.enabled = SGI_BITS;
        }
        // The only vCPU has them all.
        let nobody = if vgic.vcpus == 1 { 0 } else { NOWHERE };
        for spi in 0..SPIS {
            vgic.distributor.set_affinity(spi, nobody);
        }
        vgic
    }

    /// Tells whether the guest has a GICv2.
    #[must_use]
    pub const fn is_version_2(&self) -> bool {
        self.version_2.is_some()
    }

    /// The first that has sent an SGI that is pending, or the vCPU itself, where nobody has.
    pub(super) fn sender(&mut self, vcpu: usize, sgi: usize) -> Option<u8> {
        let senders = *self.version_2.as_mut()?.senders(vcpu, sgi)?;
        Some(if senders == 0 { vcpu as u8 } else { senders.trailing_zeros() as u8 })
    }

    /// An SGI was acknowledged, as sent by this vCPU. It stays pending for others that have sent it.
    pub(super) fn take_sender(&mut self, vcpu: usize, sgi: usize, sender: u64) {
        let senders = self.version_2.as_mut().and_then(|own| own.senders(vcpu, sgi));
        let Some(senders) = senders else { return };
        *senders &= !(1_u64 << sender) as u8;
        if *senders != 0
            && let Some(own) = self.redistributors.get_mut(vcpu)
        {
            let _changed = own.bank.set_latch(bit_mask(sgi));
        }
    }

    /// A guest's load from the distributor.
    pub(super) fn read_distributor_2(&self, vcpu: usize, offset: u64, bytes: u8) -> u64 {
        if !matches!(bytes, 1 | 4) || offset >= REGISTERS_END {
            return 0;
        }
        if is_banked(offset) {
            let own = self.redistributors.get(vcpu);
            return own.map_or(0, |own| own.read(SGI_BASE + offset, bytes, 0));
        }
        let by_bytes = |byte: &dyn Fn(u64) -> u8| {
            (0..u64::from(bytes)).fold(0, |word, n| word | u64::from(byte(offset + n)) << (8 * n))
        };
        match offset {
            CTLR => u64::from(self.distributor.group_enables()),
            TYPER => {
                let others = self.vcpus.saturating_sub(1) as u32;
                u64::from(TYPER_VALUE | others << TYPER_CPUS_SHIFT)
            }
            IIDR => u64::from(IIDR_VALUE),
            ITARGETSR..ITARGETSR_END => by_bytes(&|at| self.target_byte(vcpu, at)),
            CPENDSGIR..SPENDSGIR_END => by_bytes(&|at| self.sender_byte(vcpu, at)),
            ID_REGISTERS..REGISTERS_END => {
                let index = usize::try_from((offset - ID_REGISTERS) / 4).ok();
                index.and_then(|n| ID_VALUES.get(n)).copied().map_or(0, u64::from)
            }
            _ => self.distributor.read(offset, bytes),
        }
    }

    /// A guest's store into the distributor.
    pub(super) fn write_distributor_2(&mut self, vcpu: usize, offset: u64, bytes: u8, value: u64) {
        if !matches!(bytes, 1 | 4) || offset >= REGISTERS_END {
            return;
        }
        if is_banked(offset) {
            return self.write_banked(vcpu, offset, bytes, value);
        }
        match offset {
            ITARGETSR..ITARGETSR_END => {
                for (at, byte) in (offset..).zip(value.to_le_bytes()).take(usize::from(bytes)) {
                    self.set_targets(vcpu, at, byte);
                }
            }
            SGIR if bytes == 4 => self.generate_sgi_2(vcpu, value),
            CPENDSGIR..SPENDSGIR_END => {
                for (at, byte) in (offset..).zip(value.to_le_bytes()).take(usize::from(bytes)) {
                    self.change_senders(vcpu, at, byte);
                }
            }
            _ => self.write_distributor(vcpu, offset, bytes, value),
        }
    }

    /// SGIs and PPIs of the vCPU that writes. What is pending of an SGI has registers of its own, and
    /// one cannot be disabled.
    fn write_banked(&mut self, vcpu: usize, offset: u64, bytes: u8, value: u64) {
        let Some(own) = self.redistributors.get_mut(vcpu) else { return };
        let kept = match WordRegister::decode(offset) {
            Some((
                WordRegister::SetEnable
                | WordRegister::ClearEnable
                | WordRegister::SetPending
                | WordRegister::ClearPending,
                _,
            )) => value & !u64::from(SGI_BITS),
            _ => value,
        };
        let changed = own.write(SGI_BASE + offset, bytes, kept);
        self.notice_private(vcpu, changed, Some(vcpu));
    }

    fn target_byte(&self, vcpu: usize, at: u64) -> u8 {
        // With one CPU interface there is nothing to choose: RAZ/WI.
        if self.vcpus == 1 {
            return 0;
        }
        match spi_of(at) {
            None => bit_of(vcpu),
            Some(spi) => {
                let targets = self.version_2.as_ref().and_then(|own| own.targets.get(spi));
                targets.copied().unwrap_or(0)
            }
        }
    }

    fn set_targets(&mut self, vcpu: usize, at: u64, value: u8) {
        let value = value & mask_of(self.vcpus);
        let Some(spi) = spi_of(at).filter(|_| self.vcpus > 1) else { return };
        let Some(targets) = self.version_2.as_mut().and_then(|own| own.targets.get_mut(spi)) else {
            return;
        };
        *targets = value;
        let affinity = if value == 0 { NOWHERE } else { u64::from(value.trailing_zeros()) };
        self.distributor.set_affinity(spi, affinity);
        self.notice_spis(spi / 32, bit_mask(spi % 32), Some(vcpu));
    }

    /// Performs a write of GICD_SGIR.
    fn generate_sgi_2(&mut self, from: usize, value: u64) {
        let all = mask_of(self.vcpus);
        let targets = match value >> 24 & 3 {
            0 => (value >> 16) as u8 & all,
            1 => all & !bit_of(from),
            2 => bit_of(from),
            _ => 0,
        };
        let sgi = (value & 0xf) as usize;
        for target in bits(u32::from(targets)) {
            self.send(from, target, sgi, bit_of(from));
        }
    }

    fn send(&mut self, by: usize, to: usize, sgi: usize, senders: u8) {
        let Some(known) = self.version_2.as_mut().and_then(|own| own.senders(to, sgi)) else {
            return;
        };
        *known |= senders;
        let Some(receiver) = self.redistributors.get_mut(to) else { return };
        let changed = receiver.bank.set_latch(bit_mask(sgi));
        self.notice_private(to, changed, Some(by));
    }

    fn sender_byte(&self, vcpu: usize, at: u64) -> u8 {
        let sgi = usize::try_from(at % 16).unwrap_or(0);
        let own = self.version_2.as_ref().and_then(|own| own.senders.get(vcpu));
        own.and_then(|senders| senders.get(sgi)).copied().unwrap_or(0)
    }

    /// A byte of GICD_CPENDSGIR or GICD_SPENDSGIR of the vCPU that writes.
    fn change_senders(&mut self, vcpu: usize, at: u64, value: u8) {
        let sgi = usize::try_from(at % 16).unwrap_or(0);
        let value = value & mask_of(self.vcpus);
        if at >= SPENDSGIR {
            if value != 0 {
                self.send(vcpu, vcpu, sgi, value);
            }
            return;
        }
        let Some(known) = self.version_2.as_mut().and_then(|own| own.senders(vcpu, sgi)) else {
            return;
        };
        *known &= !value;
        if *known == 0
            && let Some(own) = self.redistributors.get_mut(vcpu)
        {
            let changed = own.bank.write(WordRegister::ClearPending, bit_mask(sgi));
            self.notice_private(vcpu, changed, Some(vcpu));
        }
    }
}

/// Whether a register has the SGIs and PPIs of whoever accesses it.
fn is_banked(offset: u64) -> bool {
    match offset {
        IPRIORITYR..BANKED_PRIORITY_END | ICFGR..BANKED_CONFIG_END => true,
        _ => offset % BANKED_WORD_END < 4 && WordRegister::decode(offset).is_some(),
    }
}

/// The SPI (from 0) of a byte of GICD_ITARGETSR.
fn spi_of(at: u64) -> Option<usize> {
    usize::try_from(at.checked_sub(ITARGETSR)?).ok()?.checked_sub(32).filter(|&spi| spi < SPIS)
}
