//! The local exclusive monitor.
//!
//! Exception entry and exception return clear it, so a sequence that is interrupted tries again,
//! and one that is not interrupted succeeds (the architecture lets a store-exclusive fail for any
//! reason; a CPU that never succeeds is useless, and QEMU's always does).

use crate::conform::{Case, Caught, Handler, class};
use crate::conformance_cases;

/// Load, add, unmask, store, retry.
const fn sequence(what: &'static str) -> Case {
    Case::plain(what, "0-6").interrupted("0-2 irq 3-4 0-4 5-6").leaves(&[(3, 1), (4, 0)])
}

conformance_cases! {
    exclusive_byte: "
    2:  ldxrb   w3, [x0]
        add     w3, w3, #1
        unmask
        stxrb   w4, w3, [x0]
        cbnz    w4, 2b
        mask
    " => sequence("LDXRB, STXRB"),

    exclusive_half: "
    2:  ldaxrh  w3, [x0]
        add     w3, w3, #1
        unmask
        stlxrh  w4, w3, [x0]
        cbnz    w4, 2b
        mask
    " => sequence("LDAXRH, STLXRH"),

    exclusive_word: "
    2:  ldxr    w3, [x0]
        add     w3, w3, #1
        unmask
        stxr    w4, w3, [x0]
        cbnz    w4, 2b
        mask
    " => sequence("LDXR, STXR of a word"),

    exclusive_doubleword: "
    2:  ldaxr   x3, [x0]
        add     x3, x3, #1
        unmask
        stlxr   w4, x3, [x0]
        cbnz    w4, 2b
        mask
    " => sequence("LDAXR, STLXR of a doubleword"),

    exclusive_word_pair: "
    2:  ldxp    w3, w5, [x0]
        add     w3, w3, #1
        unmask
        stxp    w4, w3, w5, [x0]
        cbnz    w4, 2b
        mask
    " => sequence("LDXP, STXP of words"),

    exclusive_doubleword_pair: "
    2:  ldaxp   x3, x5, [x0]
        add     x3, x3, #1
        unmask
        stlxp   w4, x3, x5, [x0]
        cbnz    w4, 2b
        mask
    " => sequence("LDAXP, STLXP of doublewords"),

    exclusive_loses_its_base: "
        unmask
        mov     x5, x0
        ldxr    x5, [x5]
        stxr    w4, x3, [x0]
        mask
    " => Case::plain("a load-exclusive into its base register", "0-5").leaves(&[(4, 0), (5, 0)]),

    exclusive_into_nothing: "
        unmask
        ldxr    xzr, [x0]
        mov     x3, #9
        stxr    w4, x3, [x0]
        ldr     x5, [x0]
        mask
    " => Case::plain("a load-exclusive into XZR", "0-6").leaves(&[(4, 0), (5, 9)]),

    exclusive_stored_twice: "
        unmask
        ldxr    x3, [x0]
        stxr    w4, x3, [x0]
        stxr    w5, x3, [x0]
        mask
    " => Case::plain("a second store-exclusive fails", "0-5").leaves(&[(4, 0), (5, 1)]),

    exclusive_alone: "
        unmask
        stxr    w4, x3, [x0]
        mask
    " => Case::plain("a store-exclusive alone fails", "0-3").leaves(&[(4, 1)]),

    exclusive_cleared: "
        unmask
        ldxr    x3, [x0]
        clrex
        stxr    w4, x3, [x0]
        mask
    " => Case::plain("CLREX", "0-5").leaves(&[(4, 1)]),

    exclusive_and_svc: "
        unmask
        ldxr    x3, [x0]
        svc     #1
        stxr    w4, x3, [x0]
        mask
    " => Case::plain("SVC clears the monitor", "0-2 sync 3-5")
        .catches(Handler::Return, &[Caught::at(class::SVC, 3)])
        .leaves(&[(4, 1)]),

    exclusive_and_fault: "
        unmask
        ldxr    x3, [x0]
        ldr     x5, [x1]
        stxr    w4, x3, [x0]
        mask
    " => Case::plain("a data fault clears the monitor", "0-2 sync 3-5")
        .catches(Handler::Skip, &[Caught::at(class::DATA_ABORT, 2)])
        .leaves(&[(4, 1)]),

    exclusive_and_brk: "
        unmask
        ldxr    x3, [x0]
        brk     #1
        stxr    w4, x3, [x0]
        mask
    " => Case::plain("BRK clears the monitor", "0-2 sync 3-5")
        .catches(Handler::Skip, &[Caught::at(class::BRK, 2)])
        .leaves(&[(4, 1)]),

    exclusive_and_eret: "
        unmask
        mask
        ldxr    x3, [x0]
        adr     x5, 2f
        msr     elr_el1, x5
        mov     x6, #0x3c5
        msr     spsr_el1, x6
        eret
    2:  stxr    w4, x3, [x0]
    " => Case::plain("ERET clears the monitor", "0-9").at_el1().leaves(&[(4, 1)]),

    exclusive_and_plain: "
        unmask
        ldxr    x3, [x0]
        b       2f
        nop
    2:  isb
        add     x3, x3, #5
        stxr    w4, x3, [x0]
        ldr     x5, [x0]
        mask
    " => Case::plain("branches between do not matter", "0-2 4-9").leaves(&[(4, 0), (5, 5)]),

    exclusive_of_read_only: "
        unmask
        adr     x5, .
        ldxr    w3, [x5]
        stxr    w4, w3, [x5]
        mask
    " => Case::plain("a store-exclusive that may not write", "0-3 sync 4-5")
        .catches(Handler::Skip, &[Caught::at(class::DATA_ABORT, 3)]),

    load_exclusive_unmapped: "
        unmask
        ldxr    x3, [x1]
        mask
    " => Case::plain("a load-exclusive that faults", "0-1 sync 2-3")
        .catches(Handler::Skip, &[Caught::at(class::DATA_ABORT, 1)]),
}
