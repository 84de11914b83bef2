//! Instructions that raise no exception, and those that a hypervisor carries out.

use crate::conform::{Case, Needs, Pending};
use crate::conformance_cases;

conformance_cases! {
    arithmetic: "
        unmask
        mov     x3, #6
        add     x4, x3, #1
        mul     x5, x3, x4
        mask
    " => Case::plain("arithmetic", "0-5").leaves(&[(5, 42)]),

    branch_taken: "
        unmask
        b       2f
        nop
    2:  cbz     xzr, 3f
        nop
    3:  mask
    " => Case::plain("branches that are taken", "0-1 3 5-6"),

    branch_not_taken: "
        unmask
        cbnz    xzr, 2f
        tbnz    xzr, #3, 2f
        cmp     xzr, xzr
        b.ne    2f
    2:  mask
    " => Case::plain("branches that are not taken", "0-6"),

    call_and_return: "
        unmask
        bl      2f
        b       3f
    2:  ret
    3:  adr     x5, 4f
        br      x5
        nop
    4:  mask
    " => Case::plain("BL, RET, BR", "0-1 3 2 4-5 7-8"),

    counted_loop: "
        unmask
        mov     x3, #3
    2:  subs    x3, x3, #1
        b.ne    2b
        mask
    " => Case::plain("a loop", "0-3 2-3 2-3 4-5").leaves(&[(3, 0)]),

    branch_to_itself: "
        unmask
        adr     x4, 2f
        adr     x5, 3f
    2:  mov     x6, x4
        mov     x4, x5
        br      x6
    3:  mask
    " => Case::plain("BR to where it came from", "0-5 3-5 6-7"),

    loads_and_stores: "
        unmask
        mov     x3, #0x55
        str     x3, [x0]
        ldr     x4, [x0]
        stp     x3, x4, [x0, #16]
        ldp     x5, x6, [x0, #16]
        ldr     x7, [x0, #15]
        mask
    " => Case::plain("loads and stores", "0-8")
        .leaves(&[(4, 0x55), (5, 0x55), (6, 0x55), (7, 0x5500)]),

    hints: "
        unmask
        nop
        yield
        hint    #25
        hint    #29
        mask
    " => Case::plain("NOP, YIELD, PACIASP, AUTIASP", "0-6"),

    barriers: "
        unmask
        dmb     ish
        dsb     ish
        isb
        mask
    " => Case::plain("DMB, DSB, ISB", "0-5"),

    wait_for_event: "
        unmask
        sevl
        wfe
        sev
        wfe
        mask
    " => Case::plain("SEVL, WFE, SEV, WFE", "0-6"),

    wait_for_interrupt: "
        wfi
        unmask
        mask
    " => Case::plain("WFI, woken by what is masked", "0-3")
        .pending(Pending::Always)
        .interrupted("0-1 irq 2-3"),

    mask_by_immediate: "
        unmask
        mrs     x3, daif
        mask
        mrs     x4, daif
    " => Case::plain("MSR DAIFClr, DAIFSet", "0-4").leaves(&[(3, 0x340), (4, 0x3c0)]),

    mask_by_register: "
        mov     x5, #0x340
        msr     daif, x5
        mrs     x3, daif
        mov     x6, #0x3c0
        msr     daif, x6
        mrs     x4, daif
    " => Case::plain("MSR DAIF, Xt", "0-6")
        .interrupted("0-1 irq 2-6")
        .leaves(&[(3, 0x340), (4, 0x3c0)]),

    masked_all_along: "
        mrs     x3, daif
        msr     daifset, #2
        nop
        mrs     x4, daif
    " => Case::plain("an interrupt that stays masked", "0-4")
        .interrupted("0-4")
        .leaves(&[(3, 0x3c0), (4, 0x3c0)]),

    flags: "
        unmask
        mov     x3, #0xa0000000
        msr     nzcv, x3
        b.mi    2f
        nop
    2:  mrs     x4, nzcv
        mask
    " => Case::plain("MSR NZCV", "0-3 5-7").leaves(&[(4, 0xa000_0000)]),

    thread_pointer: "
        unmask
        mov     x3, #77
        msr     tpidr_el0, x3
        mrs     x4, tpidr_el0
        mask
    " => Case::plain("a system register that does not trap", "0-5").leaves(&[(4, 77)]),

    atomics: "
        unmask
        mov     x3, #5
        ldadd   x3, x4, [x0]
        swpal   x3, x5, [x0]
        mov     x6, #5
        cas     x6, x3, [x0]
        mov     x8, x6
        mov     x6, #5
        mov     x7, #0
        casp    x6, x7, x4, x5, [x0]
        ldr     x9, [x0]
        mask
    " => Case::plain("LSE atomics", "0-12")
        .needs(Needs::Atomics)
        .leaves(&[(4, 0), (5, 5), (6, 5), (7, 0), (8, 5), (9, 0)]),

    device: "
        unmask
        ldr     w3, [x2, #0x18]
        mov     w4, #7
        str     w4, [x2, #0x24]
        ldr     w5, [x2, #0x24]
        mask
    " => Case::plain("MMIO read and write", "0-6").leaves(&[(5, 7)]),

    virtual_counter: "
        unmask
        mrs     x3, cntvct_el0
        mrs     x4, cntvct_el0
        cmp     x4, x3
        cset    x5, hs
        mrs     x6, cntv_ctl_el0
        mask
    " => Case::plain("the virtual counter and timer", "0-7").leaves(&[(5, 1)]),

    physical_timer: "
        unmask
        mrs     x3, cntpct_el0
        mov     x4, #0x1234
        msr     cntp_cval_el0, x4
        mrs     x5, cntp_cval_el0
        mrs     x6, cntfrq_el0
        mask
    " => Case::plain("the physical counter and timer", "0-7").leaves(&[(5, 0x1234)]),

    identification: "
        unmask
        mrs     x3, id_aa64pfr0_el1
        mrs     x4, id_aa64isar0_el1
        mrs     x5, id_aa64dfr0_el1
        mrs     x6, midr_el1
        mrs     x7, mpidr_el1
        mask
    " => Case::plain("identification registers", "0-7").at_el1(),

    debug_registers: "
        unmask
        mov     x3, #0x4000
        msr     dbgbvr1_el1, x3
        mrs     x4, dbgbvr1_el1
        mov     x3, #0x1000
        msr     mdscr_el1, x3
        mrs     x5, mdscr_el1
        msr     mdscr_el1, xzr
        mrs     x6, mdscr_el1
        mrs     x7, oslsr_el1
        mask
    " => Case::plain("debug registers, MDSCR_EL1", "0-11").at_el1()
        .writes_mdscr()
        .leaves(&[(4, 0x4000), (5, 0x1000), (6, 0), (7, 8)]),

    os_lock: "
        unmask
        mov     x3, #1
        msr     oslar_el1, x3
        isb
        mrs     x4, oslsr_el1
        add     x5, x3, x3
        msr     oslar_el1, xzr
        isb
        mrs     x6, oslsr_el1
        mask
    " => Case::plain("the OS Lock, set and cleared", "0-10").at_el1().leaves(&[(4, 10), (5, 2), (6, 8)]),

    under_os_lock: "
        unmask
        mov     x3, #3
    2:  subs    x3, x3, #1
        b.ne    2b
        mask
    " => Case::plain("a loop while the OS Lock is set", "0-3 2-3 2-3 4-5").os_locked(),

    translation: "
        unmask
        mrs     x3, sctlr_el1
        msr     sctlr_el1, x3
        isb
        dsb     ishst
        tlbi    vmalle1
        dsb     ish
        isb
        mrs     x4, sctlr_el1
        cmp     x3, x4
        cset    x5, eq
        mask
    " => Case::plain("SCTLR_EL1, TLBI", "0-12").at_el1().leaves(&[(5, 1)]),

    stack_pointers: "
        unmask
        mov     x3, sp
        msr     spsel, #0
        mov     x4, sp
        mrs     x5, spsel
        msr     spsel, #1
        mov     x6, sp
        cmp     x3, x6
        cset    x7, eq
        mask
    " => Case::plain("MSR SPSel", "0-10").at_el1().leaves(&[(5, 0), (7, 1)]),

    interrupt_controller: "
        unmask
        mrs     x3, icc_pmr_el1
        mrs     x4, icc_rpr_el1
        mrs     x5, icc_igrpen1_el1
        msr     icc_pmr_el1, x3
        isb
        mask
    " => Case::plain("the GIC's CPU interface", "0-7").at_el1().leaves(&[(4, 0xff), (5, 1)]),
}
