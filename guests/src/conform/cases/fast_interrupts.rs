//! Interrupts of Group 0, which are taken as FIQ, and what masks which.

use crate::conform::{Case, Caught, Handler, Level, Pending, class};
use crate::conformance_cases;

conformance_cases! {
    fast: "
        unmask_fast
        nop
        mask_fast
    " => Case::plain("NOP", "0-3").fast(),

    fast_isb: "
        unmask_fast
        isb
        add     x7, x7, #1
        mask_fast
    " => Case::plain("ISB", "0-4").fast().leaves(&[(7, 1)]),

    fast_masked: "
        unmask
        nop
        mask
    " => Case::plain("masked, with IRQ unmasked", "0-3").fast().interrupted("0-3"),

    irq_masked: "
        unmask_fast
        nop
        mask_fast
    " => Case::plain("an IRQ that is masked, with FIQ unmasked", "0-3").interrupted("0-3"),

    fast_both_unmasked: "
        msr     daifclr, #3
        nop
        msr     daifset, #3
    " => Case::plain("with both unmasked", "0-3").fast(),

    fast_by_daif: "
        mov     x5, #0x380
        msr     daif, x5
        nop
        mask_fast
    " => Case::plain("unmasked by MSR DAIF", "0-4").fast().interrupted("0-1 fiq 2-4"),

    fast_svc: "
        unmask_fast
        svc     #0x12
        mask_fast
    " => Case::plain("SVC", "0-1 sync 2-3").fast()
        .catches(Handler::Return, &[Caught::at(class::SVC, 2).fast()]),

    fast_behind_svc: "
        nop
        svc     #1
        unmask_fast
        mask_fast
    " => Case::plain("pending through SVC", "0-1 sync 2-4").fast()
        .catches(Handler::Return, &[Caught::at(class::SVC, 2).masked()])
        .interrupted("0-1 sync 2 fiq 3-4"),

    fast_behind_fault: "
        ldr     x3, [x1]
        unmask_fast
        mask_fast
    " => Case::plain("pending through a data fault", "0 sync 1-3").fast()
        .catches(
            Handler::Skip,
            &[Caught::at(class::DATA_ABORT, 0).masked().far(crate::conform::UNMAPPED)],
        )
        .interrupted("0 sync 1 fiq 2-3"),

    fast_load_exclusive: "
        ldxr    x5, [x0]
        unmask_fast
        mask_fast
        clrex
    " => Case::plain("between exclusives", "0-4").fast().interrupted("0-1 fiq 2-4"),

    fast_eret: "
        adr     x5, 2f
        msr     elr_el1, x5
        mov     x6, #0x380
        msr     spsr_el1, x6
        adr     x16, 3f
        eret
    2:  mask_fast
        svc     #4
    3:  nop
    " => Case::plain("ERET to EL0, which unmasks", "0-7 sync0 8-9").at_el1().fast()
        .catches(Handler::ToEl1, &[Caught::at(class::SVC, 8).masked().from(Level::El0)])
        .interrupted("0-5 fiq0 6-7 sync0 8-9"),

    fast_wfi: "
        wfi
        nop
        unmask_fast
        mask_fast
    " => Case::plain("WFI", "0-4").fast().pending(Pending::Always).interrupted("0-2 fiq 3-4"),

    fast_status: "
        mrs     x5, isr_el1
        mrs     x6, icc_hppir1_el1
        mrs     x7, icc_hppir0_el1
        nop
    " => Case::plain("as ISR_EL1 and ICC_HPPIR tell it, masked", "0-4").at_el1().fast()
        .pending(Pending::Always)
        .interrupted("0-4")
        .leaves(&[(5, 1 << 6), (6, 1023), (7, 27)]),

    irq_status: "
        mrs     x5, isr_el1
        mrs     x6, icc_hppir1_el1
        mrs     x7, icc_hppir0_el1
        nop
    " => Case::plain("an IRQ as they tell it, masked", "0-4").at_el1()
        .pending(Pending::Always)
        .interrupted("0-4")
        .leaves(&[(5, 1 << 7), (6, 27), (7, 1023)]),
}
