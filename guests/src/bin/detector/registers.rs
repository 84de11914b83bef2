//! Registers that a debugger or a hypervisor changes, and instructions that are not there.

use core::arch::asm;

use stepwell_guests::{read_register, write_register};

use crate::{syndrome, value};

/// What a register holds, or the syndrome of its being undefined.
macro_rules! read_each {
    ($($name:literal)*) => { $(
        let mut found = 0_u64;
        // SAFETY: reading a register of EL1 touches no memory; one that is not there is skipped.
        let esr = syndrome(|| unsafe {
            asm!(concat!("mov {0}, #0\n mrs {0}, ", $name), out(reg) found, options(nostack));
        });
        value($name, found | esr);
    )* };
}

/// ESR_EL1 of one instruction.
macro_rules! tried {
    ($($text:literal)*) => { $(
        // SAFETY: undefined, or it changes what nobody here depends on; its exception is skipped.
        value($text, syndrome(|| unsafe { asm!($text, out("x0") _) }));
    )* };
}

/// What a register holds after it was written.
macro_rules! keeps {
    ($($name:literal $value:literal)*) => { $(
        let before = read_register!($name);
        write_register!($name, $value);
        value($name, read_register!($name));
        write_register!($name, before);
    )* };
}

/// Before this program has changed any.
pub fn at_reset() {
    read_each! {
        "sctlr_el1" "mdscr_el1" "oslsr_el1" "dbgprcr_el1" "cntkctl_el1" "cntv_ctl_el0" "daif"
        "currentel" "spsel" "cpacr_el1" "tpidr_el1" "contextidr_el1" "dbgbcr0_el1" "dbgwcr0_el1"
        "csselr_el1" "mdccint_el1" "nzcv"
    }
}

pub fn look() {
    read_each! {
        "midr_el1" "mpidr_el1" "revidr_el1" "aidr_el1" "ctr_el0" "dczid_el0" "clidr_el1"
        "id_aa64pfr0_el1" "id_aa64dfr0_el1" "id_aa64dfr1_el1" "id_aa64isar0_el1"
        "id_aa64isar1_el1" "id_aa64mmfr0_el1" "id_aa64mmfr1_el1" "id_aa64mmfr2_el1"
        "id_aa64afr0_el1" "S3_0_C0_C4_4" "S3_0_C0_C4_5" "S3_0_C0_C6_2" "id_pfr0_el1" "id_dfr0_el1"
        "id_isar5_el1" "id_mmfr4_el1" "mvfr0_el1" "mvfr2_el1" "cntfrq_el0" "currentel"
        "dbgauthstatus_el1" "oslsr_el1" "osdlr_el1" "mdccsr_el0" "dbgprcr_el1" "dbgclaimclr_el1"
        "mdrar_el1" "mdscr_el1" "actlr_el1" "amair_el1" "afsr0_el1" "isr_el1" "icc_ctlr_el1"
        "icc_sre_el1" "icc_rpr_el1" "icc_bpr0_el1" "icc_bpr1_el1" "icc_ap1r0_el1" "icc_pmr_el1"
    }
    for level in 0..6 {
        write_register!("csselr_el1", level);
        value("ccsidr_el1", read_register!("ccsidr_el1"));
    }
    write_register!("csselr_el1", 0);
    keeps! {
        "dbgbvr0_el1" 0xffff_ffff_ffff_ffff "dbgbvr1_el1" 0x5555_5555_5555_5555
        "dbgbcr0_el1" 0xffff_fffe "dbgbcr1_el1" 0x5555_5554 "dbgwvr0_el1" 0xffff_ffff_ffff_ffff
        "dbgwcr0_el1" 0xffff_fffe "dbgwcr1_el1" 0x5555_5554 "mdscr_el1" 0x0000_1000
        "cntv_ctl_el0" 0x2 "cntp_ctl_el0" 0x2 "cntv_cval_el0" 0x0fff_ffff_ffff_fff1
        "cntp_cval_el0" 0x0fff_ffff_ffff_fff1 "tpidr_el1" 0xffff_ffff_ffff_ffff
        "contextidr_el1" 0xffff_ffff "par_el1" 0x5555_5555_5555_5555
    }
    tried! {
        "mrs x0, hcr_el2" "mrs x0, mdcr_el2" "mrs x0, vttbr_el2" "mrs x0, cntvoff_el2"
        "mrs x0, cnthctl_el2" "mrs x0, S3_5_C1_C0_0" "mrs x0, elr_el3" "msr vbar_el2, x0"
        "mrs x0, S3_3_C14_C0_3" "mrs x0, S3_3_C14_C0_4" "mrs x0, S3_3_C14_C0_7"
        "mrs x0, S3_3_C14_C2_3" "mrs x0, S3_3_C14_C3_7" "msr S3_3_C14_C0_2, x0"
        "mrs x0, S3_3_C14_C0_5" "mrs x0, S3_3_C14_C0_6" ".inst 0xd51be040" ".inst 0xd51be020"
        "mrs x0, S3_3_C13_C0_7" "mrs x0, S3_0_C11_C0_0" "mrs x0, S3_1_C15_C2_0"
        "mrs x0, S3_0_C15_C3_0" "mrs x0, S2_1_C0_C0_0" "mrs x0, S3_0_C9_C9_0"
        "at s12e1r, x0" "tlbi alle1" "tlbi ipas2e1, x0" "smc #0" "smc #7" "hlt #1" "hlt #0xf000"
        "drps" "udf #3" ".inst 0xd4a00001" "brk #9" "svc #3" "mrs x0, icc_sre_el2"
        "mrs x0, ich_vtr_el2" "mrs x0, icc_iar0_el1"
    }
}
