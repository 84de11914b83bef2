//! What a trace tells: one [`TraceRecord`] for each thing that happened.
//!
//! An instruction is told by a [`TraceRecord::Run`]; what else is known of it follows: the registers
//! that it changed, what it loaded and stored, whether its store-exclusive stored. All of those
//! belong to the last instruction of the last run of the same vCPU.

use core::convert::Infallible;
use core::fmt;

use stepwell_arch::{InstructionSet, Va};

/// What is recorded of each step beside its PC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceDetail {
    /// The registers that it changed.
    pub registers: bool,
    /// What it loaded and stored.
    pub memory: bool,
}

/// One thing that happened, in the order in which it happened. That another vCPU is meant than
/// before is told by `vcpu` alone.
///
/// `E` is what a recording tells beside what the hypervisor does; the hypervisor tells nothing
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceRecord<E = Infallible> {
    /// `length` instructions were executed from `pc` on, 4 bytes apart. One of 2 bytes (T32) is the
    /// last of its run.
    Run {
        /// The vCPU.
        vcpu: u8,
        /// First PC.
        pc: Va,
        /// Instructions, at least 1.
        length: u32,
    },
    /// The instruction at `pc` did not execute: an interrupt was entered instead. Where its
    /// handler is recorded, a [`TraceRecord::ExceptionEntry`] follows.
    Interrupt {
        /// The vCPU.
        vcpu: u8,
        /// The interrupted PC.
        pc: Va,
    },
    /// Something worth telling between two instructions.
    Event(E),
    /// An exception was entered at EL1.
    ExceptionEntry(ExceptionEntry),
    /// The last instruction was an exception return.
    ExceptionReturn {
        /// The vCPU.
        vcpu: u8,
        /// Where it went on.
        to: Va,
        /// The exception level it returned to, 0 or 1.
        el: u8,
    },
    /// The last instruction was a store-exclusive.
    Exclusive {
        /// The vCPU.
        vcpu: u8,
        /// PC of the store-exclusive.
        pc: Va,
        /// Whether it stored: its status register became 0.
        stored: bool,
    },
    /// The instruction at `pc` made no progress until other vCPUs had moved: each had a turn, which
    /// is not recorded.
    Turns {
        /// The vCPU that made no progress.
        vcpu: u8,
        /// Its next instruction.
        pc: Va,
        /// What it waited for.
        why: Waiting,
        /// Instructions that the others executed, below 2⁴⁰.
        steps: u64,
    },
    /// What a vCPU executes from here on, until this is told anew; A64 before it is told at all.
    InstructionSet {
        /// The vCPU.
        vcpu: u8,
        /// The set.
        set: InstructionSet,
    },
    /// In which address space the following instructions of a vCPU are, until this is told anew.
    /// Exception entries and returns change its `el` without telling it anew.
    Context(Context),
    /// The guest's clock.
    Time {
        /// Virtual nanoseconds since the guest's counter was 0.
        ns: u64,
    },
    /// The value of a register has changed. Recorded with `regs`.
    Register {
        /// The vCPU.
        vcpu: u8,
        /// Which one.
        register: Register,
        /// The new value.
        value: u64,
        /// It was not the last instruction that changed it: the value was found when recording
        /// began or went on after something that was not recorded.
        found: bool,
    },
    /// The last instruction accessed memory. Recorded with `mem`; one record for each register
    /// that was transferred, in the order of addresses.
    Memory(MemoryAccess),
}

impl TraceRecord {
    /// Returns the same record where events may be told as well.
    #[must_use]
    pub const fn among<E>(self) -> TraceRecord<E> {
        match self {
            Self::Run { vcpu, pc, length } => TraceRecord::Run { vcpu, pc, length },
            Self::Interrupt { vcpu, pc } => TraceRecord::Interrupt { vcpu, pc },
            Self::Event(never) => match never {},
            Self::ExceptionEntry(entry) => TraceRecord::ExceptionEntry(entry),
            Self::ExceptionReturn { vcpu, to, el } => TraceRecord::ExceptionReturn { vcpu, to, el },
            Self::Exclusive { vcpu, pc, stored } => TraceRecord::Exclusive { vcpu, pc, stored },
            Self::Turns { vcpu, pc, why, steps } => TraceRecord::Turns { vcpu, pc, why, steps },
            Self::InstructionSet { vcpu, set } => TraceRecord::InstructionSet { vcpu, set },
            Self::Context(context) => TraceRecord::Context(context),
            Self::Time { ns } => TraceRecord::Time { ns },
            Self::Register { vcpu, register, value, found } => {
                TraceRecord::Register { vcpu, register, value, found }
            }
            Self::Memory(access) => TraceRecord::Memory(access),
        }
    }
}

/// An exception entered at EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionEntry {
    /// The vCPU.
    pub vcpu: u8,
    /// What kind of exception.
    pub cause: ExceptionCause,
    /// Preferred return address, as in ELR_EL1.
    pub return_address: Va,
    /// Where the vCPU goes on: in its vector table.
    pub vector: Va,
    /// ESR_EL1; 0 for interrupts, which have none.
    pub syndrome: u64,
    /// For an interrupt, the INTID that the GIC signalled, where that is known.
    pub intid: Option<u32>,
}

/// Numbers the variants of an enum from 0, as the trace ring and recordings do.
macro_rules! numbered {
    ($name:ident: $($variant:ident),+) => {
        impl $name {
            /// All of them, by number.
            pub const ALL: [Self; [$(stringify!($variant)),+].len()] = [$(Self::$variant),+];

            /// Returns its number in the trace ring and in recordings.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// Returns what a number stands for, if it stands for one.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }
    };
}

/// The four kinds of exceptions, numbered as their vectors are within a group of four.
///
/// Source: Arm ARM, DDI 0487 L.b, "Exception vectors".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExceptionCause {
    /// Synchronous: ESR_EL1 says more.
    Synchronous,
    /// IRQ.
    Irq,
    /// FIQ.
    Fiq,
    /// SError.
    SError,
}

numbered!(ExceptionCause: Synchronous, Irq, Fiq, SError);

/// What a vCPU waited for that made no progress alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// An event: it executed a WFE.
    Event,
    /// An interrupt: it executed a WFI.
    Interrupt,
    /// Memory, most likely: it came round to the same place with the same registers.
    Memory,
}

numbered!(Waiting: Event, Interrupt, Memory);

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "event",
            Self::Interrupt => "interrupt",
            Self::Memory => "memory",
        })
    }
}

/// An address space, and who executes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The vCPU.
    pub vcpu: u8,
    /// Exception level, 0 or 1.
    pub el: u8,
    /// VMID of stage 2.
    pub vmid: u16,
    /// ASID, of the TTBR that TCR_EL1.A1 selects.
    pub asid: u16,
    /// Base address in TTBR0_EL1: with most kernels it names the process.
    pub ttbr0: u64,
}

/// A register that `regs` records: X0 to X30, the stack pointer in use, and PSTATE in the format
/// of SPSR_EL1. FP/SIMD registers are not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(u8);

impl Register {
    /// The stack pointer of the current exception level and SPSel.
    pub const SP: Self = Self(31);
    /// PSTATE.
    pub const PSTATE: Self = Self(32);
    /// How many there are, numbered from 0.
    pub const COUNT: usize = 33;

    /// Returns the register of a number: X0 to X30, then SP, then PSTATE.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// Returns its number, below [`Register::COUNT`].
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            31 => f.write_str("SP"),
            32 => f.write_str("PSTATE"),
            number => write!(f, "X{number}"),
        }
    }
}

/// One access of an instruction to memory or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAccess {
    /// The vCPU.
    pub vcpu: u8,
    /// What was done.
    pub access: MemoryAccessKind,
    /// Virtual address of the first byte.
    pub address: Va,
    /// Bytes, at least 1; at most 16 but for [`MemoryAccessKind::Zero`].
    pub size: u16,
    /// What was loaded or stored, as bytes of memory in little-endian order; `None` where it could
    /// not be known.
    pub value: Option<u128>,
}

/// What an instruction did to memory. An atomic does both, the load first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryAccessKind {
    /// It loaded.
    Load,
    /// It stored.
    Store,
    /// It set bytes to 0 (DC ZVA); `value` is 0.
    Zero,
}

numbered!(MemoryAccessKind: Load, Store, Zero);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        for (place, cause) in ExceptionCause::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(cause.number()), place);
            assert_eq!(ExceptionCause::from_number(cause.number()), Some(cause));
        }
        assert_eq!(Waiting::ALL.map(Waiting::number), [0, 1, 2]);
        assert_eq!(MemoryAccessKind::ALL.map(MemoryAccessKind::number), [0, 1, 2]);
        assert_eq!(Waiting::from_number(3), None);
        assert_eq!(Register::new(33), None);
        assert_eq!(Register::new(31), Some(Register::SP));
    }
}
