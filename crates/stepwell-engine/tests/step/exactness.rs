//! The promise: each boundary is one instruction executed or one exception entered. None is lost,
//! none doubled, wherever interrupts fall.

use crate::machine::{Does, Hypervisor, Interrupt, TestMachine};
use proptest::prelude::*;
use stepwell_arch::Pstate;

fn programs() -> impl Strategy<Value = Vec<Does>> {
    let does = prop_oneof![
        3 => Just(Does::Plain),
        1 => Just(Does::LoadExclusive),
        1 => Just(Does::Svc),
        1 => Just(Does::Fault),
        2 => Just(Does::Hvc),
        2 => Just(Does::Trap),
        1 => Just(Does::Eret),
    ];
    proptest::collection::vec(does, 1..30)
}

fn interrupts() -> impl Strategy<Value = Interrupt> {
    prop_oneof![Just(Interrupt::None), Just(Interrupt::Before), Just(Interrupt::After)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_boundary_is_one_thing_that_happened(
        program in programs(),
        schedule in proptest::collection::vec(
            proptest::collection::vec(interrupts(), 0..5), 1..40),
        own_ss: bool,
        mdscr: u64,
    ) {
        let pstate = Pstate(Pstate::M_EL1H).with_ss(own_ss);
        let mut hypervisor = Hypervisor::stepping_with(&program, pstate, mdscr);
        for (n, interrupts) in schedule.iter().enumerate() {
            hypervisor.step(interrupts);
            prop_assert_eq!(hypervisor.reported, n + 1);
            prop_assert_eq!(hypervisor.machine.happened.len(), n + 1);
        }
    }

    #[test]
    fn interrupts_do_not_change_what_is_stepped(
        program in programs(),
        schedule in proptest::collection::vec(
            proptest::collection::vec(interrupts(), 0..5), 1..40),
    ) {
        let mut interrupted = Hypervisor::stepping(&program);
        let mut plain = Hypervisor::stepping(&program);
        for interrupts in &schedule {
            interrupted.step(interrupts);
            plain.step(&[]);
        }
        prop_assert_eq!(&interrupted.machine.happened, &plain.machine.happened);
        prop_assert_eq!(interrupted.machine.pc, plain.machine.pc);
        prop_assert_eq!(interrupted.pstate, plain.pstate);
        // What the engines do from here on; what they keep may differ with the feature `mutants`.
        prop_assert_eq!(interrupted.engine.state(), plain.engine.state());
        let (pstate, plain_pstate) = (interrupted.pstate, plain.pstate);
        prop_assert_eq!(interrupted.engine.on_entry(pstate), plain.engine.on_entry(plain_pstate));
        prop_assert_eq!(interrupted.engine.disable(pstate), plain.engine.disable(plain_pstate));
    }
}

/// The adversary of this file can see a lost step: SS set on every entry, as shipped hypervisors
/// had it, loses one here.
#[test]
fn the_model_tells_a_wrong_engine() {
    let mut machine = TestMachine::new(&[]);
    let mut engine = stepwell_engine::Engine::new();
    let pstate = Pstate(Pstate::M_EL1H);
    engine.enable(pstate, 0).unwrap();
    let controls = engine.on_entry(pstate);
    machine.enter(controls, Interrupt::After);
    machine.enter(controls, Interrupt::None);
    assert_eq!(machine.happened.len(), 2, "two instructions by the first report");
}
