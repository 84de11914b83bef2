//! Hidden breakpoints, watchpoints and range steps on whole machines.
//!
//! The guest `own_text` reads, patches and executes its own text, on four vCPUs and at EL0, and
//! says what it read: the same with breakpoints on all of its functions as with none, every one of
//! which is hit as often as the function is called.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use stepwell::machine::{self, MachineOptions, Memory, QemuMachine};
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    CodeRange, Debuggee, DomainEnding, Event, Place, Refusal, StepRequest, Stop, StopReason,
    VcpuId, WatchAccess, Watchpoint, contract,
};
use stepwell_link::Link;
use stepwell_tests::guest::{Guest, LOAD, folder};
use stepwell_tests::machine::{hypervisor, launch};
use stepwell_trace::RawPolicy;

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
const LIMIT: Duration = Duration::from_secs(180);
/// Bytes of each function of `own_text`.
const FUNCTION: u64 = 128;
/// `own_text` patches the functions from this one on.
const PATCHED: u64 = 200;

/// A guest that is stopped at reset.
fn start(name: &str, cpu: &str, smp: u8) -> (QemuMachine, Link, Range<u64>) {
    let guest = Guest::named(name);
    let functions = guest.counting_loop.clone().unwrap_or_default();
    let image = std::fs::read(&guest.path).unwrap();
    let (machine, mut link) = launch(&image, cpu, smp).unwrap();
    contract::wait_for_stop(&mut link);
    (machine, link, functions)
}

/// What came of letting a guest go on.
enum Next {
    Stopped(Stop),
    /// It powered off, having said this.
    Off(String),
}

struct Session {
    link: Link,
    said: Vec<u8>,
}

impl Session {
    fn new(link: Link) -> Self {
        Self { link, said: Vec::new() }
    }

    fn go(&mut self) -> Next {
        self.link.resume(0).unwrap();
        self.next()
    }

    fn next(&mut self) -> Next {
        loop {
            match self.link.wait(LIMIT).unwrap() {
                Some(Event::Console { bytes, .. }) => self.said.extend(bytes),
                Some(Event::Stopped(stop)) => return Next::Stopped(stop),
                Some(Event::Ended { ending, .. }) => {
                    let said = String::from_utf8_lossy(&self.said).into_owned();
                    assert_eq!(ending, DomainEnding::PoweredOff, "{said}");
                    return Next::Off(said);
                }
                None => panic!("nothing for {LIMIT:?}"),
            }
        }
    }

    /// Lets the guest run to its end, and returns where it stopped on the way.
    fn run(&mut self) -> (Vec<Stop>, String) {
        let mut stops = Vec::new();
        loop {
            match self.go() {
                Next::Stopped(stop) => stops.push(stop),
                Next::Off(said) => return (stops, said),
            }
        }
    }
}

fn hide(link: &mut Link, places: impl IntoIterator<Item = u64>) -> usize {
    set(link, places.into_iter().map(|place| Place::Ipa(Ipa(place))))
}

fn set(link: &mut Link, places: impl IntoIterator<Item = Place>) -> usize {
    places.into_iter().map(|place| link.set_breakpoint(0, place).unwrap()).count()
}

fn output_without_debugger(smp: u8) -> String {
    let (_machine, link, _) = start("own_text", "cortex-a57", smp);
    let (stops, said) = Session::new(link).run();
    assert_eq!(stops, []);
    assert!(said.contains("own_text: ok"), "{said}");
    said
}

#[test]
fn a_guest_reads_the_same_with_breakpoints_that_it_does_not_execute() {
    let (_machine, mut link, functions) = start("own_text", "cortex-a57", 1);
    // What follows the return is never executed; some of it the guest loads all the same.
    let places = functions.step_by(FUNCTION as usize).flat_map(|at| [at + 16, at + 20, at + 24]);
    assert!(hide(&mut link, places) >= 600);
    let (stops, said) = Session::new(link).run();
    assert_eq!(stops, []);
    assert_eq!(said, output_without_debugger(1));
}

#[test]
fn each_breakpoint_is_hit_by_each_vcpu_as_often_as_it_comes_by() {
    is_hit_as_often_as_it_comes_by(|place| Place::Ipa(Ipa(place)));
}

/// The CPU has registers for a few. The rest follow their addresses, and one set before the guest has
/// any tables holds in those that it makes.
#[test]
fn as_many_by_virtual_address_are_hit_as_often() {
    is_hit_as_often_as_it_comes_by(|place| Place::Va(Va(place)));
}

fn is_hit_as_often_as_it_comes_by(kind: impl Fn(u64) -> Place) {
    const VCPUS: u8 = 4;
    let (_machine, mut link, functions) = start("own_text", "cortex-a57", VCPUS);
    let own_brk = functions.end;
    let places: Vec<u64> = functions.clone().step_by(FUNCTION as usize).chain([own_brk]).collect();
    assert!(set(&mut link, places.iter().map(|&place| kind(place))) > 200);
    let (stops, said) = Session::new(link).run();
    assert_eq!(said, output_without_debugger(VCPUS), "the guest notices nothing");
    let mut hits: BTreeMap<(u64, u8), usize> = BTreeMap::new();
    for stop in stops {
        assert_eq!(stop.reason, StopReason::Breakpoint);
        *hits.entry((stop.pc.0, stop.vcpu.vcpu)).or_default() += 1;
    }
    let patched = functions.start + PATCHED * FUNCTION;
    for &place in &places {
        for vcpu in 0..VCPUS {
            let expected = match (place, vcpu) {
                _ if place == own_brk => usize::from(vcpu == 0),
                (_, 0) if place >= patched => 4,
                // These two are called from EL0 as well.
                (_, 0) if place < functions.start + 2 * FUNCTION => 2,
                _ => 1,
            };
            let got = hits.get(&(place, vcpu)).copied().unwrap_or(0);
            assert_eq!(got, expected, "{place:#x} by vCPU {vcpu}");
        }
    }
}

#[test]
fn steps_heed_hidden_breakpoints_and_execute_what_is_under_them() {
    let (_machine, mut link, functions) = start("own_text", "max", 1);
    let third = functions.start + 2 * FUNCTION;
    hide(&mut link, [third, third + 4, third + 12]);
    let mut session = Session::new(link);
    for at in [third, third + 4] {
        match session.go() {
            Next::Stopped(stop) => {
                assert_eq!((stop.reason, stop.pc), (StopReason::Breakpoint, Va(at)));
            }
            Next::Off(said) => panic!("{said}"),
        }
    }
    // From a breakpoint onto none, and then into one.
    for (count, reason, steps) in [(1, StopReason::Stepped, 1), (100, StopReason::Breakpoint, 1)] {
        session.link.step(V0, StepRequest::steps(count)).unwrap();
        let Next::Stopped(stop) = session.next() else { panic!("it stops") };
        assert_eq!((stop.reason, stop.steps), (reason, steps));
    }
    for place in [third, third + 4, third + 12] {
        session.link.clear_breakpoint(0, Place::Ipa(Ipa(place))).unwrap();
    }
    let (stops, said) = session.run();
    assert_eq!(stops, []);
    assert!(said.contains("own_text: ok"), "{said}");
}

/// The guest's own debugger uses BRK, breakpoints, watchpoints and single-step.
#[test]
fn the_guests_own_debugger_works_beside_hidden_breakpoints_and_watchpoints() {
    for cpu in ["cortex-a57", "max"] {
        let (_machine, mut link, _) = start("debug_own", cpu, 1);
        // The whole image but for its head: nothing of it is executed.
        hide(&mut link, (0x4020_0010..0x4020_0040).step_by(4));
        let watchpoints = link.support_watchpoints().unwrap();
        for n in 0..6 {
            let address = Va(0x4100_0000 + 0x100 * n);
            let watchpoint = Watchpoint { address, length: 8, access: WatchAccess::ReadWrite };
            watchpoints.set_watchpoint(V0, watchpoint).unwrap();
        }
        let (stops, said) = Session::new(link).run();
        assert_eq!(stops, []);
        assert!(said.contains("debug_own: ok"), "{cpu}: {said}");
    }
}

/// A breakpoint on every word of a guest's text, each taken away when it has been hit: vectors,
/// EL0, BRKs of the guest's own and what it steps itself are all among them. (Exclusive sequences
/// are not: a stop in the middle of one makes its store fail, as any exception does.)
fn each_instruction_is_hit(name: &str) {
    const TEXT: Range<u64> = LOAD + 0x800..LOAD + 0x1d00;
    let (_machine, mut link, _) = start(name, "cortex-a57", 1);
    hide(&mut link, TEXT.step_by(4));
    let mut session = Session::new(link);
    let mut hits = 0;
    let said = loop {
        let stop = match session.go() {
            Next::Stopped(stop) => stop,
            Next::Off(said) => break said,
        };
        assert_eq!(stop.reason, StopReason::Breakpoint, "{stop:?}");
        // A second hit would find none to take away.
        session.link.clear_breakpoint(0, Place::Ipa(Ipa(stop.pc.0))).unwrap();
        hits += 1;
    };
    assert!(hits > 300, "{name}: only {hits}");
    assert!(said.contains(&format!("{name}: ok")), "{said}");
}

#[test]
fn each_instruction_of_a_guest_that_debugs_itself_is_hit() {
    each_instruction_is_hit("debug_own");
}

#[test]
fn each_instruction_of_interrupt_handlers_is_hit() {
    each_instruction_is_hit("irq_storm");
}

/// What the CPU has no registers for is watched all the same: the literals of functions, one after
/// the other, each read by every vCPU that calls the function and, in several ways, by the sum.
#[test]
fn more_watchpoints_than_the_cpu_has_are_hit() {
    let (_machine, mut link, functions) = start("own_text", "cortex-a57", 1);
    let literal = |n: u64| functions.start + n * FUNCTION + 16;
    let watchpoints = link.support_watchpoints().unwrap();
    for n in 0..12 {
        let address = Va(literal(n));
        let watchpoint = Watchpoint { address, length: 8, access: WatchAccess::Read };
        watchpoints.set_watchpoint(V0, watchpoint).unwrap();
    }
    let mut session = Session::new(link);
    let mut loads = vec![0; 12];
    let (stops, said) = session.run();
    for stop in stops {
        let StopReason::Watchpoint { address, access } = stop.reason else { panic!("{stop:?}") };
        assert_eq!(access, WatchAccess::Read);
        let n = (address.0 - functions.start) / FUNCTION;
        assert!((literal(n)..literal(n) + 8).contains(&address.0));
        if stop.pc.0 == functions.start + n * FUNCTION + 4 {
            loads[n as usize] += 1;
        }
    }
    // The first two are called from EL0, too.
    assert_eq!(loads, [2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(said, output_without_debugger(1));
}

/// QEMU 7.2 hits a watchpoint where an unaligned store behind it is in the same page.
#[test]
fn stores_beside_what_is_watched_are_no_hits() {
    const WATCHED: u64 = 0x4100_0010;
    const STORES: usize = 4;
    let code: [(u32, bool); 14] = [
        (0xd2a0_0603, false), // mov x3, #0x300000
        (0xd518_1043, false), // msr cpacr_el1, x3
        (0xd503_3fdf, false), // isb
        (0xd2a8_2000, false), // mov x0, #0x41000000
        (0xf807_1001, false), // stur x1, [x0, #0x71]
        (0xf81f_f001, false), // stur x1, [x0, #-1]
        (0xf900_0801, true),  // str x1, [x0, #0x10]
        (0xf847_1002, false), // ldur x2, [x0, #0x71]
        (0xf800_d001, true),  // stur x1, [x0, #0xd]
        (0xb800_d001, true),  // stur w1, [x0, #0xd]
        (0xa901_8401, false), // stp x1, x1, [x0, #0x18]
        (0x3c82_1000, false), // stur q0, [x0, #0x21]
        (0x3c80_1000, true),  // stur q0, [x0, #1]
        (0x1400_0000, false), // b .
    ];
    let bytes: Vec<u8> = code.iter().flat_map(|(word, _)| word.to_le_bytes()).collect();
    let at = |n: usize| contract::ENTRY.offset(4 * n as u64);
    let end = at(code.len() - 1);
    let expected: Vec<Va> = (0..code.len()).filter(|&n| code[n].1).map(at).collect();
    assert_eq!(expected.len(), STORES);
    for cpu in ["cortex-a57", "max"] {
        for stepped in [false, true] {
            let (_machine, mut link) = launch(&bytes, cpu, 1).unwrap();
            contract::wait_for_stop(&mut link);
            let watchpoint =
                Watchpoint { address: Va(WATCHED), length: 8, access: WatchAccess::ReadWrite };
            link.support_watchpoints().unwrap().set_watchpoint(V0, watchpoint).unwrap();
            link.set_breakpoint(0, Place::Va(end)).unwrap();
            let mut hits = Vec::new();
            loop {
                if stepped {
                    link.step(V0, StepRequest::steps(1000)).unwrap();
                } else {
                    link.resume(0).unwrap();
                }
                let (stop, _) = contract::wait_for_stop(&mut link);
                match stop.reason {
                    StopReason::Watchpoint { .. } => hits.push(stop.pc),
                    reason => break assert_eq!((reason, stop.pc), (StopReason::Breakpoint, end)),
                }
            }
            assert_eq!(hits, expected, "{cpu}, stepped: {stepped}");
        }
    }
}

#[test]
fn a_range_is_stepped_in_one_go() {
    let (_machine, mut link, _) = start("loop_sum", "cortex-a57", 1);
    let inside = Guest::named("loop_sum").counting_loop.unwrap();
    link.set_breakpoint(0, Place::Ipa(Ipa(inside.start))).unwrap();
    link.resume(0).unwrap();
    contract::wait_for_stop(&mut link);
    link.clear_breakpoint(0, Place::Ipa(Ipa(inside.start))).unwrap();
    let count = 1000;
    let started = Instant::now();
    for _ in 0..count {
        link.step(V0, StepRequest::steps(1)).unwrap();
        contract::wait_for_stop(&mut link);
    }
    let one_by_one = started.elapsed();
    let within = Some(CodeRange { start: Va(inside.start), end: Va(inside.end) });
    let started = Instant::now();
    link.step(V0, StepRequest { within, ..StepRequest::steps(count) }).unwrap();
    let (stop, _) = contract::wait_for_stop(&mut link);
    let at_once = started.elapsed();
    assert_eq!((stop.reason, stop.steps), (StopReason::Stepped, count));
    println!("{count} steps: {one_by_one:?} one by one, {at_once:?} as a range");
    link.step(V0, StepRequest { within, ..StepRequest::steps(u64::MAX) }).unwrap();
    let (stop, _) = contract::wait_for_stop(&mut link);
    assert_eq!((stop.reason, stop.pc), (StopReason::LeftRange, Va(inside.end)));
}

/// Each page with a breakpoint takes a page of EL2's memory, which ends: the one that does not fit
/// is refused, and everything else goes on.
#[test]
fn what_no_memory_is_left_for_is_refused() {
    let (_machine, mut link, _) = start("own_text", "cortex-a57", 1);
    let place = |n: u64| Place::Ipa(Ipa(0x4080_0000 + 0x1000 * n));
    let mut fit = 0;
    let refused = loop {
        match link.set_breakpoint(0, place(fit)) {
            Ok(()) => fit += 1,
            Err(error) => break error.refusal(),
        }
        assert!(fit < 10_000, "there is no end");
    };
    assert_eq!(refused, Some(Refusal::NoMemory));
    println!("{fit} pages have breakpoints");
    assert!(fit > 1000, "only {fit}");
    link.clear_breakpoint(0, place(7)).unwrap();
    link.set_breakpoint(0, place(fit)).unwrap();
    let (stops, said) = Session::new(link).run();
    assert_eq!(stops, []);
    assert!(said.contains("own_text: ok"), "{said}");
}

/// Two vCPUs count by exclusives, with breakpoints between a load and its store, and on the store.
#[test]
fn a_breakpoint_within_an_exclusive_sequence_lets_it_get_on() {
    const ROUNDS: u64 = 20;
    let (_machine, mut link, _) = start("hammer", "cortex-a57", 2);
    let symbols = std::fs::read(Guest::named("hammer").path.with_extension("elf")).unwrap();
    let symbols = stepwell_trace::symbols::elf::from_elf(&symbols).unwrap();
    let counters = symbols.address_of("hammer_counters").unwrap().0;
    // Its first four instructions: add x9; ldxrb w2, [x9]; add w2; stxrb w3, w2, [x9].
    let (add, store) = (counters + 8, counters + 12);
    assert_eq!(hide(&mut link, [add, store]), 2);
    let mut session = Session::new(link);
    let stop_at = |session: &mut Session, place| match session.go() {
        Next::Stopped(stop) => {
            assert_eq!((stop.reason, stop.pc.0), (StopReason::Breakpoint, place));
            stop.vcpu
        }
        Next::Off(said) => panic!("{said}"),
    };
    for round in 0..ROUNDS {
        let vcpu = stop_at(&mut session, add);
        let loaded = session.link.read_registers(vcpu).unwrap().x[2];
        assert_eq!(loaded, round, "each time it goes on, one store succeeds");
        if round % 2 == 0 {
            // As GDB gets off a breakpoint.
            session.link.step(vcpu, StepRequest::steps(1)).unwrap();
            assert!(matches!(session.next(), Next::Stopped(stop) if stop.pc.0 == store));
        } else {
            assert_eq!(stop_at(&mut session, store), vcpu, "nobody else is in the sequence");
        }
    }
    for place in [add, store] {
        session.link.clear_breakpoint(0, Place::Ipa(Ipa(place))).unwrap();
    }
    let (stops, said) = session.run();
    assert_eq!(stops, []);
    assert!(said.contains("hammer: ok"), "every total is right: {said}");
}

/// Shapes of watchpoints on `hammer`'s counters, which lie 16 bytes apart: offset, bytes, accesses.
/// Few of which the CPU has registers for, more than it has, and what no register can hold.
const SHAPES: [&[(u64, u64, WatchAccess)]; 5] = [
    &[(32, 4, WatchAccess::Write)],
    &[(48, 8, WatchAccess::ReadWrite)],
    &[(16, 2, WatchAccess::Write), (32, 4, WatchAccess::Write), (64, 8, WatchAccess::Write)],
    &[(24, 24, WatchAccess::Write)],
    &[
        (0, 1, WatchAccess::ReadWrite),
        (16, 2, WatchAccess::Write),
        (32, 4, WatchAccess::Write),
        (48, 8, WatchAccess::Write),
        (64, 8, WatchAccess::Write),
        (80, 16, WatchAccess::Write),
        // Never accessed, beside what is.
        (192, 40, WatchAccess::ReadWrite),
    ],
];

/// A store-exclusive to a watched word stops once, and then succeeds, however it is gone on from there;
/// and those to words beside it, in a page that is withheld for them, succeed as well.
#[test]
fn exclusives_get_on_under_watchpoints_of_every_shape() {
    for smp in [1, 2] {
        let (_machine, mut link, _) = start("hammer", "cortex-a57", smp);
        let symbols = std::fs::read(Guest::named("hammer").path.with_extension("elf")).unwrap();
        let symbols = stepwell_trace::symbols::elf::from_elf(&symbols).unwrap();
        let counters = symbols.address_of("hammer_counters").unwrap().0;
        hide(&mut link, [counters]);
        let mut session = Session::new(link);
        let Next::Stopped(stop) = session.go() else { panic!("it counts") };
        let shared = session.link.read_registers(stop.vcpu).unwrap().x[0];
        session.link.clear_breakpoint(0, Place::Ipa(Ipa(counters))).unwrap();
        for shape in SHAPES {
            let watchpoints = shape.iter().map(|&(offset, length, access)| Watchpoint {
                address: Va(shared + offset),
                length,
                access,
            });
            for watchpoint in watchpoints.clone() {
                let ability = session.link.support_watchpoints().unwrap();
                ability.set_watchpoint(stop.vcpu, watchpoint).unwrap();
            }
            each_store_counts(&mut session, shared);
            for watchpoint in watchpoints {
                let ability = session.link.support_watchpoints().unwrap();
                ability.clear_watchpoint(0, watchpoint).unwrap();
            }
        }
        let (stops, said) = session.run();
        assert_eq!(stops, []);
        assert!(said.contains("hammer: ok"), "{smp}: {said}");
    }
}

/// Goes on from stop to stop, by continuing and by steps, and looks that each store stops once.
fn each_store_counts(session: &mut Session, shared: u64) {
    const STOPS: usize = 24;
    let mut before: BTreeMap<u64, u8> = BTreeMap::new();
    for n in 0..STOPS {
        let Next::Stopped(stop) = session.go() else { panic!("it goes on counting") };
        let StopReason::Watchpoint { address, access } = stop.reason else { panic!("{stop:?}") };
        let counter = (address.0 - shared) / 16 * 16;
        let value = |session: &mut Session| {
            let mut byte = [0];
            let place = Place::Va(Va(shared + counter));
            session.link.read_memory(stop.vcpu, place, &mut byte).unwrap();
            byte[0]
        };
        if access == WatchAccess::Read {
            continue;
        }
        let now = value(session);
        if let Some(before) = before.insert(counter, now) {
            assert_eq!(now, before.wrapping_add(1), "stop {n} at {stop:?}");
        }
        if n % 3 == 0 {
            // As GDB looks whether the value is another.
            session.link.step(stop.vcpu, StepRequest::steps(1)).unwrap();
            assert!(matches!(session.next(), Next::Stopped(after) if after.steps == 1));
            assert_eq!(value(session), now.wrapping_add(1), "its store has succeeded");
        }
    }
}

fn debian(smp: u8) -> (QemuMachine, Link) {
    let kernel = folder().join("debian/vmlinuz");
    let guest = machine::Guest::read(&kernel, RawPolicy::Accept).unwrap();
    let mut guest = guest.with_initrd(&folder().join("debian/initramfs.cpio.gz")).unwrap();
    guest.command_line = "console=ttyAMA0 stepwell.poweroff".into();
    let options = MachineOptions {
        smp,
        memory: Memory { bytes: 512 << 20 },
        cpu: "cortex-a57".into(),
        hypervisor: Some(hypervisor()),
        qemu: stepwell_tests::process::qemu(),
        ..MachineOptions::default()
    };
    let (machine, mut link) = QemuMachine::launch(&options, &guest).unwrap();
    contract::wait_for_stop(&mut link);
    (machine, link)
}

/// 200 pages of the kernel's text have a breakpoint from reset on: before it has moved itself,
/// patched its alternatives, or switched its other CPUs on.
#[test]
fn debian_boots_with_breakpoints_all_over_its_text() {
    const PAGES: u64 = 200;
    /// After so many hits a breakpoint is taken away: some are where the kernel always is.
    const HITS: usize = 20;
    let (_machine, mut link) = debian(4);
    let places = (0..PAGES).map(|n| LOAD + 0x1_0000 + n * 0xc000 + ((n * 0x9e4) & 0xffc));
    hide(&mut link, places.clone());
    let mut session = Session::new(link);
    let mut hits: BTreeMap<u64, usize> = BTreeMap::new();
    let said = loop {
        let stop = match session.go() {
            Next::Stopped(stop) => stop,
            Next::Off(said) => break said,
        };
        assert_eq!(stop.reason, StopReason::Breakpoint, "{stop:?}");
        let ipa = session.link.translate(stop.vcpu, stop.pc).unwrap();
        assert!(places.clone().any(|place| place == ipa.0), "{stop:?} is none of ours");
        let mut word = [0; 4];
        session.link.read_memory(stop.vcpu, Place::Va(stop.pc), &mut word).unwrap();
        assert_ne!(u32::from_le_bytes(word) & 0xffe0_001f, 0xd420_0000, "a BRK at {stop:?}");
        let count = hits.entry(ipa.0).or_default();
        *count += 1;
        if *count == HITS {
            session.link.clear_breakpoint(0, Place::Ipa(ipa)).unwrap();
        }
    };
    assert!(hits.len() > 5, "only {hits:x?}");
    assert!(said.contains("stepwell-demo: shell is up"), "{said}");
    for trouble in ["Kernel panic", "rcu: INFO", "stall", "lockup", "Oops", "BUG:"] {
        assert!(!said.contains(trouble), "{trouble}: {said}");
    }
}

/// Loads and stores of a page with a breakpoint come to EL2, which clears the CPU's monitor: an
/// exclusive sequence with one in it has to end all the same, in a guest that only runs.
#[test]
fn a_sequence_that_reads_a_page_with_a_breakpoint_ends() {
    /// From a load-exclusive of `[x1]` to its store, with something about `[x3]` in between.
    const fn sequence(between: u32) -> [u32; 4] {
        // ldxr x0, [x1]; …; stxr w4, x0, [x1]; cbnz w4, to the load
        [0xc85f_7c20, between, 0xc804_7c20, 0x35ff_ffa4]
    }
    const BEGIN: [u32; 7] = [
        0xd2a0_0600, // mov  x0, #0x300000
        0xd518_1040, // msr  cpacr_el1, x0
        0xd503_3fdf, // isb
        0xd284_0001, // mov  x1, #0x2000
        0xf2a8_0101, // movk x1, #0x4008, lsl #16
        0xd282_0003, // mov  x3, #0x1000
        0xf2a8_0103, // movk x3, #0x4008, lsl #16
    ];
    const OFF: [u32; 4] = [0x5280_0100, 0x72b0_8000, 0xd400_0002, 0x1400_0000];
    let between = [
        0xf940_0062, // ldr  x2, [x3]: carried out at EL2
        0x3dc0_0062, // ldr  q2, [x3]: by the CPU
        0xf900_2062, // str  x2, [x3, #64]
        0xd538_0402, // mrs  x2, id_aa64pfr0_el1
    ];
    let words = BEGIN.into_iter().chain(between.into_iter().flat_map(sequence)).chain(OFF);
    let code: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    for cpu in ["cortex-a57", "max"] {
        let (_machine, mut link) = launch(&code, cpu, 1).unwrap();
        contract::wait_for_stop(&mut link);
        assert_eq!(hide(&mut link, [0x4008_1ffc]), 1);
        let (stops, _) = Session::new(link).run();
        assert_eq!(stops, [], "{cpu}");
    }
}
