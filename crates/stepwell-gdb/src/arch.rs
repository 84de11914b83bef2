//! AArch64 as `gdbstub` wants to know it.
//!
//! The registers of a `g` packet are the core ones: they cost one look at the vCPU. GDB asks for
//! the others one by one, when somebody wants to see them.

use gdbstub::arch::{Arch, RegId, Registers};
use std::num::NonZeroUsize;
use stepwell_debuggee::Registers as Core;

/// The architecture: a type without values, as `gdbstub` has it.
#[derive(Debug)]
pub(crate) enum Aarch64 {}

impl Arch for Aarch64 {
    type Usize = u64;
    type Registers = CoreRegisters;
    type BreakpointKind = usize;
    type RegId = RegisterNumber;
}

/// X0 to X30, SP, PC and PSTATE, in the order of the feature `org.gnu.gdb.aarch64.core`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoreRegisters(pub(crate) Core);

/// How many registers of 64 bits precede PSTATE, which has 32.
pub(crate) const DOUBLEWORDS: usize = 33;

impl Registers for CoreRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.0.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        let Core { x, sp, pc, pstate } = &self.0;
        for value in x.iter().chain([sp, pc]) {
            value.to_le_bytes().into_iter().for_each(|byte| write_byte(Some(byte)));
        }
        (*pstate as u32).to_le_bytes().into_iter().for_each(|byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let (doublewords, rest) = bytes.split_at_checked(8 * DOUBLEWORDS).ok_or(())?;
        let mut values =
            doublewords.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        for x in &mut self.0.x {
            *x = values.next().ok_or(())?;
        }
        self.0.sp = values.next().ok_or(())?;
        self.0.pc = values.next().ok_or(())?;
        let pstate = rest.first_chunk().ok_or(())?;
        self.0.pstate = u64::from(u32::from_le_bytes(*pstate));
        Ok(())
    }
}

/// A register by its number in the target description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegisterNumber(pub(crate) usize);

impl RegId for RegisterNumber {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        // Which there are depends on the guest's CPU; the guest says no to the others.
        Some((Self(id), None))
    }

    fn to_raw_id(&self) -> Option<usize> {
        Some(self.0)
    }
}
