//! The test mode's hands: at fixed places of the step loop it does to the vCPU what the
//! [`adversary`](crate::adversary) decides. Only in images with the feature `test-mode`; others
//! have `no_hooks.rs` in its place.
//!
//! What the guest could tell is asserted where it is at hand: an exit before an instruction leaves
//! PC and PSTATE as they were, a stop and a resume leave every register as it was, and stepping
//! switched off leaves MDSCR_EL1 as the guest has it. A failed assertion is a bug, and ends the
//! machine with a message. The rest, whether the guest executes the same instructions and comes to
//! the same result, is for whoever compares the streams.
//!
//! How each interference comes about:
//!
//! - *physical*: EL2 sends itself an SGI right before the ERET. The CPU takes it as soon as it is
//!   out of EL2, with SPSR_EL2.SS as it was entered: 1, or 0 where a step is pending.
//! - *pending*: the step exception has arrived, and is taken for an interrupt, with the syndrome of
//!   the exit before. The next entry has SS = 0, and the CPU delivers the exception anew.
//! - *spurious*: the exit is made up, nothing is entered.
//! - *serror*: the exit is made up likewise, with the syndrome of an SError; what the guest gets of
//!   it is real.
//! - *code page*, *data page*: stage 2 loses the permission, the CPU takes the abort, the page is
//!   given back, the instruction is retried.
//! - *pause*: the vCPU's stop request is set; the loop comes out as it does for the debugger, all
//!   that a stop saves is saved, all else lost, and the steps go on.
//! - *off and on*: the engine is disabled and the guest gets its debug registers; then the reverse.

use super::look::Shown;
use super::step;
use super::stepper::{Next, Stepper};
use super::switch::enable;
use crate::adversary::instruction_class::InstructionClass;
use crate::adversary::{Interference, Withdrawn};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Purpose, Vector};
use crate::domain::{Role, StepOrder};
use crate::memory::GuestMemory;
use crate::registers::Snapshot;
use crate::stage2::{PAGE_BYTES, Permissions};
use crate::vcpu::debug;
use crate::vcpu::exit::handle;
use crate::vcpu::handled::Handled;
use crate::vcpu::running::{End, Running};
use crate::vcpu::shadow::ArmedBreakpoints;
use core::sync::atomic::Ordering;
use stepwell_arch::esr::{EsrEl1, EsrEl2, ec};
use stepwell_arch::{Ipa, Pstate, Va};
use stepwell_engine::{Outcome, StepState};
use stepwell_wire::StopReason;

/// As [`step`], going on where only the adversary stopped it.
pub fn steps<C: Cpu>(running: &mut Running<'_, C>, order: StepOrder) -> (End, u64) {
    let StepOrder { mut role, .. } = order;
    let mut total = 0;
    loop {
        running.core.adversary.may_ask = true;
        let (end, steps) = step(running, StepOrder { role, ..order });
        running.core.adversary.may_ask = false;
        let is_done = match &mut role {
            Role::Alone(left) => {
                total += steps;
                *left -= steps;
                *left == 0
            }
            Role::Focus => {
                total = steps;
                running.domain.turns.lock().is_done()
            }
            // It goes on for as long as the one that it moves for.
            Role::Other => false,
        };
        if end != End::Asked || !is_only_ours(running) {
            return (end, total);
        }
        let pc = running.core.pc().0;
        // As the debugger would have found it, who came to be stopped here by steps.
        if steps > 0 && order.until == Some(pc) {
            return (End::Stop(StopReason::Until), total);
        }
        if steps > 0 && debug::breakpoint_at_pc(running).is_some() {
            return (End::Stop(StopReason::Breakpoint), total);
        }
        if is_done {
            return (End::Stop(StopReason::Stepped), total);
        }
        stand_and_resume(running);
        running.core.adversary.paused = true;
    }
}

/// Takes the stop request back if nobody but the adversary made it.
fn is_only_ours<C: Cpu>(running: &mut Running<'_, C>) -> bool {
    if !core::mem::take(&mut running.core.adversary.asked) {
        return false;
    }
    let control = running.domain.control.lock();
    if control.stop.is_some() || control.ending.is_some() {
        return false;
    }
    // Whoever asks from now on has to get `control` first.
    running.vcpu.stop_requested.store(false, Ordering::Release);
    true
}

/// What a stop saves and a resume loads; whatever is in neither is lost in between.
fn stand_and_resume<C: Cpu>(running: &mut Running<'_, C>) {
    let core = &mut *running.core;
    let cpu = running.cpu;
    cpu.save(&mut core.snapshot);
    cpu.save_simd(&mut core.simd);
    cpu.stop_virtual_timer();
    cpu.synchronize();
    cpu.load(&running.machine.reset);
    cpu.load(&core.snapshot);
    let mut loaded = Snapshot::default();
    cpu.save(&mut loaded);
    assert!(
        core.snapshot.is_same_guest(&loaded),
        "a stop and a resume change a register of the guest"
    );
}

/// Reports what has happened once the domain has ended.
pub fn report<C: Cpu>(running: &Running<'_, C>) {
    let adversary = &running.core.adversary;
    if !adversary.is_on() || running.domain.control.lock().ending.is_none() {
        return;
    }
    for class in InstructionClass::ALL {
        running.cpu.log(format_args!("coverage: {}", adversary.row(class)));
    }
}

impl<C: Cpu> Stepper<'_, '_, C> {
    /// Enters the guest, or not, and says how it left. `limit`: steps that the assembly may take.
    pub(super) fn cross(&mut self, limit: u64) -> Vector {
        let is_pending = self.running.core.engine.state() == StepState::ActivePending;
        let chosen = self.running.core.adversary.before_entry(is_pending);
        let context = &self.running.core.context;
        let place = (context.elr, context.spsr);
        let syndrome = (context.esr, context.far, context.hpfar);
        let vector = match chosen {
            Some(Interference::Spurious) => {
                self.count_exit(is_pending, Interference::Spurious);
                Vector::Fiq
            }
            Some(Interference::Physical) => {
                self.running.cpu.kick(1 << self.running.vcpu.cpu);
                let vector = self.running.cpu.enter(&mut self.running.core.context);
                let context = &self.running.core.context;
                assert!(vector == Vector::Irq, "an SGI of EL2's is taken before anything else");
                assert!((context.elr, context.spsr) == place, "an exit changes the guest");
                self.count_exit(is_pending, Interference::Physical);
                vector
            }
            Some(what @ (Interference::CodePage | Interference::DataPage)) => {
                self.enter_without_page(what)
            }
            Some(Interference::SystemError) => {
                self.count_exit(is_pending, Interference::SystemError);
                // Uncategorized.
                self.running.core.context.esr = EsrEl1::serror(0).0;
                Vector::SError
            }
            _ => self.running.cpu.enter(&mut self.running.core.context),
        };
        let _was_not_needed = self.give_store_back();
        let context = &self.running.core.context;
        if (limit - 1) != context.fast_budget() {
            self.running.core.adversary.class = InstructionClass::FastRun;
        }
        let vector = self.delay_step(vector, is_pending, syndrome);
        if self.running.core.adversary.pauses() {
            self.ask();
        }
        vector
    }

    /// Counts an exit before anything executed: for the instruction that is next, or, where a step
    /// is pending, for the one that was; and for what EL2 carried out just before.
    fn count_exit(&mut self, is_pending: bool, what: Interference) {
        let adversary = &mut self.running.core.adversary;
        if is_pending {
            adversary.count(Interference::Pending);
            return;
        }
        if let Some(class) = adversary.carried_out {
            adversary.count_for(class, Interference::Pending);
        }
        adversary.count(what);
    }

    /// Takes a step exception for an interrupt that came first: the syndrome is that of the exit
    /// before, as an interrupt writes none.
    fn delay_step(
        &mut self,
        vector: Vector,
        is_pending: bool,
        (esr, far, hpfar): (u64, u64, u64),
    ) -> Vector {
        let core = &mut *self.running.core;
        let is_step = EsrEl2(core.context.esr).ec() == ec::SOFTWARE_STEP_LOWER;
        if vector != Vector::Synchronous {
            return vector;
        }
        core.adversary.carried_out = None;
        if !is_step || !core.adversary.delays_step(is_pending) {
            return vector;
        }
        let is_memory = |ipa| self.running.domain.ram.locate(ipa, 4).is_ok();
        if !self.code_page().is_some_and(is_memory) {
            // QEMU would take the guest's own fetch abort before the step (see docs/qemu.md).
            return vector;
        }
        let core = &mut *self.running.core;
        assert!(!Pstate(core.context.spsr).ss(), "SS is clear at a step exception");
        (core.context.esr, core.context.far, core.context.hpfar) = (esr, far, hpfar);
        core.adversary.count(Interference::Pending);
        Vector::Irq
    }

    /// Enters with a page withdrawn, and gives it back whatever came.
    fn enter_without_page(&mut self, what: Interference) -> Vector {
        let page = match what {
            Interference::CodePage => self.code_page(),
            _ => self.data_page(),
        };
        let withdrawn = page.and_then(|page| self.withdraw(page, what));
        let vector = self.running.cpu.enter(&mut self.running.core.context);
        let Some(withdrawn) = withdrawn else { return vector };
        self.give_back(&withdrawn);
        let core = &mut *self.running.core;
        let esr = EsrEl2(core.context.esr);
        if vector != Vector::Synchronous {
            return vector;
        }
        match (what, esr.ec()) {
            (Interference::CodePage, ec::IABT_LOWER) => core.adversary.count(what),
            (Interference::DataPage, ec::DABT_LOWER) => {
                core.adversary.count(what);
                core.adversary.was_withdrawn = true;
            }
            _ => {}
        }
        vector
    }

    fn code_page(&self) -> Option<Ipa> {
        let core = &*self.running.core;
        self.running.cpu.to_ipa(core.pc(), core.pstate().el() == 0).ok()
    }

    /// The page that the base register points to.
    fn data_page(&self) -> Option<Ipa> {
        let core = &*self.running.core;
        let pstate = core.pstate();
        if pstate.is_aarch32() {
            return None;
        }
        let word = self.word(core.pc(), pstate)?;
        if !InstructionClass::of(word).has_base() {
            return None;
        }
        let base = self.base((word >> 5 & 0x1f) as u8, pstate);
        self.running.cpu.to_ipa(Va(base), pstate.el() == 0).ok()
    }

    fn withdraw(&self, place: Ipa, what: Interference) -> Option<Withdrawn> {
        let page = place.align_down(PAGE_BYTES);
        self.running.domain.ram.locate(page, PAGE_BYTES).ok()?;
        let mut views = self.running.domain.views.lock();
        let mut own = self.running.domain.stage2.lock();
        // What is in force while it steps.
        let stage2 = views.guarded().unwrap_or(&mut own);
        let permissions = stage2.walk(&self.running.domain.ram.tables(), page)?.permissions;
        let less = match what {
            Interference::CodePage => Permissions { execute: false, ..permissions },
            _ => Permissions { read: false, write: false, ..permissions },
        };
        stage2.protect(&mut self.running.domain.ram.tables(), page, PAGE_BYTES, less).ok()?;
        Some(Withdrawn { page, permissions })
    }

    fn give_back(&self, withdrawn: &Withdrawn) {
        let Withdrawn { page, permissions } = *withdrawn;
        let mut views = self.running.domain.views.lock();
        let mut own = self.running.domain.stage2.lock();
        let stage2 = views.guarded().unwrap_or(&mut own);
        let given =
            stage2.protect(&mut self.running.domain.ram.tables(), page, PAGE_BYTES, permissions);
        assert!(given.is_ok(), "what was withdrawn can be given back");
    }

    /// EL2 may not store where a store-exclusive wants to. Tells whether it was the adversary's
    /// doing; then the page is back.
    pub(super) fn has_given_store_back(&mut self) -> bool {
        let is_withdrawn = self.give_store_back();
        if is_withdrawn {
            self.running.core.adversary.count(Interference::DataPage);
        }
        is_withdrawn
    }

    fn give_store_back(&mut self) -> bool {
        let withdrawn = self.running.core.adversary.withdrawn_for_store.take();
        if let Some(withdrawn) = &withdrawn {
            self.give_back(withdrawn);
        }
        withdrawn.is_some()
    }

    /// Asks the vCPU to stop, as another vCPU's stop or the debugger would.
    fn ask(&mut self) {
        if !self.running.core.adversary.may_ask {
            return;
        }
        self.running.core.adversary.asked = true;
        self.running.vcpu.stop_requested.store(true, Ordering::Release);
    }

    /// At a boundary: switches stepping off and on, once in a while.
    pub(super) fn at_boundary(&mut self) -> Option<End> {
        if !self.running.core.adversary.pauses() {
            return None;
        }
        if self.running.core.adversary.random() & 1 == 0 {
            self.ask();
            return None;
        }
        let core = &mut *self.running.core;
        let (pstate, mdscr) = (core.pstate(), core.debug.mdscr());
        let left = core.engine.disable(pstate);
        assert!(!left.unreported, "at a boundary everything has been reported");
        assert!(left.mdscr == mdscr, "the engine gives back the MDSCR_EL1 that the guest has");
        core.context.spsr = left.pstate.0;
        debug::load(self.running);
        let core = &mut *self.running.core;
        assert!(core.debug.mdscr() == mdscr, "unstepped, the guest has its own MDSCR_EL1");
        assert!(core.pstate() == pstate, "unstepped, the guest has its own PSTATE");
        if let Err(end) = enable(self.running) {
            return Some(end);
        }
        debug::program_for_step(self.running);
        self.running.core.adversary.toggled = true;
        None
    }

    /// An interrupt was entered at EL2 before the instruction at the PC.
    pub(super) fn note_virtual(&mut self) {
        let core = &*self.running.core;
        let (pc, pstate) = (core.pc(), core.pstate());
        let class = self.class_of(pc, pstate);
        self.running.core.adversary.count_for(class, Interference::Virtual);
    }

    /// EL2 carried an instruction out, or entered an exception for it.
    pub(super) fn has_carried_out(&mut self) {
        let class = self.running.core.adversary.class;
        self.running.core.adversary.carried_out = Some(class);
    }

    /// Takes down the instruction that is next, and gives what EL2 is going to carry out its share
    /// of exits before it.
    pub(super) fn meet(&mut self, next: &Next) -> Option<End> {
        let _was_not_needed = self.give_store_back();
        let class = self.class_of(next.pc, next.pstate);
        self.running.core.adversary.meet(class);
        if !self.is_for_el2(next) {
            return None;
        }
        let chosen = self.running.core.adversary.before_entry(false);
        match chosen {
            Some(Interference::DataPage) => {
                // EL2 will find it gone when it wants to store.
                let page = self.data_page().filter(|_| class == InstructionClass::StoreExclusive);
                let withdrawn = page.and_then(|page| self.withdraw(page, Interference::DataPage));
                self.running.core.adversary.withdrawn_for_store = withdrawn;
                None
            }
            Some(chosen) => self.exit_before(next, chosen),
            None => None,
        }
    }

    /// Enters for an instruction that EL2 is going to carry out, with something that keeps it from
    /// executing.
    fn exit_before(&mut self, next: &Next, chosen: Interference) -> Option<End> {
        self.running.core.adversary.forced = Some(chosen);
        let (outcome, vector, _) = self.enter(1, ArmedBreakpoints::None, Shown::Nothing, false);
        match outcome {
            Outcome::Continue => {
                let handled = handle(self.running, vector);
                self.interrupted(handled, next, false)
            }
            Outcome::Boundary(_) | Outcome::Trapped => {
                assert!(outcome == Outcome::Trapped, "nothing has executed");
                let handled = handle(self.running, vector);
                assert!(handled == Handled::Past, "the page is back");
                None
            }
        }
    }

    /// The kind of the instruction at `pc`, by what it is and where its data lies.
    fn class_of(&self, pc: Va, pstate: Pstate) -> InstructionClass {
        if pstate.is_aarch32() {
            // Classes are of A64.
            return InstructionClass::Plain;
        }
        let Some(word) = self.word(pc, pstate) else { return InstructionClass::Fault };
        let class = InstructionClass::of(word);
        if !class.has_base() {
            return class;
        }
        let base = Va(self.base((word >> 5 & 0x1f) as u8, pstate));
        match self.running.cpu.to_ipa(base, pstate.el() == 0) {
            Err(_) => InstructionClass::Fault,
            Ok(ipa) if self.running.domain.ram.locate(ipa, 1).is_err() => InstructionClass::Mmio,
            Ok(_) => class,
        }
    }

    pub(super) fn hooked_limit(&mut self, limit: u64) -> u64 {
        self.running.core.adversary.fast_limit(limit)
    }

    /// The instruction at `pc`, without getting to know its page.
    fn word(&self, pc: Va, pstate: Pstate) -> Option<u32> {
        let ram = &self.running.domain.ram;
        let el0 = pstate.el() == 0;
        let pa = self.running.cpu.to_pa(pc, el0, Purpose::Read).ok()?;
        ram.instruction(ram.code_page(pa)?, pc)
    }
}
