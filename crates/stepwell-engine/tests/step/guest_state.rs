//! What the engine keeps of the guest's, and gives back.

use crate::machine::{Does, Hypervisor, Interrupt};
use proptest::prelude::*;
use stepwell_arch::Pstate;
use stepwell_arch::debug::mdscr_el1;
use stepwell_arch::esr::StepIss;
use stepwell_engine::{Disabled, EnableError, Engine, Exit, Outcome, StepState};

const KERNEL: Pstate = Pstate(Pstate::M_EL1H);

#[test]
fn an_engine_begins_inactive() {
    assert_eq!(Engine::new(), Engine::default());
    assert_eq!(Engine::new().state(), StepState::Inactive);
    assert!(!Engine::new().is_enabled());
}

#[test]
fn enabling_twice_is_refused_and_changes_nothing() {
    let mut hypervisor = Hypervisor::stepping_with(&[], KERNEL, 5);
    hypervisor.enter(Interrupt::After);
    let before = hypervisor.engine.clone();
    assert_eq!(hypervisor.engine.enable(KERNEL, 9), Err(EnableError::AlreadyEnabled));
    assert_eq!(hypervisor.engine, before, "a pending step stays pending");
}

#[test]
fn disabling_tells_of_an_instruction_that_nobody_saw() {
    for (interrupt, unreported) in
        [(Interrupt::None, false), (Interrupt::Before, false), (Interrupt::After, true)]
    {
        let mut hypervisor = Hypervisor::stepping_with(&[], KERNEL, mdscr_el1::MDE);
        hypervisor.enter(interrupt);
        let pstate = hypervisor.pstate;
        let left = Disabled { pstate, mdscr: mdscr_el1::MDE, unreported };
        assert_eq!(hypervisor.engine.disable(pstate), left, "{interrupt:?}");
        assert_eq!(hypervisor.engine.state(), StepState::Inactive);
    }
}

#[test]
fn a_step_that_was_pending_when_disabled_does_not_come_back() {
    let mut hypervisor = Hypervisor::stepping(&[]);
    hypervisor.enter(Interrupt::After);
    let _left = hypervisor.engine.disable(hypervisor.pstate);
    hypervisor.engine.enable(hypervisor.pstate, 0).unwrap();
    assert_eq!(hypervisor.engine.state(), StepState::ActiveNotPending);
    hypervisor.step(&[]);
    assert_eq!(hypervisor.machine.happened.len(), 2);
    assert_eq!(hypervisor.reported, 1);
}

#[test]
fn the_guests_breakpoints_stay_enabled_while_it_is_stepped() {
    let mut hypervisor = Hypervisor::stepping_with(&[], KERNEL, mdscr_el1::MDE);
    assert_eq!(hypervisor.engine.on_entry(KERNEL).mdscr, mdscr_el1::SS | mdscr_el1::MDE);
    hypervisor.engine.set_guest_mdscr(0);
    assert_eq!(hypervisor.engine.on_entry(KERNEL).mdscr, mdscr_el1::SS);
}

#[test]
fn a_write_of_mdscr_while_stepped_is_what_the_guest_gets_back() {
    let mut hypervisor = Hypervisor::stepping_with(&[Does::Trap], KERNEL, 0);
    let (ss, _, _) = hypervisor.enter(Interrupt::None);
    hypervisor.engine.set_guest_mdscr(mdscr_el1::KDE | mdscr_el1::SS);
    hypervisor.emulate(ss);
    hypervisor.step(&[]);
    assert_eq!(hypervisor.engine.disable(hypervisor.pstate).mdscr, mdscr_el1::KDE | mdscr_el1::SS);
}

#[test]
fn an_inactive_engine_touches_no_pstate() {
    for ss in [false, true] {
        let pstate = Pstate(Pstate::M_EL0T | Pstate::NZCV).with_ss(ss);
        let mut engine = Engine::new();
        let controls = engine.on_entry(pstate);
        assert_eq!((controls.spsr, controls.mdcr), (pstate, 0));
        let exits = [
            (Exit::Synchronous, Outcome::Trapped),
            (Exit::Breakpoint, Outcome::Trapped),
            (Exit::Asynchronous, Outcome::Continue),
            (Exit::SoftwareStep(StepIss(1 << 24 | 0x22)), Outcome::Continue),
        ];
        for (exit, expected) in exits {
            let mut spsr = pstate;
            assert_eq!(engine.on_exit(exit, &mut spsr), expected);
            assert_eq!(spsr, pstate);
            assert_eq!(engine.state(), StepState::Inactive);
        }
        assert_eq!(engine.emulated(), None);
        let mut injected = pstate;
        assert_eq!((engine.injected(&mut injected), injected), (None, pstate));
    }
}

fn exits() -> impl Strategy<Value = Exit> {
    prop_oneof![
        any::<u32>().prop_map(|iss| Exit::SoftwareStep(StepIss(iss))),
        Just(Exit::Asynchronous),
        Just(Exit::Breakpoint),
        Just(Exit::Synchronous),
    ]
}

proptest! {
    /// Whatever the machine does to SS, the saved PSTATE holds the guest's, and all else of SPSR
    /// passes unchanged in both directions.
    #[test]
    fn the_saved_pstate_holds_the_guests_ss(
        guest: u64,
        mdscr: u64,
        exits in proptest::collection::vec((exits(), any::<u64>()), 1..20),
    ) {
        let mut pstate = Pstate(guest & !Pstate::M_AARCH32);
        let mut engine = Engine::new();
        prop_assert_eq!(engine.enable(pstate, mdscr), Ok(()));
        for (exit, spsr) in exits {
            let controls = engine.on_entry(pstate);
            prop_assert_eq!(controls.spsr.with_ss(false), pstate.with_ss(false));
            let armed = engine.state() == StepState::ActiveNotPending;
            prop_assert_eq!(controls.spsr.ss(), armed);
            let mut saved = Pstate(spsr);
            engine.on_exit(exit, &mut saved);
            prop_assert_eq!(saved, Pstate(spsr).with_ss(pstate.ss()));
            pstate = saved;
        }
        let unreported = engine.state() == StepState::ActivePending;
        prop_assert_eq!(engine.disable(pstate), Disabled { pstate, mdscr, unreported });
    }
}
