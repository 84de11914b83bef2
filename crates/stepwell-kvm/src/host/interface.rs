//! The guest's CPU interface while it is loaded, and the interrupt lines by which it signals.
//!
//! A guest that runs takes and ends interrupts in it as in hardware's, which asks nobody. Most exits are
//! such, and the loop would fetch a dozen registers for each: KVM completes the access by itself.

use super::vcpu::{DeviceAccess, Vcpu};
use super::vm::Vm;
use std::cell::{Cell, RefCell};
use stepwell_vm::vcpu::interrupt::VIRTUAL_TIMER_INTID;
use stepwell_vm::vgic::{CpuInterface, GICC_BASE, GICC_BYTES, Signal};

/// The interface.
#[derive(Default)]
pub struct Interface {
    loaded: RefCell<Option<CpuInterface>>,
    /// What KVM has the lines be, IRQ and FIQ, and what they are to be when the guest is entered.
    lines: Cell<(bool, bool)>,
    wanted: Cell<(bool, bool)>,
}

/// What has become of an access to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Nothing: it is the loop's to carry out.
    No,
    /// It is carried out, and KVM completes it.
    Yes,
    /// As [`Answered::Yes`], and the loop is to look at what has ended.
    ForTheLoop,
}

impl Interface {
    /// Loads it.
    pub fn load(&self, interface: &CpuInterface) {
        self.signal(interface.signal());
        *self.loaded.borrow_mut() = Some(interface.clone());
    }

    /// Takes it back. From here on it signals nothing.
    pub fn save(&self, into: &mut CpuInterface) {
        self.signal(None);
        if let Some(loaded) = self.loaded.take() {
            *into = loaded;
        }
    }

    /// KVM has lowered the lines.
    pub fn lowered(&self) {
        self.lines.set((false, false));
    }

    /// Has the lines of vCPU `number` be what is signalled.
    pub fn set_lines(&self, vm: &Vm, number: usize) {
        let wanted = self.wanted.get();
        let known = self.lines.replace(wanted);
        vm.set_lines(number, known, wanted);
    }

    /// Carries out the access that the guest has left for, if that is one of these.
    pub fn answer(&self, vcpu: &mut Vcpu) -> Answered {
        let mut loaded = self.loaded.borrow_mut();
        let Some((interface, access)) = loaded.as_mut().zip(vcpu.access()) else {
            return Answered::No;
        };
        let DeviceAccess { at, bytes, stored } = access;
        let Some(offset) = at.0.checked_sub(GICC_BASE.0).filter(|&at| at < GICC_BYTES) else {
            return Answered::No;
        };
        let value = match stored {
            // The only input that changes without us.
            None => interface.load_by_itself(offset, bytes, |intid| {
                intid != VIRTUAL_TIMER_INTID || vcpu.virtual_timer_level()
            }),
            Some(value) => interface.store_by_itself(offset, bytes, value).then_some(value),
        };
        let Some(value) = value else { return Answered::No };
        vcpu.complete(value);
        self.signal(interface.signal());
        if interface.has_ended_for_el2() { Answered::ForTheLoop } else { Answered::Yes }
    }

    fn signal(&self, signal: Option<Signal>) {
        self.wanted.set((signal == Some(Signal::Irq), signal == Some(Signal::Fiq)));
    }
}
