//! What every [`Debuggee`] has to keep: one suite, run against the fake here and against whole
//! machines elsewhere.
//!
//! The guest is [`GUEST`], loaded raw at [`ENTRY`] and started there with the MMU off; it touches
//! nothing but RAM, the PL011 and PSCI. Each check gets a fresh debuggee from the factory. A check
//! that fails panics, as a test does. What a debuggee cannot do it refuses as [`Refusal::Unsupported`],
//! and does the rest all the same.
//!
//! What the guest's one SMC does is the machine's affair: it is performed, or undefined. Where it
//! is undefined the factory has to point VBAR_EL1 to a vector that skips it.

use crate::{
    CodeRange, Debuggee, DomainEnding, Error, Event, InterruptPolicy, Monitor, Place, Refusal,
    StepRequest, Stop, StopReason, TraceRecord, VcpuId, VcpuState, WatchAccess, Watchpoint,
};
use std::time::{Duration, Instant};
use stepwell_arch::{Ipa, SystemRegister, Va};

/// Where [`GUEST`] is loaded and starts.
pub const ENTRY: Va = Va(0x4008_0000);
/// Where the guest's first loop begins; it takes five turns of two instructions.
pub const LOOP: Va = Va(ENTRY.0 + 0x10);
/// Where the guest calls its function.
pub const CALL: Va = Va(ENTRY.0 + 0x18);
/// Where the guest executes `smc #0x12`.
pub const SMC: Va = Va(ENTRY.0 + 0x1c);
/// The guest's function: five instructions.
pub const FUNCTION: Va = Va(ENTRY.0 + 0x30);
/// RAM that the guest's function writes.
pub const SCRATCH: Ipa = Ipa(0x4100_0000);

/// The guest, as A64 words.
pub const GUEST: [u32; 17] = [
    0xd2a1_2000, // 00  mov  x0, #0x9000000     the PL011
    0xd280_0d01, // 04  mov  x1, #'h'
    0xb900_0001, // 08  str  w1, [x0]
    0xd280_00a2, // 0c  mov  x2, #5
    0xd100_0442, // 10  sub  x2, x2, #1
    0xb5ff_ffe2, // 14  cbnz x2, 0x10
    0x9400_0006, // 18  bl   0x30
    0xd400_0243, // 1c  smc  #0x12
    0xd2b0_8000, // 20  mov  x0, #0x84000000
    0xf280_0100, // 24  movk x0, #8             PSCI SYSTEM_OFF
    0xd400_0002, // 28  hvc  #0
    0x1400_0000, // 2c  b    .
    0xd2a8_2003, // 30  mov  x3, #0x41000000
    0xd295_79a4, // 34  mov  x4, #0xabcd
    0xf900_0064, // 38  str  x4, [x3]
    0xf940_0065, // 3c  ldr  x5, [x3]
    0xd65f_03c0, // 40  ret
];

mod time_travel;
mod vectors;

type Check = fn(&mut dyn Debuggee);

const PATIENCE: Duration = Duration::from_secs(30);
/// Offset of the vector for synchronous exceptions from the same level, with its own stack.
const SYNCHRONOUS_FROM_SAME_LEVEL: u64 = 0x200;
const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };

/// Returns [`GUEST`] as the bytes of a raw kernel file.
#[must_use]
pub fn guest_bytes() -> Vec<u8> {
    GUEST.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Runs every check against debuggees that `factory` makes, each at reset with [`GUEST`] loaded.
///
/// # Panics
///
/// Where the contract is broken.
pub fn check(mut factory: impl FnMut() -> Box<dyn Debuggee>) {
    let checks: [(&str, Check); 18] = [
        ("is stopped at reset", is_stopped_at_reset),
        ("each step is one instruction", each_step_is_one_instruction),
        ("until stops before", until_stops_before),
        ("breakpoints stop before and leave no trace", breakpoints_stop_before),
        ("there are as many breakpoints as are wanted", every_instruction_has_a_breakpoint),
        ("a range is stepped until it is left", a_range_is_stepped),
        ("watchpoints stop before the access", watchpoints_stop_before),
        ("there are as many watchpoints as are wanted", every_byte_is_watched),
        ("one vCPU runs alone", one_vcpu_runs_alone),
        ("memory and registers are written", memory_and_registers_are_written),
        ("vectors are written", vectors::are_written),
        ("longer vectors are written", vectors::of_sve_are_written),
        ("refusals change nothing", refusals_change_nothing),
        ("privileged calls are monitored", privileged_calls_are_monitored),
        ("the trace holds every step", |debuggee| the_trace_holds_every_step(debuggee, None)),
        ("the trace holds every step of a range", |debuggee| {
            let within = Some(CodeRange { start: ENTRY, end: ENTRY.offset(0x44) });
            the_trace_holds_every_step(debuggee, within);
        }),
        ("a position is one state", time_travel::a_position_is_one_state),
        ("the guest ends", the_guest_ends),
    ];
    for (name, check) in checks {
        eprintln!("contract: {name}");
        check(factory().as_mut());
    }
}

/// Waits for a stop, and returns it with what the guest wrote meanwhile.
///
/// # Panics
///
/// Where none comes.
pub fn wait_for_stop(debuggee: &mut dyn Debuggee) -> (Stop, Vec<u8>) {
    let (mut console, started) = (Vec::new(), Instant::now());
    while started.elapsed() < PATIENCE {
        match debuggee.wait(Duration::from_millis(100)).expect("the debuggee is there") {
            Some(Event::Stopped(stop)) => return (stop, console),
            Some(Event::Console { bytes, .. }) => console.extend(bytes),
            Some(event @ Event::Ended { .. }) => panic!("no stop, but {event:?}"),
            None => {}
        }
    }
    panic!("no stop within {PATIENCE:?}")
}

fn step(debuggee: &mut dyn Debuggee, request: StepRequest) -> Stop {
    debuggee.step(V0, request).expect("a stopped vCPU steps");
    wait_for_stop(debuggee).0
}

fn stop(reason: StopReason, pc: Va, steps: u64) -> Stop {
    Stop { vcpu: V0, reason, pc, steps }
}

fn is_stopped_at_reset(debuggee: &mut dyn Debuggee) {
    assert!(debuggee.vcpu_counts()[0] >= 1);
    assert_eq!(wait_for_stop(debuggee).0, stop(StopReason::Reset, ENTRY, 0));
    let status = debuggee.status(0).expect("domain 0 is there");
    assert_eq!((status[0].state, status[0].pc), (VcpuState::Stopped, ENTRY));
    assert_eq!(debuggee.read_registers(V0).expect("it is stopped").pc, ENTRY.0);
}

fn each_step_is_one_instruction(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let looped = [0x10, 0x14].repeat(5);
    let after = [0x18, 0x30, 0x34, 0x38, 0x3c, 0x40, 0x1c];
    for offset in [0x04, 0x08, 0x0c].into_iter().chain(looped).chain(after) {
        let expected = stop(StopReason::Stepped, ENTRY.offset(offset), 1);
        assert_eq!(step(debuggee, StepRequest::steps(1)), expected);
    }
    let registers = debuggee.read_registers(V0).expect("it is stopped");
    assert_eq!((registers.x[2], registers.x[5]), (0, 0xabcd));
    assert_eq!(registers.x[30], SMC.0);
    assert_eq!(registers.pstate >> 21 & 1, 0, "the guest's PSTATE.SS is shown, not the stepper's");
    is_stepped_past_smc(debuggee);
}

/// Steps the SMC: to the next instruction, or to the vector for undefined ones.
fn is_stepped_past_smc(debuggee: &mut dyn Debuggee) {
    let stop = step(debuggee, StepRequest::steps(1));
    assert_eq!((stop.reason, stop.steps), (StopReason::Stepped, 1), "{stop:x?}");
    let base = SystemRegister::from_name("VBAR_EL1").expect("every CPU has VBAR_EL1");
    let system = debuggee.support_system_registers();
    let base = system.and_then(|system| system.read_system_register(V0, base.0).ok());
    let undefined = base.map(|base| Va(base + SYNCHRONOUS_FROM_SAME_LEVEL));
    let leads_there = stop.pc == SMC.offset(4) || Some(stop.pc) == undefined;
    assert!(leads_there, "{stop:x?} is not where an SMC leads");
}

fn until_stops_before(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let request = StepRequest { until: Some(CALL), ..StepRequest::steps(1000) };
    assert_eq!(step(debuggee, request), stop(StopReason::Until, CALL, 14));
    let request = StepRequest { until: Some(CALL), ..StepRequest::steps(3) };
    let expected = stop(StopReason::Stepped, FUNCTION.offset(8), 3);
    assert_eq!(step(debuggee, request), expected);
}

fn breakpoints_stop_before(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let place = Place::Va(LOOP);
    debuggee.set_breakpoint(0, place).expect("one is left");
    let function = Place::Ipa(Ipa(FUNCTION.0));
    debuggee.set_breakpoint(0, function).expect("one is left");
    for turn in 0..5 {
        debuggee.resume(0).expect("it is stopped");
        let (stop, console) = wait_for_stop(debuggee);
        assert_eq!((stop.reason, stop.pc), (StopReason::Breakpoint, LOOP), "turn {turn}");
        assert_eq!(console, if turn == 0 { b"h".as_slice() } else { b"" });
        assert_eq!(debuggee.read_registers(V0).expect("it is stopped").x[2], 5 - turn);
    }
    let mut word = [0; 4];
    debuggee.read_memory(V0, place, &mut word).expect("code is mapped");
    assert_eq!(u32::from_le_bytes(word), GUEST[4], "a hidden breakpoint is not in memory");
    debuggee.resume(0).expect("it is stopped");
    assert_eq!(wait_for_stop(debuggee).0.pc, FUNCTION);
    debuggee.clear_breakpoint(0, place).expect("it was set");
    debuggee.clear_breakpoint(0, function).expect("it was set");
    let again = debuggee.clear_breakpoint(0, place).expect_err("it is gone");
    assert_eq!(again.refusal(), Some(Refusal::Breakpoint));
}

/// More than a CPU has registers for, by virtual address and by physical, all in one page.
fn every_instruction_has_a_breakpoint(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let offsets = || (0..GUEST.len() as u64).map(|n| 4 * n);
    let place = |offset: u64| match offset % 8 {
        0 => Place::Va(ENTRY.offset(offset)),
        _ => Place::Ipa(Ipa(ENTRY.0 + offset)),
    };
    for offset in offsets() {
        debuggee.set_breakpoint(0, place(offset)).expect("one is left");
    }
    let looped = [0x10, 0x14].repeat(5);
    let after = [0x18, 0x30, 0x34, 0x38, 0x3c, 0x40, 0x1c];
    for offset in [0x04, 0x08, 0x0c].into_iter().chain(looped).chain(after) {
        debuggee.resume(0).expect("it is stopped");
        let (stop, _) = wait_for_stop(debuggee);
        assert_eq!((stop.reason, stop.pc), (StopReason::Breakpoint, ENTRY.offset(offset)));
    }
    let mut text = vec![0; 4 * GUEST.len()];
    debuggee.read_memory(V0, Place::Va(ENTRY), &mut text).expect("code is mapped");
    assert_eq!(text, guest_bytes(), "a hidden breakpoint is not in memory");
    for offset in offsets() {
        debuggee.clear_breakpoint(0, place(offset)).expect("it was set");
    }
}

fn is_unsupported(result: &Result<(), Error>) -> bool {
    result.as_ref().is_err_and(|error| error.refusal() == Some(Refusal::Unsupported))
}

fn a_range_is_stepped(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let within = Some(CodeRange { start: LOOP, end: CALL });
    let request = StepRequest { within, ..StepRequest::steps(1000) };
    // What is outside of it steps once.
    let expected = stop(StopReason::LeftRange, ENTRY.offset(4), 1);
    assert_eq!(step(debuggee, request), expected);
    step(debuggee, StepRequest::steps(3));
    let all = step(debuggee, request);
    assert_eq!(all, stop(StopReason::LeftRange, CALL, 10), "five turns of the loop");
    let within = Some(CodeRange { start: CALL, end: SMC });
    let request = StepRequest { within, ..StepRequest::steps(1000) };
    assert_eq!(step(debuggee, request), stop(StopReason::LeftRange, FUNCTION, 1));
    let within = Some(CodeRange { start: FUNCTION, end: FUNCTION.offset(20) });
    let request = StepRequest { within, ..StepRequest::steps(2) };
    assert_eq!(step(debuggee, request), stop(StopReason::Stepped, FUNCTION.offset(8), 2));
    let within = Some(CodeRange { start: FUNCTION, end: FUNCTION.offset(16) });
    let request = StepRequest { within, ..StepRequest::steps(1000) };
    let straight_on = stop(StopReason::LeftRange, FUNCTION.offset(16), 2);
    assert_eq!(step(debuggee, request), straight_on, "straight on");
    let within = Some(CodeRange { start: FUNCTION, end: FUNCTION.offset(20) });
    let request = StepRequest { within, ..StepRequest::steps(1000) };
    assert_eq!(step(debuggee, request), stop(StopReason::LeftRange, SMC, 1), "by a jump");
}

fn watchpoints_stop_before(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let Some(watchpoints) = debuggee.support_watchpoints() else { return };
    let watch = |address, access| Watchpoint { address: Va(address), length: 4, access };
    let written = watch(SCRATCH.0 + 4, WatchAccess::Write);
    let read = watch(SCRATCH.0, WatchAccess::Read);
    let beside = watch(SCRATCH.0 + 8, WatchAccess::ReadWrite);
    for watch in [written, read, beside] {
        watchpoints.set_watchpoint(V0, watch).expect("it is new");
    }
    let twice = watchpoints.set_watchpoint(V0, read).expect_err("it is there");
    assert_eq!(twice.refusal(), Some(Refusal::Watchpoint));
    let nothing = Watchpoint { length: 0, ..read };
    let nothing = watchpoints.set_watchpoint(V0, nothing).expect_err("no bytes");
    assert_eq!(nothing.refusal(), Some(Refusal::WatchedRange));
    debuggee.resume(0).expect("it is stopped");
    hits(wait_for_stop(debuggee).0, FUNCTION.offset(8), written);
    debuggee.resume(0).expect("it is stopped");
    hits(wait_for_stop(debuggee).0, FUNCTION.offset(12), read);
    let registers = debuggee.read_registers(V0).expect("it is stopped");
    assert_eq!(registers.x[5], 0, "the load has not happened");
    // It steps past what was reported.
    let expected = stop(StopReason::Stepped, FUNCTION.offset(16), 1);
    assert_eq!(step(debuggee, StepRequest::steps(1)), expected);
    // And steps find a watchpoint as well.
    again_from_the_function(debuggee);
    hits(step(debuggee, StepRequest::steps(100)), FUNCTION.offset(8), written);
    let watchpoints = debuggee.support_watchpoints().expect("it had them");
    for watch in [written, read, beside] {
        watchpoints.clear_watchpoint(0, watch).expect("it was set");
    }
    let gone = watchpoints.clear_watchpoint(0, read).expect_err("it is gone");
    assert_eq!(gone.refusal(), Some(Refusal::Watchpoint));
    again_from_the_function(debuggee);
    let request = StepRequest { until: Some(SMC), ..StepRequest::steps(100) };
    assert_eq!(step(debuggee, request), stop(StopReason::Until, SMC, 5));
}

/// More than a CPU has registers for, and of shapes that none can hold.
fn every_byte_is_watched(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let Some(watchpoints) = debuggee.support_watchpoints() else { return };
    let access = WatchAccess::ReadWrite;
    let beside = |n| Watchpoint { address: Va(SCRATCH.0 + 0x40 + n), length: 1, access };
    for watch in (0..20).map(beside) {
        watchpoints.set_watchpoint(V0, watch).expect("it is new");
    }
    let written = Watchpoint { address: Va(SCRATCH.0 + 4), length: 20, access: WatchAccess::Write };
    let read = Watchpoint { access: WatchAccess::Read, ..written };
    for watch in [written, read] {
        watchpoints.set_watchpoint(V0, watch).expect("it is new");
    }
    debuggee.resume(0).expect("it is stopped");
    hits(wait_for_stop(debuggee).0, FUNCTION.offset(8), written);
    debuggee.resume(0).expect("it is stopped");
    hits(wait_for_stop(debuggee).0, FUNCTION.offset(12), read);
    again_from_the_function(debuggee);
    hits(step(debuggee, StepRequest::steps(100)), FUNCTION.offset(8), written);
    let watchpoints = debuggee.support_watchpoints().expect("it had them");
    for watch in (0..20).map(beside).chain([written, read]) {
        watchpoints.clear_watchpoint(0, watch).expect("it was set");
    }
    let request = StepRequest { until: Some(SMC), ..StepRequest::steps(100) };
    assert_eq!(step(debuggee, request), stop(StopReason::Until, SMC, 3));
}

fn again_from_the_function(debuggee: &mut dyn Debuggee) {
    let mut registers = debuggee.read_registers(V0).expect("it is stopped");
    registers.pc = FUNCTION.0;
    debuggee.write_registers(V0, &registers).expect("it is stopped");
}

fn hits(stop: Stop, pc: Va, watch: Watchpoint) {
    let StopReason::Watchpoint { address, access } = stop.reason else { panic!("{stop:?}") };
    assert_eq!((stop.pc, access), (pc, watch.access), "{stop:?}");
    let watched = watch.address.0..watch.address.0 + watch.length;
    assert!(watched.contains(&address.0), "{stop:?} is not about {watch:?}");
}

fn one_vcpu_runs_alone(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let nobody = VcpuId { domain: 0, vcpu: 200 };
    let refused = debuggee.resume_only(nobody).expect_err("there is none");
    assert_eq!(refused.refusal(), Some(Refusal::NoSuchVcpu));
    debuggee.set_breakpoint(0, Place::Va(CALL)).expect("one is left");
    debuggee.resume_only(V0).expect("it is stopped");
    let (stop, _) = wait_for_stop(debuggee);
    assert_eq!((stop.vcpu, stop.reason, stop.pc), (V0, StopReason::Breakpoint, CALL));
}

fn memory_and_registers_are_written(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let place = Place::Ipa(SCRATCH.offset(0x800));
    let sent: Vec<u8> = (0..5000_u32).map(|n| (n % 251) as u8).collect();
    debuggee.write_memory(V0, place, &sent).expect("RAM is mapped");
    let mut got = vec![0; sent.len()];
    debuggee.read_memory(V0, Place::Va(Va(SCRATCH.0 + 0x800)), &mut got).expect("RAM is mapped");
    assert!(got == sent, "memory comes back as written, by either kind of address");
    assert_eq!(debuggee.translate(V0, ENTRY).expect("the MMU is off"), Ipa(ENTRY.0));
    let mut registers = debuggee.read_registers(V0).expect("it is stopped");
    (registers.pc, registers.x[2], registers.x[30]) = (LOOP.0, 2, 0x1234);
    debuggee.write_registers(V0, &registers).expect("it is stopped");
    assert_eq!(debuggee.read_registers(V0).expect("it is stopped"), registers);
    let request = StepRequest { until: Some(CALL), ..StepRequest::steps(100) };
    assert_eq!(step(debuggee, request).steps, 4, "two turns of the loop");
}

fn refusals_change_nothing(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let refusal = |result: Result<(), Error>| result.expect_err("refused").refusal();
    assert_eq!(refusal(debuggee.step(V0, StepRequest::steps(0))), Some(Refusal::NoSteps));
    let nobody = VcpuId { domain: 0, vcpu: 200 };
    assert_eq!(refusal(debuggee.step(nobody, StepRequest::steps(1))), Some(Refusal::NoSuchVcpu));
    assert_eq!(refusal(debuggee.resume(77)), Some(Refusal::NoSuchVcpu));
    let nowhere = Place::Ipa(Ipa(0x7_0000_0000));
    let unmapped = refusal(debuggee.read_memory(V0, nowhere, &mut [0; 4]));
    assert!(matches!(unmapped, Some(Refusal::NotMapped(_))), "{unmapped:?}");
    debuggee.set_breakpoint(0, Place::Va(LOOP)).expect("one is left");
    let twice = refusal(debuggee.set_breakpoint(0, Place::Va(LOOP)));
    assert_eq!(twice, Some(Refusal::Breakpoint));
    assert_eq!(debuggee.read_registers(V0).expect("it is stopped").pc, ENTRY.0);
}

fn privileged_calls_are_monitored(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let Some(monitors) = debuggee.support_monitors() else { return };
    let first = monitors.set_monitor(0, None, Monitor::PrivilegedCall, true);
    if is_unsupported(&first) {
        return;
    }
    first.expect("it is off");
    let twice = monitors.set_monitor(0, None, Monitor::PrivilegedCall, true);
    assert_eq!(twice.expect_err("it is on").refusal(), Some(Refusal::AlreadySet(true)));
    debuggee.resume(0).expect("it is stopped");
    let (stop, _) = wait_for_stop(debuggee);
    assert_eq!((stop.reason, stop.pc), (StopReason::PrivilegedCall { immediate: 0x12 }, SMC));
    is_stepped_past_smc(debuggee);
}

fn the_trace_holds_every_step(debuggee: &mut dyn Debuggee, within: Option<CodeRange>) {
    wait_for_stop(debuggee);
    if debuggee.support_trace().is_none() {
        return;
    }
    if let Some(interrupts) = debuggee.support_interrupts() {
        interrupts.set_interrupt_policy(0, InterruptPolicy::Hold).expect("it is stopped");
    }
    let request = StepRequest { until: Some(SMC), record: true, ..StepRequest::steps(1000) };
    assert_eq!(step(debuggee, StepRequest { within, ..request }).steps, 20);
    let mut records = Vec::new();
    debuggee.support_trace().expect("it had one").drain(&mut records).expect("it is sound");
    let mut pcs = Vec::new();
    for record in &records {
        if let TraceRecord::Run { vcpu: 0, pc, length } = record {
            pcs.extend((0..u64::from(*length)).map(|n| pc.0 + 4 * n - ENTRY.0));
        }
    }
    let looped = [0x10, 0x14].repeat(5);
    let expected: Vec<u64> = [0, 4, 8, 0xc]
        .into_iter()
        .chain(looped)
        .chain([0x18, 0x30, 0x34, 0x38, 0x3c, 0x40])
        .collect();
    assert_eq!(pcs, expected);
    let mut again = Vec::new();
    debuggee.support_trace().expect("it had one").drain(&mut again).expect("it is sound");
    assert_eq!(again, [], "nothing is told twice");
}

fn the_guest_ends(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    debuggee.resume(0).expect("it is stopped");
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(Event::Ended { domain: 0, ending }) =
            debuggee.wait(Duration::from_millis(100)).expect("the debuggee is there")
        {
            assert_eq!(ending, DomainEnding::PoweredOff);
            return;
        }
    }
    panic!("the guest did not end within {PATIENCE:?}")
}
