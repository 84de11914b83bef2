//! Positions, where a debuggee has them.

use super::{SCRATCH, V0, wait_for_stop};
use crate::{
    Checkpoint, Checkpoints, Debuggee, Moment, Refusal, StateHash, StopReason, TraceRecord,
};

/// Where the guest has stored what it stores.
const BEHIND_THE_STORE: u64 = 19;

fn go(debuggee: &mut dyn Debuggee, position: u64, record: bool) -> StateHash {
    let travel = debuggee.support_time_travel().expect("it had it before");
    match record {
        true => travel.record_until(0, Moment::at(position)),
        false => travel.run_until(0, Moment::at(position)),
    }
    .expect("it is stopped");
    assert_eq!(wait_for_stop(debuggee).0.reason, StopReason::Reached);
    let travel = debuggee.support_time_travel().expect("it had it before");
    assert_eq!(travel.moment(0).expect("it is stopped").position, position);
    travel.state_hash(0).expect("it is stopped")
}

pub(super) fn a_position_is_one_state(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let Some(travel) = debuggee.support_time_travel() else { return };
    assert_eq!(travel.moment(0).expect("it is stopped").position, 0);
    let begin = travel.state_hash(0).expect("it is stopped");
    assert_eq!(go(debuggee, 0, false), begin, "it has come there already");
    let first = go(debuggee, 5, true);
    assert_ne!(first, begin);
    let Some(trace) = debuggee.support_trace() else { panic!("it has recorded") };
    let mut records = Vec::new();
    trace.drain(&mut records).expect("it is there");
    let recorded = records.iter().map(|record| match *record {
        TraceRecord::Run { length, .. } => u64::from(length),
        _ => 0,
    });
    assert_eq!(recorded.sum::<u64>(), 5);
    let Some(travel) = debuggee.support_time_travel() else { return };
    let Some(checkpoints) = travel.support_checkpoints() else { return };
    let before = checkpoints.keep(0).expect("it is stopped");
    // Beyond what the guest stores.
    let later = go(debuggee, BEHIND_THE_STORE, false);
    assert_ne!((later.registers, later.memory), (first.registers, first.memory));
    let Some(travel) = debuggee.support_time_travel() else { return };
    let executed = travel.executed(0).expect("it is stopped");
    assert_eq!(executed.first(), Some(&BEHIND_THE_STORE), "nobody else executes anything");
    travel.run_until_turn(V0, Moment::at(BEHIND_THE_STORE + 1)).expect("it is stopped");
    assert_eq!(wait_for_stop(debuggee).0.reason, StopReason::Reached);
    assert_eq!(go(debuggee, BEHIND_THE_STORE, false), later, "it has its turn already");
    let kept = checkpoints_of(debuggee).keep(0).expect("it is stopped");
    let end = go(debuggee, BEHIND_THE_STORE + 2, false);
    let last = checkpoints_of(debuggee).keep(0).expect("it is stopped");
    wrote_what_it_stored(checkpoints_of(debuggee), [before, kept, last]);
    checkpoints_of(debuggee).go_to(0, kept).expect("it is kept");
    assert_eq!(go(debuggee, BEHIND_THE_STORE, false), later, "it is back");
    assert_eq!(go(debuggee, BEHIND_THE_STORE + 2, true), end, "and comes to the same");
    checkpoints_of(debuggee).go_to(0, before).expect("it is kept");
    assert_eq!(go(debuggee, 5, false), first, "further back");
    checkpoints_of(debuggee).go_to(0, last).expect("it is kept");
    assert_eq!(go(debuggee, BEHIND_THE_STORE + 2, false), end, "and ahead again");
    checkpoints_of(debuggee).forget(kept);
    let gone = checkpoints_of(debuggee).go_to(0, kept).expect_err("it is not kept any more");
    assert_eq!(gone.refusal(), Some(Refusal::NoSuchCheckpoint));
    debuggee.read_registers(V0).expect("nothing has changed");
}

fn checkpoints_of(debuggee: &mut dyn Debuggee) -> &mut dyn Checkpoints {
    let travel = debuggee.support_time_travel().expect("it had it before");
    travel.support_checkpoints().expect("it had them before")
}

fn wrote_what_it_stored(checkpoints: &mut dyn Checkpoints, kept: [Checkpoint; 3]) {
    let [before, kept, last] = kept;
    let mut wrote = |from, to, at| checkpoints.wrote(0, from, to, at, 8).expect("both are kept");
    assert!(wrote(before, kept, SCRATCH) && wrote(before, last, SCRATCH), "it has stored there");
    assert!(!wrote(kept, last, SCRATCH), "that was before");
    assert!(!wrote(before, last, SCRATCH.offset(0x1000)), "nor anything beside it");
}
