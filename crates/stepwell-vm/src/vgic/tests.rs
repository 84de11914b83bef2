//! Delivery through the whole controller, with a small model of the hardware's virtual CPU
//! interface taking and ending the interrupts.

use super::list_registers::hcr;
use super::*;

mod against_ideal;
mod delivery;
mod registers;
mod several_vcpus;
mod version_2;

const SPI: u32 = 33;
const VIRTUAL_TIMER: u32 = 27;

/// A vCPU: its CPU interface, and what hardware does to it.
struct Cpu {
    number: usize,
    interface: CpuInterface,
    hold: bool,
}

impl Cpu {
    fn new(number: usize, lr_count: usize) -> Self {
        let mut interface = CpuInterface::new(lr_count);
        interface.vmcr |= 0b10 | 0xf8 << 24; // VENG1, VPMR
        Self { number, interface, hold: false }
    }

    fn split_eoi(mut self) -> Self {
        self.interface.vmcr |= 1 << 9; // VEOIM
        self
    }

    fn set_mask(&mut self, mask: u64) {
        self.interface.vmcr = self.interface.vmcr & 0x00ff_ffff | mask << 24;
    }

    fn enter(&mut self, vgic: &mut Vgic) {
        vgic.flush(self.number, self.hold, &mut self.interface);
    }

    fn exit(&mut self, vgic: &mut Vgic) -> u32 {
        vgic.sync(self.number, &self.interface)
    }

    /// Exits and enters again.
    fn trip(&mut self, vgic: &mut Vgic) -> u32 {
        let deactivated = self.exit(vgic);
        self.enter(vgic);
        deactivated
    }

    fn entry_of(&self, state: impl Fn(ListRegister) -> bool) -> Option<usize> {
        (0..self.interface.lr_count)
            .filter(|&n| state(ListRegister(self.interface.lr[n])))
            .min_by_key(|&n| ListRegister(self.interface.lr[n]).priority())
    }

    /// Reads ICC_IAR1_EL1.
    fn acknowledge(&mut self) -> Option<u32> {
        if !self.interface.deliverable() {
            return None;
        }
        let n = self.entry_of(|register| register.is_pending() && !register.is_active())?;
        let register = ListRegister(self.interface.lr[n]);
        self.interface.lr[n] = register.0 & !(1 << 62) | 1 << 63;
        self.interface.ap1r0 |= 1 << (register.priority() >> 3);
        Some(register.intid())
    }

    /// Writes ICC_EOIR1_EL1: deactivates what was acknowledged at the priority that is dropped.
    fn end(&mut self, intid: u32) {
        let dropped = self.interface.running_priority();
        self.interface.ap1r0 &= self.interface.ap1r0.wrapping_sub(1);
        let is_another = |register: ListRegister| {
            register.is_active()
                && register.intid() == intid
                && (register.priority() != dropped || !register.is_group1())
        };
        if self.interface.vmcr & 1 << 9 == 0 && self.entry_of(is_another).is_none() {
            self.deactivate(intid);
        }
    }

    /// Writes ICC_DIR_EL1, untrapped.
    fn deactivate(&mut self, intid: u32) {
        match self.entry_of(|register| register.is_active() && register.intid() == intid) {
            Some(n) => self.interface.lr[n] &= !(1 << 63),
            None => self.interface.hcr += 1 << hcr::EOICOUNT_SHIFT,
        }
    }

    /// ICH_MISR_EL2 is not zero.
    fn wants_maintenance(&self) -> bool {
        let registers = || self.interface.list_registers();
        let ended = registers().any(|r| r.eoi() && !r.is_pending() && !r.is_active());
        let nothing_pending = registers().all(|r| !r.is_pending() || r.is_active());
        ended
            || self.interface.hcr & hcr::NPIE != 0 && nothing_pending
            || self.interface.hcr & hcr::LRENPIE != 0 && self.interface.hcr & hcr::EOICOUNT != 0
    }
}

fn gicd(offset: u64) -> Ipa {
    GICD_BASE.offset(offset)
}

fn gicr(vcpu: u64, offset: u64) -> Ipa {
    GICR_BASE.offset(vcpu * GICR_BYTES + offset)
}

/// A controller that a kernel has set up: groups on, everything in Group 1 at priority 0xa0 and
/// enabled, SPIs edge-triggered from INTID 64 on and routed to vCPU 0.
fn set_up(vcpus: u64) -> Vgic {
    let mut vgic = Vgic::new(vcpus as usize);
    vgic.mmio_write(0, gicd(0), 4, 0x12);
    for word in 1..9 {
        vgic.mmio_write(0, gicd(0x80 + 4 * word), 4, 0xffff_ffff);
        vgic.mmio_write(0, gicd(0x100 + 4 * word), 4, 0xffff_ffff);
    }
    for word in 4..18 {
        vgic.mmio_write(0, gicd(0xc00 + 4 * word), 4, 0xaaaa_aaaa);
    }
    for word in 8..72 {
        vgic.mmio_write(0, gicd(0x400 + 4 * word), 4, 0xa0a0_a0a0);
    }
    for vcpu in 0..vcpus {
        vgic.mmio_write(vcpu as usize, gicr(vcpu, 0x1_0080), 4, 0xffff_ffff);
        vgic.mmio_write(vcpu as usize, gicr(vcpu, 0x1_0100), 4, 0xffff_ffff);
        for word in 0..8 {
            vgic.mmio_write(vcpu as usize, gicr(vcpu, 0x1_0400 + 4 * word), 4, 0xa0a0_a0a0);
        }
    }
    vgic.take_kicks();
    vgic
}

fn set_priority(vgic: &mut Vgic, spi: u32, priority: u64) {
    vgic.mmio_write(0, gicd(0x400 + u64::from(spi)), 1, priority);
}

fn route(vgic: &mut Vgic, spi: u32, value: u64) {
    vgic.mmio_write(0, gicd(0x6000 + 8 * u64::from(spi)), 8, value);
}

fn is_active(vgic: &mut Vgic, spi: u32) -> bool {
    let word = vgic.mmio_read(0, gicd(0x300 + 4 * u64::from(spi / 32)), 4);
    word >> (spi % 32) & 1 == 1
}
