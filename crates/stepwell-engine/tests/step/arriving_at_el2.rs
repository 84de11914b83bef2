//! What arrives at EL2, one test for each kind of instruction, and what the engine makes of it.

use crate::machine::{Does, Happened, Hypervisor, Interrupt, VBAR};
use stepwell_arch::Pstate;
use stepwell_arch::esr::StepIss;
use stepwell_engine::{Boundary, Exit, Outcome, StepState};

const STEPPED: Boundary = Boundary { load_exclusive: false, syndrome_valid: true };
const WITHOUT_SYNDROME: Boundary = Boundary { load_exclusive: false, syndrome_valid: false };

fn first_exit(does: Does) -> (Hypervisor, bool, Exit, Outcome) {
    let mut hypervisor = Hypervisor::stepping(&[does]);
    let (ss, exit, outcome) = hypervisor.enter(Interrupt::None);
    (hypervisor, ss, exit, outcome)
}

#[test]
fn a_plain_instruction_is_one_boundary_at_the_next() {
    let (hypervisor, ss, exit, outcome) = first_exit(Does::Plain);
    assert!(matches!(exit, Exit::SoftwareStep(iss) if iss.isv() && !iss.ex()));
    assert!(!ss);
    assert_eq!(outcome, Outcome::Boundary(STEPPED));
    assert_eq!(hypervisor.machine.pc, 4);
    assert_eq!(hypervisor.engine.state(), StepState::ActiveNotPending);
}

#[test]
fn a_load_exclusive_shows_in_the_syndrome() {
    let (_, ss, _, outcome) = first_exit(Does::LoadExclusive);
    assert!(!ss);
    let expected = Boundary { load_exclusive: true, syndrome_valid: true };
    assert_eq!(outcome, Outcome::Boundary(expected));
}

#[test]
fn ex_without_isv_means_nothing() {
    let mut hypervisor = Hypervisor::stepping(&[]);
    let exit = Exit::SoftwareStep(StepIss(1 << 6 | 0x22));
    let outcome = hypervisor.engine.on_exit(exit, &mut hypervisor.pstate);
    assert_eq!(outcome, Outcome::Boundary(WITHOUT_SYNDROME));
}

#[test]
fn an_entry_with_ss_0_executes_nothing_and_reports_what_was_pending() {
    let mut hypervisor = Hypervisor::stepping(&[Does::LoadExclusive]);
    hypervisor.enter(Interrupt::After);
    assert_eq!(hypervisor.engine.state(), StepState::ActivePending);
    let (ss, exit, outcome) = hypervisor.enter(Interrupt::None);
    assert!(matches!(exit, Exit::SoftwareStep(iss) if !iss.isv()));
    assert!(!ss);
    assert_eq!(outcome, Outcome::Boundary(WITHOUT_SYNDROME), "its EX is gone");
    assert_eq!(hypervisor.machine.happened, [Happened::Executed(0)]);
    assert_eq!(hypervisor.machine.pc, 4);
}

#[test]
fn an_svc_is_one_boundary_at_the_vector() {
    let (hypervisor, ss, _, outcome) = first_exit(Does::Svc);
    assert!(!ss);
    assert!(matches!(outcome, Outcome::Boundary(_)));
    assert_eq!(hypervisor.machine.pc, VBAR + 0x200);
    assert!(!hypervisor.machine.spsr_el1.ss(), "advanced before the exception");
}

#[test]
fn a_fault_is_one_boundary_at_the_vector_and_leaks_ss() {
    let (hypervisor, ss, _, outcome) = first_exit(Does::Fault);
    assert!(!ss);
    assert!(matches!(outcome, Outcome::Boundary(_)));
    assert_eq!(hypervisor.machine.pc, VBAR + 0x200);
    assert!(hypervisor.machine.spsr_el1.ss(), "what the exit path has to scrub");
    assert!(!hypervisor.pstate.ss());
}

#[test]
fn an_hvc_traps_once_with_the_pc_behind_it() {
    let (mut hypervisor, ss, _, outcome) = first_exit(Does::Hvc);
    assert!(!ss);
    assert_eq!(outcome, Outcome::Trapped);
    assert_eq!(hypervisor.engine.state(), StepState::ActiveNotPending, "not a lost step");
    assert_eq!(hypervisor.engine.emulated(), Some(STEPPED));
    assert_eq!(hypervisor.machine.pc, 4);
    // Reported at once, and so not again: the next entry executes.
    hypervisor.machine.happened.push(Happened::Executed(0));
    let (_, _, outcome) = hypervisor.enter(Interrupt::None);
    assert_eq!(outcome, Outcome::Boundary(STEPPED));
    assert_eq!(hypervisor.machine.happened, [Happened::Executed(0), Happened::Executed(4)]);
}

#[test]
fn a_trapped_instruction_arrives_with_ss_1_at_itself() {
    let (hypervisor, ss, exit, outcome) = first_exit(Does::Trap);
    assert!(ss);
    assert_eq!(exit, Exit::Synchronous);
    assert_eq!(outcome, Outcome::Trapped);
    assert_eq!(hypervisor.machine.pc, 0);
    assert_eq!(hypervisor.engine.state(), StepState::ActiveNotPending);
    assert!(!hypervisor.pstate.ss(), "ours does not show");
}

#[test]
fn an_exception_return_is_one_boundary_at_its_target() {
    let (hypervisor, ss, _, outcome) = first_exit(Does::Eret);
    assert!(!ss);
    assert!(matches!(outcome, Outcome::Boundary(_)));
    assert_eq!(hypervisor.machine.pc, 0x4000);
    assert_eq!(hypervisor.pstate.el(), 0);
}

#[test]
fn an_interrupt_before_the_instruction_reports_nothing_and_retries() {
    let mut hypervisor = Hypervisor::stepping(&[Does::Plain]);
    let (ss, exit, outcome) = hypervisor.enter(Interrupt::Before);
    assert!(ss);
    assert_eq!((exit, outcome), (Exit::Asynchronous, Outcome::Continue));
    assert_eq!(hypervisor.engine.state(), StepState::ActiveNotPending);
    assert!(hypervisor.machine.happened.is_empty());
    let (_, _, outcome) = hypervisor.enter(Interrupt::None);
    assert_eq!(outcome, Outcome::Boundary(STEPPED));
}

#[test]
fn an_interrupt_after_the_instruction_is_active_pending() {
    let mut hypervisor = Hypervisor::stepping(&[Does::Plain]);
    let (ss, exit, outcome) = hypervisor.enter(Interrupt::After);
    assert!(!ss);
    assert_eq!((exit, outcome), (Exit::Asynchronous, Outcome::Continue));
    assert_eq!(hypervisor.engine.state(), StepState::ActivePending);
    assert_eq!(hypervisor.machine.happened, [Happened::Executed(0)]);
    assert_eq!(hypervisor.reported, 0);
    assert!(!hypervisor.engine.on_entry(hypervisor.pstate).spsr.ss());
}

#[test]
fn several_interrupts_in_a_row_lose_nothing() {
    use Interrupt::{After, Before};
    let orders: [&[Interrupt]; 6] = [
        &[Before, Before, Before],
        &[After, Before, Before, Before],
        &[Before, After, Before],
        &[After, After, After],
        &[Before, Before, After],
        &[After],
    ];
    for interrupts in orders {
        let mut hypervisor = Hypervisor::stepping(&[]);
        hypervisor.step(interrupts);
        assert_eq!(hypervisor.machine.happened, [Happened::Executed(0)], "{interrupts:?}");
        hypervisor.step(&[]);
        assert_eq!(hypervisor.machine.happened.len(), 2, "{interrupts:?}");
        assert_eq!(hypervisor.reported, 2, "{interrupts:?}");
    }
}

#[test]
fn an_interrupt_at_the_vector_after_an_svc_keeps_the_svcs_boundary() {
    let mut hypervisor = Hypervisor::stepping(&[Does::Svc]);
    hypervisor.step(&[Interrupt::After]);
    assert_eq!(hypervisor.machine.happened, [Happened::Entered(0)]);
    assert_eq!(hypervisor.machine.pc, VBAR + 0x200);
}

#[test]
fn a_breakpoint_with_ss_0_is_the_boundary_of_the_instruction_before() {
    let mut hypervisor = Hypervisor::stepping(&[]);
    hypervisor.machine.breakpoint = Some(4);
    let (ss, exit, outcome) = hypervisor.enter(Interrupt::None);
    assert!(!ss);
    assert_eq!(exit, Exit::Breakpoint);
    assert_eq!(outcome, Outcome::Boundary(WITHOUT_SYNDROME));
    assert_eq!(hypervisor.engine.state(), StepState::ActiveNotPending);
}

#[test]
fn a_breakpoint_with_ss_1_is_at_an_instruction_that_has_not_executed() {
    let mut hypervisor = Hypervisor::stepping(&[]);
    hypervisor.machine.breakpoint = Some(0);
    let (ss, _, outcome) = hypervisor.enter(Interrupt::None);
    assert!(ss);
    assert_eq!(outcome, Outcome::Trapped);
    assert!(hypervisor.machine.happened.is_empty());
}

#[test]
fn a_breakpoint_where_a_step_is_pending_reports_the_step_once() {
    let mut hypervisor = Hypervisor::stepping(&[]);
    hypervisor.enter(Interrupt::After);
    hypervisor.machine.breakpoint = Some(4);
    let (_, _, outcome) = hypervisor.enter(Interrupt::None);
    assert_eq!(outcome, Outcome::Boundary(WITHOUT_SYNDROME));
    let (ss, _, outcome) = hypervisor.enter(Interrupt::None);
    assert!(ss);
    assert_eq!(outcome, Outcome::Trapped, "now the breakpoint itself");
    assert_eq!(hypervisor.reported, 1);
}

#[test]
fn an_injected_exception_is_one_boundary() {
    let mut hypervisor = Hypervisor::stepping(&[Does::Trap]);
    hypervisor.enter(Interrupt::None);
    let mut entered = Pstate::EL1H_MASKED.with_ss(true);
    assert_eq!(hypervisor.engine.injected(&mut entered), Some(STEPPED));
    assert_eq!(entered, Pstate::EL1H_MASKED, "no step of ours in it");
    assert_eq!(hypervisor.engine.state(), StepState::ActiveNotPending);
    hypervisor.machine.pc = VBAR + 0x200;
    hypervisor.pstate = Pstate::EL1H_MASKED;
    let (_, _, outcome) = hypervisor.enter(Interrupt::None);
    assert_eq!(outcome, Outcome::Boundary(STEPPED));
    assert_eq!(hypervisor.machine.happened, [Happened::Executed(VBAR + 0x200)]);
}

#[test]
fn a_trap_that_is_retried_is_reported_when_it_executes() {
    let mut hypervisor = Hypervisor::stepping(&[Does::Trap]);
    hypervisor.enter(Interrupt::None);
    // A stage-2 fault that EL2 put right: the same instruction again.
    hypervisor.machine.program[0] = Does::Plain;
    let (_, _, outcome) = hypervisor.enter(Interrupt::None);
    assert_eq!(outcome, Outcome::Boundary(STEPPED));
    assert_eq!(hypervisor.reported, 1);
}
