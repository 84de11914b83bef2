//! Stepping a vCPU: the engine, between the guest and whoever wants its steps.
//!
//! The loop goes from boundary to boundary. At each it may stop, deliver an interrupt, or look at
//! the next instruction and let it execute; whatever exit comes then is given to the engine, which
//! says whether it is a boundary. Runs of plain instructions never get here: they stay in the fast
//! path of `world.S`, which counts them, and their boundaries are taken from its count.

use super::debug::{self, origin};
use super::exit::{Handled, handle};
use super::record::WORDS_PER_STEP;
use super::{End, Running, inject, interrupt, run, time};
use crate::hw::registers::{mrs, msr, wfi};
use crate::hw::world::Vector;
use crate::hw::{gic, timer, translate};
use crate::vgic::Signal;
use core::sync::atomic::Ordering;
use stepwell_arch::esr::{EsrEl1, EsrEl2, FaultStatus, ec};
use stepwell_arch::{Instruction, Pstate, SystemRegister, Va};
use stepwell_engine::own_step::{self, GuestDebug};
use stepwell_engine::{
    Boundary, EnableError, Exit, InterruptedContext, LoadExclusive, Outcome, Plan, StepState,
    StoreDecision, StoreExclusive, TimePolicy, plan,
};
use stepwell_wire::ring::Record;
use stepwell_wire::{InterruptPolicy, StopReason};

/// Longest exclusive sequence that is stepped through to get past a breakpoint inside of it.
const SEQUENCE_MAX: u32 = 64;
/// SCTLR_EL1.nTWI: WFI at EL0 is not trapped to EL1.
const SCTLR_NTWI: u64 = 1 << 16;

/// What a run of steps is about.
struct Stepper<'a, 'b> {
    running: &'a mut Running<'b>,
    interrupts: InterruptPolicy,
    time: TimePolicy,
    count: u64,
    steps: u64,
    record: bool,
    /// Breakpoints are not heeded before the first instruction has executed.
    past_first: bool,
}

/// The instruction at the PC, about to execute.
#[derive(Clone, Copy)]
struct Next {
    pc: Va,
    pstate: Pstate,
    plan: Plan,
    /// Known to be fetched from a page that the fast path may look into.
    plain: bool,
    svc: bool,
    /// Base register of an exclusive.
    base: u64,
    spsr_el1: Pstate,
}

/// Steps until `count` are done, `until` is next, or something stops the vCPU. Returns how many
/// steps it came to.
pub fn step(running: &mut Running<'_>, count: u64, until: Option<u64>, record: bool) -> (End, u64) {
    if let Err(end) = enable(running) {
        return (end, 0);
    }
    let control = running.domain.control.lock();
    let (interrupts, time) = (control.interrupts, control.time);
    drop(control);
    running.core.virtual_clock = time != TimePolicy::Real;
    if running.core.virtual_clock {
        time::hold(running);
    } else {
        time::release(running);
    }
    running.core.debug.wanted.extend(until);
    debug::open_pages(running, true);
    let mut stepper = Stepper {
        running: &mut *running,
        interrupts,
        time,
        count,
        steps: 0,
        record,
        past_first: true,
    };
    let end = stepper.go(until);
    stepper.finish_recording();
    let steps = stepper.steps;
    let (mdscr, _reported) = running.core.engine.disable();
    debug_assert_eq!(mdscr, running.core.debug.mdscr());
    debug::open_pages(running, false);
    running.core.debug.wanted.clear();
    if time == TimePolicy::Real {
        let offset = running.domain.clock_offset.load(Ordering::Acquire);
        running.domain.clock.lock().hold(timer::counter(), offset);
    }
    running.core.virtual_clock = false;
    (end, steps)
}

/// Executes the instruction at the PC with breakpoints off, in a vCPU that otherwise runs freely;
/// an exclusive sequence to its end, because a step in the middle would break it.
pub fn past_breakpoint(running: &mut Running<'_>) -> Option<End> {
    if enable(running).is_err() {
        // AArch32 does not step: it goes on without this breakpoint.
        return None;
    }
    debug::open_pages(running, true);
    let mut stepper = Stepper {
        running: &mut *running,
        interrupts: InterruptPolicy::Hold,
        time: TimePolicy::Real,
        count: u64::MAX,
        steps: 0,
        record: false,
        past_first: true,
    };
    let mut end = None;
    for _ in 0..SEQUENCE_MAX {
        end = stepper.one(1);
        if end.is_some() || stepper.running.core.monitor.armed().is_none() {
            break;
        }
        stepper.past_first = true;
    }
    let _mdscr = running.core.engine.disable();
    running.core.monitor.clear();
    debug::open_pages(running, false);
    end
}

fn enable(running: &mut Running<'_>) -> Result<(), End> {
    let core = &mut *running.core;
    core.debug.take_over();
    match core.engine.enable(core.pstate(), core.debug.mdscr()) {
        Ok(()) | Err(EnableError::AlreadyEnabled) => Ok(()),
        Err(EnableError::AArch32) => Err(End::Stop(StopReason::AArch32)),
    }
}

impl Stepper<'_, '_> {
    fn go(&mut self, until: Option<u64>) -> End {
        loop {
            if self.running.is_called() {
                return End::Asked;
            }
            if let Some(reason) = self.stop_at_boundary(until) {
                return End::Stop(reason);
            }
            if let Some(end) = self.boundary_events() {
                match end {
                    Some(end) => return end,
                    None => continue,
                }
            }
            if self.record && !self.has_ring_room() {
                return End::Stop(StopReason::RingFull);
            }
            if let Some(end) = self.one(self.count - self.steps) {
                return match end {
                    End::Stop(StopReason::Breakpoint)
                        if Some(self.running.core.pc().0) == until =>
                    {
                        End::Stop(StopReason::Until)
                    }
                    other => other,
                };
            }
        }
    }

    fn stop_at_boundary(&self, until: Option<u64>) -> Option<StopReason> {
        let pc = self.running.core.pc().0;
        if self.running.core.pstate().is_aarch32() {
            return Some(StopReason::AArch32);
        }
        if !self.past_first {
            if Some(pc) == until {
                return Some(StopReason::Until);
            }
            if debug::breakpoint_at_pc(self.running).is_some() {
                return Some(StopReason::Breakpoint);
            }
        }
        (self.steps >= self.count).then_some(StopReason::Stepped)
    }

    /// What comes at a boundary instead of the next instruction: the guest's own step exception,
    /// or an interrupt. `Some(None)`: something came, look at the boundary anew.
    fn boundary_events(&mut self) -> Option<Option<End>> {
        let core = &mut *self.running.core;
        if own_step::check_software_step(core.debug.guest(), core.pstate()) {
            let syndrome = EsrEl1::software_step(origin(self.running), true, false);
            inject::synchronous(self.running, syndrome, None);
            self.reported();
            return Some(None);
        }
        if self.interrupts == InterruptPolicy::Hold || core.pstate().irq_masked() {
            return None;
        }
        let vgic = self.running.domain.vgic.lock();
        if vgic.signal(self.running.index, &core.interface) != Some(Signal::Irq) {
            return None;
        }
        drop(vgic);
        if self.interrupts == InterruptPolicy::Over {
            return Some(self.run_handler());
        }
        self.note_interrupt();
        inject::interrupt(self.running);
        self.reported();
        Some(None)
    }

    /// One step was reported at EL2.
    fn reported(&mut self) {
        let _boundary = self.running.core.engine.injected();
        self.passed(1);
    }

    fn passed(&mut self, steps: u64) {
        self.steps = self.steps.saturating_add(steps);
        if self.running.core.virtual_clock {
            self.running.domain.clock.lock().advance(self.time, steps);
        }
        if steps > 0 {
            self.past_first = false;
        }
    }

    /// Lets the next instruction execute, and as many plain ones after it as the fast path can
    /// take, up to `limit`.
    fn one(&mut self, limit: u64) -> Option<End> {
        let next = self.look();
        self.begin(next.pc);
        match next.plan {
            Plan::StoreExclusive(store) => {
                let address = Va(next.base);
                if let Some(done) = self.store_exclusive(store, address, next.pstate) {
                    return done;
                }
            }
            Plan::WaitForInterrupt if self.may_wait(next.pstate) => return self.wait(),
            Plan::ReadTimer { register, rt } if self.emulates_timer(register, next.pstate) => {
                let value = time::read(self.running, register);
                self.running.core.context.set_register(rt, value);
                self.carried_out();
                return None;
            }
            Plan::WriteTimer { register, rt } if self.emulates_timer(register, next.pstate) => {
                let value = self.running.core.context.register(rt);
                time::write(self.running, register, value);
                self.carried_out();
                return None;
            }
            _ => {}
        }
        let limit = if next.plain { limit.min(self.fast_limit()) } else { 1 };
        self.execute(next, limit)
    }

    fn fast_limit(&mut self) -> u64 {
        let core = &*self.running.core;
        if core.debug.guest().mdscr & stepwell_arch::debug::mdscr_el1::SS != 0 || self.past_first {
            return 1;
        }
        let room = if self.record { core.recorder.room() } else { u64::MAX };
        let due = match time::next_deadline(self.running) {
            Some(deadline) if self.interrupts != InterruptPolicy::Hold => {
                self.running.domain.clock.lock().steps_until(self.time, deadline)
            }
            _ => u64::MAX,
        };
        room.min(due).max(1)
    }

    /// Fetches the next instruction and plans it.
    fn look(&mut self) -> Next {
        let core = &mut *self.running.core;
        let (pc, pstate) = (core.pc(), core.pstate());
        let mut next = Next {
            pc,
            pstate,
            plan: Plan::Execute,
            plain: false,
            svc: false,
            base: 0,
            spsr_el1: Pstate(0),
        };
        let Some((word, may_know)) = self.fetch(pc, pstate) else { return next };
        let instruction = Instruction::decode(word);
        next.plan = plan(instruction);
        next.plain = may_know && next.plan == Plan::Execute;
        next.svc = matches!(instruction, Instruction::Svc { .. });
        match next.plan {
            Plan::LoadExclusive(LoadExclusive { rn, .. })
            | Plan::StoreExclusive(StoreExclusive { rn, .. }) => next.base = self.base(rn, pstate),
            Plan::ExceptionReturn => next.spsr_el1 = Pstate(mrs!("spsr_el1")),
            _ => {}
        }
        next
    }

    fn base(&self, rn: u8, pstate: Pstate) -> u64 {
        let context = &self.running.core.context;
        match (rn, pstate.uses_sp_elx()) {
            (31, true) => mrs!("sp_el1"),
            (31, false) => context.sp_el0,
            _ => context.register(rn),
        }
    }

    /// The instruction at the PC, and whether its page is one for the fast path.
    ///
    /// Nothing where it cannot be read as data: then it executes, or faults, by itself.
    fn fetch(&mut self, pc: Va, pstate: Pstate) -> Option<(u32, bool)> {
        let ram = &self.running.domain.ram;
        if let Some(page) = self.running.core.context.known_page(pc) {
            return Some((ram.instruction(page, pc)?, true));
        }
        let pa = translate::to_pa(pc, pstate.el() == 0, translate::Purpose::Read).ok()?;
        let page = ram.code_page(pa)?;
        let word = ram.instruction(page, pc)?;
        // The vectors' page stays on the slow path: that is where exceptions show. So does one
        // with a breakpoint by physical address, which only the slow path sees.
        let vectors = Va(mrs!("vbar_el1")).align_down(4096);
        let ipa = stepwell_arch::Ipa(
            crate::mem::guest::RAM_BASE.0.wrapping_add(pa.0.wrapping_sub(ram.base().0)),
        );
        let may_know =
            pc.align_down(4096) != vectors && !debug::page_has_breakpoint(self.running, ipa);
        if may_know {
            self.running.core.context.know_page(pc, page);
        }
        Some((word, may_know))
    }

    /// Enters the guest for the next instruction until the engine sees a boundary.
    fn execute(&mut self, next: Next, limit: u64) -> Option<End> {
        let mut next = next;
        let mut limit = limit;
        let mut breakpoints = !self.past_first;
        let mut retry = false;
        loop {
            let hold = self.interrupts == InterruptPolicy::Hold || retry;
            let (outcome, vector, used) = self.enter(limit, breakpoints, hold);
            if used > 0 {
                // What is at the PC now was begun by the fast path, and is plain.
                next = Next { pc: self.running.core.pc(), plan: Plan::Execute, ..next };
            }
            limit = 1;
            match outcome {
                Outcome::Boundary(boundary) => {
                    self.after(next, boundary, used);
                    self.passed(1);
                    return None;
                }
                Outcome::Continue => {
                    let handled = handle(self.running, vector);
                    if let Some(end) = self.interrupted(handled) {
                        return Some(end);
                    }
                }
                Outcome::Trapped => match handle(self.running, vector) {
                    Handled::Emulated | Handled::Injected => {
                        // A breakpoint exception comes before its instruction begins.
                        if EsrEl2(self.running.core.context.esr).ec() == ec::BREAKPOINT_LOWER {
                            self.take_back();
                        }
                        self.reported();
                        return None;
                    }
                    Handled::Resume => {}
                    Handled::Past => breakpoints = false,
                    Handled::Stop(reason) => {
                        self.take_back();
                        return Some(End::Stop(reason));
                    }
                    Handled::SwitchedOff => {
                        self.passed(1);
                        return Some(End::SwitchedOff);
                    }
                },
            }
            retry = true;
        }
    }

    /// After an asynchronous exit: may the instruction be retried?
    fn interrupted(&mut self, handled: Handled) -> Option<End> {
        if handled == Handled::SwitchedOff {
            return Some(End::SwitchedOff);
        }
        if !self.running.is_called() {
            return None;
        }
        if self.running.core.engine.state() == StepState::ActivePending {
            // It has executed: report it here and now rather than with the next command.
            self.reported();
        } else {
            self.take_back();
        }
        Some(End::Asked)
    }

    fn enter(&mut self, limit: u64, breakpoints: bool, hold: bool) -> (Outcome, Vector, u64) {
        let running = &mut *self.running;
        interrupt::load(running, hold);
        debug::load_for_step(running, breakpoints);
        let core = &mut *running.core;
        core.context.set_fast_budget(limit - 1);
        core.context.run_next = if self.record { core.recorder.next() } else { 0 };
        let vector = core.context.enter();
        let used = (limit - 1) - core.context.fast_budget();
        if self.record {
            core.recorder.lengthen(used);
        }
        let mut pstate = core.pstate();
        let outcome = core.engine.on_exit(exit_of(vector, core.context.esr), &mut pstate);
        core.context.spsr = pstate.0;
        self.passed(used);
        interrupt::sync(self.running);
        (outcome, vector, used)
    }

    /// What an executed instruction leaves to do.
    fn after(&mut self, next: Next, boundary: Boundary, used: u64) {
        let guest = self.running.core.debug.guest();
        if self.has_entered_exception(boundary) {
            self.exception_entered(next, guest);
            return;
        }
        match next.plan {
            Plan::LoadExclusive(load) => self.arm(load, Va(next.base), next.pstate),
            Plan::ClearExclusive => self.running.core.monitor.clear(),
            Plan::TranslationChange => self.running.core.context.forget_pages(),
            Plan::ExceptionReturn => {
                self.running.core.monitor.clear();
                let pstate = self.running.core.pstate();
                let source = next.pstate;
                let ss = own_step::debug_exception_return_ss(
                    guest,
                    source,
                    pstate.with_ss(next.spsr_el1.ss()),
                );
                self.running.core.context.spsr = pstate.with_ss(ss).0;
            }
            _ if used == 0 && own_step::is_stepping(guest, next.pstate) => {
                let pstate = self.running.core.pstate();
                self.running.core.context.spsr = pstate.with_ss(false).0;
            }
            _ => {}
        }
    }

    /// Tells whether the boundary is at a vector that an exception has just led to.
    fn has_entered_exception(&self, boundary: Boundary) -> bool {
        let pc = self.running.core.context.elr;
        let offset = pc.wrapping_sub(mrs!("vbar_el1") & !0x7ff);
        let at_vector = offset < 0x800 && offset & 0x7f == 0;
        let leaked = Pstate(mrs!("spsr_el1")).ss() != self.running.core.pstate().ss();
        at_vector && (!boundary.syndrome_valid || leaked)
    }

    /// The CPU took an exception to EL1: the SS that it left in SPSR_EL1 was ours.
    fn exception_entered(&mut self, next: Next, guest: GuestDebug) {
        let core = &mut *self.running.core;
        core.monitor.clear();
        let pstate = core.pstate();
        // SSAdvance comes before an SVC's exception, and after no other's.
        let advanced = next.svc && own_step::is_stepping(guest, next.pstate);
        let ss = pstate.ss() && !advanced;
        let saved = Pstate(mrs!("spsr_el1"));
        msr!("spsr_el1", saved.with_ss(ss).0);
        core.context.spsr = pstate.with_ss(false).0;
    }

    fn arm(&mut self, load: LoadExclusive, address: Va, pstate: Pstate) {
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
    fn store_exclusive(
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
    fn carried_out(&mut self) {
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
    fn emulates_timer(&self, register: SystemRegister, pstate: Pstate) -> bool {
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
    fn may_wait(&self, pstate: Pstate) -> bool {
        pstate.el() == 1 || mrs!("sctlr_el1") & SCTLR_NTWI != 0
    }

    /// WFI: done at once where interrupts are held or one is pending; else when one is.
    fn wait(&mut self) -> Option<End> {
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
        }
    }

    fn has_pending(&self) -> bool {
        let vgic = self.running.domain.vgic.lock();
        vgic.has_pending(self.running.index, &self.running.core.interface)
    }

    /// Enters a pending interrupt and runs its handler freely until it returns to here.
    fn run_handler(&mut self) -> Option<End> {
        let core = &*self.running.core;
        let pstate = core.pstate();
        let interrupted =
            InterruptedContext::new(core.pc(), pstate, self.base(31, pstate), mrs!("ttbr0_el1"));
        self.note_interrupt();
        inject::interrupt(self.running);
        let _mdscr = self.running.core.engine.disable();
        self.let_time_go();
        let end = self.until_return(interrupted);
        self.stop_time();
        self.running.core.debug.wanted.retain(|&pc| pc != interrupted.pc.0);
        self.running.core.context.forget_pages();
        if let Some(end) = end {
            return Some(end);
        }
        enable(self.running).err()
    }

    fn until_return(&mut self, interrupted: InterruptedContext) -> Option<End> {
        let full = self.running.core.debug.wanted.push(interrupted.pc.0);
        debug_assert!(full.is_ok(), "one place for `until`, one for this");
        let mut breakpoints = debug::Breakpoints::On;
        loop {
            if self.running.is_called() {
                return Some(End::Asked);
            }
            let end = run::once(self.running, &mut breakpoints);
            let (pc, pstate) = (self.running.core.pc(), self.running.core.pstate());
            match end {
                None => {}
                Some(End::Stop(StopReason::Breakpoint)) if pc == interrupted.pc => {
                    let sp = self.base(31, pstate);
                    if InterruptedContext::new(pc, pstate, sp, mrs!("ttbr0_el1")) == interrupted {
                        return None;
                    }
                    // Somebody else's turn at the same code.
                    if let Some(end) = past_breakpoint(self.running) {
                        return Some(end);
                    }
                }
                Some(end) => return Some(end),
            }
        }
    }

    fn let_time_go(&mut self) {
        if !self.running.core.virtual_clock {
            return;
        }
        self.running.core.virtual_clock = false;
        let offset = self.running.domain.clock.lock().release(timer::counter());
        self.running.domain.clock_offset.store(offset, Ordering::Release);
        time::release(self.running);
    }

    fn stop_time(&mut self) {
        if self.time == TimePolicy::Real {
            return;
        }
        let offset = self.running.domain.clock_offset.load(Ordering::Acquire);
        self.running.domain.clock.lock().hold(timer::counter(), offset);
        time::hold(self.running);
        self.running.core.virtual_clock = true;
        gic::enable_virtual_timer(self.running.vcpu.cpu, false);
    }

    fn has_ring_room(&self) -> bool {
        let ring = self.running.machine.ring.lock();
        ring.as_ref().is_some_and(|ring| ring.has_room(WORDS_PER_STEP))
    }

    fn begin(&mut self, pc: Va) {
        if !self.record {
            return;
        }
        let vcpu = self.running.index as u8;
        if let Some(record) = self.running.core.recorder.begin(vcpu, pc.0) {
            self.write(record);
        }
    }

    /// The instruction that was begun has not executed, and is not going to for now.
    fn take_back(&mut self) {
        if self.record {
            self.running.core.recorder.take_back();
        }
    }

    fn note_interrupt(&mut self) {
        if !self.record {
            return;
        }
        self.finish_recording();
        let vcpu = self.running.index as u8;
        self.write(Record::Interrupt { vcpu, pc: self.running.core.pc().0 });
    }

    fn finish_recording(&mut self) {
        if let Some(record) = self.running.core.recorder.finish(self.running.index as u8) {
            self.write(record);
        }
    }

    fn write(&mut self, record: Record) {
        let (first, second) = self.running.core.recorder.encode(record);
        if let Some(ring) = self.running.machine.ring.lock().as_mut() {
            ring.push(first);
            if let Some(second) = second {
                ring.push(second);
            }
        }
    }
}

fn exit_of(vector: Vector, esr: u64) -> Exit {
    let esr = EsrEl2(esr);
    match (vector, esr.ec()) {
        (Vector::Synchronous, ec::SOFTWARE_STEP_LOWER) => Exit::SoftwareStep(esr.step()),
        (Vector::Synchronous, ec::BREAKPOINT_LOWER) => Exit::Breakpoint,
        (Vector::Synchronous, _) => Exit::Synchronous,
        _ => Exit::Asynchronous,
    }
}
