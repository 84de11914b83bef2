//! Going back and forth in a run of the fake debuggee, with its checkpoints and without.

mod beginning;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{
    Checkpoint, Debuggee, Edge, Error, Event, Moment, Place, Refusal, Registers, Reverse,
    StateHash, StepRequest, Stop, StopReason, TimeTravel, Trace, VcpuId, VcpuStatus, WatchAccess,
    Watchpoint, Watchpoints, contract,
};
use stepwell_replay::log::{Entry, Reader, Writer};
use stepwell_replay::script::Happening;
use stepwell_replay::{Keeping, Machine, Navigator, Script};

/// `add x1, x1, #1`, `str x1, [x0]`, `nop`, and back, eight times; then the same without the store.
const GUEST: [u32; 10] = [
    0xd2a8_2000, // 00  mov  x0, #0x41000000
    0xd280_0102, // 04  mov  x2, #8
    0x9100_0421, // 08  add  x1, x1, #1
    0xf900_0001, // 0c  str  x1, [x0]
    0xd100_0442, // 10  sub  x2, x2, #1
    0xb5ff_ffa2, // 14  cbnz x2, 0x08
    0x9100_0421, // 18  add  x1, x1, #1
    0xd503_201f, // 1c  nop
    0x9100_0463, // 20  add  x3, x3, #1
    0x17ff_fffd, // 24  b    0x18
];
const END: u64 = 100_000;
const STORE: u64 = contract::ENTRY.0 + 0xc;
const ENDLESS: u64 = contract::ENTRY.0 + 0x18;
/// What is executed before the endless loop.
const BEFORE: u64 = 2 + 8 * 4;
const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };

fn fake() -> Fake {
    Fake::new(&GUEST.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
}

/// The fake as it is.
struct Again(Fake);

impl Machine for Again {
    fn debuggee(&mut self) -> &mut dyn Debuggee {
        &mut self.0
    }
    fn restart(&mut self) -> Result<(), Error> {
        panic!("it has a checkpoint of its beginning")
    }
}

/// The fake as something that keeps no moments.
struct Anew {
    below: Forgetful,
    restarts: u32,
}

impl Machine for Anew {
    fn debuggee(&mut self) -> &mut dyn Debuggee {
        &mut self.below
    }
    fn restart(&mut self) -> Result<(), Error> {
        self.restarts += 1;
        self.below = Forgetful(fake());
        Ok(())
    }
}

struct Forgetful(Fake);

impl Debuggee for Forgetful {
    fn vcpu_counts(&self) -> &[u8] {
        self.0.vcpu_counts()
    }
    fn status(&mut self, domain: u8) -> Result<Vec<VcpuStatus>, Error> {
        self.0.status(domain)
    }
    fn pause(&mut self, domain: u8) -> Result<(), Error> {
        self.0.pause(domain)
    }
    fn resume(&mut self, domain: u8) -> Result<(), Error> {
        self.0.resume(domain)
    }
    fn resume_only(&mut self, vcpu: VcpuId) -> Result<(), Error> {
        self.0.resume_only(vcpu)
    }
    fn step(&mut self, vcpu: VcpuId, request: StepRequest) -> Result<(), Error> {
        self.0.step(vcpu, request)
    }
    fn wait(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.0.wait(timeout)
    }
    fn read_registers(&mut self, vcpu: VcpuId) -> Result<Registers, Error> {
        self.0.read_registers(vcpu)
    }
    fn write_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<(), Error> {
        self.0.write_registers(vcpu, registers)
    }
    fn read_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.read_memory(vcpu, place, bytes)
    }
    fn write_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &[u8]) -> Result<(), Error> {
        self.0.write_memory(vcpu, place, bytes)
    }
    fn translate(&mut self, vcpu: VcpuId, va: Va) -> Result<Ipa, Error> {
        self.0.translate(vcpu, va)
    }
    fn set_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        self.0.set_breakpoint(domain, place)
    }
    fn clear_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        self.0.clear_breakpoint(domain, place)
    }
    fn support_watchpoints(&mut self) -> Option<&mut dyn Watchpoints> {
        self.0.support_watchpoints()
    }
    fn support_trace(&mut self) -> Option<&mut dyn Trace> {
        self.0.support_trace()
    }
    fn support_time_travel(&mut self) -> Option<&mut dyn TimeTravel> {
        Some(self)
    }
}

impl TimeTravel for Forgetful {
    fn moment(&mut self, domain: u8) -> Result<Moment, Error> {
        self.0.moment(domain)
    }
    fn run_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        self.0.run_until(domain, moment)
    }
    fn run_until_turn(&mut self, vcpu: VcpuId, moment: Moment) -> Result<(), Error> {
        self.0.run_until_turn(vcpu, moment)
    }
    fn executed(&mut self, domain: u8) -> Result<Vec<u64>, Error> {
        self.0.executed(domain)
    }
    fn record_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        self.0.record_until(domain, moment)
    }
    fn state_hash(&mut self, domain: u8) -> Result<StateHash, Error> {
        self.0.state_hash(domain)
    }
    fn fork(&mut self, domain: u8) -> Result<(), Error> {
        self.0.fork(domain)
    }
}

fn script(entries: &[Entry]) -> Script {
    let mut bytes = Vec::new();
    let mut log = Writer::new(&mut bytes, &beginning::header()).expect("memory takes it");
    entries.iter().for_each(|entry| log.add(entry).expect("memory takes it"));
    Script::read(Reader::new(bytes.as_slice()).expect("it is one")).expect("it is whole")
}

fn moment(position: u64) -> Moment {
    Moment { position, clock: position }
}

/// Something is typed in the middle, and the run is left at its end.
fn run() -> Script {
    let end = moment(END);
    let Moment { position, clock } = end;
    script(&[Entry::input(moment(1000), b"ls\n"), Entry::Left { position, clock }])
}

const FEW: Keeping = Keeping { most: 8, spacing: 5_000 };

/// Does the same with both machines.
fn with_both(check: fn(&mut Navigator<'_>)) {
    check(&mut Navigator::new(&mut Again(fake()), run(), FEW));
    let mut anew = Anew { below: Forgetful(fake()), restarts: 0 };
    check(&mut Navigator::new(&mut anew, run(), FEW));
}

fn stop(navigator: &mut Navigator<'_>) -> Stop {
    let begun = Instant::now();
    loop {
        match navigator.wait(Duration::from_millis(10)).expect("it is there") {
            Some(Event::Stopped(stop)) => return stop,
            Some(Event::Ended { ending, .. }) => panic!("it does not end: {ending:?}"),
            _ => assert!(begun.elapsed() < Duration::from_secs(60), "it never stops"),
        }
    }
}

fn position(navigator: &mut Navigator<'_>) -> u64 {
    navigator.moment(0).expect("it is stopped").position
}

fn go_to(navigator: &mut Navigator<'_>, to: u64) -> StateHash {
    navigator.go_to(0, Moment::at(to)).expect("it is stopped");
    assert_eq!(stop(navigator).reason, StopReason::Reached);
    assert_eq!(position(navigator), to);
    navigator.state_hash(0).expect("it is stopped")
}

#[test]
fn a_moment_is_one_state_from_either_side() {
    with_both(|navigator| {
        assert_eq!(stop(navigator).reason, StopReason::Reset);
        assert_eq!(navigator.edge(0).expect("it is stopped"), Some(Edge::Begin));
        let forwards: Vec<StateHash> =
            [0, 10, 999, 1000, 30_000, END].map(|at| go_to(navigator, at)).to_vec();
        assert_eq!(navigator.edge(0).expect("it is stopped"), Some(Edge::End));
        let mut back: Vec<StateHash> =
            [END, 30_000, 1000, 999, 10, 0].map(|at| go_to(navigator, at)).to_vec();
        back.reverse();
        assert_eq!(back, forwards);
        assert_ne!(forwards[2], forwards[3], "something was typed there");
        assert_eq!(go_to(navigator, 30_000), forwards[4], "and across");
    });
}

#[test]
fn it_goes_no_further_than_it_was_recorded() {
    with_both(|navigator| {
        stop(navigator);
        navigator.go_to(0, Moment::at(u64::MAX)).expect("it is stopped");
        assert_eq!(stop(navigator).reason, StopReason::Reached);
        assert_eq!(position(navigator), END);
        navigator.resume(0).expect("it is stopped");
        assert_eq!(stop(navigator).reason, StopReason::Reached, "it stays");
        navigator.step(V0, StepRequest::steps(1)).expect("it is stopped");
        assert_eq!((stop(navigator).steps, position(navigator)), (0, END));
        go_to(navigator, 0);
        navigator.step_back(V0, 1).expect("it is stopped");
        assert_eq!((stop(navigator).reason, position(navigator)), (StopReason::Reached, 0));
        navigator.continue_back(0).expect("it is stopped");
        assert_eq!((stop(navigator).reason, position(navigator)), (StopReason::Reached, 0));
    });
}

#[test]
fn steps_go_both_ways() {
    with_both(|navigator| {
        stop(navigator);
        let here = go_to(navigator, 20_000);
        for (count, at) in [(1, 19_999), (1, 19_998), (500, 19_498)] {
            navigator.step_back(V0, count).expect("it is stopped");
            let stop = stop(navigator);
            assert_eq!((stop.reason, stop.steps), (StopReason::Stepped, count));
            assert_eq!(position(navigator), at);
        }
        navigator.step(V0, StepRequest::steps(502)).expect("it is stopped");
        assert_eq!(stop(navigator).steps, 502);
        assert_eq!(navigator.state_hash(0).expect("it is stopped"), here);
        // More than there are lead to the beginning.
        navigator.step_back(V0, 20_001).expect("it is stopped");
        assert_eq!((stop(navigator).reason, position(navigator)), (StopReason::Reached, 0));
    });
}

#[test]
fn the_last_breakpoint_is_found() {
    with_both(|navigator| {
        stop(navigator);
        go_to(navigator, END);
        let place = Place::Va(Va(STORE));
        navigator.set_breakpoint(0, place).expect("it is RAM");
        // Each round stores at its second instruction.
        for round in (0..8).rev() {
            navigator.continue_back(0).expect("it is stopped");
            let stop = stop(navigator);
            assert_eq!((stop.reason, stop.pc), (StopReason::Breakpoint, Va(STORE)));
            assert_eq!(position(navigator), 2 + 4 * round + 1);
        }
        navigator.continue_back(0).expect("it is stopped");
        assert_eq!((stop(navigator).reason, position(navigator)), (StopReason::Reached, 0));
        // Forwards it meets all of them again, the one that it is at but once.
        for round in 0..8 {
            navigator.resume(0).expect("it is stopped");
            assert_eq!(stop(navigator).reason, StopReason::Breakpoint);
            assert_eq!(position(navigator), 2 + 4 * round + 1);
        }
        navigator.clear_breakpoint(0, place).expect("it is set");
        navigator.resume(0).expect("it is stopped");
        assert_eq!((stop(navigator).reason, position(navigator)), (StopReason::Reached, END));
    });
}

#[test]
fn a_breakpoint_that_is_met_all_the_time_is_found_near() {
    with_both(|navigator| {
        stop(navigator);
        go_to(navigator, END);
        navigator.set_breakpoint(0, Place::Va(Va(ENDLESS))).expect("it is RAM");
        // The loop has four instructions.
        let last = END - 1 - (END - 1 - BEFORE) % 4;
        for n in 0..2 {
            navigator.continue_back(0).expect("it is stopped");
            assert_eq!(stop(navigator).reason, StopReason::Breakpoint);
            assert_eq!(position(navigator), last - 4 * n);
        }
    });
}

#[test]
fn the_last_store_is_found() {
    with_both(|navigator| {
        stop(navigator);
        go_to(navigator, END);
        let scratch = Va(contract::SCRATCH.0);
        let written = Watchpoint { address: scratch, length: 8, access: WatchAccess::Write };
        navigator.set_breakpoint(0, Place::Va(Va(ENDLESS))).expect("it is RAM");
        navigator.last_access(V0, written).expect("it is stopped");
        let found = stop(navigator);
        let access = WatchAccess::Write;
        assert_eq!(found.reason, StopReason::Watchpoint { address: scratch, access });
        assert_eq!((found.pc, position(navigator)), (Va(STORE), 2 + 4 * 7 + 1));
        // The breakpoint was not in the way, and is there again.
        navigator.resume(0).expect("it is stopped");
        assert_eq!(stop(navigator).reason, StopReason::Breakpoint);
        navigator.clear_breakpoint(0, Place::Va(Va(ENDLESS))).expect("it is set");
        // As a watchpoint of the user's, too.
        navigator.set_watchpoint(V0, written).expect("it is RAM");
        navigator.continue_back(0).expect("it is stopped");
        assert_eq!(stop(navigator).reason, found.reason);
        navigator.continue_back(0).expect("it is stopped");
        assert_eq!(stop(navigator).reason, found.reason);
        assert_eq!(position(navigator), 2 + 4 * 6 + 1);
        // Come to by a step, it is told before it happens; told of, it happens.
        go_to(navigator, 2 + 4 * 6);
        navigator.step(V0, StepRequest::steps(1)).expect("it is stopped");
        assert_eq!(stop(navigator).reason, StopReason::Stepped);
        for round in 6..8 {
            navigator.resume(0).expect("it is stopped");
            assert_eq!(stop(navigator).reason, found.reason);
            assert_eq!(position(navigator), 2 + 4 * round + 1);
        }
        let elsewhere = Watchpoint { address: Va(scratch.0 + 64), ..written };
        navigator.last_access(V0, elsewhere).expect("it is stopped");
        assert_eq!((stop(navigator).reason, position(navigator)), (StopReason::Reached, 0));
    });
}

#[test]
fn nothing_changes_a_replay_but_a_fork() {
    with_both(|navigator| {
        stop(navigator);
        let before = go_to(navigator, 5000);
        let registers = navigator.read_registers(V0).expect("it is stopped");
        let place = Place::Va(Va(contract::SCRATCH.0));
        let refused = [
            navigator.write_registers(V0, &registers),
            navigator.write_memory(V0, place, &[1]),
            navigator.resume_only(V0),
            navigator.support_console().expect("it has one").type_bytes(0, b"x").map(drop),
        ];
        for result in refused {
            let refusal = result.expect_err("it would be another run").refusal();
            assert_eq!(refusal, Some(Refusal::WouldDiverge));
        }
        navigator.fork(0).expect("it is stopped");
        navigator.write_memory(V0, place, &[0xee]).expect("it is another run now");
        navigator.step(V0, StepRequest::steps(4)).expect("it is stopped");
        assert_eq!((stop(navigator).steps, position(navigator)), (4, 5004));
        assert_eq!(go_to(navigator, 5000), before, "the recorded one is still there");
        let refused = navigator.write_memory(V0, place, &[1]).expect_err("it is that one again");
        assert_eq!(refused.refusal(), Some(Refusal::WouldDiverge));
    });
}

#[test]
fn a_state_that_differs_is_told() {
    let other = StateHash { registers: 1, memory: 2 };
    let Moment { position, clock } = moment(END);
    let script = script(&[Entry::state(moment(40), other), Entry::Left { position, clock }]);
    let mut again = Again(fake());
    let mut navigator = Navigator::new(&mut again, script, FEW);
    stop(&mut navigator);
    navigator.resume(0).expect("it is stopped");
    let error = loop {
        match navigator.wait(Duration::from_millis(10)) {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("position 40") && error.contains("was 0000000000000001-"), "{error}");
}

/// In the recorded run all its vCPUs waited there.
#[test]
fn a_guest_that_does_not_wait_is_told() {
    let seen = Moment { position: 40, clock: 45 };
    let state = Entry::state(seen, StateHash { registers: 1, memory: 2 });
    let script = script(&[state, Entry::Left { position: END, clock: END + 5 }]);
    for is_recorded in [false, true] {
        let mut again = Again(fake());
        let mut navigator = Navigator::new(&mut again, script.clone(), FEW);
        stop(&mut navigator);
        match is_recorded {
            false => navigator.resume(0).expect("it is stopped"),
            true => navigator.record_until(0, Moment::at(1000)).expect("it is stopped"),
        }
        let begun = Instant::now();
        let error = loop {
            match navigator.wait(Duration::from_millis(10)) {
                Ok(_) => assert!(begun.elapsed() < Duration::from_secs(60), "it goes nowhere"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("it was position 40, clock 45 when it was looked at"), "{error}");
    }
}

#[test]
fn a_guest_that_ended_is_left_before_its_last_instruction() {
    let ended = Entry::Ended { position: 24, clock: 24, how: "powered off".into() };
    let mut fake = Again(Fake::new(&contract::guest_bytes()));
    let mut navigator = Navigator::new(&mut fake, script(&[ended]), FEW);
    stop(&mut navigator);
    navigator.resume(0).expect("it is stopped");
    assert_eq!(stop(&mut navigator).reason, StopReason::Reached);
    assert_eq!(position(&mut navigator), 23);
    navigator.step_back(V0, 3).expect("it is stopped");
    stop(&mut navigator);
    assert_eq!(position(&mut navigator), 20);
}

#[test]
fn a_moment_with_a_name_is_come_back_to() {
    with_both(|navigator| {
        stop(navigator);
        let seen = go_to(navigator, 12_345);
        navigator.take_snapshot(0, "here").expect("it is stopped");
        go_to(navigator, 60_000);
        navigator.go_to_snapshot(0, "here").expect("it is known");
        assert_eq!(stop(navigator).reason, StopReason::Reached);
        assert_eq!(position(navigator), 12_345);
        assert_eq!(navigator.state_hash(0).expect("it is stopped"), seen);
        let unknown = navigator.go_to_snapshot(0, "there").expect_err("nobody knows it");
        assert_eq!(unknown.refusal(), Some(Refusal::NoSuchCheckpoint));
        // The name can be given once more.
        go_to(navigator, 100);
        navigator.take_snapshot(0, "here").expect("it is stopped");
        let [only] = &navigator.snapshots()[..] else { panic!("one name, one moment") };
        assert_eq!((only.name.as_str(), only.moment.position), ("here", 100));
    });
}

#[test]
fn a_moment_of_a_fork_is_come_back_to_from_the_recorded_run() {
    let mut again = Again(fake());
    let mut navigator = Navigator::new(&mut again, run(), FEW);
    stop(&mut navigator);
    let before = go_to(&mut navigator, 5000);
    navigator.fork(0).expect("it is stopped");
    let place = Place::Va(Va(contract::SCRATCH.0));
    navigator.write_memory(V0, place, &[0xee]).expect("it is another run now");
    navigator.take_snapshot(0, "other").expect("it can be kept");
    let other = navigator.state_hash(0).expect("it is stopped");
    assert_eq!(go_to(&mut navigator, 5000), before, "the recorded one");
    navigator.go_to_snapshot(0, "other").expect("it is known");
    stop(&mut navigator);
    assert_eq!(navigator.state_hash(0).expect("it is stopped"), other);
    navigator.write_memory(V0, place, &[0xef]).expect("it is of the other run");
    assert!(navigator.snapshots()[0].is_of_fork);
}

/// Records while it goes back and forth, and is typed at.
#[test]
fn a_run_is_recorded_while_it_is_gone_back_in() {
    const STATES: u64 = 30_000;
    let mut bytes = Vec::new();
    let log = Writer::new(&mut bytes, &beginning::header()).expect("memory takes it");
    let mut again = Again(fake());
    let header = beginning::header();
    let mut navigator = Navigator::recording(&mut again, header, FEW, Box::new(log), Some(STATES));
    assert_eq!(stop(&mut navigator).reason, StopReason::Reset);
    let begun = |navigator: &mut Navigator<'_>| {
        navigator.resume(0).expect("it is stopped");
        navigator.pause(0).expect("it runs");
        assert_eq!(stop(navigator).reason, StopReason::Paused);
    };
    navigator.step(V0, StepRequest::steps(50_000)).expect("it is stopped");
    assert_eq!(stop(&mut navigator).steps, 50_000);
    let seen = navigator.state_hash(0).expect("it is stopped");
    let console = navigator.support_console().expect("it has one");
    assert_eq!(console.type_bytes(0, b"ls").expect("it is new"), 2);
    let registers = navigator.read_registers(V0).expect("it is stopped");
    let refused = navigator.write_registers(V0, &registers).expect_err("nobody takes it down");
    assert_eq!(refused.refusal(), Some(Refusal::WouldDiverge));
    begun(&mut navigator);
    let frontier = position(&mut navigator);
    let at_frontier = navigator.state_hash(0).expect("it is stopped");
    // Back, where nothing can be typed, forwards to where it had come, and on.
    navigator.go_to(0, Moment::at(50_000)).expect("it is stopped");
    stop(&mut navigator);
    navigator.go_to(0, Moment::at(49_999)).expect("it is stopped");
    stop(&mut navigator);
    let console = navigator.support_console().expect("it has one");
    let refused = console.type_bytes(0, b"x").expect_err("it has been here");
    assert_eq!(refused.refusal(), Some(Refusal::WouldDiverge));
    navigator.resume(0).expect("it is stopped");
    assert_eq!(stop(&mut navigator).reason, StopReason::Reached);
    assert_eq!(navigator.edge(0).expect("it is stopped"), Some(Edge::End));
    assert_eq!(position(&mut navigator), frontier);
    assert_eq!(navigator.state_hash(0).expect("it is stopped"), at_frontier);
    begun(&mut navigator);
    let end = position(&mut navigator);
    assert!(end >= frontier);
    let last = navigator.state_hash(0).expect("it is stopped");
    navigator.finish().expect("memory takes it");
    drop(navigator);
    assert!(bytes.iter().filter(|&&byte| byte == b'\n').count() < 100, "not a line for each step");
    // What was written is a log of the whole.
    let script = Script::read(Reader::new(bytes.as_slice()).expect("it is one"));
    let script = script.expect("it is whole");
    assert_eq!(script.end.position, end);
    let typed = |(_, what): &(Moment, Happening)| matches!(what, Happening::Input(_));
    assert_eq!(script.happenings.iter().filter(|what| typed(what)).count(), 1);
    assert!(script.happenings.len() > 1, "and states");
    let mut replayed = Again(fake());
    let mut navigator = Navigator::new(&mut replayed, script, FEW);
    stop(&mut navigator);
    navigator.go_to(0, Moment { position: 50_000, clock: 0 }).expect("it is stopped");
    stop(&mut navigator);
    assert_ne!(navigator.state_hash(0).expect("it is stopped"), seen, "it was typed there");
    assert_eq!(go_to(&mut navigator, end), last);
}

#[test]
fn the_end_of_a_guest_is_recorded() {
    let mut bytes = Vec::new();
    let log = Writer::new(&mut bytes, &beginning::header()).expect("memory takes it");
    let mut again = Again(Fake::new(&contract::guest_bytes()));
    let header = beginning::header();
    let mut navigator = Navigator::recording(&mut again, header, FEW, Box::new(log), None);
    stop(&mut navigator);
    navigator.resume(0).expect("it is stopped");
    let begun = Instant::now();
    while !matches!(navigator.wait(Duration::from_millis(10)), Ok(Some(Event::Ended { .. }))) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never ends");
    }
    drop(navigator);
    let script = Script::read(Reader::new(bytes.as_slice()).expect("it is one"));
    let (moment, how) = script.expect("it is whole").ending.expect("it has ended");
    assert_eq!((moment.position, how.as_str()), (23, "powered off"));
}

/// However many stops a search has, who waits for it is heard in between.
#[test]
fn a_search_with_many_hits_can_be_paused() {
    let mut again = Again(fake());
    let mut navigator = Navigator::new(&mut again, run(), FEW);
    stop(&mut navigator);
    go_to(&mut navigator, END);
    navigator.set_breakpoint(0, Place::Va(Va(ENDLESS))).expect("it is RAM");
    navigator.continue_back(0).expect("it is stopped");
    let heard = navigator.wait(Duration::ZERO).expect("it is there");
    assert_eq!(heard, None, "one stop leads to no more than the next");
    assert!(navigator.way().is_some_and(|way| way.to.is_none()));
    navigator.pause(0).expect("it goes");
    assert_eq!(stop(&mut navigator).reason, StopReason::Paused);
    assert_eq!(navigator.way(), None);
}

/// The fake, which lets go all that it keeps but the first, once that is wanted.
struct Losing {
    fake: Fake,
    is_full: Rc<Cell<bool>>,
}

impl Machine for Losing {
    fn debuggee(&mut self) -> &mut dyn Debuggee {
        if self.is_full.take()
            && let Some(checkpoints) = self.fake.support_checkpoints()
        {
            (1..100).for_each(|kept| checkpoints.forget(Checkpoint(kept)));
        }
        &mut self.fake
    }
    fn restart(&mut self) -> Result<(), Error> {
        panic!("it has a checkpoint of its beginning")
    }
}

#[test]
fn a_moment_that_was_let_go_is_come_to_from_one_before_it() {
    let is_full = Rc::new(Cell::new(false));
    let mut losing = Losing { fake: fake(), is_full: Rc::clone(&is_full) };
    let mut navigator = Navigator::new(&mut losing, run(), FEW);
    stop(&mut navigator);
    let seen = go_to(&mut navigator, 12_345);
    go_to(&mut navigator, END);
    is_full.set(true);
    assert_eq!(go_to(&mut navigator, 12_345), seen);
    assert!(!is_full.get(), "they are gone");
}
