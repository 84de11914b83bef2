//! Address translation by the CPU itself: AT instructions for the guest that is loaded.

use super::registers::{isb, mrs};
use stepwell_arch::{Ipa, Va};
use stepwell_vm::cpu::{Purpose, TranslationFailed};

const PAR_F: u64 = 1;
const PAR_STAGE2: u64 = 1 << 9;
const PAR_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

macro_rules! at {
    ($operation:literal, $va:expr) => {{
        let guest_par = mrs!("par_el1");
        // SAFETY: AT changes PAR_EL1 only, and that is the guest's: saved and put back.
        unsafe {
            core::arch::asm!(
                concat!("at ", $operation, ", {}"),
                in(reg) $va,
                options(nostack, preserves_flags)
            );
        }
        isb();
        let par = mrs!("par_el1");
        super::registers::msr!("par_el1", guest_par);
        par
    }};
}

/// Translates by stage 1 of the loaded guest alone.
///
/// Stage 2 is not asked: its tables are ours, pages that it withholds are to be translated all the
/// same, and QEMU 10.0 ends at an AT instruction to which stage 2 refuses a permission.
///
/// # Errors
///
/// [`TranslationFailed`] where the access would fault.
pub fn to_ipa(va: Va, el0: bool, purpose: Purpose) -> Result<Ipa, TranslationFailed> {
    let par = match (purpose, el0) {
        (Purpose::Read, false) => at!("s1e1r", va.0),
        (Purpose::Read, true) => at!("s1e0r", va.0),
        (Purpose::Write, false) => at!("s1e1w", va.0),
        (Purpose::Write, true) => at!("s1e0w", va.0),
    };
    if par & PAR_F == 0 {
        return Ok(Ipa(par & PAR_ADDRESS | va.0 & 0xfff));
    }
    Err(TranslationFailed { status: (par >> 1 & 0x3f) as u8, stage2: par & PAR_STAGE2 != 0 })
}
