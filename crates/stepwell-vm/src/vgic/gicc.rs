//! The CPU interface of a GICv2, which guests access in memory (GICC_*).
//!
//! Where hardware has one for guests, it takes interrupts out of list registers without us. Here we are
//! the hardware: each access fills the list registers, does on them what a virtual CPU interface does,
//! and takes them back. So there is one state for both, and what decides over a signal is the same.
//! While a guest runs they are filled already, and whoever runs it can do the same without us
//! ([`CpuInterface::load_by_itself`]).
//!
//! ICH_VMCR_EL2 has the bits of GICC_CTLR where GICC_CTLR has them (IHI 0048, GICV_CTLR). Like that of
//! most cores it has 32 priorities.
//!
//! Source: Arm Generic Interrupt Controller, architecture version 2.0 (IHI 0048), "CPU interface register
//! descriptions".

use super::list_registers::vmcr;
use super::{CpuInterface, ListRegister, Vgic};
use core::ops::Range;

/// Bytes of address space that QEMU's `virt` has for it.
pub const GICC_BYTES: u64 = 0x1_0000;

const CTLR: u64 = 0x0000;
const PMR: u64 = 0x0004;
const BPR: u64 = 0x0008;
const IAR: u64 = 0x000c;
const EOIR: u64 = 0x0010;
const RPR: u64 = 0x0014;
const HPPIR: u64 = 0x0018;
const ABPR: u64 = 0x001c;
const AIAR: u64 = 0x0020;
const AEOIR: u64 = 0x0024;
const AHPPIR: u64 = 0x0028;
const APR0: u64 = 0x00d0;
const NSAPR0: u64 = 0x00e0;
const IIDR: u64 = 0x00fc;
const DIR: u64 = 0x1000;

/// What a guest can write of GICC_CTLR.
const CTLR_WRITABLE: u64 =
    vmcr::VENG0 | vmcr::VENG1 | vmcr::VACKCTL | vmcr::VFIQEN | vmcr::VCBPR | vmcr::VEOIM;
/// Version 2, by Arm.
const IIDR_VALUE: u64 = 0x0002_043b;
/// INTIDs that tell why there is none: the pending one is of Group 1, or there is none at all.
const GROUP_1: u64 = 1022;
const SPURIOUS: u64 = 1023;
/// INTID in GICC_IAR, below the number of the vCPU that has sent an SGI.
const INTID_MASK: u64 = 0x3ff;
const SENDER_SHIFT: u32 = 10;
/// INTIDs of PPIs.
const PPIS: Range<u32> = 16..32;
/// The least binary points, with five bits of preemption.
const BPR_MIN: u64 = 2;
const ABPR_MIN: u64 = 3;

impl Vgic {
    /// Performs a guest's load from its CPU interface. `vcpu` has been synced since its exit.
    pub fn read_gicc(
        &mut self,
        vcpu: usize,
        interface: &mut CpuInterface,
        offset: u64,
        bytes: u8,
    ) -> u64 {
        if bytes != 4 {
            return 0;
        }
        let field = |shift: u32| interface.vmcr >> shift & 7;
        match offset {
            CTLR => interface.vmcr & CTLR_WRITABLE,
            PMR => interface.vmcr >> vmcr::VPMR_SHIFT & 0xff,
            BPR => field(vmcr::VBPR0_SHIFT),
            ABPR => field(vmcr::VBPR1_SHIFT),
            IAR => self.acknowledge(vcpu, interface, false),
            AIAR => self.acknowledge(vcpu, interface, true),
            RPR => u64::from(interface.running_priority()),
            HPPIR => self.with_loaded(vcpu, interface, |interface| {
                offered(interface, false)
                    .map_or_else(|none| none, |(_, found)| found.intid().into())
            }),
            AHPPIR => self.with_loaded(vcpu, interface, |interface| {
                offered(interface, true).map_or_else(|none| none, |(_, found)| found.intid().into())
            }),
            APR0 => interface.ap0r0,
            NSAPR0 => interface.ap1r0,
            IIDR => IIDR_VALUE,
            _ => 0,
        }
    }

    /// Performs a guest's store into its CPU interface. `vcpu` has been synced since its exit.
    pub fn write_gicc(
        &mut self,
        vcpu: usize,
        interface: &mut CpuInterface,
        offset: u64,
        bytes: u8,
        value: u64,
    ) {
        if bytes != 4 {
            return;
        }
        let value = value & 0xffff_ffff;
        match offset {
            CTLR => interface.vmcr = interface.vmcr & !CTLR_WRITABLE | value & CTLR_WRITABLE,
            PMR => set_field(interface, vmcr::VPMR_SHIFT, 0xff, value & 0xf8),
            BPR => set_field(interface, vmcr::VBPR0_SHIFT, 7, (value & 7).max(BPR_MIN)),
            ABPR => set_field(interface, vmcr::VBPR1_SHIFT, 7, (value & 7).max(ABPR_MIN)),
            EOIR | AEOIR => {
                interface.drop_priority();
                if !interface.splits_eoi() {
                    self.write_dir(vcpu, value & INTID_MASK);
                }
            }
            DIR if interface.splits_eoi() => {
                self.write_dir(vcpu, value & INTID_MASK);
            }
            APR0 => interface.ap0r0 = value,
            NSAPR0 => interface.ap1r0 = value,
            _ => {}
        }
    }

    fn with_loaded<T>(
        &mut self,
        vcpu: usize,
        interface: &mut CpuInterface,
        act: impl FnOnce(&mut CpuInterface) -> T,
    ) -> T {
        self.flush(vcpu, false, interface);
        let done = act(interface);
        self.sync(vcpu, interface);
        done
    }

    /// A load of GICC_IAR, or of GICC_AIAR, which is for Group 1.
    fn acknowledge(&mut self, vcpu: usize, interface: &mut CpuInterface, aliased: bool) -> u64 {
        self.with_loaded(vcpu, interface, |interface| match next(interface, aliased) {
            Ok(found) => interface.take(found),
            Err(none) => none,
        })
    }
}

impl CpuInterface {
    /// Performs a load from filled list registers, as hardware does by itself; nothing where that is for
    /// whoever fills them. `is_up` tells whether the input of a PPI still asks for its interrupt.
    pub fn load_by_itself(
        &mut self,
        offset: u64,
        bytes: u8,
        is_up: impl FnOnce(u32) -> bool,
    ) -> Option<u64> {
        if offset != IAR || bytes != 4 || self.asks_for_more() {
            return None;
        }
        let (n, found) = next(self, false).ok()?;
        (!PPIS.contains(&found.intid()) || is_up(found.intid())).then(|| self.take((n, found)))
    }

    /// Performs a store on filled list registers, as hardware does by itself. Tells whether it has; if not
    /// that is for whoever fills them. What has ended may be for them all the same:
    /// [`CpuInterface::has_ended_for_el2`].
    pub fn store_by_itself(&mut self, offset: u64, bytes: u8, value: u64) -> bool {
        if offset != EOIR || bytes != 4 || self.splits_eoi() || self.asks_for_more() {
            return false;
        }
        let is_meant = |value: &u64, intid: u64| {
            let register = ListRegister(*value);
            register.is_active() && u64::from(register.intid()) == intid
        };
        let registers = self.lr.iter_mut().take(self.lr_count);
        let Some(register) = { registers }.find(|one| is_meant(one, value & INTID_MASK)) else {
            return false;
        };
        *register = ListRegister(*register).deactivated().0;
        self.drop_priority();
        true
    }

    /// Acknowledges what a list register has. Returns what GICC_IAR tells of it.
    fn take(&mut self, (n, found): (usize, ListRegister)) -> u64 {
        if let Some(register) = self.lr.get_mut(n) {
            *register = found.acknowledged().0;
        }
        self.raise_priority(found);
        u64::from(found.intid()) | found.sender() << SENDER_SHIFT
    }
}

/// What GICC_IAR, or GICC_AIAR, gives, and its list register; or the INTID that tells why there is none.
fn next(interface: &CpuInterface, aliased: bool) -> Result<(usize, ListRegister), u64> {
    if interface.signal().is_none() {
        return Err(SPURIOUS);
    }
    offered(interface, aliased)
}

/// The most urgent interrupt that is pending, and the list register that has it; or the INTID that
/// tells why there is none to be had here. `aliased`: by the registers for Group 1.
fn offered(interface: &CpuInterface, aliased: bool) -> Result<(usize, ListRegister), u64> {
    let waiting = interface.list_registers().enumerate().filter(|(_, register)| {
        let is_enabled = interface.enables(register.is_group1());
        register.is_pending() && !register.is_active() && is_enabled
    });
    let found = waiting.min_by_key(|(_, register)| register.priority()).ok_or(SPURIOUS)?;
    let takes_both = interface.vmcr & vmcr::VACKCTL != 0;
    match (found.1.is_group1(), aliased) {
        (true, false) if !takes_both => Err(GROUP_1),
        (false, true) => Err(SPURIOUS),
        _ => Ok(found),
    }
}

fn set_field(interface: &mut CpuInterface, shift: u32, mask: u64, value: u64) {
    interface.vmcr = interface.vmcr & !(mask << shift) | value << shift;
}
