//! What arrives at EL2 for each class of instruction: exception class, SPSR_EL2.SS, ELR_EL2 and
//! the syndrome.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Software Step exceptions".

use stepwell_spec::exception::SYNCHRONOUS_VECTOR;
use stepwell_spec::{
    Choice, Class, Daif, El, Event, Implementation, Mdcr, Mdscr, Op, ProcState, Program,
    SpecMachine,
};

const MASKED: Daif = Daif { d: true, a: true, i: true, f: true };
const NOTHING: Mdscr = Mdscr { ss: false, kde: false, mde: false };

type Row = (&'static [Op], Class, bool, u8, bool, bool, usize);

/// A guest that EL2 has just entered for one step.
fn entered(el: El, ss: bool) -> SpecMachine {
    let mut machine = SpecMachine::new(ProcState::masked(El::El2));
    machine.mdscr.ss = true;
    machine.synchronize_context();
    machine.mdcr = Mdcr { tde: true, tda: true };
    (machine.twi, machine.twe) = (true, true);
    machine.spsr_el2 = ProcState { ss, ..ProcState::at(el) };
    machine.exception_return();
    machine
}

/// Runs up to the exit. Returns it with the number of events before.
fn exit_of(mut machine: SpecMachine, program: &'static [Op]) -> (SpecMachine, usize) {
    for events in 0..10 {
        if machine.advance(Program(program), Choice::Proceed) == Event::ExitedToEl2 {
            return (machine, events);
        }
    }
    panic!("no exit: {machine:?}");
}

#[test]
fn each_letter_arrives_as_the_manual_has_it() {
    use Class::SoftwareStep as Step;
    use Op::{
        Acknowledge, Branch, Brk, ClearExclusive, Eret, Hvc, Isb, LoadExclusive, Mmio, Plain, Smc,
        Stage1, Stage2, StoreExclusive, Svc, Wfe, Wfi, WriteMask, WriteMdscr,
    };
    let vector = SYNCHRONOUS_VECTOR;
    // Instruction; class, SPSR_EL2.SS, ELR_EL2, ISV, EX; instructions and entries before the exit.
    let rows: &[Row] = &[
        (&[Plain], Step, false, 1, true, false, 1),
        (&[Branch], Step, false, 2, true, false, 1),
        (&[Isb], Step, false, 1, true, false, 1),
        (&[LoadExclusive], Step, false, 1, true, true, 1),
        (&[StoreExclusive], Step, false, 1, true, false, 1),
        (&[ClearExclusive], Step, false, 1, true, false, 1),
        (&[WriteMask(MASKED)], Step, false, 1, true, false, 1),
        (&[Acknowledge], Step, false, 1, true, false, 1),
        (&[Svc], Step, false, vector, false, false, 1),
        (&[Stage1], Step, false, vector, false, false, 1),
        (&[Eret], Step, false, 0, true, false, 1),
        (&[Hvc], Class::Hvc, false, 1, false, false, 0),
        (&[Smc], Class::Smc, true, 0, false, false, 0),
        (&[Wfi], Class::Wfx, true, 0, false, false, 0),
        (&[Wfe], Class::Wfx, true, 0, false, false, 0),
        (&[Stage2], Class::Stage2, true, 0, false, false, 0),
        (&[Mmio], Class::Mmio, true, 0, false, false, 0),
        (&[Brk], Class::Brk, true, 0, false, false, 0),
        (&[WriteMdscr(NOTHING)], Class::SystemRegister, true, 0, false, false, 0),
    ];
    for &(program, class, ss, elr, isv, ex, before) in rows {
        let (machine, events) = exit_of(entered(El::El1, true), program);
        let syndrome = machine.esr_el2;
        assert_eq!(syndrome.class, class, "{program:?}");
        assert_eq!(machine.spsr_el2.ss, ss, "{program:?}: SPSR_EL2.SS");
        assert_eq!(machine.elr_el2, elr, "{program:?}: ELR_EL2");
        assert_eq!((syndrome.isv, syndrome.ex), (isv, ex), "{program:?}: ISV, EX");
        assert_eq!(events, before, "{program:?}");
    }
}

#[test]
fn an_entry_with_ss_0_executes_nothing_and_has_no_syndrome() {
    let (machine, events) = exit_of(entered(El::El0, false), &[Op::LoadExclusive]);
    assert_eq!((events, machine.elr_el2), (0, 0));
    assert_eq!(machine.esr_el2.class, Class::SoftwareStep);
    assert!(!machine.esr_el2.isv);
}

#[test]
fn an_interrupt_falls_before_the_instruction_or_before_its_step() {
    let mut machine = entered(El::El1, true);
    machine.advance(Program(&[]), Choice::PhysicalInterrupt);
    assert!(machine.spsr_el2.ss, "not executed");
    let mut machine = entered(El::El1, true);
    machine.advance(Program(&[Op::Plain]), Choice::Proceed);
    machine.advance(Program(&[Op::Plain]), Choice::PhysicalInterrupt);
    assert_eq!(machine.esr_el2.class, Class::Irq);
    assert!(!machine.spsr_el2.ss, "executed, and not reported");
    assert_eq!(machine.elr_el2, 1);
}

#[test]
fn what_is_taken_instead_of_executing_leaves_ss_in_spsr_el1() {
    for (op, ss) in [(Op::Svc, false), (Op::Stage1, true)] {
        let mut machine = entered(El::El1, true);
        let program = if op == Op::Svc { Program(&[Op::Svc]) } else { Program(&[Op::Stage1]) };
        assert_eq!(machine.advance(program, Choice::Proceed), Event::EnteredEl1(0));
        assert_eq!(machine.spsr_el1.ss, ss, "{op:?}");
        assert!(!machine.pstate.ss);
    }
    let mut machine = entered(El::El1, true);
    machine.virq = true;
    assert!(machine.can_take_virtual_interrupt());
    machine.advance(Program(&[]), Choice::VirtualInterrupt);
    assert!(machine.spsr_el1.ss && machine.pstate.i);
    assert!(!machine.can_take_virtual_interrupt(), "masked by its own entry");
}

#[test]
fn privileged_letters_are_undefined_at_el0() {
    let programs: [&'static [Op]; 5] =
        [&[Op::Hvc], &[Op::Smc], &[Op::Eret], &[Op::WriteMdscr(NOTHING)], &[Op::WriteMask(MASKED)]];
    for program in programs {
        let mut machine = entered(El::El0, true);
        machine.advance(Program(program), Choice::Proceed);
        assert_eq!(machine.esr_el1.class, Class::Undefined, "{program:?}");
    }
}

#[test]
fn the_local_monitor_ends_with_an_exception_or_its_return() {
    let program = Program(&[Op::LoadExclusive, Op::StoreExclusive]);
    let mut free = SpecMachine::new(ProcState::at(El::El1));
    free.advance(program, Choice::Proceed);
    let mut interrupted = free;
    free.advance(program, Choice::Proceed);
    assert!(!free.status, "stored");
    interrupted.advance(program, Choice::PhysicalInterrupt);
    interrupted.exception_return();
    interrupted.advance(program, Choice::Proceed);
    assert!(interrupted.status, "failed: why a stepped loop never ends");
}

#[test]
fn with_the_os_lock_set_nothing_steps() {
    for double in [false, true] {
        let mut machine = entered(El::El1, true);
        (machine.os_lock, machine.os_double_lock) = (!double, double);
        for _ in 0..3 {
            let event = machine.advance(Program(&[Op::Plain; 3]), Choice::Proceed);
            assert!(matches!(event, Event::Executed(_)), "{event:?}");
        }
    }
}

#[test]
fn el1_steps_its_own_el0() {
    let mut machine = SpecMachine::new(ProcState::masked(El::El1));
    machine.mdscr.ss = true;
    machine.synchronize_context();
    machine.spsr_el1 = ProcState { ss: true, ..ProcState::at(El::El0) };
    machine.elr_el1 = 1;
    let program = Program(&[Op::Eret, Op::Plain]);
    assert_eq!(machine.advance(program, Choice::Proceed), Event::Executed(0));
    assert!(machine.pstate.ss);
    assert_eq!(machine.advance(program, Choice::Proceed), Event::Executed(1));
    assert_eq!(machine.advance(program, Choice::Proceed), Event::EnteredEl1(2));
    assert_eq!(machine.esr_el1.class, Class::SoftwareStep);
    assert!(machine.esr_el1.isv);
}

#[test]
fn an_smc_that_is_not_trapped_and_a_wfx_that_is_not_are_plain() {
    for op in [&[Op::Smc], &[Op::Wfi], &[Op::Wfe]] {
        let mut machine = entered(El::El1, true);
        (machine.tsc, machine.twi, machine.twe) = (false, false, false);
        let (machine, events) = exit_of(machine, op);
        assert_eq!((machine.esr_el2.class, events), (Class::SoftwareStep, 1), "{op:?}");
        assert_eq!(machine.elr_el2, 1);
    }
}

#[test]
fn an_illegal_return_stays_at_its_level_and_is_one_step() {
    let program = &[Op::WriteIllegalSpsr, Op::Eret];
    let mut machine = entered(El::El1, true);
    machine.mdscr = NOTHING;
    machine.synchronize_context();
    machine.advance(Program(program), Choice::Proceed);
    (machine.mdscr.ss, machine.pstate.ss) = (true, true);
    machine.synchronize_context();
    let (machine, events) = exit_of(machine, program);
    assert_eq!((machine.esr_el2.class, events), (Class::SoftwareStep, 1));
    assert_eq!((machine.spsr_el2.el, machine.spsr_el2.il), (El::El1, true));
    // Software Step comes before it, so that it is the next step.
    let mut machine = machine;
    machine.spsr_el2.ss = true;
    machine.exception_return();
    assert_eq!(machine.advance(Program(program), Choice::Proceed), Event::EnteredEl1(0));
    assert_eq!(machine.esr_el1.class, Class::IllegalState);
    assert!(machine.spsr_el1.il && !machine.pstate.il);
}

#[test]
fn every_asynchronous_exception_may_overtake_a_pending_step() {
    for (choice, class) in [
        (Choice::PhysicalInterrupt, Class::Irq),
        (Choice::PhysicalFastInterrupt, Class::Fiq),
        (Choice::SystemError, Class::SystemError),
    ] {
        let mut machine = entered(El::El0, false);
        assert!(machine.check_software_step() && machine.can_be_interrupted());
        assert_eq!(machine.advance(Program(&[]), choice), Event::ExitedToEl2);
        assert_eq!((machine.esr_el2.class, machine.spsr_el2.ss), (class, false));
    }
    let mut machine = entered(El::El0, false);
    machine.implementation = Implementation::QEMU;
    assert!(!machine.can_be_interrupted(), "QEMU delivers the step first");
}

#[test]
fn a_write_of_mdscr_is_seen_after_an_isb_and_maybe_before() {
    const OWN: Mdscr = Mdscr { ss: true, kde: true, mde: false };
    let program = Program(&[Op::WriteMdscr(OWN), Op::Plain, Op::Isb, Op::Plain]);
    let mut machine = SpecMachine::new(ProcState::at(El::El1));
    machine.advance(program, Choice::Proceed);
    let mut early = machine;
    early.synchronize_context();
    assert!(early.check_software_step(), "the new value");
    for _ in 1..3 {
        assert!(!machine.check_software_step(), "the old value");
        machine.advance(program, Choice::Proceed);
    }
    assert!(machine.check_software_step(), "no choice any more");
    let mut qemu = SpecMachine::new(ProcState::at(El::El1));
    qemu.implementation = Implementation::QEMU;
    qemu.advance(program, Choice::Proceed);
    assert!(qemu.check_software_step());
}

#[test]
fn el2_that_forgets_its_isb_may_enter_with_the_step_pending_already() {
    let mut machine = SpecMachine::new(ProcState::masked(El::El2));
    machine.mdcr = Mdcr { tde: true, tda: true };
    machine.spsr_el2 = ProcState { ss: true, ..ProcState::at(El::El1) };
    machine.mdscr.ss = true;
    machine.exception_return();
    assert!(!machine.pstate.ss, "ERET went by the old MDSCR_EL1.SS");
    assert!(machine.check_software_step(), "and a step is reported of nothing");
}

#[test]
fn a_breakpoint_comes_after_a_step_and_before_its_instruction() {
    let mut machine = entered(El::El0, false);
    machine.mdscr.mde = true;
    machine.synchronize_context();
    machine.breakpoints[0] = Some(0);
    let mut pending = machine;
    pending.advance(Program(&[]), Choice::Proceed);
    assert_eq!(pending.esr_el2.class, Class::SoftwareStep);
    machine.pstate.ss = true;
    machine.advance(Program(&[]), Choice::Proceed);
    assert_eq!((machine.esr_el2.class, machine.elr_el2), (Class::Breakpoint, 0));
}

#[test]
fn qemu_departs_where_the_switch_says() {
    let mut machine = entered(El::El1, true);
    machine.implementation = Implementation::QEMU;
    machine.os_lock = true;
    let (machine, events) = exit_of(machine, &[Op::Wfi]);
    assert_eq!((machine.esr_el2.class, events), (Class::SoftwareStep, 1), "no lock, no trap");
    let mut exclusive = SpecMachine::new(ProcState::at(El::El1));
    exclusive.implementation = Implementation::QEMU;
    exclusive.set_exclusive_monitors();
    exclusive.written_by_another(0);
    assert!(exclusive.exclusive_monitors_pass(), "written back to what it was");
    exclusive.written_by_another(1);
    assert!(!exclusive.exclusive_monitors_pass());
}

#[test]
fn msr_and_mrs_of_daif_are_all_four_bits() {
    for n in 0..16_u8 {
        let bit = |at: u8| n >> at & 1 != 0;
        let daif = Daif { d: bit(3), a: bit(2), i: bit(1), f: bit(0) };
        let program = [Op::WriteMask(daif), Op::ReadMask];
        let mut machine = SpecMachine::new(ProcState::at(El::El1));
        for op in program {
            let ops: &'static [Op] = Box::leak(Box::new([op]));
            machine.pc = 0;
            machine.advance(Program(ops), Choice::Proceed);
        }
        assert_eq!((machine.loaded, machine.pstate.daif()), (n, daif));
    }
}
