//! Instructions that are carried out at EL2: those that a step would break, or that would tell the
//! guest that time stands still.

use super::Stepper;
use super::turn::Waiting;
use crate::device::board::RAM_BASE;
use crate::hw::registers::{mrs, wfi};
use crate::hw::translate::{self, TranslationFailed};
use crate::vcpu::debug::origin;
use crate::vcpu::exit::advance_by;
use crate::vcpu::{End, inject, interrupt, pages, time, watch};
use stepwell_arch::esr::{EsrEl1, FaultStatus};
use stepwell_arch::generic_timer::{self, el0_enable};
use stepwell_arch::{Ipa, Pa, Pstate, SystemRegister, Va};
use stepwell_engine::{LoadExclusive, Pass, StoreDecision, StoreExclusive};
use stepwell_wire::StopReason;

/// SCTLR_EL1.nTWI: WFI at EL0 is not trapped to EL1.
const SCTLR_NTWI: u64 = 1 << 16;

/// SCTLR_EL1.E0E: data of EL0 is big-endian.
const SCTLR_E0E: u64 = 1 << 24;
/// SCTLR_EL1.EE: data of EL1 is big-endian.
const SCTLR_EE: u64 = 1 << 25;

/// Turns registers of `bytes` bytes into what the guest's memory holds for them, or back.
fn in_guest_order(value: [u64; 2], bytes: u8, pstate: Pstate) -> [u64; 2] {
    let is_big_endian = match (pstate.is_aarch32(), pstate.el()) {
        (true, _) => pstate.0 & Pstate::E != 0,
        (false, 0) => mrs!("sctlr_el1") & SCTLR_E0E != 0,
        (false, _) => mrs!("sctlr_el1") & SCTLR_EE != 0,
    };
    if !is_big_endian {
        return value;
    }
    value.map(|value| value.swap_bytes() >> (64 - 8 * u32::from(bytes.clamp(1, 8))))
}

/// What became of a store-exclusive.
pub(super) enum Store {
    /// It is left to the CPU, to fail there.
    Executes,
    /// It was carried out at EL2, or faulted there.
    CarriedOut,
    /// It hits a watchpoint.
    Stops(StopReason),
}

impl Stepper<'_, '_> {
    pub(super) fn arm(&mut self, load: LoadExclusive, address: Va, pstate: Pstate) {
        let core = &*self.running.core;
        let mut value = [core.context.register(load.rt), core.context.register(load.rt2)];
        if load.rt == 31 || (load.pair && load.rt2 == 31) {
            // What was read is nowhere but in memory; nobody else has run since.
            let to_pa = || translate::to_pa(address, pstate.el() == 0, translate::Purpose::Read);
            let pa = pages::translated(self.running, to_pa);
            let peeked = pa.map(|pa| self.running.domain.ram.peek(pa, load.bytes, load.pair));
            let Ok(Ok(peeked)) = peeked else { return };
            value = in_guest_order(peeked, load.bytes, pstate);
        }
        self.running.core.monitor.arm(load, address, value);
    }

    /// Performs a store-exclusive that the monitor pairs with its load.
    pub(super) fn store_exclusive(
        &mut self,
        store: StoreExclusive,
        address: Va,
        pstate: Pstate,
    ) -> Store {
        let core = &mut *self.running.core;
        let StoreDecision::CompareAndStore(armed) = core.monitor.store(store, address) else {
            return Store::Executes;
        };
        let bytes = u64::from(store.bytes) * if store.pair { 2 } else { 1 };
        if self.has_watchpoints
            && !core.debug.is_past_watch
            && let Some(reason) = watch::accesses(self.running, address.0, bytes, false, true)
        {
            self.running.core.debug.reported_watch = Some(self.running.core.pc().0);
            self.take_back();
            return Store::Stops(reason);
        }
        let pa = match self.where_to_store(address, pstate) {
            Ok(pa) => pa,
            Err(failed) if failed.stage2 => return Store::Executes,
            Err(failed) => {
                // The load could read it and the store may not write it: the guest's own fault.
                let status = FaultStatus(failed.status);
                let syndrome = EsrEl1::data_abort(origin(self.running), status, false, true);
                inject::synchronous(self.running, syndrome, Some(address));
                self.entered_exception();
                return Store::CarriedOut;
            }
        };
        let core = &mut *self.running.core;
        let new = [core.context.register(store.rt), core.context.register(store.rt2)];
        let ordered = |value| in_guest_order(value, store.bytes, pstate);
        let (old, new) = (ordered(armed.value), ordered(new));
        let ram = &self.running.domain.ram;
        let Ok(stored) = ram.compare_and_store(pa, store.bytes, store.pair, old, new) else {
            return Store::Executes;
        };
        if stored {
            let ipa = Ipa(RAM_BASE.0.wrapping_add(pa.0.wrapping_sub(ram.base().0)));
            self.running.domain.sync_views(ipa, bytes);
        }
        let core = &mut *self.running.core;
        core.context.set_register(store.rs, u64::from(!stored));
        self.tell_exclusive(self.running.core.pc(), stored);
        self.advance(4);
        Store::CarriedOut
    }

    fn where_to_store(&mut self, address: Va, pstate: Pstate) -> Result<Pa, TranslationFailed> {
        let translate = || translate::to_pa(address, pstate.el() == 0, translate::Purpose::Write);
        match translate() {
            Err(failed) if failed.stage2 && self.has_given_store_back() => translate(),
            Err(failed) if failed.stage2 => pages::translated(self.running, translate),
            first => first,
        }
    }

    /// Carried out at EL2: moves the PC past the instruction.
    fn advance(&mut self, bytes: u64) {
        let mdscr = self.running.core.debug.mdscr();
        advance_by(self.running, mdscr, bytes);
        self.carried_out();
    }

    /// The instruction was carried out at EL2, and the PC moved.
    pub(super) fn carried_out(&mut self) {
        self.has_carried_out();
        self.report();
    }

    /// Takes the boundary that EL2 came to in the CPU's place.
    pub(super) fn report(&mut self) {
        match self.running.core.engine.emulated() {
            Some(_) => self.passed(1),
            None => self.take_back(),
        }
    }

    /// A timer register is read on the virtual clock.
    pub(super) fn read_timer(&mut self, register: SystemRegister, rt: u8) {
        let value = time::read(self.running, register);
        self.running.core.context.set_register(rt, value);
        self.advance(4);
    }

    /// A timer register is written on the virtual clock.
    pub(super) fn write_timer(&mut self, register: SystemRegister, rt: u8) {
        let value = self.running.core.context.register(rt);
        time::write(self.running, register, value);
        self.find_deadline();
        self.advance(4);
    }

    /// As [`Stepper::read_timer`], by AArch32's MRRC.
    pub(super) fn read_timer_pair(&mut self, register: SystemRegister, rt: u8, rt2: u8) {
        let value = time::read(self.running, register);
        let context = &mut self.running.core.context;
        context.set_register(rt, value & 0xffff_ffff);
        context.set_register(rt2, value >> 32);
        self.advance(4);
    }

    /// As [`Stepper::write_timer`], by AArch32's MCRR.
    pub(super) fn write_timer_pair(&mut self, register: SystemRegister, rt: u8, rt2: u8) {
        let context = &self.running.core.context;
        let value = context.register(rt) & 0xffff_ffff | context.register(rt2) << 32;
        time::write(self.running, register, value);
        self.find_deadline();
        self.advance(4);
    }

    /// Whether a timer access is done on the virtual clock: there is one, the CPU has the register,
    /// and the guest may. Otherwise the CPU raises the exception that comes of it.
    pub(super) fn emulates_timer(&self, register: SystemRegister, pstate: Pstate) -> bool {
        let is_there = !generic_timer::needs_ecv(register) || time::has_ecv();
        let may = || pstate.el() == 1 || mrs!("cntkctl_el1") & el0_enable(register) != 0;
        self.running.core.virtual_clock && is_there && may()
    }

    /// Whether WFI waits here, or traps to the guest's EL1.
    pub(super) fn may_wait(&self, pstate: Pstate) -> bool {
        pstate.el() == 1 || mrs!("sctlr_el1") & SCTLR_NTWI != 0
    }

    /// WFI: done when an interrupt is pending, whether it is held or not.
    pub(super) fn wait(&mut self, bytes: u64) -> Option<End> {
        let end = self.wait_for_interrupt(true);
        if end.is_none() {
            self.advance(bytes);
        }
        end
    }

    /// CPU_SUSPEND, which waits as WFI does, but has executed.
    pub(super) fn wait_suspended(&mut self) -> Option<End> {
        let end = self.wait_for_interrupt(false);
        self.running.core.is_suspended = end.is_some();
        end
    }

    /// Waits for an interrupt. `is_begun`: within an instruction that has not executed until then.
    fn wait_for_interrupt(&mut self, is_begun: bool) -> Option<End> {
        loop {
            if interrupt::has_pending(self.running) {
                return None;
            }
            if self.running.is_called() {
                if is_begun {
                    self.take_back();
                }
                return Some(End::Asked);
            }
            if self.turn.has_turns() {
                if let Some(end) = self.wait_in_turn(is_begun) {
                    return Some(end);
                }
                continue;
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

    /// Lets the others move until an interrupt is pending here.
    fn wait_in_turn(&mut self, is_begun: bool) -> Option<End> {
        let is_virtual = self.running.core.virtual_clock;
        let deadline = time::next_deadline(self.running).filter(|_| is_virtual);
        if is_begun {
            self.take_back();
        }
        let end = self.wait_for_others(Pass::Idle { deadline }, Waiting::Interrupt);
        if end.is_none() {
            if is_begun {
                self.begin(self.running.core.pc());
            }
            interrupt::take_all(self.running);
            time::update_lines(self.running);
            self.find_deadline();
        }
        end
    }
}
