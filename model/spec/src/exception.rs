//! Exception entry and return.

use crate::state::{El, ProcState, SpecMachine};

/// Where EL1 takes synchronous exceptions.
pub const SYNCHRONOUS_VECTOR: u8 = 0x40;
/// Where EL1 takes interrupts.
pub const IRQ_VECTOR: u8 = 0x50;
/// Where EL1 takes fast interrupts.
pub const FIQ_VECTOR: u8 = 0x60;
/// Where EL1 takes SErrors.
pub const SERROR_VECTOR: u8 = 0x70;

/// So much further EL1 takes an exception from a lower exception level.
///
/// Source: Arm ARM, DDI 0487 L.b, "Exception vectors".
pub const FROM_LOWER_EL: u8 = 8;

/// Where EL1 takes an exception of a class from EL1 itself.
#[must_use]
pub const fn vector_of(class: Class) -> u8 {
    match class {
        Class::Irq => IRQ_VECTOR,
        Class::Fiq => FIQ_VECTOR,
        Class::SystemError => SERROR_VECTOR,
        _ => SYNCHRONOUS_VECTOR,
    }
}

/// What an exception is about, ESR_ELx.EC or the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// No exception yet.
    None,
    /// Undefined at this exception level.
    Undefined,
    /// SVC.
    Svc,
    /// HVC.
    Hvc,
    /// SMC, trapped.
    Smc,
    /// WFI or WFE, trapped.
    Wfx,
    /// MSR MDSCR_EL1, trapped.
    SystemRegister,
    /// Data abort of stage 1.
    Stage1,
    /// Data abort of stage 2, of memory that is to be mapped.
    Stage2,
    /// Data abort of stage 2, of a device that EL2 emulates.
    Mmio,
    /// BRK.
    Brk,
    /// Illegal Execution state.
    IllegalState,
    /// Breakpoint.
    Breakpoint,
    /// Software Step.
    SoftwareStep,
    /// IRQ, physical at EL2 and virtual at EL1.
    Irq,
    /// FIQ.
    Fiq,
    /// SError.
    SystemError,
}

/// ESR_ELx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Syndrome {
    /// EC.
    pub class: Class,
    /// ISS.ISV of a Software Step exception.
    pub isv: bool,
    /// ISS.EX of a Software Step exception.
    pub ex: bool,
}

impl Syndrome {
    /// Nothing was taken yet.
    pub const NONE: Self = Self::of(Class::None);

    /// A syndrome without ISV.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        Self { class, isv: false, ex: false }
    }
}

impl SpecMachine {
    /// `AArch64.TakeException`: SPSR.SS is PSTATE.SS as it is; PSTATE.SS becomes 0, as does IL.
    ///
    /// The local monitor is cleared, and it is a context synchronization event.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Exception entry".
    pub fn take_exception(&mut self, target: El, syndrome: Syndrome, preferred_return: u8) {
        let saved = self.pstate;
        self.pstate = ProcState::masked(target);
        self.clear_exclusive_local();
        self.synchronize_context();
        if !self.implementation.isv_kept || target == El::El2 {
            self.stepped = None;
        }
        if target == El::El2 {
            (self.spsr_el2, self.elr_el2, self.esr_el2) = (saved, preferred_return, syndrome);
            return;
        }
        (self.spsr_el1, self.elr_el1) = (saved, preferred_return);
        let from = if saved.el < target { FROM_LOWER_EL } else { 0 };
        self.pc = vector_of(syndrome.class) + from;
        // An interrupt leaves ESR_EL1 alone; an SError does not.
        if !matches!(syndrome.class, Class::Irq | Class::Fiq) {
            self.esr_el1 = syndrome;
        }
    }

    /// `AArch64.SoftwareStepException`.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Syndrome information for Software Step exceptions".
    pub fn software_step_exception(&mut self) {
        let syndrome = Syndrome {
            class: Class::SoftwareStep,
            isv: self.stepped.is_some(),
            ex: self.stepped == Some(true),
        };
        self.take_exception(self.debug_target_from(), syndrome, self.pc);
    }

    /// `AArch64.BreakpointException`.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Breakpoint exceptions".
    pub fn breakpoint_exception(&mut self) {
        let syndrome = Syndrome::of(Class::Breakpoint);
        self.take_exception(self.debug_target_from(), syndrome, self.pc);
    }

    /// `IllegalExceptionReturn`: an ERET with this SPSR would raise the exception level.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Illegal exception returns from AArch64 state".
    #[must_use]
    pub fn illegal_exception_return(&self, spsr: ProcState) -> bool {
        spsr.el > self.pstate.el
    }

    /// `AArch64.ExceptionReturn` from EL1 or EL2, whichever the PE is at, and `SetPSTATEFromPSR`.
    ///
    /// An illegal one goes to ELR all the same, at the exception level where it was, in Illegal
    /// Execution state. It is a context synchronization event; what it does to PSTATE.SS comes
    /// before that.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Exception return" and "Illegal exception returns from
    /// AArch64 state"; the local monitor: "Exclusive access instructions and Non-shareable memory
    /// locations".
    pub fn exception_return(&mut self) {
        let (spsr, elr) = if self.pstate.el == El::El2 {
            self.stepped = None;
            (self.spsr_el2, self.elr_el2)
        } else {
            (self.spsr_el1, self.elr_el1)
        };
        let ss = self.debug_exception_return_ss(spsr);
        let illegal = self.illegal_exception_return(spsr);
        let el = if illegal { self.pstate.el } else { spsr.el };
        self.pstate = ProcState { ss, el, il: spsr.il || illegal, ..spsr };
        self.pc = elr;
        self.clear_exclusive_local();
        self.synchronize_context();
    }
}
