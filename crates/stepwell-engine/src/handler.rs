//! Stepping *over* an interrupt: recognising that its handler has returned.
//!
//! The handler runs at full speed with a breakpoint where it was entered from. Reaching that PC is
//! not enough: another task may run the same code. What identifies the interrupted context is its
//! PC, its exception level and stack pointer selection, and the stack pointer itself, which no two
//! live contexts of one exception level share.

use stepwell_arch::{Pstate, Va};

/// What was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterruptedContext {
    /// The instruction that has not executed yet.
    pub pc: Va,
    /// Exception level and stack pointer selection, PSTATE.M.
    pub mode: u64,
    /// The stack pointer in use.
    pub sp: u64,
    /// TTBR0_EL1 for an EL0 context: two processes may share a stack address. Else 0.
    pub table: u64,
}

impl InterruptedContext {
    /// Takes down what is about to be interrupted.
    #[must_use]
    pub fn new(pc: Va, pstate: Pstate, sp: u64, ttbr0: u64) -> Self {
        let table = if pstate.el() == 0 { ttbr0 } else { 0 };
        Self { pc, mode: pstate.0 & Pstate::M_MASK, sp, table }
    }
}
