//! The registers that Software Step depends on, and the little else that a guest can observe.

use crate::exception::{Class, Syndrome};
use crate::implementation::Implementation;

/// An exception level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum El {
    /// Applications.
    El0,
    /// The guest's kernel.
    El1,
    /// The hypervisor.
    El2,
}

/// PSTATE, `ProcState` in the pseudocode, and what SPSR_ELx saves of it.
///
/// Source: Arm ARM, DDI 0487 L.b, "Process state, PSTATE".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcState {
    /// Exception level.
    pub el: El,
    /// Software Step: 1 is active-not-pending.
    pub ss: bool,
    /// Debug exceptions from the current level masked.
    pub d: bool,
    /// SError masked.
    pub a: bool,
    /// IRQ masked.
    pub i: bool,
    /// FIQ masked.
    pub f: bool,
    /// Illegal Execution state: whatever is next is an exception.
    pub il: bool,
}

/// DAIF, what MSR DAIF writes of PSTATE.
///
/// Source: Arm ARM, DDI 0487 L.b, "DAIF, Interrupt Mask Bits".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Daif {
    /// Debug exceptions.
    pub d: bool,
    /// SError.
    pub a: bool,
    /// IRQ.
    pub i: bool,
    /// FIQ.
    pub f: bool,
}

impl ProcState {
    /// `el` with nothing masked.
    #[must_use]
    pub const fn at(el: El) -> Self {
        Self { el, ss: false, d: false, a: false, i: false, f: false, il: false }
    }

    /// `el` as an exception entry leaves it: everything masked.
    #[must_use]
    pub const fn masked(el: El) -> Self {
        Self { el, ss: false, d: true, a: true, i: true, f: true, il: false }
    }
}

/// MDSCR_EL1, the fields that enable debug exceptions.
///
/// Source: Arm ARM, DDI 0487 L.b, "MDSCR_EL1, Monitor Debug System Control Register".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mdscr {
    /// Software Step enabled.
    pub ss: bool,
    /// Debug exceptions from ELd itself enabled.
    pub kde: bool,
    /// Breakpoints and watchpoints enabled.
    pub mde: bool,
}

/// MDCR_EL2, the fields that route debug exceptions and trap debug registers.
///
/// Source: Arm ARM, DDI 0487 L.b, "MDCR_EL2, Monitor Debug Configuration Register (EL2)".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mdcr {
    /// Debug exceptions of EL1 and EL0 come to EL2. Acts as TDA = 1, too.
    pub tde: bool,
    /// Accesses of EL1 to debug registers trap to EL2.
    pub tda: bool,
}

/// One PE, and the line of memory that its exclusives are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpecMachine {
    /// Number of the instruction that executes next.
    pub pc: u8,
    /// PSTATE.
    pub pstate: ProcState,
    /// MDSCR_EL1 as it was written last.
    pub mdscr: Mdscr,
    /// MDSCR_EL1 as debug exceptions are governed by it: after a direct write, and before a context
    /// synchronization event, it is CONSTRAINED UNPREDICTABLE whether the old value or the new.
    pub mdscr_seen: Mdscr,
    /// MDCR_EL2.
    pub mdcr: Mdcr,
    /// HCR_EL2.TSC: SMC at EL1 traps to EL2.
    pub tsc: bool,
    /// HCR_EL2.TWI: WFI at EL1 and EL0 traps to EL2.
    pub twi: bool,
    /// HCR_EL2.TWE: WFE at EL1 and EL0 traps to EL2.
    pub twe: bool,
    /// OSLSR_EL1.OSLK.
    pub os_lock: bool,
    /// OSDLR_EL1.DLK.
    pub os_double_lock: bool,
    /// SPSR_EL1.
    pub spsr_el1: ProcState,
    /// ELR_EL1.
    pub elr_el1: u8,
    /// ESR_EL1.
    pub esr_el1: Syndrome,
    /// SPSR_EL2.
    pub spsr_el2: ProcState,
    /// ELR_EL2.
    pub elr_el2: u8,
    /// ESR_EL2.
    pub esr_el2: Syndrome,
    /// What a Software Step exception would say of the instruction before it: nothing, or
    /// whether it was a load-exclusive.
    pub stepped: Option<bool>,
    /// What kind of PE it is.
    pub implementation: Implementation,
    /// The instruction addresses that hardware breakpoints match, DBGBVRn_EL1, where they are enabled.
    pub breakpoints: [Option<u8>; 4],
    /// The local monitor is in the Exclusive Access state for the line.
    pub monitor: bool,
    /// The line in memory.
    pub line: u8,
    /// What the last load-exclusive read.
    pub loaded: u8,
    /// Status of the last store-exclusive: true, it failed.
    pub status: bool,
    /// A virtual interrupt is pending: in the virtual GIC, or as HCR_EL2.VSE.
    pub virq: bool,
    /// What it is taken as: IRQ, FIQ or SError.
    pub virq_class: Class,
    /// The virtual CPU interface signals it to the PE.
    pub virq_signalled: bool,
    /// The page that [`crate::Op::Stage2`] accesses is mapped at stage 2.
    pub is_mapped: bool,
}

impl ProcState {
    /// DAIF.
    #[must_use]
    pub const fn daif(self) -> Daif {
        Daif { d: self.d, a: self.a, i: self.i, f: self.f }
    }

    /// Whether an asynchronous exception of a class is masked.
    #[must_use]
    pub const fn masks(self, class: Class) -> bool {
        match class {
            Class::Fiq => self.f,
            Class::SystemError => self.a,
            _ => self.i,
        }
    }

    /// With another DAIF.
    #[must_use]
    pub const fn with_daif(self, Daif { d, a, i, f }: Daif) -> Self {
        Self { d, a, i, f, ..self }
    }
}

impl SpecMachine {
    /// A context synchronization event: what was written before is seen from here on.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Context synchronization event" in the glossary, and
    /// "Synchronization and debug exceptions".
    pub const fn synchronize_context(&mut self) {
        self.mdscr_seen = self.mdscr;
    }

    /// A PE at instruction 0 in `pstate`, unlocked, nothing armed and nothing trapped but SMC
    /// and WFI.
    #[must_use]
    pub const fn new(pstate: ProcState) -> Self {
        Self {
            pc: 0,
            pstate,
            mdscr: Mdscr { ss: false, kde: false, mde: false },
            mdscr_seen: Mdscr { ss: false, kde: false, mde: false },
            mdcr: Mdcr { tde: false, tda: false },
            tsc: true,
            twi: false,
            twe: false,
            os_lock: false,
            os_double_lock: false,
            spsr_el1: ProcState::at(El::El0),
            elr_el1: 0,
            esr_el1: Syndrome::NONE,
            spsr_el2: pstate,
            elr_el2: 0,
            esr_el2: Syndrome::NONE,
            stepped: None,
            implementation: Implementation::STRICT,
            breakpoints: [None; 4],
            monitor: false,
            line: 0,
            loaded: 0,
            status: false,
            virq: false,
            virq_class: Class::Irq,
            virq_signalled: true,
            is_mapped: false,
        }
    }
}
