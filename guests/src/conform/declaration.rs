//! What a case declares.

/// Exception classes (ESR_EL1.EC). Where a class depends on the exception level that the exception
/// came from, this is the one of EL1; EL0's is one less.
pub mod class {
    /// Unknown reason: an undefined instruction.
    pub const UNKNOWN: u64 = 0x00;
    /// Access to SIMD and floating point that CPACR_EL1 traps.
    pub const SIMD: u64 = 0x07;
    /// Illegal execution state.
    pub const ILLEGAL_STATE: u64 = 0x0e;
    /// SVC.
    pub const SVC: u64 = 0x15;
    /// A system register that EL0 is kept from.
    pub const SYSTEM_REGISTER: u64 = 0x18;
    /// Instruction abort.
    pub const INSTRUCTION_ABORT: u64 = 0x21;
    /// PC alignment fault.
    pub const PC_ALIGNMENT: u64 = 0x22;
    /// Data abort.
    pub const DATA_ABORT: u64 = 0x25;
    /// SP alignment fault.
    pub const SP_ALIGNMENT: u64 = 0x26;
    /// Hardware breakpoint.
    pub const BREAKPOINT: u64 = 0x31;
    /// Software step.
    pub const SOFTWARE_STEP: u64 = 0x33;
    /// Watchpoint.
    pub const WATCHPOINT: u64 = 0x35;
    /// BRK.
    pub const BRK: u64 = 0x3c;
    /// What EL0 gets for EL1's registers: unknown, or with FEAT_IDST a trap. Not a class.
    pub const UNKNOWN_OR_TRAP: u64 = 0xff;
}

/// Where nothing is mapped: in X1 when a case begins.
pub const UNMAPPED: u64 = 0x1_4000_0000;
/// PSTATE.D.
pub const D: u64 = 1 << 9;
/// PSTATE.I.
pub const IRQ: u64 = 1 << 7;
/// PSTATE.F.
pub const FIQ: u64 = 1 << 6;
/// PSTATE.SS.
const SS: u64 = 1 << 21;
/// PSTATE.IL.
const IL: u64 = 1 << 20;
/// Instructions of the interrupt handler, behind its vector's one.
pub const INTERRUPT_INSTRUCTIONS: u64 = 9;

/// An exception level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The application's.
    El0,
    /// The kernel's.
    El1,
}

/// At which a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// Only there.
    El0,
    /// Only there.
    El1,
    /// At one after the other.
    Both,
}

/// What a case does after an exception. Each is straight code behind a vector of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Returns to where ELR_EL1 says.
    Return,
    /// Returns four bytes after it.
    Skip,
    /// Returns to X30.
    Link,
    /// Clears SPSR_EL1.IL and returns.
    Legal,
    /// Returns to X16, at EL1, all masked.
    ToEl1,
    /// Sets SPSR_EL1.SS and returns.
    Step,
    /// As `Step`, and past what raised anything but a step.
    StepSkip,
    /// Disables breakpoint 0 and watchpoint 0, and returns.
    Clear,
}

impl Handler {
    /// All of them, in the order in which the guest lists their addresses.
    pub const ALL: [Self; 8] = [
        Self::Return,
        Self::Skip,
        Self::Link,
        Self::Legal,
        Self::ToEl1,
        Self::Step,
        Self::StepSkip,
        Self::Clear,
    ];

    /// Its symbol in the guest.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Return => "conform_return",
            Self::Skip => "conform_skip",
            Self::Link => "conform_link",
            Self::Legal => "conform_legal",
            Self::ToEl1 => "conform_to_el1",
            Self::Step => "conform_step",
            Self::StepSkip => "conform_step_skip",
            Self::Clear => "conform_clear",
        }
    }

    /// How many instructions it has, ERET included.
    #[must_use]
    pub const fn instructions(self) -> u64 {
        match self {
            Self::Return => 10,
            Self::Link => 11,
            Self::Skip | Self::Legal | Self::Step => 12,
            Self::ToEl1 | Self::Clear => 13,
            Self::StepSkip => 17,
        }
    }
}

/// Where ELR_EL1 must point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElrPlace {
    /// At an instruction of the case.
    Code(u64),
    /// At that many bytes from the case's start.
    Bytes(u64),
    /// At [`UNMAPPED`].
    Unmapped,
    /// At the UART.
    Device,
    /// At the end of all cases.
    End,
}

/// An exception that the guest must see.
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// Its class; see [`class`].
    pub class: u64,
    /// What ELR_EL1 must be.
    pub elr: ElrPlace,
    /// SPSR_EL1's SS, IL, DAIF bits.
    pub spsr: u64,
    /// The exception level it came from, where that is not the case's.
    pub from: Option<Level>,
    /// What FAR_EL1 must be.
    pub far: Option<u64>,
}

impl Caught {
    /// From code that had unmasked interrupts and nothing else.
    #[must_use]
    pub const fn new(class: u64, elr: ElrPlace) -> Self {
        Self { class, elr, spsr: 0x340, from: None, far: None }
    }

    /// An exception whose ELR_EL1 is at an instruction.
    #[must_use]
    pub const fn at(class: u64, instruction: u64) -> Self {
        Self::new(class, ElrPlace::Code(instruction))
    }

    /// A step exception of the guest's own, before that instruction.
    #[must_use]
    pub const fn step(instruction: u64) -> Self {
        Self::at(class::SOFTWARE_STEP, instruction).masked()
    }

    /// From code that had unmasked FIQ and nothing else.
    #[must_use]
    pub const fn fast(self) -> Self {
        Self { spsr: self.spsr & !FIQ | IRQ, ..self }
    }

    /// With interrupts masked.
    #[must_use]
    pub const fn masked(self) -> Self {
        Self { spsr: self.spsr | IRQ | FIQ, ..self }
    }

    /// With debug exceptions unmasked.
    #[must_use]
    pub const fn debug_unmasked(self) -> Self {
        Self { spsr: self.spsr & !D, ..self }
    }

    /// With SPSR_EL1.SS: the guest steps what raised this, and it did not execute.
    #[must_use]
    pub const fn unexecuted(self) -> Self {
        Self { spsr: self.spsr | SS, ..self }
    }

    /// With SPSR_EL1.IL.
    #[must_use]
    pub const fn illegal(self) -> Self {
        Self { spsr: self.spsr | IL, ..self }
    }

    /// From another level than the case's.
    #[must_use]
    pub const fn from(self, level: Level) -> Self {
        Self { from: Some(level), ..self }
    }

    /// With a fault address.
    #[must_use]
    pub const fn far(self, far: u64) -> Self {
        Self { far: Some(far), ..self }
    }
}

/// What the CPU must have for a case to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Every CPU has it.
    Nothing,
    /// FEAT_LSE.
    Atomics,
}

/// Whether the timer's interrupt is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Never.
    Never,
    /// In the second of two runs.
    InSecondRun,
    /// Always: the case waits for it.
    Always,
}

/// Where QEMU does otherwise than the manual says.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// The path there.
    pub path: &'static str,
    /// The exceptions there.
    pub catches: &'static [Caught],
    /// Stepwell leaves this to the CPU, so that it shows there, too.
    pub is_the_cpus: bool,
    /// Why.
    pub reason: &'static str,
}

/// A case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub what: &'static str,
    /// Where it runs.
    pub levels: Levels,
    /// What it does after an exception.
    pub handler: Handler,
    /// The path without an interrupt.
    pub uninterrupted: &'static str,
    /// The path with one; where it is none, `uninterrupted` with the interrupt after instruction 0.
    pub interrupted: Option<&'static str>,
    /// Exceptions, in order. Interrupts are no part of this.
    pub catches: &'static [Caught],
    /// Registers (X0 to X9) and what they must hold in the end.
    pub leaves: &'static [(usize, u64)],
    /// What it needs.
    pub needs: Needs,
    /// Whether an interrupt is pending.
    pub pending: Pending,
    /// The interrupt is in Group 0, and taken as FIQ.
    pub fast: bool,
    /// DAIF and SS when it begins.
    pub pstate: u64,
    /// MDSCR_EL1 when it begins.
    pub mdscr: u64,
    /// Whether the case itself writes MDSCR_EL1.
    pub writes_mdscr: bool,
    /// The OS Lock is set.
    pub os_lock: bool,
    /// A breakpoint on this instruction, at the level where the case runs.
    pub breakpoint: Option<u64>,
    /// A watchpoint on the data that X0 points at, with this LSC (1 loads, 2 stores).
    pub watchpoint: Option<u64>,
    /// SPSR_EL1's SS where the interrupt is taken.
    pub interrupted_ss: bool,
    /// What QEMU does instead.
    pub departure: Option<Departure>,
}

impl Case {
    /// Instructions that raise no exception.
    #[must_use]
    pub const fn plain(what: &'static str, path: &'static str) -> Self {
        Self {
            name: "",
            what,
            levels: Levels::Both,
            handler: Handler::Return,
            uninterrupted: path,
            interrupted: None,
            catches: &[],
            leaves: &[],
            needs: Needs::Nothing,
            pending: Pending::InSecondRun,
            fast: false,
            pstate: 0x3c0,
            mdscr: 0,
            writes_mdscr: false,
            os_lock: false,
            breakpoint: None,
            watchpoint: None,
            interrupted_ss: false,
            departure: None,
        }
    }

    /// Only at EL1.
    #[must_use]
    pub const fn at_el1(self) -> Self {
        Self { levels: Levels::El1, ..self }
    }

    /// Only at EL0.
    #[must_use]
    pub const fn at_el0(self) -> Self {
        Self { levels: Levels::El0, ..self }
    }

    /// With exceptions.
    #[must_use]
    pub const fn catches(self, handler: Handler, catches: &'static [Caught]) -> Self {
        Self { handler, catches, ..self }
    }

    /// With a path of its own when interrupted.
    #[must_use]
    pub const fn interrupted(self, path: &'static str) -> Self {
        Self { interrupted: Some(path), ..self }
    }

    /// With final values of registers.
    #[must_use]
    pub const fn leaves(self, leaves: &'static [(usize, u64)]) -> Self {
        Self { leaves, ..self }
    }

    /// On CPUs that have it.
    #[must_use]
    pub const fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// With the interrupt pending, or not.
    #[must_use]
    pub const fn pending(self, pending: Pending) -> Self {
        Self { pending, ..self }
    }

    /// With the interrupt in Group 0.
    #[must_use]
    pub const fn fast(self) -> Self {
        Self { fast: true, ..self }
    }

    /// With the guest's own single-step: of EL0, unless `mdscr` has KDE.
    #[must_use]
    pub const fn stepped(self, mdscr: u64) -> Self {
        Self { mdscr, pstate: self.pstate | SS, handler: Handler::Step, ..self }
    }

    /// As [`Case::stepped`], entered with PSTATE.SS clear: a step exception comes first.
    #[must_use]
    pub const fn begins_pending(self) -> Self {
        Self { pstate: self.pstate & !SS, ..self }
    }

    /// With another handler.
    #[must_use]
    pub const fn handler(self, handler: Handler) -> Self {
        Self { handler, ..self }
    }

    /// With another path.
    #[must_use]
    pub const fn path(self, path: &'static str) -> Self {
        Self { uninterrupted: path, ..self }
    }

    /// With MDSCR_EL1 when it begins.
    #[must_use]
    pub const fn mdscr(self, mdscr: u64) -> Self {
        Self { mdscr, ..self }
    }

    /// It writes MDSCR_EL1 itself.
    #[must_use]
    pub const fn writes_mdscr(self) -> Self {
        Self { writes_mdscr: true, ..self }
    }

    /// With debug exceptions unmasked.
    #[must_use]
    pub const fn debug_unmasked(self) -> Self {
        Self { pstate: self.pstate & !D, ..self }
    }

    /// With the OS Lock set.
    #[must_use]
    pub const fn os_locked(self) -> Self {
        Self { os_lock: true, ..self }
    }

    /// With a breakpoint on an instruction.
    #[must_use]
    pub const fn breakpoint(self, instruction: u64) -> Self {
        Self { breakpoint: Some(instruction), ..self }
    }

    /// With a watchpoint on the data.
    #[must_use]
    pub const fn watchpoint(self, accesses: u64) -> Self {
        Self { watchpoint: Some(accesses), ..self }
    }

    /// The interrupt comes before an instruction that the guest steps.
    #[must_use]
    pub const fn interrupted_unexecuted(self) -> Self {
        Self { interrupted_ss: true, ..self }
    }

    /// QEMU does otherwise.
    #[must_use]
    pub const fn departs(self, departure: Departure) -> Self {
        Self { departure: Some(departure), ..self }
    }

    /// The times that it runs.
    pub fn runs(&self) -> impl Iterator<Item = Run> + use<> {
        let levels: &[Level] = match self.levels {
            Levels::El0 => &[Level::El0],
            Levels::El1 => &[Level::El1],
            Levels::Both => &[Level::El1, Level::El0],
        };
        let pending: &[bool] = match self.pending {
            Pending::Never => &[false],
            Pending::InSecondRun => &[false, true],
            Pending::Always => &[true],
        };
        levels
            .iter()
            .flat_map(move |&level| pending.iter().map(move |&pending| Run { level, pending }))
    }
}

/// One run of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where.
    pub level: Level,
    /// Whether the timer's interrupt is pending.
    pub pending: bool,
}
