//! Commands that let a domain move, or stop it, and those that say how it moves.

use super::{Result, stopped};
use crate::cpu::Cpu;
use crate::domain::{Control, Domain, Order, PendingStop, Power, Role, StepOrder, bit};
use crate::machine::Machine;
use core::sync::atomic::Ordering;
use stepwell_engine::{Scope, TurnPlan};
use stepwell_protocol::{Monitor, OthersPolicy, Refusal, StopReason, TimePolicy, TraceDetail};
use stepwell_wire::Answer;

pub(super) fn pause<C: Cpu>(cpu: &C, machine: &Machine<C>, domain: &Domain<C>) -> Result {
    let control = domain.control.lock();
    if control.ending.is_some() {
        return Err(Refusal::Ended);
    }
    let running = control.running;
    let by_turns = control.by_turns;
    drop(control);
    let vcpu = match by_turns {
        true => domain.turns.lock().focus(),
        false => running.trailing_zeros() as usize,
    };
    let pause = PendingStop { vcpu, reason: StopReason::Paused };
    if running != 0 && domain.request_stop(cpu, pause) {
        return Ok(Answer::Done);
    }
    let control = domain.control.lock();
    if control.running != 0 || control.ending.is_some() {
        // It is stopping for a reason of its own, and reports that.
        return Ok(Answer::Done);
    }
    drop(control);
    machine.emit_stop(domain, PendingStop { vcpu: 0, reason: StopReason::Paused }, 0);
    Ok(Answer::Done)
}

fn powered<C: Cpu>(control: &Control, domain: &Domain<C>) -> u8 {
    (0..domain.vcpus.len())
        .filter(|&index| control.power(index) == Power::On)
        .fold(0, |mask, index| mask | bit(index))
}

pub(super) fn go_on<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpu: Option<u8>) -> Result {
    if let Some(timeline) = &domain.timeline {
        let _before = timeline.lock().stop_at(None, None);
    }
    resume(cpu, domain, vcpu)
}

/// Lets a domain run to where its timeline says.
pub(super) fn go_on_until<C: Cpu>(cpu: &C, domain: &Domain<C>) -> Result {
    resume(cpu, domain, None)
}

/// As [`go_on_until`], each instruction stepped and recorded.
pub(super) fn record_until<C: Cpu>(cpu: &C, machine: &Machine<C>, domain: &Domain<C>) -> Result {
    if machine.ring.lock().is_none() {
        return Err(Refusal::Unsupported);
    }
    if let Some(other) = machine.domains.iter().find(|other| records(other, domain)) {
        return Err(Refusal::RingInUse(other.id));
    }
    let mut control = stopped(domain)?;
    let on = powered(&control, domain);
    if on == 0 {
        return Err(Refusal::Off);
    }
    let role = Role::Alone(u64::MAX);
    let order = Order::Step(StepOrder { until: None, record: true, within: None, role });
    (control.stop, control.recording, control.joining) = (None, true, Some(order));
    keep_one_monitor(domain, on, &mut control);
    domain.translation.watch(false);
    domain.give(cpu, &mut control.running, on, order);
    Ok(Answer::Done)
}

fn resume<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpu: Option<u8>) -> Result {
    let mut control = stopped(domain)?;
    let chosen = match vcpu.map(usize::from) {
        None => u8::MAX,
        Some(vcpu) if vcpu < domain.vcpus.len() => bit(vcpu),
        Some(_) => return Err(Refusal::NoSuchVcpu),
    };
    let on = powered(&control, domain) & chosen;
    if on == 0 {
        return Err(Refusal::Off);
    }
    control.stop = None;
    let stepped = control.single_step & on;
    control.recording = false;
    if stepped != 0 {
        let order = StepOrder { until: None, record: false, within: None, role: Role::Alone(1) };
        domain.give(cpu, &mut control.running, stepped, Order::Step(order));
        return Ok(Answer::Done);
    }
    control.free = true;
    if control.time != stepwell_engine::TimePolicy::Real {
        domain.clock_waits.store(true, Ordering::Release);
    }
    keep_one_monitor(domain, on, &mut control);
    domain.translation.watch(false);
    domain.is_asynchronous.store(domain.timeline.is_none(), Ordering::Release);
    domain.give(cpu, &mut control.running, on, Order::Run);
    Ok(Answer::Done)
}

/// Before `on` run freely: at most one of them goes on within the exclusive sequence that it is
/// stopped in, and the others wait for that. Any other one's store fails, as after a long
/// interrupt. Where the one has only gone round a loop the last time, one that had to give way to it comes
/// first: else a debugger that has a vCPU step off a breakpoint in a loop around a load-exclusive, again
/// and again, would keep a sequence of another for ever from being begun.
fn keep_one_monitor<C: Cpu>(domain: &Domain<C>, on: u8, control: &mut Control) {
    let may_be = |index: usize, is_reported: bool| {
        let Some(vcpu) = domain.vcpus.get(index) else { return false };
        let core = vcpu.core.lock();
        let is_there = !is_reported || core.acknowledged_here().is_some();
        on & bit(index) != 0 && core.monitor.armed().is_some() && is_there
    };
    let all = || 0..domain.vcpus.len();
    // The one that stopped the domain comes first.
    let reported = all().find(|&index| may_be(index, true));
    // In turns of instructions only the one whose turn it is can be within one.
    let in_turn = domain.timeline.as_ref().map(|timeline| timeline.lock().vcpu());
    let armed = reported.or_else(|| all().find(|&index| may_be(index, false)));
    let productive = armed.filter(|&index| control.has_gone_round != Some(index));
    let kept = in_turn.or(productive).or_else(|| control.owed.take(on)).or(armed);
    control.kept = armed.filter(|_| kept == armed);
    control.has_gone_round = None;
    open_other_monitors(domain, kept);
    // In turns of instructions nobody else runs before its turn is over, which clears the monitor.
    if let Some(kept) = kept.filter(|_| domain.timeline.is_none()) {
        domain.quiescence.reserve(kept);
    }
}

/// Has the store fail of whoever is stopped within an exclusive sequence, but for `vcpu`, which goes on:
/// what the load has read may be written meanwhile, and be as it was again.
fn open_other_monitors<C: Cpu>(domain: &Domain<C>, vcpu: Option<usize>) {
    for (_, other) in domain.vcpus.iter().enumerate().filter(|(index, _)| Some(*index) != vcpu) {
        other.core.lock().monitor.clear();
    }
}

pub(super) fn step<C: Cpu>(
    cpu: &C,
    machine: &Machine<C>,
    domain: &Domain<C>,
    vcpu: u8,
    (wanted, scope): (u64, Scope),
    order: StepOrder,
) -> Result {
    if wanted == 0 {
        return Err(Refusal::NoSteps);
    }
    if order.record && machine.ring.lock().is_none() {
        return Err(Refusal::Unsupported);
    }
    if let Some(other) = machine.domains.iter().find(|other| order.record && records(other, domain))
    {
        return Err(Refusal::RingInUse(other.id));
    }
    let mut control = stopped(domain)?;
    let index = usize::from(vcpu);
    let state = domain.vcpus.get(index).ok_or(Refusal::NoSuchVcpu)?;
    if control.power(index) == Power::Off {
        return Err(Refusal::Off);
    }
    let pstate = state.core.lock().pstate();
    if pstate.is_aarch32() && pstate.el() > 0 {
        return Err(Refusal::AArch32);
    }
    let policy = control.others;
    let by_steps = matches!(control.time, TimePolicy::PerStep { .. } | TimePolicy::Natural { .. });
    if policy == OthersPolicy::Run && by_steps {
        return Err(Refusal::PerStepWhileOthersRun);
    }
    let others = control.stopped() & !bit(index);
    let vcpus = if policy.is_step() { others | bit(index) } else { bit(index) };
    let is_armed = state.core.lock().monitor.armed().is_some();
    if domain.timeline.is_none() {
        open_other_monitors(domain, Some(index));
    }
    domain.turns.lock().begin(TurnPlan { policy, focus: index, vcpus, scope, wanted });
    control.stop = None;
    control.by_turns = true;
    control.recording = order.record;
    match policy {
        OthersPolicy::Stop | OthersPolicy::Freeze => {}
        OthersPolicy::Run => run_beside(cpu, domain, &mut control, others, is_armed),
        OthersPolicy::Step { .. } => {
            let joining =
                Order::Step(StepOrder { until: None, within: None, role: Role::Other, ..order });
            control.joining = Some(joining);
            domain.give(cpu, &mut control.running, others, joining);
        }
    }
    domain.give(cpu, &mut control.running, bit(index), Order::Step(order));
    Ok(Answer::Done)
}

/// Tells whether another domain than `domain` is writing into the trace ring. Nobody begins to
/// while a command is served.
fn records<C: Cpu>(other: &Domain<C>, domain: &Domain<C>) -> bool {
    let control = other.control.lock();
    other.id != domain.id && control.running != 0 && control.recording
}

/// Lets the others run while one is stepped. `is_armed`: that one is in an exclusive sequence.
fn run_beside<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    control: &mut Control,
    others: u8,
    is_armed: bool,
) {
    control.free = true;
    if control.time != TimePolicy::Real {
        domain.release_clock(cpu);
    }
    if is_armed {
        domain.quiescence.reserve(domain.turns.lock().focus());
    }
    domain.translation.watch(true);
    domain.give(cpu, &mut control.running, others, Order::Run);
}

pub(super) fn set_time_policy<C: Cpu>(cpu: &C, domain: &Domain<C>, policy: TimePolicy) -> Result {
    stopped(domain)?.time = policy;
    domain.clock.lock().set_noise(match policy {
        TimePolicy::Natural { seed } => Some(seed),
        _ => None,
    });
    let is_real = policy == TimePolicy::Real;
    let was_real = domain.real_time.swap(is_real, Ordering::AcqRel);
    if is_real && !was_real {
        // From here on it goes, whether the guest runs, is stopped or steps.
        domain.release_clock(cpu);
    } else if was_real && !is_real {
        let offset = domain.clock_offset.load(Ordering::Acquire);
        domain.clock.lock().hold(cpu.counter(), offset);
    }
    Ok(Answer::Done)
}

pub(super) fn set_others_policy<C: Cpu>(domain: &Domain<C>, policy: OthersPolicy) -> Result {
    if policy.quantum() == 0 {
        return Err(Refusal::EmptyTurn);
    }
    stopped(domain)?.others = policy;
    Ok(Answer::Done)
}

pub(super) fn set_detail<C: Cpu>(domain: &Domain<C>, detail: TraceDetail) -> Result {
    let mut control = stopped(domain)?;
    control.detail = detail;
    // Whoever chooses anew knows nothing yet.
    for vcpu in &domain.vcpus {
        vcpu.core.lock().recorder.emit_all();
    }
    Ok(Answer::Done)
}

pub(super) fn set_monitor<C: Cpu>(
    cpu: &C,
    machine: &Machine<C>,
    domain: &Domain<C>,
    vcpu: Option<u8>,
    monitor: Monitor,
    on: bool,
) -> Result {
    if monitor == Monitor::PrivilegedCall && !C::CAN.privileged_calls {
        return Err(Refusal::Unsupported);
    }
    let mask = match vcpu {
        None => (0..domain.vcpus.len()).fold(0, |mask, index| mask | bit(index)),
        Some(vcpu) if usize::from(vcpu) < domain.vcpus.len() => bit(usize::from(vcpu)),
        Some(_) => return Err(Refusal::NoSuchVcpu),
    };
    let mut control = domain.control.lock();
    if control.ending.is_some() {
        return Err(Refusal::Ended);
    }
    let monitored = match monitor {
        Monitor::SingleStep => &mut control.single_step,
        Monitor::PrivilegedCall => &mut control.privileged_call,
    };
    let already = if on { *monitored & mask == mask } else { *monitored & mask == 0 };
    if already {
        return Err(Refusal::AlreadySet(on));
    }
    *monitored = if on { *monitored | mask } else { *monitored & !mask };
    // A running domain is paused with the change, and reports that it is stopped.
    let running = control.running;
    drop(control);
    if running != 0 {
        return pause(cpu, machine, domain);
    }
    Ok(Answer::Done)
}
