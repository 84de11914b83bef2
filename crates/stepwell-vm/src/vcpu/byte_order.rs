//! The byte order of a guest's data.

use crate::cpu::Cpu;
use stepwell_arch::{Pstate, SystemRegister};

/// SCTLR_EL1.E0E: data of EL0 is big-endian.
const SCTLR_E0E: u64 = 1 << 24;
/// SCTLR_EL1.EE: data of EL1 is big-endian.
const SCTLR_EE: u64 = 1 << 25;

/// Whether a guest's data is big-endian.
pub fn is_big_endian<C: Cpu>(cpu: &C, pstate: Pstate) -> bool {
    match (pstate.is_aarch32(), pstate.el()) {
        (true, _) => pstate.0 & Pstate::E != 0,
        (false, 0) => cpu.read(SystemRegister::SCTLR_EL1) & SCTLR_E0E != 0,
        (false, _) => cpu.read(SystemRegister::SCTLR_EL1) & SCTLR_EE != 0,
    }
}
