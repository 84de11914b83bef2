//! The guest's own debugger: single-step of EL0 and of EL1, breakpoints, watchpoints, MDSCR_EL1.

use crate::conform::{Case, Caught, Departure, ElrPlace, Handler, Pending, UNMAPPED, class};
use crate::conformance_cases;

/// MDSCR_EL1.SS.
const SS: u64 = 1;
/// MDSCR_EL1.KDE.
const KDE: u64 = 1 << 13;
/// MDSCR_EL1.MDE.
const MDE: u64 = 1 << 15;

/// The step exception after the last instruction.
const LAST: Caught = Caught::new(class::SOFTWARE_STEP, ElrPlace::End).masked();

/// Of EL0, without interrupts.
const fn own_step(what: &'static str, path: &'static str, catches: &'static [Caught]) -> Case {
    let case = Case::plain(what, path).at_el0().catches(Handler::Step, catches);
    case.stepped(SS).pending(Pending::Never)
}

/// Of EL1, without interrupts.
const fn own_step_of_el1(
    what: &'static str,
    path: &'static str,
    catches: &'static [Caught],
) -> Case {
    let case = Case::plain(what, path).at_el1().catches(Handler::Step, catches);
    case.stepped(SS | KDE).debug_unmasked().pending(Pending::Never)
}

const ON_INSTRUCTION_2: &[Caught] = &[Caught::at(class::BREAKPOINT, 2)];
const ON_ACCESS: &[Caught] = &[Caught::at(class::WATCHPOINT, 1)];

const fn breakpoint(what: &'static str) -> Case {
    Case::plain(what, "0-1 break 2-4")
        .catches(Handler::Clear, ON_INSTRUCTION_2)
        .breakpoint(2)
        .mdscr(MDE)
}

const fn watchpoint(what: &'static str, accesses: u64) -> Case {
    Case::plain(what, "0-1 sync 1-3")
        .catches(Handler::Clear, ON_ACCESS)
        .watchpoint(accesses)
        .mdscr(MDE)
}

conformance_cases! {
    own_step_plain: "
        nop
        b       2f
        nop
    2:  mul     x3, x3, x3
    " => own_step(
        "own step of EL0: plain, branch",
        "0 step 1 step 3 step 4 step",
        &[Caught::step(1), Caught::step(3), Caught::step(4), LAST],
    ),

    own_step_pending: "
        nop
        nop
    " => own_step(
        "own step of EL0 entered with SS 0",
        "pending 0 step 1 step 2 step",
        &[Caught::step(0), Caught::step(1), Caught::step(2), LAST],
    ).begins_pending(),

    own_step_svc: "
        nop
        svc     #1
        nop
    " => own_step(
        "own step of EL0: SVC",
        "0 step 1 sync 2 step 3 step",
        &[Caught::step(1), Caught::at(class::SVC, 2).masked(), Caught::step(3), LAST],
    ),

    own_step_fault: "
        nop
        ldr     x3, [x1]
        nop
    " => own_step(
        "own step of EL0: data fault",
        "0 step 1 sync 2 step 3 step",
        &[
            Caught::step(1),
            Caught::at(class::DATA_ABORT, 1).masked().unexecuted().far(UNMAPPED),
            Caught::step(3),
            LAST,
        ],
    ).handler(Handler::StepSkip),

    own_step_brk: "
        nop
        brk     #1
        nop
    " => own_step(
        "own step of EL0: BRK",
        "0 step 1 sync 2 step 3 step",
        &[
            Caught::step(1),
            Caught::at(class::BRK, 1).masked().unexecuted(),
            Caught::step(3),
            LAST,
        ],
    ).handler(Handler::StepSkip),

    own_step_undefined: "
        nop
        udf     #0
        nop
    " => own_step(
        "own step of EL0: UDF",
        "0 step 1 sync 2 step 3 step",
        &[
            Caught::step(1),
            Caught::at(class::UNKNOWN, 1).masked().unexecuted(),
            Caught::step(3),
            LAST,
        ],
    ).handler(Handler::StepSkip),

    own_step_exclusive: "
        ldxr    x3, [x0]
        stxr    w4, x3, [x0]
    " => own_step(
        "own step of EL0: an exclusive sequence fails",
        "0 step 1 step 2 step",
        &[Caught::step(1), Caught::step(2), LAST],
    ).leaves(&[(4, 1)]),

    own_step_device: "
        ldr     w3, [x2, #0x18]
        nop
    " => own_step(
        "own step of EL0: MMIO",
        "0 step 1 step 2 step",
        &[Caught::step(1), Caught::step(2), LAST],
    ),

    own_step_timer: "
        mrs     x3, cntvct_el0
        nop
    " => own_step(
        "own step of EL0: the counter",
        "0 step 1 step 2 step",
        &[Caught::step(1), Caught::step(2), LAST],
    ),

    own_step_wait: "
        nop
        wfi
        nop
    " => own_step(
        "own step of EL0: WFI",
        "0 step 1 step 2 step 3 step",
        &[Caught::step(1), Caught::step(2), Caught::step(3), LAST],
    ).pending(Pending::Always).interrupted("0 step 1 step 2 step 3 step"),

    own_step_interrupted: "
        unmask
        nop
        mask
    " => own_step(
        "own step of EL0, interrupted",
        "0 step 1 step 2 step 3 step",
        &[
            Caught::at(class::SOFTWARE_STEP, 1),
            Caught::at(class::SOFTWARE_STEP, 2),
            Caught::step(3),
            LAST,
        ],
    ).pending(Pending::InSecondRun)
        .interrupted("0 step irq 1 step 2 step 3 step")
        .interrupted_unexecuted(),

    own_step_under_os_lock: "
        nop
        nop
    " => own_step("no own step under the OS Lock", "0-2", &[]).os_locked().departs(Departure {
        path: "0 step 1 step 2 step",
        catches: &[Caught::step(1), Caught::step(2), LAST],
        is_the_cpus: false,
        reason: "QEMU 7.2 lets debug exceptions through the OS Lock",
    }),

    own_step_el1_without_kde: "
        unmask
        nop
        mask
    " => Case::plain("EL1 with SS and without KDE", "0-3").at_el1()
        .mdscr(SS).debug_unmasked(),

    own_step_el1_masked: "
        unmask
        nop
        mask
    " => Case::plain("EL1 with SS and KDE, PSTATE.D set", "0-3").at_el1().mdscr(SS | KDE),

    own_step_el1: "
        nop
        b       2f
        nop
    2:  mul     x3, x3, x3
    " => own_step_of_el1(
        "own step of EL1: plain, branch",
        "0 step 1 step 3 step 4 step",
        &[
            Caught::step(1).debug_unmasked(),
            Caught::step(3).debug_unmasked(),
            Caught::step(4).debug_unmasked(),
            LAST.debug_unmasked(),
        ],
    ),

    own_step_el1_svc: "
        nop
        svc     #1
        nop
    " => own_step_of_el1(
        "own step of EL1: SVC",
        "0 step 1 sync 2 step 3 step",
        &[
            Caught::step(1).debug_unmasked(),
            Caught::at(class::SVC, 2).masked().debug_unmasked(),
            Caught::step(3).debug_unmasked(),
            LAST.debug_unmasked(),
        ],
    ),

    own_step_el1_trapped: "
        mrs     x3, id_aa64pfr0_el1
        mrs     x4, mdscr_el1
        mov     x0, #0x84000000
        hvc     #0
    " => own_step_of_el1(
        "own step of EL1: traps to EL2",
        // Plain QEMU is the firmware itself: it carries out the HVC, and finds the step pending.
        "0 step 1 step 2 step 3 pending 4 step",
        &[
            Caught::step(1).debug_unmasked(),
            Caught::step(2).debug_unmasked(),
            Caught::step(3).debug_unmasked(),
            Caught::step(4).debug_unmasked(),
            LAST.debug_unmasked(),
        ],
    ).leaves(&[(4, SS | KDE)]),

    mdscr_begins_a_step: "
        mov     x3, #0x2001
        msr     mdscr_el1, x3
        isb
        mrs     x4, mdscr_el1
        msr     daifclr, #8
        nop
        msr     daifset, #8
        msr     mdscr_el1, xzr
        isb
    " => Case::plain("MSR MDSCR_EL1 sets SS and KDE, then D is cleared", "0-4 pending 5 step 6-9")
        .at_el1()
        .catches(
            Handler::Step,
            &[Caught::step(5).debug_unmasked(), Caught::step(6).debug_unmasked()],
        )
        .writes_mdscr()
        .pending(Pending::Never)
        .leaves(&[(4, 0x2001)])
        .departs(Departure {
            path: "0-4 pending 5 step 6 step 7-9",
            catches: &[
                Caught::step(5).debug_unmasked(),
                Caught::step(6).debug_unmasked(),
                Caught::step(7),
            ],
            is_the_cpus: false,
            reason: "QEMU takes the step exception of an MSR DAIFSet that masks it",
        }),

    mdscr_while_masked: "
        unmask
        mov     x3, #0x2001
        msr     mdscr_el1, x3
        isb
        mrs     x4, mdscr_el1
        nop
        msr     mdscr_el1, xzr
        isb
        mrs     x5, mdscr_el1
        mask
    " => Case::plain("MSR MDSCR_EL1 sets and clears SS while D is set", "0-10").at_el1()
        .writes_mdscr()
        .leaves(&[(4, 0x2001), (5, 0)]),

    own_breakpoint: "
        unmask
        nop
        add     x3, x3, #1
        mask
    " => breakpoint("own breakpoint of EL0").at_el0().leaves(&[(3, 1)]),

    own_breakpoint_el1: "
        unmask
        nop
        add     x3, x3, #1
        mask
    " => breakpoint("own breakpoint of EL1")
        .at_el1()
        .catches(Handler::Clear, &[Caught::at(class::BREAKPOINT, 2).debug_unmasked()])
        .mdscr(MDE | KDE)
        .debug_unmasked()
        .leaves(&[(3, 1)]),

    own_breakpoint_el1_masked: "
        unmask
        nop
        add     x3, x3, #1
        mask
    " => Case::plain("own breakpoint of EL1, PSTATE.D set", "0-4")
        .at_el1()
        .breakpoint(2)
        .mdscr(MDE | KDE),

    own_breakpoint_without_mde: "
        unmask
        nop
        add     x3, x3, #1
        mask
    " => Case::plain("own breakpoint without MDE", "0-4").at_el0().breakpoint(2),

    own_breakpoint_first: "
        nop
        nop
    " => Case::plain("own breakpoint on a first instruction", "break 0-2")
        .at_el0()
        .catches(Handler::Clear, &[Caught::at(class::BREAKPOINT, 0).masked()])
        .breakpoint(0)
        .mdscr(MDE)
        .pending(Pending::Never),

    own_breakpoint_on_svc: "
        unmask
        nop
        svc     #1
        mask
    " => breakpoint("own breakpoint on SVC").at_el0()
        .path("0-1 break 2 sync 3-4")
        .catches(Handler::Clear, &[Caught::at(class::BREAKPOINT, 2), Caught::at(class::SVC, 3)]),

    own_breakpoint_under_os_lock: "
        unmask
        nop
        add     x3, x3, #1
        mask
    " => Case::plain("no own breakpoint under the OS Lock", "0-4")
        .at_el0()
        .breakpoint(2)
        .mdscr(MDE)
        .os_locked()
        .catches(Handler::Clear, &[])
        .departs(Departure {
            path: "0-1 break 2-4",
            catches: &[Caught::at(class::BREAKPOINT, 2)],
            is_the_cpus: false,
            reason: "QEMU 7.2 lets debug exceptions through the OS Lock",
        }),

    own_watchpoint_store: "
        unmask
        str     x3, [x0]
        mask
    " => watchpoint("own watchpoint of EL0: store", 2).at_el0(),

    own_watchpoint_load: "
        unmask
        ldr     x3, [x0]
        mask
    " => watchpoint("own watchpoint of EL0: load", 1).at_el0(),

    own_watchpoint_el1: "
        unmask
        str     x3, [x0]
        mask
    " => watchpoint("own watchpoint of EL1", 2)
        .at_el1()
        .catches(Handler::Clear, &[Caught::at(class::WATCHPOINT, 1).debug_unmasked()])
        .mdscr(MDE | KDE)
        .debug_unmasked(),

    own_watchpoint_other_access: "
        unmask
        ldr     x3, [x0]
        mask
    " => Case::plain("own watchpoint of stores: load", "0-3")
        .at_el0()
        .watchpoint(2)
        .mdscr(MDE),

    own_watchpoint_masked: "
        unmask
        str     x3, [x0]
        mask
    " => Case::plain("own watchpoint of EL1, PSTATE.D set", "0-3")
        .at_el1()
        .watchpoint(2)
        .mdscr(MDE | KDE),
}
