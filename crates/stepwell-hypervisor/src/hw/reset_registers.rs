//! Registers of a CPU that only its guest uses and nothing else of ours looks at: what CPU_ON has
//! to put back.
//!
//! They stay in the machine while their vCPU is on its CPU, and while it is stopped, because no
//! debugger reads them; where several vCPUs share a CPU they are copied when it changes them. A CPU
//! that is switched off and on again must not find what it left there. The rest has a place of its
//! own: core registers in the context, what a debugger reads in
//! [`super::system_registers`], vectors in [`super::simd`], debug registers in their shadow, the
//! physical timer and the GIC's CPU interface with those who emulate them.
//!
//! The values are those that the boot CPU had before any guest ran.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Reset and initialization" and the registers' own pages.

use super::registers::{isb, mrs, msr};
use super::{pmu, setup};
use spin::Once;
use stepwell_vm::registers::{PRIVATE_REGISTERS_MAX, PrivateRegisters};

static RESET: Once<PrivateRegisters> = Once::new();

macro_rules! registers {
    ($($condition:expr => { $($name:literal),* $(,)? })*) => {
        fn read_all(values: &mut PrivateRegisters) {
            const { assert!([$($($name),*),*].len() <= PRIVATE_REGISTERS_MAX) };
            values.clear();
            $(if $condition { values.extend([$(mrs!($name)),*]); })*
        }

        fn write_all(values: &[u64]) {
            let mut values = values.iter().copied();
            $(if $condition { $(msr!($name, values.next().unwrap_or(0));)* })*
        }
    };
}

registers! {
    // SVCR first: leaving Streaming SVE mode and ZA's disabling reset what belongs to them. Then
    // SMCR_EL1, SMPRI_EL1, TPIDR2_EL0.
    setup::has_sme() => { "s3_3_c4_c2_2", "s3_0_c1_c2_6", "s3_0_c1_c2_4", "s3_3_c13_c0_5" }
    // Keys of pointer authentication: APIA, APIB, APDA, APDB, APGA, low and high.
    has_pointer_authentication() => {
        "s3_0_c2_c1_0", "s3_0_c2_c1_1", "s3_0_c2_c1_2", "s3_0_c2_c1_3", "s3_0_c2_c2_0",
        "s3_0_c2_c2_1", "s3_0_c2_c2_2", "s3_0_c2_c2_3", "s3_0_c2_c3_0", "s3_0_c2_c3_1",
    }
    // RGSR_EL1, GCR_EL1, TFSR_EL1, TFSRE0_EL1.
    has_tag_checks() => { "s3_0_c1_c0_5", "s3_0_c1_c0_6", "s3_0_c5_c6_0", "s3_0_c5_c6_1" }
    // SCXTNUM_EL1, SCXTNUM_EL0.
    setup::has_context_numbers() => { "s3_0_c13_c0_7", "s3_3_c13_c0_7" }
    // LORSA_EL1, LOREA_EL1, LORN_EL1, LORC_EL1.
    has_limited_ordering() => { "s3_0_c10_c4_0", "s3_0_c10_c4_1", "s3_0_c10_c4_2", "s3_0_c10_c4_3" }
    // VDISR_EL2, which the guest has for its DISR_EL1, and VSESR_EL2.
    setup::has_ras() => { "s3_4_c12_c1_1", "s3_4_c5_c2_3" }
    // ACCDATA_EL1.
    has_accelerator_data() => { "s3_0_c13_c0_5" }
}

/// Takes down what this CPU has before any guest has run on it. Once, on the boot CPU, behind
/// [`setup::control_registers`].
pub fn remember() {
    RESET.call_once(|| {
        let mut values = PrivateRegisters::new();
        read_all(&mut values);
        values
    });
}

/// Puts this CPU's registers into their reset state, before a guest begins anew on it.
pub fn load() {
    write_all(RESET.get().map_or(&[], |values| values.as_slice()));
    isb();
    if pmu::has_remains() {
        pmu::reset();
    }
}

/// Copies those of the guest that is on this CPU, so that another can be there.
pub fn save_private(into: &mut PrivateRegisters) {
    read_all(into);
}

/// Puts them in.
pub fn load_private(from: &PrivateRegisters) {
    write_all(from);
    isb();
}

/// FEAT_PAuth, by whichever algorithm.
fn has_pointer_authentication() -> bool {
    const ALGORITHMS: u64 = 0xff00_0ff0; // APA, API, GPA, GPI
    // S3_0_C0_C6_2 is ID_AA64ISAR2_EL1, with GPA3 and APA3.
    mrs!("id_aa64isar1_el1") & ALGORITHMS != 0 || mrs!("s3_0_c0_c6_2") & 0xff00 != 0
}

/// FEAT_MTE2.
fn has_tag_checks() -> bool {
    mrs!("id_aa64pfr1_el1") >> 8 & 0xf >= 2
}

/// FEAT_LOR.
fn has_limited_ordering() -> bool {
    mrs!("id_aa64mmfr1_el1") >> 16 & 0xf != 0
}

/// FEAT_LS64_ACCDATA.
fn has_accelerator_data() -> bool {
    mrs!("id_aa64isar1_el1") >> 60 >= 3
}
