//! Sets of registers, as the guest would see them.

use serde::{Deserialize, Serialize};

/// Core registers: PSTATE.SS is the guest's own, never the debugger's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// The stack pointer in use.
    pub sp: u64,
    /// The next instruction.
    pub pc: u64,
    /// PSTATE in SPSR format.
    pub pstate: u64,
}

impl Registers {
    /// Returns the one that has this name: `x0` to `x30`, `lr`, `sp`, `pc`, `pstate`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<u64> {
        match name {
            "pc" => Some(self.pc),
            "sp" => Some(self.sp),
            "pstate" => Some(self.pstate),
            "lr" => self.x.last().copied(),
            _ => self.x.get(name.strip_prefix('x')?.parse::<usize>().ok()?).copied(),
        }
    }
}

/// The FP/SIMD registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimdRegisters {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
}

/// A register of SVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SveRegister {
    /// Z0 to Z31, whose low 128 bits are V0 to V31.
    Z(u8),
    /// P0 to P15: a bit for each byte of a vector.
    P(u8),
    /// The first-fault register, as long as a predicate.
    Ffr,
}

impl SveRegister {
    /// Returns how many bytes it has where a vector has `vector_bytes`.
    #[must_use]
    pub const fn bytes(self, vector_bytes: usize) -> usize {
        match self {
            Self::Z(_) => vector_bytes,
            Self::P(_) | Self::Ffr => vector_bytes / 8,
        }
    }
}

/// How long the vectors of SVE are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorLength {
    /// Of the longest that the CPU has.
    pub longest: usize,
    /// As EL1 and EL0 have them now, which EL1 chooses (ZCR_EL1).
    pub current: usize,
}
