//! What each class of instruction does to the state, and the machine's next event.

use crate::exception::{
    Class, FIQ_VECTOR, FROM_LOWER_EL, IRQ_VECTOR, SERROR_VECTOR, SYNCHRONOUS_VECTOR, Syndrome,
};
use crate::exclusive::stored;
use crate::state::{Daif, El, Mdscr, ProcState, SpecMachine};

/// One instruction, as far as Software Step can tell it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Arithmetic, an LSE atomic.
    Plain,
    /// B over the next instruction.
    Branch,
    /// LDXR of the line.
    LoadExclusive,
    /// STXR to the line, of what was loaded plus one.
    StoreExclusive,
    /// CBNZ of the store's status: back to instruction 0 if it failed.
    RetryIfFailed,
    /// CLREX.
    ClearExclusive,
    /// SVC.
    Svc,
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
    /// ERET.
    Eret,
    /// WFI.
    Wfi,
    /// WFE.
    Wfe,
    /// A load that stage 1 does not map.
    Stage1,
    /// A load from a page that EL2 maps when it is asked for.
    Stage2,
    /// A load from a device that EL2 emulates.
    Mmio,
    /// BRK.
    Brk,
    /// MSR MDSCR_EL1.
    WriteMdscr(Mdscr),
    /// MSR DAIF.
    WriteMask(Daif),
    /// MRS DAIF, into the register that a load-exclusive fills.
    ReadMask,
    /// MSR SPSR_EL1: what it holds from here on is no legal return.
    WriteIllegalSpsr,
    /// ISB.
    Isb,
    /// The guest's handler: past what faulted, or the guest's own step once more.
    Handle,
    /// The guest's interrupt handler: acknowledges the interrupt.
    Acknowledge,
    /// B to itself.
    End,
}

/// What a guest executes: instructions, and after them [`Op::End`] for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program(pub &'static [Op]);

impl Program {
    /// The instruction at `pc`.
    #[must_use]
    pub fn fetch(self, pc: u8) -> Op {
        // Both ways to a vector have one handler.
        match if pc < SYNCHRONOUS_VECTOR { pc } else { pc & !FROM_LOWER_EL } {
            SYNCHRONOUS_VECTOR => Op::Handle,
            IRQ_VECTOR | FIQ_VECTOR | SERROR_VECTOR => Op::Acknowledge,
            _ if pc > SYNCHRONOUS_VECTOR => Op::Eret,
            _ => self.0.get(usize::from(pc)).copied().unwrap_or(Op::End),
        }
    }
}

/// What the architecture leaves open about the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// No asynchronous exception.
    Proceed,
    /// No asynchronous exception, and a store-exclusive fails, as any may.
    StoreFails,
    /// A physical interrupt, before whatever synchronous exception is pending.
    PhysicalInterrupt,
    /// A physical fast interrupt, as above.
    PhysicalFastInterrupt,
    /// An SError, as above.
    SystemError,
    /// The virtual interrupt, before whatever synchronous exception is pending.
    VirtualInterrupt,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The instruction at this PC executed.
    Executed(u8),
    /// EL1 took an exception when this was the PC.
    EnteredEl1(u8),
    /// EL2 did.
    ExitedToEl2,
}

impl SpecMachine {
    /// Whether the virtual interrupt can be taken: signalled, and not masked.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Virtual interrupts".
    #[must_use]
    pub const fn can_take_virtual_interrupt(&self) -> bool {
        self.virq && self.virq_signalled && !self.pstate.masks(self.virq_class)
    }

    /// Whether an asynchronous exception may come now: always, but in a PE that delivers a step
    /// first, while one is pending.
    #[must_use]
    pub fn can_be_interrupted(&self) -> bool {
        !self.implementation.step_before_interrupts || !self.check_software_step()
    }

    /// Does what comes next below EL2.
    ///
    /// An asynchronous exception may come before or after a pending Software Step exception.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions": the order against asynchronous
    /// exceptions is not defined there; "Prioritization of Synchronous exceptions taken to
    /// AArch64 state": Software Step, Breakpoint, Illegal Execution state, what the instruction
    /// itself makes.
    pub fn advance(&mut self, program: Program, choice: Choice) -> Event {
        let pc = self.pc;
        let asynchronous = match choice {
            Choice::PhysicalInterrupt => Some(Class::Irq),
            Choice::PhysicalFastInterrupt => Some(Class::Fiq),
            Choice::SystemError => Some(Class::SystemError),
            Choice::VirtualInterrupt => {
                self.take_exception(El::El1, Syndrome::of(self.virq_class), pc);
                // Of an SError HCR_EL2.VSE is cleared; an interrupt is pending until acknowledged.
                self.virq &= self.virq_class != Class::SystemError;
                return Event::EnteredEl1(pc);
            }
            Choice::Proceed | Choice::StoreFails => None,
        };
        if let Some(class) = asynchronous {
            self.take_exception(El::El2, Syndrome::of(class), pc);
            return Event::ExitedToEl2;
        }
        if self.check_software_step() {
            self.software_step_exception();
        } else if self.breakpoint_match() {
            self.breakpoint_exception();
        } else if self.pstate.il {
            return self.fault(El::El1, Class::IllegalState);
        } else {
            return self.execute(program.fetch(pc), choice == Choice::StoreFails);
        }
        if self.pstate.el == El::El2 { Event::ExitedToEl2 } else { Event::EnteredEl1(pc) }
    }

    /// `AArch64.CheckForWFxTrap`: the exception level that WFI and WFE trap to.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Traps to EL2 of EL0 and EL1 execution of WFE and WFI
    /// instructions". A switch for where QEMU departs.
    #[must_use]
    pub const fn check_for_wfx_trap(&self, op: Op) -> bool {
        let trapped = match op {
            Op::Wfi => self.twi,
            Op::Wfe => self.twe,
            _ => false,
        };
        let is_stepped = self.mdscr_seen.ss && self.mdcr.tde;
        trapped && !(self.implementation.steps_past_wfx && is_stepped)
    }

    /// What is undefined at EL0.
    const fn is_privileged(op: Op) -> bool {
        matches!(
            op,
            Op::Hvc
                | Op::Smc
                | Op::Eret
                | Op::WriteMdscr(_)
                | Op::WriteMask(_)
                | Op::ReadMask
                | Op::WriteIllegalSpsr
        )
    }

    fn execute(&mut self, op: Op, fail: bool) -> Event {
        let pc = self.pc;
        match op {
            _ if Self::is_privileged(op) && self.pstate.el == El::El0 => {
                self.fault(El::El1, Class::Undefined)
            }
            Op::Svc => self.call(El::El1, Class::Svc),
            Op::Hvc => self.call(El::El2, Class::Hvc),
            Op::Smc if self.tsc => self.fault(El::El2, Class::Smc),
            Op::Wfi | Op::Wfe if self.check_for_wfx_trap(op) => self.fault(El::El2, Class::Wfx),
            Op::Stage1 => self.fault(El::El1, Class::Stage1),
            Op::Stage2 if !self.is_mapped => self.fault(El::El2, Class::Stage2),
            Op::Mmio => self.fault(El::El2, Class::Mmio),
            // `AArch64.SoftwareBreakpoint`: a debug exception that nothing masks, not even the OS
            // Lock.
            Op::Brk => self.fault(self.debug_target_from(), Class::Brk),
            // MDCR_EL2.TDE = 1 acts as TDA = 1.
            Op::WriteMdscr(_) if self.mdcr.tda || self.mdcr.tde => {
                self.fault(El::El2, Class::SystemRegister)
            }
            Op::Eret => {
                self.ss_advance();
                self.stepped = self.implementation.isv_after_synchronization.then_some(false);
                self.exception_return();
                Event::Executed(pc)
            }
            _ => {
                self.ss_advance();
                let is_valid = op != Op::Isb || self.implementation.isv_after_synchronization;
                self.stepped = is_valid.then_some(op == Op::LoadExclusive);
                self.pc = pc.saturating_add(1);
                self.carry_out(op, fail, pc);
                Event::Executed(pc)
            }
        }
    }

    /// `AArch64.CallSupervisor` and `AArch64.CallHypervisor`: they count as executed, and return to
    /// behind themselves.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions" (`SSAdvance` comes first).
    fn call(&mut self, target: El, class: Class) -> Event {
        let pc = self.pc;
        self.ss_advance();
        self.stepped = Some(false);
        self.take_exception(target, Syndrome::of(class), pc.saturating_add(1));
        if target == El::El2 { Event::ExitedToEl2 } else { Event::EnteredEl1(pc) }
    }

    /// Traps, aborts, undefined instructions: nothing executed, and they return to themselves.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions" (PSTATE.SS is saved as it is).
    fn fault(&mut self, target: El, class: Class) -> Event {
        let pc = self.pc;
        self.take_exception(target, Syndrome::of(class), pc);
        if target == El::El2 { Event::ExitedToEl2 } else { Event::EnteredEl1(pc) }
    }

    fn carry_out(&mut self, op: Op, fail: bool, pc: u8) {
        match op {
            Op::Branch => self.pc = pc.saturating_add(2),
            Op::End => self.pc = pc,
            Op::RetryIfFailed if self.status => self.pc = 0,
            Op::LoadExclusive => self.set_exclusive_monitors(),
            Op::StoreExclusive => {
                self.status = fail || !self.exclusive_monitors_pass();
                self.clear_exclusive_local();
                if !self.status {
                    self.line = stored(self.loaded);
                }
            }
            Op::ClearExclusive => self.clear_exclusive_local(),
            Op::WriteMdscr(value) => {
                self.mdscr = value;
                if self.implementation.writes_seen_at_once {
                    self.synchronize_context();
                }
            }
            Op::Isb => self.synchronize_context(),
            Op::WriteMask(daif) => self.pstate = self.pstate.with_daif(daif),
            Op::ReadMask => {
                let Daif { d, a, i, f } = self.pstate.daif();
                let bits = [f, i, a, d].map(u8::from);
                self.loaded = bits.iter().rev().fold(0, |all, bit| all << 1 | bit);
            }
            Op::WriteIllegalSpsr => self.spsr_el1 = ProcState::at(El::El2),
            Op::Acknowledge => self.virq = false,
            Op::Handle => match self.esr_el1.class {
                Class::Stage1 | Class::Brk | Class::Undefined => {
                    self.elr_el1 = self.elr_el1.saturating_add(1);
                }
                Class::SoftwareStep => self.spsr_el1.ss = true,
                Class::IllegalState => self.spsr_el1.il = false,
                _ => {}
            },
            _ => {}
        }
    }
}
