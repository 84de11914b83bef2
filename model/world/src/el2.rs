//! What a hypervisor does around the engine: the same as `stepwell-hypervisor`'s `vcpu/step`, on
//! the specification's machine.

use crate::world::World;
use crate::{bits, programs};
use stepwell_arch::esr::StepIss;
use stepwell_arch::{Pstate, Va};
use stepwell_engine::own_step::{self, GuestDebug};
use stepwell_engine::{
    After, Before, Boundary, Exit, MdscrAround, MonitorChange, Outcome, Plan, StepState,
    StoreDecision, completion, plan,
};
use stepwell_spec::exception::{IRQ_VECTOR, SYNCHRONOUS_VECTOR};
use stepwell_spec::instruction::stored;
use stepwell_spec::{Choice, Class, El, Letter, Mdcr, ProcState, Program, Syndrome};

/// Address of the line that exclusives are about.
const LINE: Va = Va(0x1000);

/// Bytes of an instruction.
const INSTRUCTION: u64 = 4;

/// The instruction that is about to execute, as EL2 saw it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// What it is.
    pub letter: Letter,
    /// The guest's PSTATE.
    pub pstate: ProcState,
    /// SPSR_EL1.
    pub spsr_el1: ProcState,
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
        if self.engine.enable(pstate, bits::mdscr(self.machine.mdscr)).is_err() {
            return;
        }
        (self.mdscr, self.os_lock) = (self.machine.mdscr, self.machine.os_lock);
        // Nothing steps while the OS Lock is set.
        self.machine.os_lock = false;
        // Held in the virtual GIC, and delivered at a boundary.
        self.machine.virq_signalled = false;
    }

    /// Switches stepping off.
    pub fn switch_off(&mut self) {
        let left = self.engine.disable(self.saved());
        self.save(left.pstate);
        // Until it is all given back the guest's own registers are the shadow.
        self.machine.mdscr = self.mdscr;
        self.machine.os_lock = self.os_lock;
        if left.unreported {
            self.after(Boundary { load_exclusive: false, syndrome_valid: false });
            self.report();
        }
        self.monitor.clear();
        self.machine.mdscr = bits::mdscr_of(left.mdscr);
        self.machine.mdcr = Mdcr::default();
        self.machine.virq_signalled = true;
    }

    /// Lets the guest go on: into the machine, or past one thing that EL2 does in its place.
    pub fn enter(&mut self, program: Program) {
        if self.engine.state() == StepState::ActiveNotPending {
            if own_step::check_software_step(self.guest_debug(), self.saved()) {
                self.inject(Class::SoftwareStep, program);
                return;
            }
            let letter = program.fetch(self.machine.elr_el2);
            self.look =
                Look { letter, pstate: self.machine.spsr_el2, spsr_el1: self.machine.spsr_el1 };
            if self.carry_out_instead(plan(programs::instruction(letter)), program) {
                return;
            }
        }
        let controls = self.engine.on_entry(self.saved());
        self.machine.spsr_el2 = bits::proc_state(controls.spsr);
        if self.is_stepping() {
            self.machine.mdscr = bits::mdscr_of(controls.mdscr);
        }
        self.machine.mdcr = bits::mdcr_of(controls.mdcr);
        self.machine.pstate.d = controls.debug_masked;
        self.machine.exception_return();
        if !self.is_stepping() && !self.is_ss_alive() {
            self.alone.pstate.ss &= self.machine.pstate.ss;
        }
        self.is_in_guest = true;
    }

    fn carry_out_instead(&mut self, plan: Plan, program: Program) -> bool {
        match plan {
            Plan::StoreExclusive(store) => {
                let decision = self.monitor.store(store, LINE);
                let StoreDecision::CompareAndStore(armed) = decision else { return false };
                self.machine.status = u64::from(self.machine.line) != armed.value[0];
                if !self.machine.status {
                    self.machine.line = stored(self.machine.loaded);
                }
            }
            Plan::WaitForInterrupt => {}
            _ => return false,
        }
        self.carried_out(program, INSTRUCTION);
        true
    }

    /// Takes an exit.
    pub fn exited(&mut self, program: Program) {
        self.is_in_guest = false;
        let syndrome = self.machine.esr_el2;
        let exit = match syndrome.class {
            Class::SoftwareStep => Exit::SoftwareStep(step_iss(syndrome)),
            Class::Irq => Exit::Asynchronous,
            _ => Exit::Synchronous,
        };
        let mut pstate = self.saved();
        let outcome = self.engine.on_exit(exit, &mut pstate);
        self.save(pstate);
        match outcome {
            Outcome::Boundary(boundary) => {
                self.after(boundary);
                self.report();
            }
            Outcome::Continue => {}
            Outcome::Trapped => self.trapped(program),
        }
    }

    fn trapped(&mut self, program: Program) {
        let bytes = match self.machine.esr_el2.class {
            Class::Brk => return self.inject(Class::Brk, program),
            Class::Stage2 => {
                self.machine.is_mapped = true;
                self.monitor.trapped();
                return;
            }
            // The CPU has moved the PC past it.
            Class::Hvc => 0,
            _ => INSTRUCTION,
        };
        self.monitor.trapped();
        self.carried_out(program, bytes);
    }

    /// EL2 did an instruction, and moves the PC.
    fn carried_out(&mut self, program: Program, bytes: u64) {
        let before = self.guest_debug().mdscr;
        if let (Class::SystemRegister, Letter::WriteMdscr(value)) =
            (self.machine.esr_el2.class, self.look.letter)
        {
            self.mdscr = value;
            self.engine.set_guest_mdscr(bits::mdscr(value));
        }
        let around = MdscrAround { before, after: self.guest_debug().mdscr };
        let pc = Va(u64::from(self.machine.elr_el2) * INSTRUCTION);
        let (pc, pstate) = completion::carried_out(around, pc, self.saved(), bytes);
        self.machine.elr_el2 = u8::try_from(pc.0 / INSTRUCTION).unwrap_or(u8::MAX);
        self.save(pstate);
        let choice = if self.look.letter == Letter::StoreExclusive && self.machine.status {
            Choice::StoreFails
        } else {
            Choice::Proceed
        };
        self.happened(program, choice);
        if self.engine.emulated().is_some() {
            self.report();
        }
    }

    /// EL2 enters an exception of EL1 on the guest's behalf.
    pub fn inject(&mut self, class: Class, program: Program) {
        let machine = &mut self.machine;
        machine.spsr_el1 = machine.spsr_el2;
        machine.elr_el1 = machine.elr_el2;
        machine.spsr_el2 = ProcState::masked(El::El1);
        let choice = if class == Class::Irq {
            machine.elr_el2 = IRQ_VECTOR;
            Choice::VirtualInterrupt
        } else {
            machine.esr_el1 = Syndrome::of(class);
            machine.elr_el2 = SYNCHRONOUS_VECTOR;
            Choice::Proceed
        };
        self.monitor.clear();
        self.happened(program, choice);
        let mut pstate = self.saved();
        let boundary = self.engine.injected(&mut pstate);
        self.save(pstate);
        if boundary.is_some() {
            self.report();
        }
    }

    /// What an executed instruction leaves to do.
    fn after(&mut self, boundary: Boundary) {
        let pc = self.machine.elr_el2;
        let before = Before {
            plan: plan(programs::instruction(self.look.letter)),
            is_svc: self.look.letter == Letter::Svc,
            pstate: bits::pstate(self.look.pstate),
            spsr_el1: bits::pstate(self.look.spsr_el1),
        };
        let after = After {
            boundary,
            pstate: self.saved(),
            spsr_el1: bits::pstate(self.machine.spsr_el1),
            is_at_vector: pc == SYNCHRONOUS_VECTOR || pc == IRQ_VECTOR,
        };
        let completion = completion::complete(self.guest_debug(), before, after);
        self.save(completion.pstate);
        if let Some(saved) = completion.spsr_el1 {
            self.machine.spsr_el1 = bits::proc_state(saved);
        }
        match completion.monitor {
            MonitorChange::Keep => {}
            MonitorChange::Clear => self.monitor.clear(),
            MonitorChange::Arm(load) => {
                self.monitor.arm(load, LINE, [u64::from(self.machine.loaded), 0]);
            }
        }
    }
}

fn step_iss(syndrome: Syndrome) -> StepIss {
    let bit = |set: bool, at: u32| u32::from(set) << at;
    StepIss(bit(syndrome.isv, 24) | bit(syndrome.ex, 6) | 0x22)
}
