//! Instructions that are carried out at EL2: those that a step would break, or that would tell the
//! guest that time is stopped.

use crate::cpu::Context as _;
use crate::cpu::{Cpu, Purpose, TranslationFailed};
use crate::device::board::RAM_BASE;
use crate::memory::{GuestMemory, OutsideRam, Physical};
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::byte_order::is_big_endian;
use crate::vcpu::debug::{self, origin};
use crate::vcpu::flow::{At, Then};
use crate::vcpu::hand::Next;
use crate::vcpu::handled::advance_by;
use crate::vcpu::running::{End, Running};
use crate::vcpu::{
    address_space, count, device_access, inject, interrupt, operand, pages, time, watch,
};
use stepwell_arch::debug::{DataAccess, mdscr_el1};
use stepwell_arch::esr::{EsrEl1, FaultStatus};
use stepwell_arch::stage1::{self, Access, AccessKind, WalkError};
use stepwell_arch::{Ipa, Pa, Pstate, SystemRegister, Va};
use stepwell_engine::precedence::{self, Circumstances};
use stepwell_engine::{Image, LoadExclusive, Plan, StoreDecision, StoreExclusive, Yield};
use stepwell_protocol::Waiting;

/// Translates to where the guest's memory is.
///
/// # Errors
///
/// [`TranslationFailed`] where stage 1 forbids the access, or what is there is a device.
#[inline]
fn to_pa<C: Cpu>(
    running: &Running<'_, C>,
    va: Va,
    el0: bool,
    purpose: Purpose,
) -> Result<Pa, TranslationFailed> {
    let ipa = operand::translated(running, || running.cpu.to_ipa(va, el0, purpose))?;
    let status = FaultStatus::translation(3).0;
    let is_device = TranslationFailed { status, stage2: true };
    running.domain.ram.locate(ipa, 1).map_err(|_| is_device)
}

/// What a load-exclusive would read, as its registers would have it.
pub(super) fn peek<C: Cpu>(
    running: &Running<'_, C>,
    load: LoadExclusive,
    address: Va,
    pstate: Pstate,
) -> Option<[u64; 2]> {
    let pa = to_pa(running, address, pstate.el() == 0, Purpose::Read).ok()?;
    let peeked = peek_at(&running.domain.ram, pa, load).ok()?;
    // What is swapped twice is as it was.
    let swapped =
        |value| Image::of([value, 0], load.bytes, false, is_big_endian(running.cpu, pstate));
    Some(peeked.map(|value| swapped(value).value as u64))
}

/// What lies where a load-exclusive is from: it need not be aligned (FEAT_LSE2).
fn peek_at<M: GuestMemory>(ram: &M, pa: Pa, load: LoadExclusive) -> Result<[u64; 2], OutsideRam> {
    let bytes = if load.pair { load.bytes.wrapping_mul(2) } else { load.bytes };
    let around = Around::of(pa, bytes);
    if around.offset == 0 {
        return ram.peek(pa, load.bytes, load.pair);
    }
    let image = ram.image(around.pa, around.bytes)?.part(around.offset, bytes);
    let second = if load.pair { image.part(load.bytes, load.bytes).value } else { 0 };
    Ok([image.part(0, load.bytes).value as u64, second as u64])
}

/// Stores `new` where its load has found `loaded`, which may be of other bytes, and not aligned.
#[inline(never)]
fn compare_and_store_part<M: GuestMemory>(
    ram: &M,
    pa: Pa,
    loaded: Image,
    new: Image,
) -> Result<bool, OutsideRam> {
    let around = Around::of(pa, new.bytes);
    // What the load did not read is as it was: the others are stopped.
    let found = ram.image(around.pa, around.bytes)?;
    let old = found.with_part(loaded, around.offset);
    ram.compare_and_store(around.pa, old, found.with_part(new, around.offset))
}

/// The aligned bytes, of which one access is atomic, that others lie within.
struct Around {
    pa: Pa,
    bytes: u8,
    /// Where within these the others begin.
    offset: u8,
}

impl Around {
    /// `bytes` bytes at `pa` that an exclusive may access: aligned, or within 16 that are.
    fn of(pa: Pa, bytes: u8) -> Self {
        if pa.is_aligned(u64::from(bytes)) {
            return Self { pa, bytes, offset: 0 };
        }
        Self { pa: Pa(pa.0 & !15), bytes: 16, offset: (pa.0 & 15) as u8 }
    }
}

/// What became of a store-exclusive that EL2 was to carry out.
enum Carried {
    /// It was, or led to an exception; or the vCPU is to stop before it.
    Done(Option<End>),
    /// The CPU is to execute it after all, to fail.
    LeftToCpu,
}

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Whether the instruction in hand is one that EL2 carries out.
    #[inline(always)]
    pub(super) fn is_for_el2(&self) -> bool {
        match self.flow.hand.next.plan {
            Plan::StoreExclusive(_) => self.running.core.monitor.armed().is_some(),
            Plan::WaitForInterrupt { .. } => true,
            Plan::ReadTimer { .. }
            | Plan::WriteTimer { .. }
            | Plan::ReadTimerPair { .. }
            | Plan::WriteTimerPair { .. } => self.running.core.virtual_clock,
            _ => false,
        }
    }

    /// Whether the CPU has to be asked first: see [`precedence`].
    pub(super) fn must_ask(&self) -> bool {
        let next = &self.flow.hand.next;
        let Plan::StoreExclusive(store) = next.plan else { return true };
        !precedence::is_certain(Circumstances {
            guest: self.running.core.debug.guest(),
            pstate: next.pstate,
            sctlr: self.running.cpu.read(SystemRegister::SCTLR_EL1),
            stack: (store.rn == 31).then_some(next.base),
            is_page_executed: self.flow.hand.executed_page == Some(next.pc.align_down(4096)),
        })
    }

    /// Carries out an instruction before which nothing comes but what its data access may lead to.
    #[inline(never)]
    pub(super) fn carry_out(&mut self) -> Onward {
        // What the CPU was asked has not happened.
        count::set_clock(self.running, self.flow.hand.clock);
        let Plan::StoreExclusive(store) = self.flow.hand.next.plan else {
            return self.carry_out_other();
        };
        match self.store_exclusive(store) {
            Carried::Done(end) => self.done(end),
            Carried::LeftToCpu => self.execute(),
        }
    }

    #[inline(never)]
    fn carry_out_other(&mut self) -> Onward {
        match self.flow.hand.next.plan {
            Plan::WaitForInterrupt { until } => return self.wait(until),
            Plan::ReadTimer { register, rt } => self.read_timer(register, rt),
            Plan::WriteTimer { register, rt } => self.write_timer(register, rt),
            Plan::ReadTimerPair { register, rt, rt2 } => self.read_timer_pair(register, rt, rt2),
            Plan::WriteTimerPair { register, rt, rt2 } => self.write_timer_pair(register, rt, rt2),
            _ => return self.execute(),
        }
        self.done(None)
    }

    pub(super) fn arm(&mut self, load: LoadExclusive) {
        let Next { pc, base, pstate, .. } = self.flow.hand.next;
        let address = Va(base);
        let core = &*self.running.core;
        let mut value = [core.context.register(load.rt), core.context.register(load.rt2)];
        if load.rt == 31 || (load.pair && (load.rt2 == 31 || load.rt2 == load.rt)) {
            // What was read is nowhere but in memory, or half of it; nobody else has run since.
            let Some(peeked) = peek(self.running, load, address, pstate) else { return };
            value = peeked;
        }
        self.running.core.monitor.arm(load, address, value);
        self.flow.hand.executed_page = Some(pc.align_down(4096));
    }

    /// Performs a store-exclusive that goes to where its load was from.
    fn store_exclusive(&mut self, store: StoreExclusive) -> Carried {
        let Next { base, pstate, bytes: length, .. } = self.flow.hand.next;
        let address = Va(base);
        let StoreDecision::CompareAndStore(armed) = self.running.core.monitor.decide(address)
        else {
            return self.leave_store();
        };
        let big_endian = is_big_endian(self.running.cpu, pstate);
        let core = &*self.running.core;
        let new = [core.context.register(store.rt), core.context.register(store.rt2)];
        let new = Image::of(new, store.bytes, store.pair, big_endian);
        let bytes = u64::from(new.bytes);
        if !self.is_aligned(address, bytes, pstate) {
            return self.store_fault(FaultStatus::ALIGNMENT, address);
        }
        let pa = match self.where_to_store(address, pstate) {
            // Flash is memory for loads alone.
            Ok(pa) if !self.running.domain.ram.is_stored_to(pa) => {
                let loaded = Image::of(armed.value, armed.bytes, armed.pair, big_endian);
                return self.store_to_device(store, loaded, new);
            }
            Ok(pa) => pa,
            // What lies there is no RAM.
            Err(failed) if failed.stage2 => {
                let loaded = Image::of(armed.value, armed.bytes, armed.pair, big_endian);
                return self.store_to_device(store, loaded, new);
            }
            // The load could read it and the store may not write it: the guest's own fault.
            Err(failed) => return self.store_fault(FaultStatus(failed.status), address),
        };
        if let Some(carried) = self.watched_store(address, bytes, pstate) {
            return carried;
        }
        let loaded = Image::of(armed.value, armed.bytes, armed.pair, big_endian);
        self.running.domain.about_to_store_at(pa, bytes);
        let ram = &self.running.domain.ram;
        let stored = if loaded.bytes == new.bytes && pa.is_aligned(bytes) {
            ram.compare_and_store(pa, loaded, new)
        } else {
            compare_and_store_part(ram, pa, loaded, new)
        };
        let Ok(stored) = stored else { return self.leave_store() };
        if stored {
            let ipa = Ipa(RAM_BASE.0.wrapping_add(pa.0.wrapping_sub(ram.base().0)));
            pages::written(self.running, ipa, bytes);
        }
        self.stored_exclusive(store.rs, stored);
        self.advance_pc(length);
        Carried::Done(None)
    }

    /// Whether an exclusive access is aligned as it has to be.
    fn is_aligned(&self, address: Va, bytes: u64, pstate: Pstate) -> bool {
        let cpu = self.running.cpu;
        if precedence::is_aligned(address, bytes, 0, false) {
            return true;
        }
        // FEAT_LSE2 is ID_AA64MMFR2_EL1.AT, and AArch64's.
        let features = cpu.guest_feature_id(SystemRegister::ID_AA64MMFR2_EL1);
        let has_lse2 = features >> 32 & 0xf != 0 && !pstate.is_aarch32();
        precedence::is_aligned(address, bytes, cpu.read(SystemRegister::SCTLR_EL1), has_lse2)
    }

    /// As [`Self::store_exclusive`], where its load was of a device.
    #[inline(never)]
    fn store_to_device(&mut self, store: StoreExclusive, loaded: Image, new: Image) -> Carried {
        let Next { base, pstate, bytes, .. } = self.flow.hand.next;
        if let Some(carried) = self.watched_store(Va(base), u64::from(new.bytes), pstate) {
            return carried;
        }
        match device_access::store_exclusive(self.running, base, loaded, new) {
            Ok(stored) => {
                self.stored_exclusive(store.rs, stored);
                self.advance_pc(bytes);
            }
            Err(abort) => {
                abort.inject(self.running);
                self.entered_exception();
            }
        }
        Carried::Done(None)
    }

    /// A store-exclusive has been carried out.
    #[inline(always)]
    fn stored_exclusive(&mut self, status: u8, stored: bool) {
        let core = &mut *self.running.core;
        core.monitor.clear();
        core.context.set_register(status, u64::from(!stored));
        self.emit_exclusive(self.running.core.pc(), stored);
    }

    /// Leaves a store-exclusive to the CPU, whose monitor is open.
    fn leave_store(&mut self) -> Carried {
        self.running.core.monitor.clear();
        Carried::LeftToCpu
    }

    #[inline(never)]
    fn store_fault(&mut self, status: FaultStatus, address: Va) -> Carried {
        let syndrome = EsrEl1::data_abort(origin(self.running), status, false, true);
        inject::synchronous(self.running, syndrome, Some(address));
        self.entered_exception();
        Carried::Done(None)
    }

    /// A store that hits a watchpoint: the debugger's, or the guest's own.
    #[inline(always)]
    fn watched_store(&mut self, address: Va, bytes: u64, pstate: Pstate) -> Option<Carried> {
        let has_own = self.running.core.debug.mdscr() & mdscr_el1::MDE != 0;
        if has_own || self.flow.rules.has_watchpoints {
            self.hit_by_store(address, bytes, pstate)
        } else {
            None
        }
    }

    #[inline(never)]
    fn hit_by_store(&mut self, address: Va, bytes: u64, pstate: Pstate) -> Option<Carried> {
        if self.flow.rules.has_watchpoints
            && !self.running.core.is_act_acknowledged()
            && let Some(reason) = watch::accesses(self.running, address.0, bytes, false, true)
        {
            self.take_back();
            return Some(Carried::Done(Some(End::Stop(reason))));
        }
        if self.running.core.debug.mdscr() & mdscr_el1::MDE == 0 {
            return None;
        }
        let el0 = pstate.el() == 0;
        let store = DataAccess { address: address.0, bytes, read: false, write: true, el0 };
        debug::own_watchpoint(self.running, store)?;
        self.entered_exception();
        Some(Carried::Done(None))
    }

    fn where_to_store(&self, address: Va, pstate: Pstate) -> Result<Pa, TranslationFailed> {
        if let Some(status) = self.forbidden_by_pan(address, pstate) {
            return Err(TranslationFailed { status, stage2: false });
        }
        to_pa(self.running, address, pstate.el() == 0, Purpose::Write)
    }

    /// The fault of a store that PSTATE.PAN forbids: AT instructions for EL1 do not obey it.
    fn forbidden_by_pan(&self, address: Va, pstate: Pstate) -> Option<u8> {
        if pstate.is_aarch32() || pstate.el() == 0 || !pstate.pan() {
            return None;
        }
        let regime = address_space::of_running(self.running.cpu);
        let store = Access { kind: AccessKind::Write, el0: false, pan: true };
        match stage1::translate(&regime, address, store, &Physical(&self.running.domain.ram)) {
            Err(WalkError::Fault(fault)) => Some(fault.fsc().0),
            _ => None,
        }
    }

    /// Carried out at EL2: moves the PC past the instruction.
    #[inline(always)]
    fn advance_pc(&mut self, bytes: u64) {
        let guest = self.running.core.debug.guest();
        advance_by(self.running, guest, bytes);
        self.look_at_timers();
        self.carried_out();
    }

    /// EL2 has carried an instruction out. Where that is counted, a timer may be due behind it, whose
    /// interrupt comes before the next instruction, as where the guest runs.
    #[inline]
    pub(super) fn look_at_timers(&mut self) {
        if self.running.domain.timeline.is_some() {
            time::update_lines(self.running);
        }
    }

    /// The instruction was carried out at EL2, and the PC moved.
    #[inline]
    pub(super) fn carried_out(&mut self) {
        self.report();
    }

    /// Takes the boundary that EL2 came to in the CPU's place.
    #[inline]
    pub(super) fn report(&mut self) {
        match self.running.core.engine.emulated() {
            Some(_) => self.passed(1),
            None => self.take_back(),
        }
    }

    /// A timer register is read on the virtual clock.
    fn read_timer(&mut self, register: SystemRegister, rt: u8) {
        let value = time::read(self.running, register);
        self.running.core.context.set_register(rt, value);
        self.advance_pc(4);
    }

    /// A timer register is written on the virtual clock.
    fn write_timer(&mut self, register: SystemRegister, rt: u8) {
        let value = self.running.core.context.register(rt);
        time::write(self.running, register, value);
        self.find_deadline();
        self.advance_pc(4);
    }

    /// As [`Stepper::read_timer`], by AArch32's MRRC.
    fn read_timer_pair(&mut self, register: SystemRegister, rt: u8, rt2: u8) {
        let value = time::read(self.running, register);
        let context = &mut self.running.core.context;
        context.set_register(rt, value & 0xffff_ffff);
        context.set_register(rt2, value >> 32);
        self.advance_pc(4);
    }

    /// As [`Stepper::write_timer`], by AArch32's MCRR.
    fn write_timer_pair(&mut self, register: SystemRegister, rt: u8, rt2: u8) {
        let context = &self.running.core.context;
        let value = context.register(rt) & 0xffff_ffff | context.register(rt2) << 32;
        time::write(self.running, register, value);
        self.find_deadline();
        self.advance_pc(4);
    }

    /// WFI: done when an interrupt is pending, whether it is held or not, or trapped to the guest's
    /// EL1. WFIT: also when the guest's counter is at what the register `until` has.
    fn wait(&mut self, until: Option<u8>) -> Onward {
        let Next { pstate, bytes, .. } = self.flow.hand.next;
        let sctlr = self.running.cpu.read(SystemRegister::SCTLR_EL1);
        let core = &mut *self.running.core;
        core.wakes_at = until.map_or(u64::MAX, |rt| core.context.register(rt));
        // On the machine's clock somebody has to wake it.
        time::update_lines(self.running);
        if !interrupt::has_waited(self.running) && precedence::traps_wait(pstate, sctlr) {
            // The CPU counts it.
            count::count(self.running);
            let syndrome = until.map_or(EsrEl1::wfi(bytes), EsrEl1::wfit);
            inject::synchronous(self.running, syndrome, None);
            self.running.core.wakes_at = u64::MAX;
            self.entered_exception();
            return self.done(None);
        }
        if self.running.domain.timeline.is_some() {
            // As where it runs: it has executed, and waits behind it.
            self.advance_pc(bytes);
            self.running.core.is_suspended = true;
            return self.done(None);
        }
        self.wait_for_interrupt(true)
    }

    /// Waits for an interrupt. `is_begun`: within a WFI, which has not executed until then; else
    /// within CPU_SUSPEND, which waits as WFI does, but has executed.
    pub(in crate::vcpu) fn wait_for_interrupt(&mut self, is_begun: bool) -> Onward {
        self.flow.at = At::Interrupt { is_begun };
        // Where instructions are counted it has waited when it has its turn, as one that runs.
        if self.running.domain.timeline.is_some() && self.running.is_called() {
            return self.ends(End::Asked);
        }
        // One that a vCPU which runs freely is stepped past may end early, and does; so does one that
        // only others could end, which do not move.
        let may_end = self.flow.rules.is_stepping_past || self.flow.turn.freezes_others();
        if may_end || interrupt::has_waited(self.running) {
            return self.end_wait(is_begun);
        }
        if self.running.is_called() {
            if is_begun {
                self.running.core.wakes_at = u64::MAX;
                self.take_back();
            }
            return self.done(Some(End::Asked));
        }
        if self.has_turns() {
            self.yield_idle(is_begun);
            return Onward::GoOn;
        }
        self.acknowledge_translation();
        match time::next_deadline(self.running) {
            // Nothing happens to this guest before its timer goes off.
            Some(deadline) if self.running.core.virtual_clock => {
                self.running.domain.clock.lock().skip_to(deadline);
                Onward::GoOn
            }
            _ => Onward::Wait,
        }
    }

    fn end_wait(&mut self, is_begun: bool) -> Onward {
        // In a page that is stepped through it waits once it is let go, as one that runs would.
        let waits_on = !C::CAN.copies && is_begun && !interrupt::has_waited(self.running);
        if waits_on {
            self.running.core.is_suspended = true;
        } else {
            self.running.core.wakes_at = u64::MAX;
        }
        if is_begun {
            self.advance_pc(self.flow.hand.next.bytes);
            return self.done(None);
        }
        self.running.core.is_suspended = false;
        self.flow.at = At::Boundary;
        Onward::GoOn
    }

    /// It has waited, for an interrupt or for its turn.
    pub(in crate::vcpu) fn waited_for_interrupt(&mut self, is_begun: bool) -> Onward {
        interrupt::take_all(self.running);
        time::update_lines(self.running);
        self.find_deadline();
        self.wait_for_interrupt(is_begun)
    }

    /// Lets the others move until an interrupt is pending here.
    fn yield_idle(&mut self, is_begun: bool) {
        let is_virtual = self.running.core.virtual_clock;
        let deadline = time::next_deadline(self.running).filter(|_| is_virtual);
        if is_begun {
            self.take_back();
        }
        let then = Then::Interrupt { is_begun };
        self.yield_turn(Yield::Idle { deadline }, Some(Waiting::Interrupt), then);
    }
}
