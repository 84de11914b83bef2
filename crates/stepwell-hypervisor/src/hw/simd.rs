//! The guest's FP/SIMD registers.
//!
//! EL2 never uses them, so they stay in the machine while their vCPU is on its CPU. For a stop they
//! are copied, so that the debugger reads them. The upper parts of SVE registers are not: they stay
//! where they are, and nothing at EL2 changes them.

use super::registers::mrs;
use core::arch::global_asm;

global_asm!(include_str!("simd.S"));

unsafe extern "C" {
    fn save_simd(registers: *mut u128);
}

/// V0 to V31, FPCR and FPSR.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
}

/// Copies the registers out of the machine.
pub fn save(registers: &mut Registers) {
    // SAFETY: the array has the 32 places that the assembly writes.
    unsafe { save_simd(registers.v.as_mut_ptr()) }
    registers.fpcr = mrs!("s3_3_c4_c4_0");
    registers.fpsr = mrs!("s3_3_c4_c4_1");
}
