//! The adversary, around the CPU that the loop takes it for.
//!
//! How each interference comes about:
//!
//! - *physical*: EL2 sends itself an SGI right before the ERET. The CPU takes it as soon as it is
//!   out of EL2, with SPSR_EL2.SS as it was entered: 1, or 0 where a step is pending.
//! - *pending*: the step exception has arrived, and is told as an interrupt, with the syndrome of the
//!   exit before. The next entry has SS = 0, and the CPU delivers the exception anew.
//! - *spurious*: the exit is made up, nothing is entered.
//! - *serror*: the exit is made up likewise, with the syndrome of an SError; what the guest gets of
//!   it is real.
//! - *code page*, *data page*: stage 2 loses the permission, the CPU takes the abort, the page is
//!   given back, the instruction is retried.
//! - *pause*: the vCPU is called out as for a stop, though nobody wants one: the order that it was
//!   carrying out comes to an end, and the rest of it begins anew.
//!
//! Only a guest that is stepped is met. The fast path is mostly left out, so that the loop sees each
//! step.
//!
//! What the guest could tell is asserted where it is at hand: an exit before an instruction leaves
//! PC and PSTATE as they were, and what a stop saves and a resume loads is all there is. A failed
//! assertion is a bug, and ends the machine with a message. The rest, whether the guest executes the
//! same instructions and comes to the same result, is for whoever compares the streams.

use super::instruction_class::InstructionClass;
use super::withdrawal::{give_back, withdraw};
use super::{Config, Decisions, Interference};
use crate::cpu::{
    Abilities, Context as _, Cpu, CpuFacts, DebugBank, Interrupt, Purpose, TranslationFailed,
    Vector,
};
use crate::domain::{Domain, Vcpu};
use crate::machine::Machine;
use crate::memory::GuestMemory;
use crate::registers::{PrivateRegisters, Snapshot};
use crate::simd::SimdRegisters;
use crate::stage2::Vttbr;
use crate::vgic::CpuInterface;
use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::Ordering;
use stepwell_arch::debug::mdscr_el1;
use stepwell_arch::esr::{EsrEl1, EsrEl2, ec};
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};

/// A CPU and what happens to it.
pub struct Adversary<C: Cpu> {
    cpu: C,
    machine: &'static Machine<Self>,
    is_on: bool,
    state: RefCell<State>,
}

struct State {
    decisions: Decisions,
    /// The instruction that is about to execute was about to at the last entry.
    is_again: bool,
}

/// ESR_EL2, FAR_EL2 and HPFAR_EL2.
type Syndrome = (u64, u64, u64);

impl<C: Cpu> Adversary<C> {
    /// Wraps one of a machine's CPUs; without a configuration, to do nothing.
    pub fn new(cpu: C, machine: &'static Machine<Self>, config: Option<&Config<'_>>) -> Self {
        let decisions = Decisions::new(config, cpu.number());
        let state = RefCell::new(State { decisions, is_again: false });
        Self { cpu, machine, is_on: config.is_some(), state }
    }

    /// The CPU inside.
    pub const fn inside(&self) -> &C {
        &self.cpu
    }

    /// Who is stepped on this CPU, if somebody is and is to be met by anything.
    fn stepped(&self) -> Option<(&'static Domain<Self>, &'static Vcpu<Self>)> {
        let steps = || self.cpu.read(SystemRegister::MDSCR_EL1) & mdscr_el1::SS != 0;
        if !self.is_on || !steps() {
            return None;
        }
        self.machine.vcpu_on(self.cpu.number())
    }

    /// Takes down the instruction that is about to execute, and the interrupt that was entered before
    /// another one, if that is why it is.
    fn meet(&self, state: &mut State, context: &C::Context, domain: &Domain<Self>) {
        let (pc, pstate) = (Va(context.elr), Pstate(context.spsr));
        let offset = pc.0.wrapping_sub(self.cpu.read(SystemRegister::VBAR_EL1) & !0x7ff);
        let is_vector = offset < 0x800 && offset & 0x7f == 0;
        if is_vector && offset & 0x180 != 0 {
            let interrupted = Va(self.cpu.read(SystemRegister::ELR_EL1));
            let pstate = Pstate(self.cpu.read(SystemRegister::SPSR_EL1));
            let class = self.class_of(context, domain, interrupted, pstate);
            state.decisions.count_for(class, Interference::Virtual);
        }
        let class = self.class_of(context, domain, pc, pstate);
        state.decisions.meet(class);
    }

    /// Enters the guest, or not, and says how it left.
    fn cross(
        &self,
        state: &mut State,
        context: &mut C::Context,
        domain: &Domain<Self>,
        is_pending: bool,
    ) -> Vector {
        let place = (context.elr, context.spsr);
        let chosen = state.decisions.before_entry(is_pending);
        // Before an entry that only delivers a step, it is the instruction before it that is met.
        let counted = |what| if is_pending { Interference::Pending } else { what };
        state.is_again = true;
        match chosen {
            Some(what @ Interference::Spurious) => {
                state.decisions.count(counted(what));
                Vector::Fiq
            }
            Some(what @ Interference::Physical) => {
                self.cpu.kick(1 << self.cpu.number());
                let vector = self.cpu.enter(context);
                assert!(vector == Vector::Irq, "an SGI of EL2's is taken before anything else");
                assert!((context.elr, context.spsr) == place, "an exit changes the guest");
                state.decisions.count(counted(what));
                vector
            }
            Some(what @ Interference::SystemError) => {
                state.decisions.count(counted(what));
                // Uncategorized.
                context.esr = EsrEl1::serror(0).0;
                Vector::SError
            }
            Some(what @ (Interference::CodePage | Interference::DataPage)) => {
                self.enter_without_page(state, context, domain, what)
            }
            _ => {
                state.is_again = false;
                self.cpu.enter(context)
            }
        }
    }

    /// Enters with a page withdrawn, and gives it back whatever came.
    fn enter_without_page(
        &self,
        state: &mut State,
        context: &mut C::Context,
        domain: &Domain<Self>,
        what: Interference,
    ) -> Vector {
        let page = match what {
            Interference::CodePage => self.ipa(Va(context.elr)),
            _ => self.data_page(context, domain),
        };
        let withdrawn = page.and_then(|page| withdraw(domain, page, what));
        let vector = self.cpu.enter(context);
        if let Some(withdrawn) = withdrawn {
            give_back(domain, withdrawn);
        }
        let class = EsrEl2(context.esr).ec();
        let is_abort = match what {
            Interference::CodePage => class == ec::IABT_LOWER,
            _ => class == ec::DABT_LOWER,
        };
        state.is_again = withdrawn.is_some() && vector == Vector::Synchronous && is_abort;
        if state.is_again {
            state.decisions.count(what);
        }
        vector
    }

    /// Has a step exception told as an interrupt that came before it: with the syndrome of the exit
    /// before, as an interrupt writes none.
    fn delay_step(
        &self,
        state: &mut State,
        context: &mut C::Context,
        domain: &Domain<Self>,
        (is_pending, syndrome): (bool, Syndrome),
    ) -> bool {
        let is_step = EsrEl2(context.esr).ec() == ec::SOFTWARE_STEP_LOWER;
        if !is_step || !state.decisions.delays_step(is_pending) {
            return false;
        }
        // QEMU would take the guest's own fetch abort before the step (see docs/qemu.md).
        let is_memory = |ipa| domain.ram.locate(ipa, 4).is_ok();
        if !self.ipa_as(Va(context.elr), Pstate(context.spsr)).is_some_and(is_memory) {
            return false;
        }
        assert!(!Pstate(context.spsr).ss(), "SS is clear at a step exception");
        (context.esr, context.far, context.hpfar) = syndrome;
        state.decisions.count(Interference::Pending);
        true
    }

    /// Where an address of code is: as EL1 may read, which need not be able to execute it.
    fn ipa(&self, va: Va) -> Option<Ipa> {
        self.cpu.to_ipa(va, false, Purpose::Read).ok()
    }

    fn ipa_as(&self, va: Va, pstate: Pstate) -> Option<Ipa> {
        self.cpu.to_ipa(va, pstate.el() == 0, Purpose::Read).ok()
    }

    /// The page that the base register of the next instruction points to.
    fn data_page(&self, context: &C::Context, domain: &Domain<Self>) -> Option<Ipa> {
        let pstate = Pstate(context.spsr);
        let word = self.word(domain, Va(context.elr)).filter(|_| !pstate.is_aarch32())?;
        if !InstructionClass::of(word).has_base() {
            return None;
        }
        self.ipa_as(self.base(context, word, pstate), pstate)
    }

    /// The kind of the instruction at `pc`, by what it is and where its data lies.
    fn class_of(
        &self,
        context: &C::Context,
        domain: &Domain<Self>,
        pc: Va,
        pstate: Pstate,
    ) -> InstructionClass {
        if pstate.is_aarch32() {
            // Classes are of A64.
            return InstructionClass::Plain;
        }
        let Some(word) = self.word(domain, pc) else { return InstructionClass::Fault };
        let class = InstructionClass::of(word);
        if !class.has_base() {
            return class;
        }
        match self.ipa_as(self.base(context, word, pstate), pstate) {
            None => InstructionClass::Fault,
            Some(ipa) if domain.ram.locate(ipa, 1).is_err() => InstructionClass::Mmio,
            Some(_) => class,
        }
    }

    fn base(&self, context: &C::Context, word: u32, pstate: Pstate) -> Va {
        Va(match ((word >> 5 & 0x1f) as u8, pstate.uses_sp_elx()) {
            (31, true) => self.cpu.read(SystemRegister::SP_EL1),
            (31, false) => context.sp_el0,
            (n, _) => context.register(n),
        })
    }

    /// The instruction at `pc`, if there is one in RAM. Stage 1 alone is asked: stage 2 may have lost
    /// the page.
    fn word(&self, domain: &Domain<Self>, pc: Va) -> Option<u32> {
        let pa = domain.ram.locate(self.ipa(pc)?, 4).ok()?;
        domain.ram.instruction(domain.ram.code_page(pa)?, pc)
    }

    /// A stop and a resume are to change no register.
    fn check_what_is_saved(&self, saved: &Snapshot) {
        let mut loaded = Snapshot::default();
        self.cpu.load(&self.machine.reset);
        self.cpu.load(saved);
        self.cpu.save(&mut loaded);
        assert!(saved.is_same_guest(&loaded), "a stop and a resume change a register of the guest");
    }

    /// Says what has happened, once the domain has ended.
    fn report(&self) {
        let Some((domain, ..)) = self.machine.vcpu_on(self.cpu.number()) else { return };
        if domain.control.lock().ending.is_none() {
            return;
        }
        let state = self.state.borrow();
        for class in InstructionClass::ALL {
            self.cpu.log(format_args!("coverage: {}", state.decisions.row(class)));
        }
    }
}

macro_rules! as_it_is {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        $(fn $name(&self $(, $argument: $type)*) $(-> $result)? {
            self.cpu.$name($($argument),*)
        })*
    };
}

impl<C: Cpu> Cpu for Adversary<C> {
    type Context = C::Context;
    type Memory = C::Memory;
    type Ring = C::Ring;
    const CAN: Abilities = C::CAN;

    fn enter(&self, context: &mut C::Context) -> Vector {
        let Some((domain, vcpu)) = self.stepped() else { return self.cpu.enter(context) };
        let state = &mut *self.state.borrow_mut();
        let is_pending = !Pstate(context.spsr).ss();
        if !is_pending && !state.is_again {
            self.meet(state, context, domain);
        }
        let budget = context.fast_budget();
        let less = state.decisions.fast_limit(budget.saturating_add(1)).saturating_sub(1);
        context.set_fast_budget(less);
        let syndrome = (context.esr, context.far, context.hpfar);
        let vector = self.cross(state, context, domain, is_pending);
        let used = less - context.fast_budget();
        context.set_fast_budget(budget - used);
        if used > 0 {
            state.decisions.class = InstructionClass::FastRun;
        }
        let is_late = vector == Vector::Synchronous
            && self.delay_step(state, context, domain, (is_pending, syndrome));
        if state.decisions.pauses() {
            state.decisions.paused = true;
            vcpu.stop_requested.store(true, Ordering::Release);
        }
        if is_late { Vector::Irq } else { vector }
    }

    fn save(&self, into: &mut Snapshot) {
        self.cpu.save(into);
        if self.is_on {
            self.check_what_is_saved(into);
            self.report();
        }
    }

    fn enter_counted(&self, context: &mut C::Context, clock: u64, until: u64) -> (Vector, u64) {
        // What it does has no position.
        self.cpu.enter_counted(context, clock, until)
    }

    as_it_is! {
        fn number(&self) -> usize;
        fn facts(&self) -> CpuFacts;
        fn prepare(&self, vmpidr: u64, tables: Vttbr);
        fn change_vcpu(&self, vmpidr: u64, tables: Vttbr, keeps_tlb: bool);
        fn read(&self, register: SystemRegister) -> u64;
        fn write(&self, register: SystemRegister, value: u64);
        fn guest_feature_id(&self, register: SystemRegister) -> u64;
        fn read_debug(&self, bank: DebugBank, n: usize) -> u64;
        fn write_debug(&self, bank: DebugBank, n: usize, value: u64);
        fn access_debug(&self, register: SystemRegister, value: u64, write: bool) -> Option<u64>;
        fn set_debug_traps(&self, traps: u64);
        fn set_debug_masked(&self, is_masked: bool);
        fn synchronize(&self);
        fn reset(&self);
        fn save_private(&self, into: &mut PrivateRegisters);
        fn load_private(&self, from: &PrivateRegisters);
        fn load(&self, from: &Snapshot);
        fn save_simd(&self, into: &mut SimdRegisters);
        fn load_simd(&self, from: &mut SimdRegisters);
        fn stop_virtual_timer(&self);
        fn to_ipa(&self, va: Va, el0: bool, purpose: Purpose) -> Result<Ipa, TranslationFailed>;
        fn invalidate_guest_stage1(&self);
        fn trap_waits(&self, trap: bool);
        fn trap_invalidations(&self, trap: bool);
        fn trap_translation_changes(&self, trap: bool);
        fn set_stage2(&self, tables: Vttbr);
        fn load_interface(&self, interface: &CpuInterface);
        fn save_interface(&self, interface: &mut CpuInterface);
        fn raise_serror(&self, iss: u32);
        fn take_serror_back(&self) -> bool;
        fn take_interrupt(&self) -> Option<Interrupt>;
        fn enable_virtual_timer(&self, enable: bool);
        fn wait_for_interrupt(&self);
        fn enable_link(&self, enable: bool);
        fn kick(&self, cpus: u8);
        fn frequency_hz(&self) -> u64;
        fn counter(&self) -> u64;
        fn counter_at_reset(&self) -> u64;
        fn set_offset(&self, offset: u64);
        fn offset(&self) -> u64;
        fn interrupt_in(&self, ns: u64);
        fn cancel_interrupt(&self);
        fn power_off(&self);
        fn log(&self, line: fmt::Arguments<'_>);
    }
}
