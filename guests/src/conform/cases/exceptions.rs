//! One case at least for each class of exception that EL1 takes.

use crate::conform::{Case, Caught, Departure, ElrPlace, Handler, Level, Pending, UNMAPPED, class};
use crate::conformance_cases;

/// Raised by instruction 1, which is skipped.
const fn skips(what: &'static str, catches: &'static [Caught]) -> Case {
    Case::plain(what, "0-1 sync 2-3").catches(Handler::Skip, catches)
}

const UNDEFINED: &[Caught] = &[Caught::at(class::UNKNOWN, 1)];
const KEPT_FROM_EL0: &[Caught] = &[Caught::at(class::UNKNOWN_OR_TRAP, 1)];
const NOT_MAPPED: &[Caught] = &[Caught::at(class::DATA_ABORT, 1).far(UNMAPPED)];

conformance_cases! {
    svc: "
        unmask
        svc     #0x12
        mask
    " => Case::plain("SVC", "0-1 sync 2-3")
        .catches(Handler::Return, &[Caught::at(class::SVC, 2)]),

    svc_twice: "
        unmask
        svc     #1
        svc     #2
        mask
    " => Case::plain("SVC after SVC", "0-1 sync 2 sync 3-4")
        .catches(Handler::Return, &[Caught::at(class::SVC, 2), Caught::at(class::SVC, 3)]),

    svc_interrupted_behind: "
        nop
        svc     #1
        unmask
        mask
    " => Case::plain("an interrupt pending through SVC", "0-1 sync 2-4")
        .catches(Handler::Return, &[Caught::at(class::SVC, 2).masked()])
        .interrupted("0-1 sync 2 irq 3-4"),

    svc_on_sp_el0: "
        unmask
        msr     spsel, #0
        svc     #3
        msr     spsel, #1
        mask
    " => Case::plain("SVC on SP_EL0", "0-2 synct 3-5").at_el1()
        .catches(Handler::Return, &[Caught::at(class::SVC, 3)]),

    hvc: "
        unmask
        mov     x0, #0x84000000
        hvc     #0
        mask
    " => Case::plain("HVC: PSCI_VERSION", "0-4").at_el1(),

    hvc_unknown: "
        unmask
        mov     x0, #0x84000000
        add     x0, x0, #0xfff
        hvc     #0
        mask
    " => Case::plain("HVC: an unknown function", "0-5").at_el1().leaves(&[(0, u64::MAX)]),

    hvc_at_el0: "
        unmask
        hvc     #0
        mask
    " => skips("HVC", UNDEFINED).at_el0(),

    smc: "
        unmask
        smc     #0x12
        mask
    " => skips("SMC, trapped: a board without EL3", UNDEFINED),

    eret_to_el0: "
        unmask
        mask
        adr     x5, 2f
        msr     elr_el1, x5
        mov     x6, #0x3c0
        msr     spsr_el1, x6
        adr     x16, 3f
        eret
    2:  add     x7, x7, #1
        svc     #4
    3:  nop
    " => Case::plain("ERET to EL0, and back", "0-9 sync0 10-11").at_el1()
        .catches(Handler::ToEl1, &[Caught::at(class::SVC, 10).masked().from(Level::El0)])
        .leaves(&[(7, 1)]),

    eret_unmasks: "
        adr     x5, 2f
        msr     elr_el1, x5
        mov     x6, #0x340
        msr     spsr_el1, x6
        adr     x16, 3f
        eret
    2:  mask
        svc     #4
    3:  nop
    " => Case::plain("ERET to EL0, which unmasks", "0-7 sync0 8-9").at_el1()
        .catches(Handler::ToEl1, &[Caught::at(class::SVC, 8).masked().from(Level::El0)])
        .interrupted("0-5 irq0 6-7 sync0 8-9"),

    eret_to_el1: "
        unmask
        mask
        adr     x5, 2f
        msr     elr_el1, x5
        mov     x6, #0x3c5
        msr     spsr_el1, x6
        eret
        nop
    2:  add     x7, x7, #1
    " => Case::plain("ERET to EL1", "0-6 8-9").at_el1().leaves(&[(7, 1)]),

    eret_illegal: "
        unmask
        mask
        adr     x5, 2f
        msr     elr_el1, x5
        mov     x6, #0x3c9
        msr     spsr_el1, x6
        eret
        nop
    2:  add     x7, x7, #1
    " => Case::plain("illegal ERET: to EL2", "0-6 8 sync 8-9").at_el1()
        .catches(Handler::Legal, &[Caught::at(class::ILLEGAL_STATE, 8).masked().illegal()])
        .leaves(&[(7, 1)]),

    eret_at_el0: "
        unmask
        eret
        mask
    " => skips("ERET", UNDEFINED).at_el0(),

    undefined: "
        unmask
        udf     #0
        mask
    " => skips("UDF", UNDEFINED),

    halting: "
        unmask
        hlt     #0
        mask
    " => skips("HLT, with halting debug off", UNDEFINED),

    unallocated_register: "
        unmask
        msr     s3_0_c11_c15_7, x3
        mask
    " => skips("a system register that nobody has", KEPT_FROM_EL0),

    el1_register_at_el0: "
        unmask
        mrs     x3, sctlr_el1
        mask
    " => skips("MRS SCTLR_EL1", KEPT_FROM_EL0).at_el0(),

    identification_at_el0: "
        unmask
        mrs     x3, id_aa64pfr0_el1
        mask
    " => skips("MRS ID_AA64PFR0_EL1", KEPT_FROM_EL0).at_el0(),

    mdscr_at_el0: "
        unmask
        msr     mdscr_el1, x3
        mask
    " => skips("MSR MDSCR_EL1", KEPT_FROM_EL0).at_el0(),

    trapped_register: "
        unmask
        mrs     x3, ctr_el0
        mask
    " => skips("MRS CTR_EL0, trapped by SCTLR_EL1", &[Caught::at(class::SYSTEM_REGISTER, 1)])
        .at_el0(),

    trapped_simd: "
        unmask
        .inst   0x9e6703e0      // fmov d0, xzr
        mask
    " => skips("FMOV, trapped by CPACR_EL1", &[Caught::at(class::SIMD, 1)]),

    brk: "
        unmask
        brk     #0x77
        mask
    " => skips("BRK", &[Caught::at(class::BRK, 1)]),

    load_unmapped: "
        unmask
        ldr     x3, [x1]
        mask
    " => skips("data fault of stage 1: load", NOT_MAPPED),

    store_unmapped: "
        unmask
        str     x3, [x1]
        mask
    " => skips("data fault of stage 1: store", NOT_MAPPED),

    store_read_only: "
        unmask
        adr     x5, .
        str     x3, [x5]
        mask
    " => Case::plain("data fault of stage 1: permission", "0-2 sync 3-4")
        .catches(Handler::Skip, &[Caught::at(class::DATA_ABORT, 2)]),

    load_pair_unmapped: "
        unmask
        sub     x5, x1, #8
        ldp     x3, x4, [x1]
        mask
    " => Case::plain("data fault of a pair", "0-2 sync 3-4")
        .catches(Handler::Skip, &[Caught::at(class::DATA_ABORT, 2).far(UNMAPPED)]),

    fetch_unmapped: "
        unmask
        adr     x30, 2f
        br      x1
    2:  mask
    " => Case::plain("fetch fault of stage 1", "0-2 fetch sync 3-4").catches(
        Handler::Link,
        &[Caught::new(class::INSTRUCTION_ABORT, ElrPlace::Unmapped).far(UNMAPPED)],
    ),

    fetch_never_execute: "
        unmask
        adr     x30, 2f
        mov     x5, x2
        br      x5
    2:  mask
    " => Case::plain("fetch fault of stage 1: a device", "0-3 device sync 4-5").catches(
        Handler::Link,
        &[Caught::new(class::INSTRUCTION_ABORT, ElrPlace::Device)],
    ),

    pc_alignment: "
        unmask
        adr     x30, 2f
        adr     x5, 2f
        add     x5, x5, #2
        br      x5
    2:  mask
    " => Case::plain("PC alignment fault", "0-4 5+2 sync 5-6")
        .catches(Handler::Link, &[Caught::new(class::PC_ALIGNMENT, ElrPlace::Bytes(22))]),

    sp_alignment: "
        unmask
        mov     x5, sp
        sub     x6, x5, #24
        mov     sp, x6
        ldr     x3, [sp]
        mov     sp, x5
        mask
    " => Case::plain("SP alignment fault", "0-4 sync 5-7").at_el0()
        .catches(Handler::Skip, &[Caught::at(class::SP_ALIGNMENT, 4)])
        .departs(Departure {
            path: "0-7",
            catches: &[],
            is_the_cpus: true,
            reason: "QEMU does not check the alignment of SP",
        }),

    alignment: "
        unmask
        // The last byte of 16, where FEAT_LSE2 allows none.
        orr     x5, x0, #15
        ldxr    x3, [x5]
        mask
    " => Case::plain("alignment fault of LDXR", "0-2 sync 3-4")
        .catches(Handler::Skip, &[Caught::at(class::DATA_ABORT, 2)]),

    fault_unmasks_late: "
        ldr     x3, [x1]
        unmask
        mask
    " => Case::plain("an interrupt pending through a data fault", "0 sync 1-3")
        .catches(Handler::Skip, &[Caught::at(class::DATA_ABORT, 0).masked().far(UNMAPPED)])
        .interrupted("0 sync 1 irq 2-3"),

    wait_then_svc: "
        wfi
        svc     #1
        unmask
        mask
    " => Case::plain("WFI, then SVC", "0-1 sync 2-4")
        .pending(Pending::Always)
        .catches(Handler::Return, &[Caught::at(class::SVC, 2).masked()])
        .interrupted("0-1 sync 2 irq 3-4"),
}
