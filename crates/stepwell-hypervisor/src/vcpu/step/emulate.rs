//! Instructions that are carried out at EL2: those that a step would break, or that would tell the
//! guest that time stands still.

use super::Stepper;
use crate::hw::registers::{mrs, wfi};
use crate::hw::translate;
use crate::vcpu::debug::origin;
use crate::vcpu::{End, inject, interrupt, time};
use stepwell_arch::esr::{EsrEl1, FaultStatus};
use stepwell_arch::{Pstate, SystemRegister, Va};
use stepwell_engine::{LoadExclusive, StoreDecision, StoreExclusive, own_step};
use stepwell_wire::InterruptPolicy;

/// SCTLR_EL1.nTWI: WFI at EL0 is not trapped to EL1.
const SCTLR_NTWI: u64 = 1 << 16;

impl Stepper<'_, '_> {
    pub(super) fn arm(&mut self, load: LoadExclusive, address: Va, pstate: Pstate) {
        let core = &mut *self.running.core;
        let mut value = [core.context.register(load.rt), core.context.register(load.rt2)];
        if load.rt == 31 || (load.pair && load.rt2 == 31) {
            // What was read is nowhere but in memory; nobody else has run since.
            let pa = translate::to_pa(address, pstate.el() == 0, translate::Purpose::Read);
            let peeked = pa.map(|pa| self.running.domain.ram.peek(pa, load.bytes, load.pair));
            let Ok(Ok(peeked)) = peeked else { return };
            value = peeked;
        }
        core.monitor.arm(load, address, value);
    }

    /// Performs a store-exclusive that the monitor pairs with its load. Nothing where it is left
    /// to the CPU, to fail there.
    pub(super) fn store_exclusive(
        &mut self,
        store: StoreExclusive,
        address: Va,
        pstate: Pstate,
    ) -> Option<Option<End>> {
        let core = &mut *self.running.core;
        let StoreDecision::CompareAndStore(armed) = core.monitor.store(store, address) else {
            return None;
        };
        let pa = match translate::to_pa(address, pstate.el() == 0, translate::Purpose::Write) {
            Ok(pa) => pa,
            Err(failed) if failed.stage2 => return None,
            Err(failed) => {
                // The load could read it and the store may not write it: the guest's own fault.
                let status = FaultStatus(failed.status);
                let syndrome = EsrEl1::data_abort(origin(self.running), status, false, true);
                inject::synchronous(self.running, syndrome, Some(address));
                self.reported();
                return Some(None);
            }
        };
        let new = [core.context.register(store.rt), core.context.register(store.rt2)];
        let ram = &self.running.domain.ram;
        let stored = ram.compare_and_store(pa, store.bytes, store.pair, armed.value, new).ok()?;
        core.context.set_register(store.rs, u64::from(!stored));
        self.carried_out();
        Some(None)
    }

    /// The instruction at the PC was carried out at EL2.
    pub(super) fn carried_out(&mut self) {
        let context = &mut self.running.core.context;
        context.elr = context.elr.wrapping_add(4);
        context.spsr &= !Pstate::BTYPE;
        let (guest, pstate) = (self.running.core.debug.guest(), self.running.core.pstate());
        if own_step::is_stepping(guest, pstate) {
            self.running.core.context.spsr = pstate.with_ss(false).0;
        }
        self.reported();
    }

    /// Whether a timer access is done on the virtual clock: the guest may, and there is one.
    pub(super) fn emulates_timer(&self, register: SystemRegister, pstate: Pstate) -> bool {
        if !self.running.core.virtual_clock {
            return false;
        }
        let enable = match (register.crm(), register.op2()) {
            (0, 1 | 5) => 1 << 0,
            (0, _) => 1 << 1,
            (3, _) => 1 << 8,
            (_, _) => 1 << 9,
        };
        pstate.el() == 1 || mrs!("cntkctl_el1") & enable != 0
    }

    /// Whether WFI waits here, or traps to the guest's EL1.
    pub(super) fn may_wait(&self, pstate: Pstate) -> bool {
        pstate.el() == 1 || mrs!("sctlr_el1") & SCTLR_NTWI != 0
    }

    /// WFI: done at once where interrupts are held or one is pending; else when one is.
    pub(super) fn wait(&mut self) -> Option<End> {
        loop {
            if self.interrupts == InterruptPolicy::Hold || self.has_pending() {
                self.carried_out();
                return None;
            }
            if self.running.is_called() {
                self.take_back();
                return Some(End::Asked);
            }
            match time::next_deadline(self.running) {
                // Nothing happens to this guest before its timer goes off.
                Some(deadline) if self.running.core.virtual_clock => {
                    self.running.domain.clock.lock().skip_to(deadline);
                }
                _ => wfi(),
            }
            interrupt::take_all(self.running);
            time::update_lines(self.running);
            self.find_deadline();
        }
    }

    fn has_pending(&self) -> bool {
        let vgic = self.running.domain.vgic.lock();
        vgic.has_pending(self.running.index, &self.running.core.interface)
    }
}
