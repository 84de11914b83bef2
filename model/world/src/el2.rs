//! What a hypervisor does around the engine: the same as `stepwell-vm`'s `vcpu/step`, on
//! the specification's machine.

use crate::world::World;
use crate::{bits, programs};
use stepwell_arch::esr::StepIss;
use stepwell_arch::{Pstate, Va};
use stepwell_engine::own_step::{self, GuestDebug};
use stepwell_engine::{
    After, Before, Boundary, Exit, MdscrAround, MonitorChange, Outcome, Plan, Saved, StepState,
    StoreDecision, completion, plan,
};
use stepwell_spec::exception::{SYNCHRONOUS_VECTOR, vector_of};
use stepwell_spec::exclusive::stored;
use stepwell_spec::{
    Choice, Class, El, Mdcr, Mdscr, Op, ProcState, Program, SpecMachine, Syndrome,
};

/// Address of the line that exclusives are about.
const LINE: Va = Va(0x1000);

/// Bytes of an instruction.
const INSTRUCTION: u64 = 4;

/// The instruction that is about to execute, as EL2 saw it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// Where it is.
    pub pc: u8,
    /// What it is.
    pub op: Op,
    /// The guest's PSTATE.
    pub pstate: ProcState,
    /// SPSR_EL1.
    pub spsr_el1: ProcState,
}

/// The guest's debug registers while EL2 has its own in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shadow {
    /// MDSCR_EL1.
    pub mdscr: Mdscr,
    /// OSLSR_EL1.OSLK.
    pub os_lock: bool,
    /// OSDLR_EL1.DLK.
    pub os_double_lock: bool,
}

impl Shadow {
    /// What is in the machine.
    #[must_use]
    pub const fn of(machine: &SpecMachine) -> Self {
        let SpecMachine { mdscr, os_lock, os_double_lock, .. } = *machine;
        Self { mdscr, os_lock, os_double_lock }
    }
}

impl World {
    /// The guest's debug registers, wherever they are.
    #[must_use]
    pub fn guests_registers(&self) -> Shadow {
        if self.holds_debug() { self.shadow } else { Shadow::of(&self.machine) }
    }

    /// What decides over the guest's own debug exceptions.
    #[must_use]
    pub fn guest_debug(&self) -> GuestDebug {
        let Shadow { mdscr, os_lock, os_double_lock } = self.guests_registers();
        GuestDebug { mdscr: bits::mdscr(mdscr), os_lock: os_lock || os_double_lock }
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
        self.shadow = Shadow::of(&self.machine);
        // Nothing steps while either is set.
        (self.machine.os_lock, self.machine.os_double_lock) = (false, false);
        // Held in the virtual GIC, and delivered at a boundary.
        self.machine.virq_signalled = false;
        self.enable();
    }

    /// The engine takes over.
    pub fn enable(&mut self) {
        let enabled = self.engine.enable(self.saved(), bits::mdscr(self.shadow.mdscr));
        debug_assert!(enabled.is_ok(), "it was off, and there is no AArch32 here");
    }

    /// The engine gives back what it has of the guest's. Tells whether something is unreported.
    pub fn disable(&mut self) -> bool {
        let left = self.engine.disable(self.saved());
        self.save(left.pstate);
        self.shadow.mdscr = bits::mdscr_of(left.mdscr);
        left.unreported
    }

    /// Switches stepping off.
    pub fn switch_off(&mut self) {
        self.stop();
        if self.is_stepping() {
            let unreported = self.disable();
            debug_assert!(!unreported, "a stopped vCPU has reported everything");
        }
        self.forget_handler();
        self.monitor.clear();
        let Shadow { mdscr, os_lock, os_double_lock } = self.shadow;
        self.machine.mdscr = mdscr;
        (self.machine.os_lock, self.machine.os_double_lock) = (os_lock, os_double_lock);
        self.machine.mdcr = Mdcr::default();
        self.machine.virq_signalled = true;
    }

    /// The vCPU is to stop, for a stop or a pause: an instruction that has executed is reported
    /// here and now.
    pub fn stop(&mut self) {
        if !self.is_pending() {
            return;
        }
        self.after(Boundary { load_exclusive: false, syndrome_valid: false });
        if self.engine.emulated().is_some() {
            self.report();
        }
    }

    /// Lets the guest go on: into the machine, or past one thing that EL2 does in its place.
    pub fn enter(&mut self, program: Program) {
        if self.engine.state() == StepState::ActiveNotPending {
            if own_step::check_software_step(self.guest_debug(), self.saved()) {
                self.inject(Class::SoftwareStep, program);
                return;
            }
            let op = program.fetch(self.machine.elr_el2);
            self.look = Look {
                pc: self.machine.elr_el2,
                op,
                pstate: self.machine.spsr_el2,
                spsr_el1: self.machine.spsr_el1,
            };
            if self.carry_out_instead(plan(programs::instruction(op)), program) {
                return;
            }
        }
        let controls = self.engine.on_entry(self.saved());
        self.machine.spsr_el2 = bits::proc_state(controls.spsr);
        if self.is_stepping() {
            self.machine.mdscr = bits::mdscr_of(controls.mdscr);
            self.machine.mdcr = bits::mdcr_of(controls.mdcr);
        } else if self.over.is_some() {
            // Its own step, and debug exceptions at its EL1, would come to EL2 now.
            self.machine.mdscr = Mdscr { ss: false, kde: false, mde: true };
            self.machine.mdcr = Mdcr { tde: true, tda: true };
        }
        self.machine.pstate.d = controls.debug_masked;
        // The ISB without which ERET may go by what MDSCR_EL1 was before.
        self.machine.synchronize_context();
        self.machine.exception_return();
        if !self.is_stepping() && !self.is_ss_alive() {
            self.alone.pstate.ss &= self.machine.pstate.ss;
        }
        self.is_in_guest = true;
    }

    fn carry_out_instead(&mut self, plan: Plan, program: Program) -> bool {
        match plan {
            Plan::StoreExclusive(_) => {
                let decision = self.monitor.decide(LINE);
                self.monitor.clear();
                let StoreDecision::CompareAndStore(armed) = decision else { return false };
                self.machine.status = u64::from(self.machine.line) != armed.value[0];
                if !self.machine.status {
                    self.machine.line = stored(self.machine.loaded);
                }
            }
            Plan::WaitForInterrupt { .. } => {}
            _ => return false,
        }
        self.carried_out(program, INSTRUCTION);
        true
    }

    /// Takes an exit.
    pub fn exited(&mut self, program: Program) {
        self.is_in_guest = false;
        // The exit synchronizes; nothing keeps the guest that runs alone from having it so, too.
        self.alone.synchronize_context();
        let syndrome = self.machine.esr_el2;
        let exit = match syndrome.class {
            Class::SoftwareStep => Exit::SoftwareStep(step_iss(syndrome)),
            Class::Irq => Exit::Asynchronous,
            Class::Breakpoint => Exit::Breakpoint,
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
            Class::Breakpoint => return self.handler_returned(),
            Class::Stage2 => {
                self.machine.is_mapped = true;
                return;
            }
            // The CPU has moved the PC past it.
            Class::Hvc => 0,
            _ => INSTRUCTION,
        };
        if matches!(self.machine.esr_el2.class, Class::Hvc | Class::Smc) {
            self.monitor.called();
        }
        self.carried_out(program, bytes);
    }

    /// EL2 did an instruction, and moves the PC.
    fn carried_out(&mut self, program: Program, bytes: u64) {
        let before = self.guest_debug().mdscr;
        if let (Class::SystemRegister, Op::WriteMdscr(value)) =
            (self.machine.esr_el2.class, self.look.op)
        {
            self.shadow.mdscr = value;
            self.engine.set_guest_mdscr(bits::mdscr(value));
        }
        let around = MdscrAround { before, after: self.guest_debug().mdscr };
        let pc = address(self.machine.elr_el2);
        let (pc, pstate) = completion::carried_out(around, pc, self.saved(), bytes);
        self.machine.elr_el2 = u8::try_from(pc.0 / INSTRUCTION).unwrap_or(u8::MAX);
        self.save(pstate);
        let choice = if self.look.op == Op::StoreExclusive && self.machine.status {
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
        machine.elr_el2 = vector_of(class);
        if !matches!(class, Class::Irq | Class::Fiq) {
            machine.esr_el1 = Syndrome::of(class);
        }
        let is_asynchronous = matches!(class, Class::Irq | Class::Fiq | Class::SystemError);
        let choice = if is_asynchronous { Choice::VirtualInterrupt } else { Choice::Proceed };
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
    pub(crate) fn after(&mut self, boundary: Boundary) {
        let vectors = [SYNCHRONOUS_VECTOR, vector_of(self.machine.virq_class)];
        let is_at_vector = vectors.contains(&self.machine.elr_el2);
        let before = Before {
            pc: Some(address(self.look.pc)),
            plan: plan(programs::instruction(self.look.op)),
            is_svc: self.look.op == Op::Svc,
            pstate: bits::pstate(self.look.pstate),
            spsr_el1: bits::pstate(self.look.spsr_el1),
        };
        let after = After {
            boundary,
            pstate: self.saved(),
            vector: is_at_vector.then(|| Saved {
                spsr_el1: bits::pstate(self.machine.spsr_el1),
                elr_el1: address(self.machine.elr_el1),
            }),
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

/// The address of an instruction.
fn address(number: u8) -> Va {
    Va(u64::from(number) * INSTRUCTION)
}

fn step_iss(syndrome: Syndrome) -> StepIss {
    let bit = |set: bool, at: u32| u32::from(set) << at;
    StepIss(bit(syndrome.isv, 24) | bit(syndrome.ex, 6) | 0x22)
}
