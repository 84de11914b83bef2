//! What a hypervisor does around the engine: the same as `stepwell-hypervisor`'s `vcpu/step`, on
//! the specification's machine.

use crate::subject::Mistake;
use crate::world::World;
use crate::{bits, programs};
use stepwell_arch::esr::StepIss;
use stepwell_arch::{Pstate, Va};
use stepwell_engine::own_step::{self, GuestDebug};
use stepwell_engine::{Boundary, Exit, Outcome, Plan, StepState, StoreDecision, plan};
use stepwell_spec::exception::{IRQ_VECTOR, SYNCHRONOUS_VECTOR};
use stepwell_spec::instruction::stored;
use stepwell_spec::{Choice, Class, El, Letter, Mdcr, ProcState, Program, Syndrome};

/// Address of the line that exclusives are about.
const LINE: Va = Va(0x1000);

/// The instruction that is about to execute, as EL2 saw it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// What it is.
    pub letter: Letter,
    /// The guest's PSTATE.
    pub pstate: ProcState,
    /// SPSR_EL1.SS.
    pub spsr_el1_ss: bool,
}

impl World {
    /// What decides over the guest's own debug exceptions.
    #[must_use]
    pub fn guest_debug(&self) -> GuestDebug {
        let (mdscr, os_lock) = if self.is_stepping() {
            (self.mdscr, self.os_lock)
        } else {
            (self.machine.mdscr, self.machine.os_lock)
        };
        GuestDebug { mdscr: bits::mdscr(mdscr), os_lock }
    }

    /// The saved PSTATE.
    #[must_use]
    pub fn saved(&self) -> Pstate {
        bits::pstate(self.machine.spsr_el2)
    }

    fn save(&mut self, pstate: Pstate) {
        self.machine.spsr_el2 = bits::proc_state(pstate);
    }

    /// Switches stepping on.
    pub fn switch_on(&mut self) {
        let pstate = self.saved();
        if self.subject.engine.enable(pstate, bits::mdscr(self.machine.mdscr)).is_err() {
            return;
        }
        (self.mdscr, self.os_lock) = (self.machine.mdscr, self.machine.os_lock);
        // Nothing steps while the OS Lock is set.
        self.machine.os_lock = false;
        // Held in the virtual GIC, and delivered at a boundary.
        self.machine.virq_signalled = false;
    }

    /// Switches stepping off.
    pub fn switch_off(&mut self, mistake: Option<Mistake>) {
        let mut pstate = self.saved();
        let (mdscr, unreported) = self.subject.disable(&mut pstate, mistake);
        self.save(pstate);
        // Until it is all given back the guest's own registers are the shadow.
        self.machine.mdscr = self.mdscr;
        self.machine.os_lock = self.os_lock;
        if unreported {
            self.after(Boundary { load_exclusive: false, syndrome_valid: false }, mistake);
            self.report();
        }
        self.subject.monitor.clear();
        self.machine.mdscr = bits::mdscr_of(mdscr);
        self.machine.mdcr = Mdcr::default();
        self.machine.virq_signalled = true;
    }

    /// Lets the guest go on: into the machine, or past one thing that EL2 does in its place.
    pub fn enter(&mut self, program: Program, mistake: Option<Mistake>) {
        if self.subject.engine.state() == StepState::ActiveNotPending {
            if own_step::check_software_step(self.guest_debug(), self.saved()) {
                self.inject(Class::SoftwareStep, program, mistake);
                return;
            }
            let letter = program.fetch(self.machine.elr_el2);
            self.look = Look {
                letter,
                pstate: self.machine.spsr_el2,
                spsr_el1_ss: self.machine.spsr_el1.ss,
            };
            if self.carry_out_instead(plan(programs::instruction(letter)), program, mistake) {
                return;
            }
        }
        let controls = self.subject.on_entry(self.saved(), mistake);
        self.machine.spsr_el2 = bits::proc_state(controls.spsr);
        if self.is_stepping() {
            self.machine.mdscr = bits::mdscr_of(controls.mdscr);
        }
        self.machine.mdcr = bits::mdcr_of(controls.mdcr);
        self.machine.pstate.d = mistake != Some(Mistake::DebugExceptionsAtEl2);
        self.machine.exception_return();
        if !self.is_stepping() && !self.is_ss_alive() {
            self.alone.pstate.ss &= self.machine.pstate.ss;
        }
        self.is_in_guest = true;
    }

    fn carry_out_instead(
        &mut self,
        plan: Plan,
        program: Program,
        mistake: Option<Mistake>,
    ) -> bool {
        match plan {
            Plan::StoreExclusive(store) => {
                let decision = self.subject.monitor.store(store, LINE);
                let StoreDecision::CompareAndStore(armed) = decision else { return false };
                self.machine.status = u64::from(self.machine.line) != armed.value[0];
                if !self.machine.status {
                    self.machine.line = stored(self.machine.loaded);
                }
            }
            Plan::WaitForInterrupt => {}
            _ => return false,
        }
        self.machine.elr_el2 = self.machine.elr_el2.saturating_add(1);
        self.carried_out(program, mistake);
        true
    }

    /// Takes an exit.
    pub fn exited(&mut self, program: Program, mistake: Option<Mistake>) {
        self.is_in_guest = false;
        let syndrome = self.machine.esr_el2;
        let exit = match syndrome.class {
            Class::SoftwareStep => Exit::SoftwareStep(step_iss(syndrome)),
            Class::Irq => Exit::Asynchronous,
            _ => Exit::Synchronous,
        };
        let mut pstate = self.saved();
        let outcome = self.subject.on_exit(exit, &mut pstate, mistake);
        self.save(pstate);
        match outcome {
            Outcome::Boundary(boundary) => {
                self.after(boundary, mistake);
                self.report();
            }
            Outcome::Continue => {}
            Outcome::Trapped => self.trapped(program, mistake),
        }
    }

    fn trapped(&mut self, program: Program, mistake: Option<Mistake>) {
        let class = self.machine.esr_el2.class;
        // A guest that runs alone comes to EL2 for these, too, and loses its monitor there.
        let alone_too = matches!(class, Class::Hvc | Class::Smc | Class::Mmio | Class::Stage2);
        if alone_too && mistake != Some(Mistake::MonitorKeptOverTrap) {
            self.subject.monitor.clear();
        }
        match class {
            Class::Brk => return self.inject(class, program, mistake),
            Class::Stage2 => {
                self.machine.is_mapped = true;
                return;
            }
            Class::Hvc => {}
            Class::Smc if mistake == Some(Mistake::SmcNotAdvanced) => {}
            _ => self.machine.elr_el2 = self.machine.elr_el2.saturating_add(1),
        }
        self.carried_out(program, mistake);
    }

    /// EL2 did an instruction and moved the PC.
    fn carried_out(&mut self, program: Program, mistake: Option<Mistake>) {
        let is_late = mistake == Some(Mistake::MdscrBeforeAdvance);
        let is_kept = mistake == Some(Mistake::UnsteppedTrapKeepsSs) && !self.is_stepping();
        if !is_late && !is_kept {
            self.advance_guests_own_step();
        }
        // After SSAdvance, which the value before the write decides over.
        if let (Class::SystemRegister, Letter::WriteMdscr(value)) =
            (self.machine.esr_el2.class, self.look.letter)
        {
            self.mdscr = value;
            self.subject.engine.set_guest_mdscr(bits::mdscr(value));
        }
        if is_late {
            self.advance_guests_own_step();
        }
        let choice = if self.look.letter == Letter::StoreExclusive && self.machine.status {
            Choice::StoreFails
        } else {
            Choice::Proceed
        };
        self.happened(program, choice);
        if mistake != Some(Mistake::EmulatedNotReported) && self.subject.engine.emulated().is_some()
        {
            self.report();
        }
    }

    /// EL2 enters an exception of EL1 on the guest's behalf.
    pub fn inject(&mut self, class: Class, program: Program, mistake: Option<Mistake>) {
        let machine = &mut self.machine;
        machine.spsr_el1 = machine.spsr_el2;
        machine.elr_el1 = machine.elr_el2;
        machine.spsr_el2 = ProcState::masked(El::El1);
        machine.spsr_el2.ss = mistake == Some(Mistake::InjectedKeepsSs);
        let choice = if class == Class::Irq {
            machine.elr_el2 = IRQ_VECTOR;
            Choice::VirtualInterrupt
        } else {
            machine.esr_el1 = Syndrome::of(class);
            machine.elr_el2 = SYNCHRONOUS_VECTOR;
            Choice::Proceed
        };
        self.subject.monitor.clear();
        self.happened(program, choice);
        if self.subject.engine.injected().is_some() {
            self.report();
        }
    }

    fn advance_guests_own_step(&mut self) {
        let advanced = own_step::ss_advance(self.guest_debug(), self.saved());
        self.save(advanced);
    }

    /// What an executed instruction leaves to do.
    fn after(&mut self, boundary: Boundary, mistake: Option<Mistake>) {
        let pc = self.machine.elr_el2;
        let pstate = self.saved();
        let leaked = self.machine.spsr_el1.ss != pstate.ss();
        let at_vector = pc == SYNCHRONOUS_VECTOR || pc == IRQ_VECTOR;
        if at_vector && (!boundary.syndrome_valid || leaked) {
            self.exception_entered(mistake);
            return;
        }
        self.advance_guests_own_step();
        match plan(programs::instruction(self.look.letter)) {
            Plan::LoadExclusive(load) if mistake != Some(Mistake::ExclusivesLeft) => {
                let value = [u64::from(self.machine.loaded), 0];
                self.subject.monitor.arm(load, LINE, value);
            }
            Plan::ClearExclusive => self.subject.monitor.clear(),
            Plan::ExceptionReturn => {
                self.subject.monitor.clear();
                let ss = own_step::debug_exception_return_ss(
                    self.guest_debug(),
                    bits::pstate(self.look.pstate),
                    pstate.with_ss(self.look.spsr_el1_ss),
                );
                self.save(pstate.with_ss(ss));
            }
            _ => {}
        }
    }

    /// The CPU took an exception to EL1: the SS that it left in SPSR_EL1 was ours.
    fn exception_entered(&mut self, mistake: Option<Mistake>) {
        self.subject.monitor.clear();
        // SSAdvance comes before an SVC's exception, and after no other's.
        let mut saved = self.saved();
        let enabled_only = mistake == Some(Mistake::SvcAdvancesWhereEnabled);
        let guest = self.guest_debug();
        let is_enabled = own_step::is_stepping(guest, bits::pstate(self.look.pstate));
        if self.look.letter == Letter::Svc && (is_enabled || !enabled_only) {
            saved = own_step::ss_advance(guest, saved);
        }
        if mistake != Some(Mistake::SsLeaksIntoSpsrEl1) {
            self.machine.spsr_el1.ss = saved.ss();
        }
        self.machine.spsr_el2.ss = false;
    }
}

fn step_iss(syndrome: Syndrome) -> StepIss {
    let bit = |set: bool, at: u32| u32::from(set) << at;
    StepIss(bit(syndrome.isv, 24) | bit(syndrome.ex, 6) | 0x22)
}
