//! Address translation by the CPU itself: AT instructions for the guest that is loaded.

use super::registers::{isb, mrs};
use stepwell_arch::{Ipa, Pa, Va};
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

fn result(par: u64, va: Va) -> Result<u64, TranslationFailed> {
    if par & PAR_F == 0 {
        return Ok(par & PAR_ADDRESS | va.0 & 0xfff);
    }
    Err(TranslationFailed { status: (par >> 1 & 0x3f) as u8, stage2: par & PAR_STAGE2 != 0 })
}

/// Translates by stage 1 and stage 2 of the loaded guest.
///
/// Whether stage 2 lets a store through is not asked: pages that it withholds from stores are
/// ours, and QEMU 10.0 ends at an AT instruction to which stage 2 refuses a permission.
///
/// # Errors
///
/// [`TranslationFailed`] where the access would fault.
pub fn to_pa(va: Va, el0: bool, purpose: Purpose) -> Result<Pa, TranslationFailed> {
    if purpose == Purpose::Write {
        let stage1 = if el0 { at!("s1e0w", va.0) } else { at!("s1e1w", va.0) };
        result(stage1, va)?;
    }
    let par = if el0 { at!("s12e0r", va.0) } else { at!("s12e1r", va.0) };
    result(par, va).map(Pa)
}

/// Translates by stage 1 of the loaded guest alone.
///
/// # Errors
///
/// [`TranslationFailed`] where a read would fault.
pub fn to_ipa(va: Va, el0: bool) -> Result<Ipa, TranslationFailed> {
    let par = if el0 { at!("s1e0r", va.0) } else { at!("s1e1r", va.0) };
    result(par, va).map(Ipa)
}
