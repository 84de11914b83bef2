//! The guest's FP/SIMD and SVE registers.
//!
//! EL2 never uses them, so they stay in the machine while their vCPU is on its CPU. For a stop they
//! are copied, so that the debugger reads them; what it writes goes back before the vCPU goes on.
//!
//! With SVE, V0 to V31 are the low 128 bits of Z0 to Z31, and both are kept alike. EL2 copies as
//! much as the CPU's longest vectors have; what lies beyond the length that the guest's EL1 has
//! chosen is not the guest's to see, and not the debugger's. In Streaming SVE mode (SME), where
//! other lengths hold and FFR may be missing, the vectors are neither copied nor put back.
//!
//! Source: Arm ARM, DDI 0487 L.b, "SVE vector length" and ZCR_EL1, SVE Control Register (EL1).

use super::registers::{isb, mrs, msr};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU16, Ordering};
use stepwell_vm::simd::{self, SimdRegisters};

global_asm!(include_str!("simd.S"));

unsafe extern "C" {
    fn save_simd(registers: *mut u128);
    fn load_simd(registers: *const u128);
    fn vector_bytes() -> u64;
    fn save_sve(z: *mut u8, p: *mut u8, ffr: *mut u8);
    fn load_sve(z: *const u8, p: *const u8, ffr: *const u8);
}

/// ZCR_EL1.LEN and ZCR_EL2.LEN: a vector's length in quadwords, less one.
const LEN_MASK: u64 = 0xf;
/// SVCR.SM: the CPU is in Streaming SVE mode.
const SVCR_SM: u64 = 1;

/// Bytes of a vector for each value of LEN; 0 until they were measured.
static LENGTHS: [AtomicU16; simd::LENGTHS] = [const { AtomicU16::new(0) }; simd::LENGTHS];

/// Makes the registers of a vCPU that has never run.
#[inline(never)]
#[must_use]
pub fn at_reset() -> SimdRegisters {
    let lengths = || core::array::from_fn(|len| length_for(len as u64));
    // S3_0_C1_C2_0 is ZCR_EL1.
    SimdRegisters::at_reset(has_sve().then(|| (mrs!("s3_0_c1_c2_0"), lengths())))
}

/// Tells whether the CPU has SVE.
#[must_use]
pub fn has_sve() -> bool {
    mrs!("id_aa64pfr0_el1") >> 32 & 0xf != 0
}

fn has_sme() -> bool {
    mrs!("id_aa64pfr1_el1") >> 24 & 0xf != 0
}

fn length_for(zcr: u64) -> u16 {
    let length = LENGTHS.get((zcr & LEN_MASK) as usize);
    length.map_or(0, |length| length.load(Ordering::Relaxed))
}

/// Finds out which lengths the CPU has, and chooses the longest for EL2 and those below.
///
/// A length that a CPU lacks becomes the next shorter one that it has, so each has to be tried.
/// It is tried before there is a guest, because a shorter one may clear what is beyond it.
pub fn measure_lengths() {
    for (len, length) in (0..=LEN_MASK).zip(&LENGTHS) {
        // S3_4_C1_C2_0 is ZCR_EL2: the name needs an assembler that was told of SVE.
        msr!("s3_4_c1_c2_0", len);
        isb();
        // SAFETY: the CPU has SVE, and it is not trapped.
        let bytes = unsafe { vector_bytes() };
        length.store(bytes as u16, Ordering::Relaxed);
    }
}

/// Copies the registers out of the machine.
pub fn save(registers: &mut SimdRegisters) {
    // SAFETY: the array has the 32 places that the assembly writes.
    unsafe { save_simd(registers.v.as_mut_ptr()) }
    registers.fpcr = mrs!("s3_3_c4_c4_0");
    registers.fpsr = mrs!("s3_3_c4_c4_1");
    registers.is_written = false;
    let Some(sve) = &mut registers.sve else { return };
    sve.zcr = mrs!("s3_0_c1_c2_0");
    // S3_3_C4_C2_2 is SVCR.
    sve.is_streaming = has_sme() && mrs!("s3_3_c4_c2_2") & SVCR_SM != 0;
    if !sve.is_streaming {
        // SAFETY: there are 32, 16 and one places, each with room for the longest.
        unsafe {
            save_sve(sve.z.as_mut_ptr().cast(), sve.p.as_mut_ptr().cast(), sve.ffr.as_mut_ptr());
        }
    }
}

/// Puts into the machine what was written, if anything was.
pub fn load(registers: &mut SimdRegisters) {
    if !core::mem::take(&mut registers.is_written) {
        return;
    }
    msr!("s3_3_c4_c4_0", registers.fpcr);
    msr!("s3_3_c4_c4_1", registers.fpsr);
    match &registers.sve {
        Some(sve) => {
            msr!("s3_0_c1_c2_0", sve.zcr);
            isb();
            if !sve.is_streaming {
                // SAFETY: as for saving; they are the guest's alone.
                unsafe { load_sve(sve.z.as_ptr().cast(), sve.p.as_ptr().cast(), sve.ffr.as_ptr()) }
            }
        }
        // SAFETY: the array has the 32 places that the assembly reads.
        None => unsafe { load_simd(registers.v.as_ptr()) },
    }
}
