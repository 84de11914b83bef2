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
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU16, Ordering};

global_asm!(include_str!("simd.S"));

unsafe extern "C" {
    fn save_simd(registers: *mut u128);
    fn load_simd(registers: *const u128);
    fn vector_bytes() -> u64;
    fn save_sve(z: *mut u8, p: *mut u8, ffr: *mut u8);
    fn load_sve(z: *const u8, p: *const u8, ffr: *const u8);
}

/// Bytes of the longest vector that the architecture has.
pub const Z_MAX: usize = 256;
/// Bytes of the longest predicate: a bit for each byte of a vector.
pub const P_MAX: usize = Z_MAX / 8;
/// ZCR_EL1.LEN and ZCR_EL2.LEN: a vector's length in quadwords, less one.
const LEN_MASK: u64 = 0xf;
/// SVCR.SM: the CPU is in Streaming SVE mode.
const SVCR_SM: u64 = 1;

/// Bytes of a vector for each value of LEN; 0 until they were measured.
static LENGTHS: [AtomicU16; 16] = [const { AtomicU16::new(0) }; 16];

/// V0 to V31, FPCR and FPSR, and what SVE adds.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
    /// Where the CPU has it.
    pub sve: Option<Box<Sve>>,
    /// They differ from what is in the machine.
    is_written: bool,
}

/// The registers of SVE.
#[derive(Clone, Debug)]
pub struct Sve {
    /// Z0 to Z31: always 32, and on the heap at once, because a stack has no room for them.
    z: Vec<[u8; Z_MAX]>,
    /// P0 to P15.
    pub p: [[u8; P_MAX]; 16],
    /// FFR.
    pub ffr: [u8; P_MAX],
    /// ZCR_EL1.
    pub zcr: u64,
    /// What a reset puts there.
    zcr_at_reset: u64,
    /// The vCPU is in Streaming SVE mode, and the copies are old.
    pub is_streaming: bool,
}

impl Registers {
    /// Makes those of a vCPU that has never run: zeros, which it will find. Before any guest has.
    #[inline(never)]
    #[must_use]
    pub fn at_reset() -> Self {
        let sve = has_sve().then(|| {
            // S3_0_C1_C2_0 is ZCR_EL1.
            let zcr = mrs!("s3_0_c1_c2_0");
            let (z, p) = (vec![[0; Z_MAX]; 32], [[0; P_MAX]; 16]);
            Box::new(Sve { z, p, ffr: [0; P_MAX], zcr, zcr_at_reset: zcr, is_streaming: false })
        });
        Self { sve, is_written: true, ..Self::default() }
    }

    /// Makes them those of a vCPU that was reset.
    pub fn reset(&mut self) {
        (self.v, self.fpcr, self.fpsr) = ([0; 32], 0, 0);
        if let Some(sve) = &mut self.sve {
            sve.z.iter_mut().for_each(|z| z.fill(0));
            (sve.p, sve.ffr) = ([[0; P_MAX]; 16], [0; P_MAX]);
            (sve.zcr, sve.is_streaming) = (sve.zcr_at_reset, false);
        }
        self.is_written = true;
    }

    /// Notes that something was written: it goes into the machine before the vCPU goes on.
    pub const fn set_written(&mut self) {
        self.is_written = true;
    }

    /// Copies V0 to V31 into Z0 to Z31, whose higher parts stay.
    pub fn take_over_v(&mut self) {
        let Some(sve) = &mut self.sve else { return };
        for (z, v) in sve.z.iter_mut().zip(&self.v) {
            if let Some(low) = z.first_chunk_mut() {
                *low = v.to_le_bytes();
            }
        }
    }

    /// Copies the low parts of Z0 to Z31 into V0 to V31.
    pub fn take_over_z(&mut self) {
        let Some(sve) = &self.sve else { return };
        for (v, z) in self.v.iter_mut().zip(&sve.z) {
            *v = z.first_chunk().map_or(0, |low| u128::from_le_bytes(*low));
        }
    }
}

impl Sve {
    /// Z0 to Z31.
    #[must_use]
    pub fn z(&self) -> &[[u8; Z_MAX]] {
        &self.z
    }

    /// Z0 to Z31, to be written.
    pub fn z_mut(&mut self) -> &mut [[u8; Z_MAX]] {
        &mut self.z
    }

    /// Bytes of a vector as the guest's EL1 and EL0 have them now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::from(length_for(self.zcr))
    }
}

/// Tells whether the CPU has SVE.
#[must_use]
pub fn has_sve() -> bool {
    mrs!("id_aa64pfr0_el1") >> 32 & 0xf != 0
}

fn has_sme() -> bool {
    mrs!("id_aa64pfr1_el1") >> 24 & 0xf != 0
}

/// Bytes of the longest vector that the CPU has; 0 without SVE.
#[must_use]
pub fn longest() -> usize {
    usize::from(length_for(LEN_MASK))
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
pub fn save(registers: &mut Registers) {
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
pub fn load(registers: &mut Registers) {
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
