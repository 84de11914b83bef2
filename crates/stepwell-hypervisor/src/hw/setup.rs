//! EL2's control registers on one CPU: what traps, and why.

use super::el2::El2;
use super::registers::{dsb, isb, mrs, msr, msr_unsafe};
use super::{pmu, simd, world};
use crate::mem::heap;
use core::sync::atomic::{AtomicU64, Ordering};
use stepwell_arch::SystemRegister;
use stepwell_arch::debug::mdcr_el2;
use stepwell_arch::hyp::{cptr_el2, hcr_el2};
use stepwell_vm::cpu::CpuFacts;
use stepwell_vm::feature_id;
use stepwell_vm::stage2::{FIRST_LEVEL, PageUse, Vttbr};

/// Reads what this CPU has of what EL2 hands out.
#[must_use]
pub fn facts() -> CpuFacts {
    let dfr0 = mrs!("id_aa64dfr0_el1");
    CpuFacts {
        breakpoints: (dfr0 >> 12 & 0xf) as u8 + 1,
        watchpoints: (dfr0 >> 20 & 0xf) as u8 + 1,
        context_breakpoints: (dfr0 >> 28 & 0xf) as u8 + 1,
        pa_range: mrs!("id_aa64mmfr0_el1") & 0xf,
        list_registers: (mrs!("ich_vtr_el2") & 0x1f) as usize + 1,
    }
}

/// A table that maps nothing: what a guest has until it has tables of its own.
#[repr(C, align(4096))]
struct NoTables([AtomicU64; 512]);

static NO_TABLES: NoTables = NoTables([const { AtomicU64::new(0) }; 512]);

/// Sets up everything that stays the same for all guests, and hands out the CPU that can run them.
pub fn control_registers(vmpidr: u64) -> El2 {
    set_hcr(traps_and_routing());
    set_tables(core::ptr::from_ref(&NO_TABLES) as u64);
    msr!("vmpidr_el2", vmpidr);
    msr!("vpidr_el2", mrs!("midr_el1"));
    // FP, SIMD and SVE are the guest's: nothing at EL2 uses them. Bits are RES1 where SVE is not.
    msr!("cptr_el2", cptr());
    msr!("hstr_el2", 0);
    // Nothing enabled: CNTPCT and the physical timer are trapped, because the guest's physical time
    // is its virtual time.
    msr!("cnthctl_el2", 0);
    find_base_mdcr();
    msr!("mdcr_el2", base_mdcr());
    // The CPU's own step and breakpoints never act on EL2: PSTATE.D stays set, KDE clear.
    msr!("mdscr_el1", 0);
    // OS Lock: set at reset, and nothing steps on hardware while it is.
    msr!("oslar_el1", 0);
    // SAFETY: `world.S` has a vector for each exception there, aligned as the register wants it.
    unsafe { msr_unsafe!("vbar_el2", world::vector_base()) }
    enable_vector_length();
    enable_extended_controls();
    fine_grained_traps();
    hide_partitions();
    isb();
    El2::here()
}

/// Writes HCR_EL2, but never so that the guest would be without stage 2.
fn set_hcr(value: u64) {
    let confined = (value | hcr_el2::VM) & !(hcr_el2::TGE | hcr_el2::E2H);
    // SAFETY: VM is set, and TGE and E2H are not: whatever runs at EL1 or EL0 is translated by stage
    // 2, and EL2 is as it was. What the other bits trap, route or enable is no memory.
    unsafe { msr_unsafe!("hcr_el2", confined) }
}

/// Writes VTTBR_EL2 and VTCR_EL2. `vttbr` names a root table: [`NO_TABLES`], or one that is lent.
fn set_tables(vttbr: u64) {
    let vtcr = stepwell_vm::stage2::vtcr(mrs!("id_aa64mmfr0_el1") & 0xf);
    // SAFETY: the format of the tables is the one that `Stage2` writes, and VTTBR_EL2 names a root
    // table of that format: of one that is lent, each entry leads to another such table or to a
    // guest's memory (see `mem::tables`); `NO_TABLES` leads nowhere.
    unsafe {
        msr_unsafe!("vtcr_el2", vtcr);
        msr_unsafe!("vttbr_el2", vttbr);
    }
    isb();
}

/// Tells whether tables begin with a root table that is lent. Others are not put in force.
fn are_lent(tables: Vttbr) -> bool {
    heap::lent_for(tables.root()) == Some(PageUse::Table(FIRST_LEVEL))
}

/// Makes a virtual SError pending, which the guest takes once PSTATE.A is 0.
pub fn raise_serror(iss: u32) {
    if has_ras() {
        // S3_4_C5_C2_3 is VSESR_EL2, FEAT_RAS: what the guest's ESR_EL1 is to say.
        msr!("s3_4_c5_c2_3", u64::from(iss));
    }
    set_hcr(mrs!("hcr_el2") | hcr_el2::VSE);
}

/// Withdraws the virtual SError of [`raise_serror`]. Tells whether the guest has taken it, or
/// deferred it by an ESB: the CPU clears the bit then.
#[must_use]
pub fn take_serror_back() -> bool {
    let hcr = mrs!("hcr_el2");
    set_hcr(hcr & !hcr_el2::VSE);
    hcr & hcr_el2::VSE == 0
}

/// Has a WFI that would wait trap, or not: one that is executed to see what comes before it is not to
/// wait.
pub fn trap_waits(trap: bool) {
    let hcr = mrs!("hcr_el2") & !hcr_el2::TWI;
    set_hcr(if trap { hcr | hcr_el2::TWI } else { hcr });
}

/// Has the guest's TLB invalidations trap, or not.
#[inline]
pub fn trap_invalidations(trap: bool) {
    let hcr = mrs!("hcr_el2");
    let wanted = if trap { hcr | hcr_el2::TTLB } else { hcr & !hcr_el2::TTLB };
    if hcr != wanted {
        set_hcr(wanted);
        isb();
    }
}

/// Has the guest's writes of the registers that make an address space trap, or not.
#[inline]
pub fn trap_translation_changes(trap: bool) {
    let hcr = mrs!("hcr_el2");
    let wanted = if trap { hcr | hcr_el2::TVM } else { hcr & !hcr_el2::TVM };
    if hcr != wanted {
        set_hcr(wanted);
        isb();
    }
}

/// HCR_EL2.
fn traps_and_routing() -> u64 {
    let mut hcr = hcr_el2::VM   // stage 2 on
        | hcr_el2::SWIO         // set/way maintenance cannot reach other domains' lines
        | hcr_el2::FMO          // physical FIQ, IRQ and SError come to EL2,
        | hcr_el2::IMO          // and the virtual ones are enabled
        | hcr_el2::AMO
        | hcr_el2::TSC          // SMC is ours to answer: the guest has no EL3
        | hcr_el2::TID3         // ID registers: the guest has no EL2
        | hcr_el2::TIDCP        // IMPLEMENTATION DEFINED registers reach what all guests share
        | hcr_el2::TACR         // and so does ACTLR_EL1
        | hcr_el2::RW           // EL1 is AArch64
        | hcr_el2::APK          // pointer authentication is the guest's own
        | hcr_el2::API
        | hcr_el2::ATA; // so is memory tagging
    // Not TWI, TWE: a guest that waits, waits on its own CPU. The step engine sees WFI coming.
    // Not TVM, unless a breakpoint follows a virtual address: the step engine sees translation changes
    // coming.
    if has_ras() {
        // The error records are the machine's: the guest has none.
        hcr |= hcr_el2::TERR;
    }
    if has_context_numbers() {
        // SCXTNUM_EL1 and SCXTNUM_EL0 are the guest's own.
        hcr |= hcr_el2::ENSCXT;
    }
    hcr
}

/// FEAT_RAS.
#[must_use]
pub fn has_ras() -> bool {
    mrs!("id_aa64pfr0_el1") >> 28 & 0xf != 0
}

/// FEAT_CSV2_2 or FEAT_CSV2_1p2: the CPU has SCXTNUM_EL1 and SCXTNUM_EL0.
#[must_use]
pub fn has_context_numbers() -> bool {
    mrs!("id_aa64pfr0_el1") >> 56 & 0xf >= 2 || mrs!("id_aa64pfr1_el1") >> 32 & 0xf >= 2
}

/// FEAT_SME.
#[must_use]
pub fn has_sme() -> bool {
    mrs!("id_aa64pfr1_el1") >> 24 & 0xf != 0
}

/// The fine-grained traps, where there are any: all off, but for what the guest is not offered.
///
/// Bits whose names begin with n trap where they are clear, so that what is not named here traps.
fn fine_grained_traps() {
    /// nACCDATA_EL1: for ST64BV0.
    const NACCDATA_EL1: u64 = 1 << 50;
    /// nSMPRI_EL1 and nTPIDR2_EL0, FEAT_SME.
    const NSMPRI_EL1: u64 = 1 << 54;
    const NTPIDR2_EL0: u64 = 1 << 55;
    if mrs!("id_aa64mmfr0_el1") >> 56 & 0xf == 0 {
        return;
    }
    let offered = NACCDATA_EL1 | NSMPRI_EL1 | NTPIDR2_EL0;
    // S3_4_C1_C1_4 to 6 are HFGRTR_EL2, HFGWTR_EL2 and HFGITR_EL2.
    msr!("s3_4_c1_c1_4", offered);
    msr!("s3_4_c1_c1_5", offered);
    msr!("s3_4_c1_c1_6", 0);
    // S3_4_C3_C1_4 and 5 are HDFGRTR_EL2 and HDFGWTR_EL2: BRBE's registers trap.
    msr!("s3_4_c3_c1_4", 0);
    msr!("s3_4_c3_c1_5", 0);
}

/// MPAM2_EL2, where there is one: the guest has no partition of its own, and does not see ours.
fn hide_partitions() {
    /// TRAPMPAM0EL1 and TRAPMPAM1EL1: trap accesses to MPAM0_EL1 and MPAM1_EL1.
    const TRAPS: u64 = 0b11 << 48;
    let has_mpam =
        mrs!("id_aa64pfr0_el1") >> 40 & 0xf != 0 || mrs!("id_aa64pfr1_el1") >> 16 & 0xf != 0;
    if has_mpam {
        // S3_4_C10_C5_0 is MPAM2_EL2.
        msr!("s3_4_c10_c5_0", TRAPS);
    }
}

/// Puts a domain's stage 2 in force on this CPU. Tables that are not lent are refused: the guest has
/// what it had.
pub fn stage2(tables: Vttbr) {
    if !are_lent(tables) {
        return;
    }
    set_tables(tables.bits());
    super::registers::invalidate_guest_translations();
}

/// Tells whether these tables are in force on this CPU.
#[must_use]
pub fn is_stage2(tables: Vttbr) -> bool {
    mrs!("vttbr_el2") == tables.bits()
}

/// Puts other tables of the same domain in force on this CPU. Others may go on using theirs: with
/// VTTBR_EL2.CnP clear, CPUs need not agree on the tables of a VMID. As for [`stage2`].
pub fn change_stage2(tables: Vttbr) {
    if !are_lent(tables) {
        return;
    }
    set_tables(tables.bits());
    super::registers::invalidate_own_translations();
}

/// MDCR_EL2 without anybody debugging, as it was found out: it is asked for at each entry.
static BASE_MDCR: AtomicU64 = AtomicU64::new(0);

/// MDCR_EL2 without anybody debugging: no debug traps, and nothing that counts or records.
#[must_use]
pub fn base_mdcr() -> u64 {
    BASE_MDCR.load(Ordering::Relaxed)
}

fn find_base_mdcr() {
    let features = mrs!("id_aa64dfr0_el1");
    // E2PB and E2TB stay 0: the buffers of SPE and TRBE are EL2's, and their registers trap.
    let mut mdcr = pmu::mdcr();
    if features >> 32 & 0xf != 0 {
        mdcr |= mdcr_el2::TPMS; // SPE's registers
    }
    if features >> 40 & 0xf != 0 {
        mdcr |= mdcr_el2::TTRF; // TRFCR_EL1
    }
    BASE_MDCR.store(mdcr, Ordering::Relaxed);
}

fn cptr() -> u64 {
    // The trace unit's registers, AMU's: not the guest's. Either bit is RES0 where there is none.
    let mut value = cptr_el2::RES1 | cptr_el2::TZ | cptr_el2::TSM;
    if mrs!("id_aa64dfr0_el1") >> 4 & 0xf != 0 {
        value |= cptr_el2::TTA;
    }
    if mrs!("id_aa64pfr0_el1") >> 44 & 0xf != 0 {
        value |= cptr_el2::TAM;
    }
    if simd::has_sve() {
        value &= !cptr_el2::TZ;
    }
    if has_sme() {
        value &= !cptr_el2::TSM;
    }
    value
}

/// ZCR_EL2 and SMCR_EL2: the longest vectors that the CPU has.
fn enable_vector_length() {
    const LONGEST: u64 = 0xf;
    const SMCR_FA64: u64 = 1 << 31;
    const SMCR_EZT0: u64 = 1 << 30;
    isb();
    if simd::has_sve() {
        simd::measure_lengths();
    }
    if has_sme() {
        // S3_0_C0_C4_5 is ID_AA64SMFR0_EL1: ZT0 came with version 1 of SME.
        let zt0 = if mrs!("s3_0_c0_c4_5") >> 56 & 0xf != 0 { SMCR_EZT0 } else { 0 };
        // S3_4_C1_C2_6 is SMCR_EL2.
        msr!("s3_4_c1_c2_6", LONGEST | SMCR_FA64 | zt0);
    }
}

/// HCRX_EL2, where there is one: what it enables is the guest's as if there were no EL2.
fn enable_extended_controls() {
    const HCRX_ENABLES: u64 = 1 << 0 // EnAS0: ST64BV0
        | 1 << 1                     // EnALS: LD64B, ST64B
        | 1 << 2                     // EnASR: ST64BV
        | 1 << 11; // MSCEn: memory copy and set
    let has_hcrx = mrs!("id_aa64mmfr1_el1") >> 40 & 0xf != 0;
    if has_hcrx {
        // S3_4_C1_C2_2 is HCRX_EL2.
        msr!("s3_4_c1_c2_2", HCRX_ENABLES);
    }
    dsb();
}

/// Reads a feature ID register of this CPU.
#[must_use]
pub fn read_feature_id(register: SystemRegister) -> u64 {
    macro_rules! table {
        ($($crm:literal $op2:literal $name:literal),* $(,)?) => {
            match (register.crm(), register.op2()) {
                $(($crm, $op2) => mrs!($name),)*
                // Reserved: reads as zero.
                _ => 0,
            }
        };
    }
    table! {
        1 0 "s3_0_c0_c1_0", 1 1 "s3_0_c0_c1_1", 1 2 "s3_0_c0_c1_2", 1 3 "s3_0_c0_c1_3",
        1 4 "s3_0_c0_c1_4", 1 5 "s3_0_c0_c1_5", 1 6 "s3_0_c0_c1_6", 1 7 "s3_0_c0_c1_7",
        2 0 "s3_0_c0_c2_0", 2 1 "s3_0_c0_c2_1", 2 2 "s3_0_c0_c2_2", 2 3 "s3_0_c0_c2_3",
        2 4 "s3_0_c0_c2_4", 2 5 "s3_0_c0_c2_5", 2 6 "s3_0_c0_c2_6", 2 7 "s3_0_c0_c2_7",
        3 0 "s3_0_c0_c3_0", 3 1 "s3_0_c0_c3_1", 3 2 "s3_0_c0_c3_2", 3 3 "s3_0_c0_c3_3",
        3 4 "s3_0_c0_c3_4", 3 5 "s3_0_c0_c3_5", 3 6 "s3_0_c0_c3_6", 3 7 "s3_0_c0_c3_7",
        4 0 "s3_0_c0_c4_0", 4 1 "s3_0_c0_c4_1", 4 2 "s3_0_c0_c4_2", 4 3 "s3_0_c0_c4_3",
        4 4 "s3_0_c0_c4_4", 4 5 "s3_0_c0_c4_5", 4 6 "s3_0_c0_c4_6", 4 7 "s3_0_c0_c4_7",
        5 0 "s3_0_c0_c5_0", 5 1 "s3_0_c0_c5_1", 5 2 "s3_0_c0_c5_2", 5 3 "s3_0_c0_c5_3",
        5 4 "s3_0_c0_c5_4", 5 5 "s3_0_c0_c5_5", 5 6 "s3_0_c0_c5_6", 5 7 "s3_0_c0_c5_7",
        6 0 "s3_0_c0_c6_0", 6 1 "s3_0_c0_c6_1", 6 2 "s3_0_c0_c6_2", 6 3 "s3_0_c0_c6_3",
        6 4 "s3_0_c0_c6_4", 6 5 "s3_0_c0_c6_5", 6 6 "s3_0_c0_c6_6", 6 7 "s3_0_c0_c6_7",
        7 0 "s3_0_c0_c7_0", 7 1 "s3_0_c0_c7_1", 7 2 "s3_0_c0_c7_2", 7 3 "s3_0_c0_c7_3",
        7 4 "s3_0_c0_c7_4", 7 5 "s3_0_c0_c7_5", 7 6 "s3_0_c0_c7_6", 7 7 "s3_0_c0_c7_7",
    }
}

/// A feature ID register as the guest reads it: the CPU's, less what EL2 keeps for itself.
#[must_use]
pub fn guest_feature_id(register: SystemRegister) -> u64 {
    feature_id::guest_value(register, read_feature_id(register))
}
