//! Exclusives in forms that nobody writes, and with all kinds of instructions between load and store.

use crate::cases::{at_el0, at_el1, each};
use crate::{cases, show};
use stepwell_guests::translation::{EL0_ALIAS, READ_ONLY_ALIAS, UNMAPPED};
use stepwell_guests::{instruction, read_register, write_register};

/// The UART's flag register.
const DEVICE: u64 = 0x0900_0018;
/// Added to addresses of words for X1.
const OTHER: u64 = 64;

#[repr(C, align(4096))]
struct Words([u64; 512]);
static mut WORDS: Words = Words([0; 512]);

unsafe extern "C" {
    static words_beside: u64;
}

cases! { CASES:
    x_plain "ldxr x10, [x0]; add x11, x10, #1; stxr w12, x11, [x0]"
    x_same_stored "ldxr x10, [x0]; str x10, [x0]; stxr w11, xzr, [x0]"
    x_other_stored "ldxr x10, [x0]; str x1, [x0]; stxr w11, xzr, [x0]"
    x_changed_back "ldxr x10, [x0]; strb w0, [x0, #3]; str x10, [x0]; stxr w11, xzr, [x0]"
    x_status_is_source "ldxr x4, [x0]; .inst 0xc8047c04; mov x10, x4"
    x_status_is_base "ldxr x4, [x0]; .inst 0xc8007c1f; mov x10, x0"
    x_status_is_second "ldxp x4, x5, [x0]; .inst 0xc8251404; mov x10, x5"
    x_load_pair_twice "mov x4, #9; .inst 0xc87f1004; mov x10, x4; stxp w11, xzr, xzr, [x0]"
    x_load_rs "mov x0, x0; .inst 0xc8407c04; mov x10, x4; stxr w11, xzr, [x0]"
    x_load_rt2 ".inst 0xc85f0004; mov x10, x4; stxr w11, xzr, [x0]"
    x_store_rt2 "ldxr x4, [x0]; .inst 0xc805001f; mov x10, x5"
    x_load_pair_rs ".inst 0x88601404; mov x10, x4; mov x11, x5; stxp w12, wzr, wzr, [x0]"
    x_clrex_0 "ldxr x4, [x0]; .inst 0xd503305f; stxr w10, xzr, [x0]"
    x_clrex_7 "ldxr x4, [x0]; .inst 0xd503375f; stxr w10, xzr, [x0]"
    x_second_half "ldxp x4, x5, [x0]; add x6, x0, #8; stxr w10, xzr, [x6]"
    x_within "ldxr x4, [x0]; add x6, x0, #4; stxr w10, wzr, [x6]"
    x_outside "add x6, x0, #4; ldxr w4, [x6]; stxr w10, xzr, [x0]"
    x_elsewhere_first "ldxr x4, [x0]; stxr w10, xzr, [x1]; stxr w11, xzr, [x0]"
    x_clear_elsewhere "ldxr x4, [x0]; ldxr x5, [x1]; stxr w10, xzr, [x1]; stxr w11, xzr, [x0]"
    x_larger "ldxr w4, [x0]; stxp w10, x1, xzr, [x0]"
    x_smaller "ldaxp x4, x5, [x0]; stlxrb w10, wzr, [x0]"
    x_odd_byte "add x6, x0, #3; ldxrb w10, [x6]; stxrb w11, wzr, [x6]"
    x_odd_half "add x6, x0, #1; ldxrh w10, [x6]; stxrh w11, wzr, [x6]"
    x_odd_word "add x6, x0, #14; ldxr w10, [x6]; stxr w11, wzr, [x6]"
    x_odd_pair "add x6, x0, #8; ldxp x10, x11, [x6]; stxp w12, xzr, xzr, [x6]"
    x_odd_store "add x6, x0, #13; clrex; stxr w10, xzr, [x6]"
    x_device "ldxr w4, [x2]; stxr w10, w4, [x2]; ldaxrb w5, [x2]; stlxrb w11, w5, [x2]"
    x_device_then_words "ldxr w4, [x2]; stxr w10, w4, [x0]; ldxr x4, [x0]; stxr w11, w4, [x2]"
    x_status_to_zero "ldxr x4, [x0]; stxr wzr, x1, [x0]; stxr w10, x1, [x0]"
    // With a device's load in between, which a hypervisor carries out. All of it is in one page.
    x_overwritten ".balign 128; ldxr x4, [x0]; add x4, x4, #1; ldr w5, [x2]; stxr w10, x4, [x0]"
    x_bits_set ".balign 128; ldxr x4, [x0]; orr x4, x4, x1; ldr w5, [x2]; stxr w10, x4, [x0]"
    x_moved_base ".balign 128; mov x6, x0; ldxr x4, [x6]; add x6, x6, #8; ldr w5, [x2]"
        "stxr w10, xzr, [x6]"
    x_load_skipped ".balign 128; clrex; mov x4, #0; cbz xzr, 1f; ldxr x4, [x0]; 1: ldr w5, [x2]"
        "stxr w10, xzr, [x0]"
    x_load_in_vain ".balign 128; ldr x4, [x0]; clrex; cbz xzr, 1f; ldxr x4, [x0]; 1: ldr w5, [x2]"
        "stxr w10, xzr, [x0]"
    x_out_of_line ".balign 128; ldxr x4, [x0]; cbz xzr, 1f; 2: ldr w5, [x2]; stxr w10, xzr, [x0]; b 3f"
        "1: svc #1; b 2b; 3:"
    x_call ".balign 128; mov x17, x30; ldxr x4, [x0]; bl 1f; ldr w5, [x2]; stxr w10, xzr, [x0]; b 2f"
        "1: nop; ret; 2: mov x30, x17"
    x_call_device ".balign 128; mov x17, x30; ldxr x4, [x0]; bl 1f; stxr w10, xzr, [x0]; b 2f"
        "1: ldr w5, [x2]; ret; 2: mov x30, x17"
    x_call_store ".balign 128; mov x17, x30; ldxr x4, [x0]; bl 1f; ldr w5, [x2]; stxr w10, xzr, [x0]"
        "b 2f; 1: str x1, [x0]; ret; 2: mov x30, x17"
    x_call_clrex ".balign 128; mov x17, x30; ldxr x4, [x0]; bl 1f; ldr w5, [x2]; stxr w10, xzr, [x0]"
        "b 2f; 1: clrex; ret; 2: mov x30, x17"
    x_call_svc ".balign 128; mov x17, x30; ldxr x4, [x0]; bl 1f; ldr w5, [x2]; stxr w10, xzr, [x0]"
        "b 2f; 1: svc #1; ret; 2: mov x30, x17"
}

/// A load-exclusive, what is told, and its store, once.
macro_rules! between {
    ($table:ident: $($name:ident $text:literal)*) => {
        cases! { $table: $(
            $name "mov w6, #7; ldxr x4, [x0]" $text "stxr w10, xzr, [x0]"
        )* }
    };
}

mod inside {
    use crate::cases;
    between! { CASES:
        x_isb "isb"
        x_dsb "dsb sy"
        x_dmb "dmb ishld"
        x_yield "yield"
        x_sev "sev"
        x_wfe "sevl; wfe"
        x_esb "hint #16"
        x_prefetch "prfm pstl1keep, [x0]"
        x_clean "dc civac, x0"
        x_clean_unified "dc cvau, x0"
        x_zero_other "dc zva, x1"
        x_fetch_maintenance "ic ivau, x0"
        x_fetch_all "ic iallu"
        x_tlb "tlbi vmalle1"
        x_tlb_address "tlbi vae1is, x0"
        x_at "at s1e1r, x0"
        x_par "mrs x5, par_el1"
        x_ttbr0 "mrs x5, ttbr0_el1; msr ttbr0_el1, x5"
        x_tcr "mrs x5, tcr_el1; msr tcr_el1, x5"
        x_mair "mrs x5, mair_el1; msr mair_el1, x5"
        x_sctlr "mrs x5, sctlr_el1; msr sctlr_el1, x5"
        x_vbar "mrs x5, vbar_el1; msr vbar_el1, x5"
        x_contextidr "mrs x5, contextidr_el1; msr contextidr_el1, x5"
        x_cpacr "mrs x5, cpacr_el1; msr cpacr_el1, x5"
        x_daif "mrs x5, daif; msr daif, x5"
        x_daifset "msr daifset, #15"
        x_sp "mrs x5, sp_el0; msr sp_el0, x5"
        x_tpidr "msr tpidr_el0, x0"
        x_counter "mrs x5, cntvct_el0"
        x_physical "mrs x5, cntpct_el0"
        x_tval "mrs x5, cntv_tval_el0"
        x_cval "mrs x5, cntv_cval_el0; msr cntv_cval_el0, x5"
        x_physical_cval "mrs x5, cntp_cval_el0; msr cntp_cval_el0, x5"
        x_physical_ctl "msr cntp_ctl_el0, xzr"
        x_kernel_ctl "mrs x5, cntkctl_el1; msr cntkctl_el1, x5"
        x_pmr "mrs x5, icc_pmr_el1; msr icc_pmr_el1, x5"
        x_iar "mrs x5, icc_iar1_el1"
        x_isr "mrs x5, isr_el1"
        x_hppir "mrs x5, icc_hppir1_el1"
        x_mdscr "mrs x5, mdscr_el1; msr mdscr_el1, x5"
        x_oslar "msr oslar_el1, xzr"
        x_osdlr "msr osdlr_el1, xzr"
        x_claim "mrs x5, dbgclaimset_el1"
        x_breakpoint "mrs x5, dbgbcr1_el1; msr dbgbcr1_el1, x5"
        x_dcc "mrs x5, mdccsr_el0"
        x_midr "mrs x5, midr_el1"
        x_clidr "mrs x5, clidr_el1; mrs x5, ccsidr_el1"
        x_ctr "mrs x5, ctr_el0"
        x_dczid "mrs x5, dczid_el0"
        x_fpcr "mrs x5, S3_3_C4_C4_0"
        x_unallocated "mrs x5, S3_0_C15_C0_0"
        x_undefined "udf #1"
        x_hlt "hlt #1"
        x_brk "brk #1"
        x_svc "svc #1"
        x_load_device "ldr w5, [x2]"
        x_store_device "str wzr, [x2]"
        x_load_pair "ldp x5, x7, [x0]"
        x_store_near "str x5, [x0, #8]"
        x_unprivileged "ldtr x5, [x0]; sttr x5, [x0, #8]"
        x_release "stlr x1, [x1]"
        x_acquire "ldar x5, [x0]"
        x_indirect "adr x5, 1f; br x5; 1: nop"
    }
    pub(super) const TABLE: &[crate::cases::Case] = CASES;
}

mod translated {
    use crate::cases;
    cases! { CASES:
        // X3: the same words, read-only.
        x_read_only "ldxr x10, [x3]; stxr w11, xzr, [x3]"
        x_from_read_only "ldxr x10, [x3]; stxr w11, xzr, [x0]"
        x_to_read_only "ldxr x10, [x0]; stxr w11, xzr, [x3]"
        x_read_only_open "clrex; stxr w10, xzr, [x3]"
        x_read_only_odd "add x4, x3, #1; ldxr x10, [x4]; stxr w11, xzr, [x4]"
        // X1: nowhere.
        x_unmapped "ldxr x10, [x1]; stxr w11, xzr, [x1]; ldaxp x12, x13, [x1]"
        x_unmapped_after "ldxr x4, [x0]; ldr x5, [x1]; stxr w10, xzr, [x0]"
        x_unmapped_odd "add x4, x1, #1; ldxrh w10, [x4]; stxrh w11, wzr, [x4]"
        x_pair_odd "add x4, x0, #8; ldaxp x10, x11, [x4]; stlxp w12, xzr, xzr, [x4]"
        x_word_odd "add x4, x0, #2; ldxr w10, [x4]; stxr w11, wzr, [x4]"
        // The same, for EL1 only or for EL0, too.
        x_pan "ldxr x4, [x0]; .inst 0xd500419f; stxr w10, xzr, [x0]; .inst 0xd500409f"
        x_pan_load ".inst 0xd500419f; ldxr x10, [x0]; .inst 0xd500409f; stxr w11, xzr, [x0]"
        x_tag "orr x4, x0, #1 << 60; ldxr x10, [x4]; stxr w11, xzr, [x0]"
        x_tag_store "orr x4, x0, #1 << 60; ldxr x10, [x0]; stxr w11, xzr, [x4]"
        x_tag_both "orr x4, x0, #1 << 60; ldxp x10, x11, [x4]; stxp w12, xzr, xzr, [x4]"
        x_plain_store "ldxr x4, [x0]; str xzr, [x0, #8]; stxr w10, xzr, [x0]"
    }
    pub(super) const TABLE: &[crate::cases::Case] = CASES;
}

fn words() -> *mut u64 {
    (&raw mut WORDS).cast()
}

/// Where a case is run, and with what: translation off.
fn at_each_level(words: *mut u64, table: &[crate::cases::Case]) {
    let given = [words as u64, words as u64 + OTHER, DEVICE, 0];
    each(1, words, table, |function| at_el1(function, given));
    each(0, words, table, |function| at_el0(function, given, 0));
}

pub fn look() {
    let beside = (&raw const words_beside).cast_mut();
    for words in [words(), beside] {
        at_each_level(words, CASES);
        at_each_level(words, inside::TABLE);
    }
}

pub fn look_translated() {
    let words = words();
    let read_only = words as u64 + READ_ONLY_ALIAS;
    // Top Byte Ignore.
    for tcr in [0, 1 << 37] {
        write_register!("tcr_el1", read_register!("tcr_el1") | tcr);
        instruction!("tlbi vmalle1");
        instruction!("dsb ish");
        instruction!("isb");
        show("tcr", &[read_register!("tcr_el1")]);
        let given = [words as u64, UNMAPPED, DEVICE, read_only];
        each(1, words, translated::TABLE, |function| at_el1(function, given));
        let given = [words as u64 + EL0_ALIAS, UNMAPPED, DEVICE, read_only];
        each(2, words, translated::TABLE, |function| at_el1(function, given));
        each(0, words, translated::TABLE, |function| at_el0(function, given, EL0_ALIAS));
        each(0, words, inside::TABLE, |function| at_el0(function, given, EL0_ALIAS));
    }
}
