//! The alphabet: what each kind of instruction does to the state, and the machine's next event.

use crate::exception::{Class, IRQ_VECTOR, SYNCHRONOUS_VECTOR, Syndrome};
use crate::state::{El, Machine, Mdscr};

/// One instruction, as far as Software Step can tell it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Letter {
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
    /// MSR DAIF, the I bit.
    WriteMask(bool),
    /// MRS DAIF, the I bit, into the register that a load-exclusive fills.
    ReadMask,
    /// ISB.
    Isb,
    /// The guest's handler: past what faulted, or the guest's own step once more.
    Handle,
    /// The guest's interrupt handler: acknowledges the interrupt.
    Acknowledge,
    /// B to itself.
    End,
}

/// What a guest executes: letters, and after them [`Letter::End`] for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program(pub &'static [Letter]);

impl Program {
    /// The instruction at `pc`.
    #[must_use]
    pub fn fetch(self, pc: u8) -> Letter {
        match pc {
            SYNCHRONOUS_VECTOR => Letter::Handle,
            IRQ_VECTOR => Letter::Acknowledge,
            _ if pc > SYNCHRONOUS_VECTOR => Letter::Eret,
            _ => self.0.get(usize::from(pc)).copied().unwrap_or(Letter::End),
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

impl Machine {
    /// Whether the virtual interrupt can be taken: signalled, and not masked.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Virtual interrupts".
    #[must_use]
    pub const fn can_take_virtual_interrupt(&self) -> bool {
        self.virq && self.virq_signalled && !self.pstate.i
    }

    /// Does what comes next below EL2.
    ///
    /// An asynchronous exception may come before or after a pending Software Step exception.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions": the order against asynchronous
    /// exceptions is not defined there; against synchronous ones, Software Step is first.
    pub fn advance(&mut self, program: Program, choice: Choice) -> Event {
        let pc = self.pc;
        match choice {
            Choice::PhysicalInterrupt => {
                self.take_exception(El::El2, Syndrome::of(Class::Irq), pc);
            }
            Choice::VirtualInterrupt => {
                self.take_exception(El::El1, Syndrome::of(Class::Irq), pc);
                return Event::EnteredEl1(pc);
            }
            Choice::Proceed | Choice::StoreFails if self.check_software_step() => {
                self.software_step_exception();
                if self.pstate.el != El::El2 {
                    return Event::EnteredEl1(pc);
                }
            }
            Choice::Proceed | Choice::StoreFails => {
                return self.execute(program.fetch(pc), choice == Choice::StoreFails);
            }
        }
        Event::ExitedToEl2
    }

    fn execute(&mut self, letter: Letter, fail: bool) -> Event {
        let pc = self.pc;
        let kernel = self.pstate.el == El::El1;
        match letter {
            Letter::Svc => self.call(El::El1, Class::Svc),
            Letter::Hvc if kernel => self.call(El::El2, Class::Hvc),
            Letter::Hvc | Letter::Smc | Letter::Eret | Letter::WriteMdscr(_) if !kernel => {
                self.fault(El::El1, Class::Undefined)
            }
            Letter::WriteMask(_) | Letter::ReadMask if !kernel => {
                self.fault(El::El1, Class::Undefined)
            }
            Letter::Smc if self.tsc => self.fault(El::El2, Class::Smc),
            Letter::Wfi if self.twi => self.fault(El::El2, Class::Wfx),
            Letter::Stage1 => self.fault(El::El1, Class::Stage1),
            Letter::Stage2 if !self.is_mapped => self.fault(El::El2, Class::Stage2),
            Letter::Mmio => self.fault(El::El2, Class::Mmio),
            // A debug exception that nothing masks: not even the OS Lock.
            Letter::Brk => self.fault(self.debug_target_from(), Class::Brk),
            Letter::WriteMdscr(_) if self.mdcr.tda || self.mdcr.tde => {
                self.fault(El::El2, Class::SystemRegister)
            }
            Letter::Eret => {
                self.ss_advance();
                self.stepped = Some(false);
                self.exception_return();
                Event::Executed(pc)
            }
            _ => {
                self.ss_advance();
                self.stepped = Some(letter == Letter::LoadExclusive);
                self.pc = pc.saturating_add(1);
                self.carry_out(letter, fail, pc);
                Event::Executed(pc)
            }
        }
    }

    /// SVC and HVC: they count as executed, and return to behind themselves.
    fn call(&mut self, target: El, class: Class) -> Event {
        let pc = self.pc;
        self.ss_advance();
        self.stepped = Some(false);
        self.take_exception(target, Syndrome::of(class), pc.saturating_add(1));
        if target == El::El2 { Event::ExitedToEl2 } else { Event::EnteredEl1(pc) }
    }

    /// Traps, aborts, undefined instructions: nothing executed, and they return to themselves.
    fn fault(&mut self, target: El, class: Class) -> Event {
        let pc = self.pc;
        self.take_exception(target, Syndrome::of(class), pc);
        if target == El::El2 { Event::ExitedToEl2 } else { Event::EnteredEl1(pc) }
    }

    fn carry_out(&mut self, letter: Letter, fail: bool, pc: u8) {
        match letter {
            Letter::Branch => self.pc = pc.saturating_add(2),
            Letter::End => self.pc = pc,
            Letter::RetryIfFailed if self.status => self.pc = 0,
            Letter::LoadExclusive => {
                self.loaded = self.line;
                self.monitor = true;
            }
            Letter::StoreExclusive => {
                self.status = fail || !self.monitor;
                self.monitor = false;
                if !self.status {
                    self.line = stored(self.loaded);
                }
            }
            Letter::ClearExclusive => self.monitor = false,
            Letter::WriteMdscr(value) => self.mdscr = value,
            Letter::WriteMask(i) => self.pstate.i = i,
            Letter::ReadMask => self.loaded = u8::from(self.pstate.i),
            Letter::Acknowledge => self.virq = false,
            Letter::Handle => match self.esr_el1.class {
                Class::Stage1 | Class::Brk | Class::Undefined => {
                    self.elr_el1 = self.elr_el1.saturating_add(1);
                }
                Class::SoftwareStep => self.spsr_el1.ss = true,
                _ => {}
            },
            _ => {}
        }
    }
}

/// What a store-exclusive writes after a load-exclusive read `loaded`.
#[must_use]
pub const fn stored(loaded: u8) -> u8 {
    loaded.wrapping_add(1) % 4
}
