//! The mistakes that other implementations made, each where the engine could make it.

use crate::machine::{Does, Happened, Hypervisor, Interrupt};
use stepwell_arch::Pstate;
use stepwell_arch::debug::{mdcr_el2, mdscr_el1};
use stepwell_engine::{EnableError, Engine, Outcome, StepState};

const KERNEL: Pstate = Pstate(Pstate::M_EL1H);

#[test]
fn mistake_1_ss_is_in_what_is_loaded_last() {
    // The SPSR to load carries SS: there is nothing to write beside it.
    let mut engine = Engine::new();
    engine.enable(KERNEL, 0).unwrap();
    let controls = engine.on_entry(KERNEL);
    assert_eq!(controls.spsr, KERNEL.with_ss(true));
}

#[test]
fn mistake_2_ss_is_not_set_again_after_an_instruction_nobody_saw() {
    let mut hypervisor = Hypervisor::stepping(&[]);
    hypervisor.step(&[Interrupt::After]);
    assert_eq!(hypervisor.machine.happened, [Happened::Executed(0)]);
    assert_eq!(hypervisor.reported, 1);
}

#[test]
fn mistake_3_el2_never_steps_itself_whatever_its_d_is() {
    for guests in [0, mdscr_el1::KDE, mdscr_el1::KDE | mdscr_el1::SS | mdscr_el1::MDE] {
        let mut hypervisor = Hypervisor::stepping_with(&[], KERNEL, guests);
        hypervisor.machine.el2_debug_masked = false;
        hypervisor.step(&[]);
        assert_eq!(hypervisor.machine.happened, [Happened::Executed(0)], "the guest moves");
        assert_eq!(hypervisor.engine.on_entry(KERNEL).mdscr & mdscr_el1::KDE, 0);
    }
}

#[test]
fn mistake_4_aarch32_is_told_by_bit_4_of_the_mode() {
    for mode in 0..32_u64 {
        let mut engine = Engine::new();
        let got = engine.enable(Pstate(mode), 0);
        // User mode is EL0 of a 64-bit kernel; the other modes of AArch32 no guest of ours has.
        if mode & 1 << 4 != 0 && mode != Pstate::M_USER {
            assert_eq!(got, Err(EnableError::AArch32), "{mode:#07b}");
            assert_eq!(engine, Engine::new(), "and nothing has changed");
        } else {
            assert_eq!(got, Ok(()), "{mode:#07b}: M[3] is EL2 and EL3");
        }
    }
}

#[test]
fn mistake_5_a_trapped_smc_is_one_step_and_swallows_none() {
    let mut hypervisor = Hypervisor::stepping(&[Does::Trap, Does::Plain, Does::Hvc]);
    for _ in 0..4 {
        hypervisor.step(&[]);
    }
    let expected = [0, 4, 8, 12].map(Happened::Executed);
    assert_eq!(hypervisor.machine.happened, expected);
    assert_eq!(hypervisor.reported, 4);
}

#[test]
fn mistake_6_the_guests_interrupt_masks_are_never_ours() {
    for bits in 0..16 {
        let pstate = Pstate(Pstate::M_EL1H | bits << 6);
        let mut engine = Engine::new();
        engine.enable(pstate, 0).unwrap();
        let loaded = engine.on_entry(pstate).spsr;
        assert_eq!(loaded.with_ss(false), pstate);
    }
}

#[test]
fn mistake_9_switching_off_leaves_no_ss_behind() {
    for own in [false, true] {
        for interrupt in [Interrupt::None, Interrupt::Before, Interrupt::After] {
            let pstate = KERNEL.with_ss(own);
            let mut hypervisor = Hypervisor::stepping_with(&[], pstate, mdscr_el1::SS);
            hypervisor.enter(interrupt);
            assert_eq!(hypervisor.pstate.ss(), own, "the guest's, in the saved PSTATE");
            let left = hypervisor.engine.disable(hypervisor.pstate);
            assert_eq!(left.pstate, hypervisor.pstate);
            assert_eq!(left.mdscr, mdscr_el1::SS, "and the guest's MDSCR");
            assert_eq!(hypervisor.engine.on_entry(hypervisor.pstate).spsr, hypervisor.pstate);
        }
    }
}

#[test]
fn mistake_10_a_debugger_that_writes_pstate_desynchronises_nothing() {
    for interrupt in [Interrupt::Before, Interrupt::After] {
        for written in [KERNEL, KERNEL.with_ss(true), Pstate(KERNEL.0 | Pstate::NZCV)] {
            let mut hypervisor = Hypervisor::stepping(&[]);
            hypervisor.enter(interrupt);
            hypervisor.pstate = written;
            hypervisor.step(&[]);
            assert_eq!(hypervisor.machine.happened, [Happened::Executed(0)], "{interrupt:?}");
            assert_eq!(hypervisor.reported, 1, "{interrupt:?}");
            assert_eq!(hypervisor.pstate, written, "what was written stays");
        }
    }
}

#[test]
fn mistake_11_the_guests_debugger_keeps_its_bits() {
    let own = mdscr_el1::SS | mdscr_el1::KDE | mdscr_el1::MDE | mdscr_el1::TDCC;
    let user = Pstate(Pstate::M_EL0T).with_ss(true);
    let mut hypervisor = Hypervisor::stepping_with(&[], user, own);
    for _ in 0..3 {
        hypervisor.step(&[]);
        assert!(hypervisor.pstate.ss(), "whether it advances is for own_step to say");
    }
    let left = hypervisor.engine.disable(hypervisor.pstate);
    assert_eq!((left.mdscr, left.unreported), (own, false));
}

#[test]
fn mistake_12_with_the_os_lock_set_no_step_is_ever_reported() {
    // The engine cannot see the lock; this is what the hypervisor unlocks it for.
    let mut hypervisor = Hypervisor::stepping(&[Does::Plain, Does::Plain, Does::Trap]);
    hypervisor.machine.os_lock = true;
    let (_, _, outcome) = hypervisor.enter(Interrupt::None);
    assert_eq!(outcome, Outcome::Trapped, "the guest ran on to its first trap");
    assert_eq!(hypervisor.machine.happened.len(), 2);
    assert_eq!(hypervisor.reported, 0);
}

#[test]
fn mistake_13_an_engine_is_one_vcpus() {
    let (mut stepped, other) = (Engine::new(), Engine::new());
    stepped.enable(KERNEL, 0).unwrap();
    assert!(stepped.is_enabled());
    assert!(!other.is_enabled());
    assert_eq!(other.state(), StepState::Inactive);
}

#[test]
fn every_trap_bit_that_keeps_our_debug_registers_out_of_sight_is_set() {
    let mut engine = Engine::new();
    engine.enable(KERNEL, 0).unwrap();
    let all = mdcr_el2::TDE | mdcr_el2::TDA | mdcr_el2::TDOSA | mdcr_el2::TDRA;
    assert_eq!(engine.on_entry(KERNEL).mdcr, all, "and EnSTEPOP is not");
}
