//! The guest's own breakpoints, watchpoints and steps, in random programs: as the manual has them,
//! whether the guest runs or is stepped, and with a breakpoint of the debugger's in its page.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_debuggee::{
    Debuggee, Event, InterruptPolicy, Monitor, Place, StepRequest, Stop, StopReason, VcpuId,
};
use stepwell_link::Link;
use stepwell_tests::guest::Guest;
use stepwell_tests::machine::launch;
use stepwell_tests::own_debug::program::{EVENTS_MAX, LOG, PAGE};
use stepwell_tests::own_debug::{self, Log, Program, TABLE, expected};

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
const LIMIT: Duration = Duration::from_secs(240);
/// Programs of one boot.
const PROGRAMS: usize = 250;

/// Programs that come to an end, and what that is.
fn programs(seed: u64) -> Vec<(Program, Log)> {
    let mut programs = Vec::new();
    let mut next = 0;
    while programs.len() < PROGRAMS {
        // Each is made for its place in the table.
        let program = Program::new(seed.wrapping_add(next << 32), programs.len() as u64);
        next += 1;
        if let Some(log) = expected(&program) {
            programs.push((program, log));
        }
    }
    programs
}

fn wait(link: &mut Link) -> Stop {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        match link.wait(Duration::from_millis(100)).unwrap() {
            Some(Event::Stopped(stop)) => return stop,
            Some(Event::Ended { ending, .. }) => panic!("the guest ended: {ending:?}"),
            Some(Event::Console { .. }) | None => {}
        }
    }
    panic!("the programs do not come to an end");
}

fn write_table(link: &mut Link, programs: &[(Program, Log)]) {
    let programs: Vec<_> = programs.iter().map(|(program, _)| program.clone()).collect();
    for (n, part) in own_debug::table(&programs).chunks(PAGE as usize).enumerate() {
        link.write_memory(V0, Place::Ipa(Ipa(TABLE + PAGE * n as u64)), part).unwrap();
    }
}

fn words(link: &mut Link, address: u64, count: usize) -> Vec<u64> {
    let mut bytes = vec![0; 8 * count];
    link.read_memory(V0, Place::Ipa(Ipa(address)), &mut bytes).unwrap();
    bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

fn read_log(link: &mut Link, program: &Program) -> Log {
    let head = words(link, program.page + LOG, 2);
    let count = (head[0] as usize).min(EVENTS_MAX);
    let events = words(link, program.page + LOG + 16, 4 * count);
    let events = events.chunks(4).map(|event| own_debug::Event {
        esr: event[0],
        elr: event[1],
        spsr: event[2],
        far: vec![event[3]],
        open: 0,
    });
    Log { events: events.collect(), counted: head[1] }
}

/// Says where a log is not what it should be.
fn difference(program: &Program, right: &Log, logged: &Log) -> Option<String> {
    let both = right.events.iter().zip(&logged.events);
    let is_same = right.events.len() == logged.events.len()
        && right.counted == logged.counted
        && both.clone().all(|(right, logged)| right.allows(logged));
    if is_same {
        return None;
    }
    let at = both.take_while(|(right, logged)| right.allows(logged)).count();
    Some(format!(
        "exception {at}: {:#x?}, and not {:#x?}; counted {}, and not {}, in {program:#x?}",
        logged.events.get(at),
        right.events.get(at),
        logged.counted,
        right.counted
    ))
}

fn compare(link: &mut Link, way: &str, programs: &[(Program, Log)]) {
    let wrong: Vec<_> = programs
        .iter()
        .filter_map(|(program, right)| difference(program, right, &read_log(link, program)))
        .collect();
    let first = wrong.first().map(String::as_str).unwrap_or_default();
    assert!(wrong.is_empty(), "{way}: {} of {}, first: {first}", wrong.len(), programs.len());
}

/// Begins anew at the first program.
fn again(link: &mut Link, programs: &[(Program, Log)]) {
    let again = words(link, TABLE + 8, 1)[0];
    write_table(link, programs);
    let mut registers = link.read_registers(V0).unwrap();
    registers.pc = again;
    link.write_registers(V0, &registers).unwrap();
}

/// Switches the guest's virtual timer on, which is due at once, or off.
fn set_timer(link: &mut Link, control: u64) {
    let registers = link.support_system_registers().unwrap();
    for (register, value) in
        [(SystemRegister::CNTV_CVAL_EL0, 0), (SystemRegister::CNTV_CTL_EL0, control)]
    {
        registers.write_system_register(V0, register.0, value).unwrap();
    }
}

fn holds(cpu: &str, seed: u64) {
    let programs = programs(seed);
    let exceptions: usize = programs.iter().map(|(_, log)| log.events.len()).sum();
    println!("{cpu}, seed {seed}: {exceptions} exceptions");
    let image = fs::read(Guest::named("own_debug").path).unwrap();
    let (_machine, mut link) = launch(&image, cpu, 1).unwrap();
    wait(&mut link);
    write_table(&mut link, &programs);
    link.support_monitors().unwrap().set_monitor(0, None, Monitor::PrivilegedCall, true).unwrap();
    let is_end = |stop: Stop| matches!(stop.reason, StopReason::PrivilegedCall { .. });
    link.resume(0).unwrap();
    assert!(is_end(wait(&mut link)));
    compare(&mut link, "running", &programs);
    again(&mut link, &programs);
    set_timer(&mut link, 1);
    link.resume(0).unwrap();
    assert!(is_end(wait(&mut link)));
    compare(&mut link, "running, with its timer's interrupt pending", &programs);
    set_timer(&mut link, 0);
    again(&mut link, &programs);
    link.support_interrupts().unwrap().set_interrupt_policy(0, InterruptPolicy::Hold).unwrap();
    link.step(V0, StepRequest::steps(u64::MAX)).unwrap();
    assert!(is_end(wait(&mut link)));
    compare(&mut link, "stepped", &programs);
    again(&mut link, &programs);
    // Nobody comes there; the pages of programs are withheld for it.
    for (program, _) in programs.iter().step_by(2) {
        let place = Place::Ipa(Ipa(program.page + PAGE - 4));
        link.set_breakpoint(0, place).unwrap();
    }
    // With these the CPU has too few registers where a program has all of its own on.
    for n in 0..4 {
        link.set_breakpoint(0, Place::Va(Va(TABLE + 4 * n))).unwrap();
    }
    link.resume(0).unwrap();
    assert!(is_end(wait(&mut link)));
    compare(&mut link, "running, with breakpoints of the debugger's", &programs);
}

#[test]
fn programs_that_debug_themselves_have_the_manuals_exceptions() {
    holds("cortex-a57", 1);
}

#[test]
fn on_another_cpu_with_a_seed_that_nobody_has_seen() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    holds("max", now);
}

/// The comparison must be able to fail.
#[test]
fn a_log_with_a_stale_syndrome_is_found() {
    let programs = programs(1);
    let (program, right) = programs.iter().find(|(_, log)| log.events.len() > 3).unwrap();
    assert_eq!(difference(program, right, right), None);
    let mut wrong = right.clone();
    wrong.events[1].esr ^= 1 << 24;
    wrong.events[2].elr += 4;
    assert!(difference(program, right, &wrong).unwrap().contains("exception "));
}
