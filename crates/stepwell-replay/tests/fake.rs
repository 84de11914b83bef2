//! Recording and replaying over the fake debuggee.

mod beginning;

use std::collections::VecDeque;
use std::io;
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{Debuggee, Moment, contract};
use stepwell_replay::Script;
use stepwell_replay::log::{Entry, Reader, Writer};
use stepwell_replay::record::{End, Recorder, Until, World};
use stepwell_replay::replay::{self, Audience, Replay, ReplayError};

/// `add x1, x1, #1` and a branch back to it.
const LOOP: [u32; 2] = [0x9100_0421, 0x17ff_ffff];

fn looping() -> Fake {
    let bytes: Vec<u8> = LOOP.iter().flat_map(|word| word.to_le_bytes()).collect();
    Fake::new(&bytes)
}

/// Types something each time that it is asked, until there is nothing left.
#[derive(Default)]
struct Typist {
    keys: VecDeque<&'static [u8]>,
    console: Vec<u8>,
    leaves_at: Option<u64>,
    now: u64,
}

impl World for Typist {
    fn input(&mut self) -> Vec<u8> {
        self.keys.pop_front().unwrap_or_default().to_vec()
    }
    fn console(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.console.extend(bytes);
        Ok(())
    }
    fn wants_to_leave(&mut self) -> bool {
        self.leaves_at.is_some_and(|position| self.now >= position)
    }
    fn progress(&mut self, moment: Moment) {
        self.now = moment.position;
    }
}

impl Audience for Typist {
    fn console(&mut self, bytes: &[u8]) -> io::Result<()> {
        World::console(self, bytes)
    }
    fn wants_to_leave(&mut self) -> bool {
        false
    }
    fn progress(&mut self, _: Moment) {}
}

fn record(debuggee: &mut dyn Debuggee, until: Until<'_>, world: &mut Typist) -> (End, Vec<u8>) {
    let mut bytes = Vec::new();
    let log = Writer::new(&mut bytes, &beginning::header()).expect("memory takes it");
    let end =
        Recorder::new(debuggee, log, until, Some(7_000_000)).run(world).expect("the fake is there");
    (end, bytes)
}

fn replay(
    debuggee: &mut dyn Debuggee,
    log: &[u8],
    to: Option<u64>,
) -> Result<replay::End, ReplayError> {
    let script = Reader::new(log).and_then(Script::read).expect("it is one");
    Replay::new(debuggee, &script).run(to, true, &mut Typist::default())
}

fn entries(log: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(log).expect("it is one");
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().expect("it is whole") {
        all.push(entry);
    }
    all
}

const END: u64 = 20_000_001;

fn typed() -> (End, Vec<u8>, Fake) {
    let mut world =
        Typist { keys: VecDeque::from([&b"ls"[..], b"", b"", b"\n"]), ..Typist::default() };
    let mut fake = looping();
    let until = Until { position: Some(END), text: None };
    let (end, log) = record(&mut fake, until, &mut world);
    (end, log, fake)
}

#[test]
fn a_replay_is_the_run_that_was_recorded() {
    let (end, log, fake) = typed();
    let at_end = Moment { position: END, clock: END };
    assert_eq!(end, End::Reached(at_end));
    assert_eq!(fake.typed(), b"ls\n");
    let all = entries(&log);
    let inputs = all.iter().filter(|entry| matches!(entry, Entry::Input { .. })).count();
    let states = all.iter().filter(|entry| matches!(entry, Entry::State { .. })).count();
    assert_eq!((inputs, states), (2, 3), "{all:?}");
    let mut again = looping();
    assert_eq!(replay(&mut again, &log, None).expect("it is the same"), replay::End::At(at_end));
    assert_eq!(again.typed(), b"ls\n");
    let part = replay(&mut looping(), &log, Some(123_456)).expect("it is there");
    assert_eq!(part, replay::End::At(Moment { position: 123_456, clock: 123_456 }));
}

/// Whatever became of the recorder: what it had written is a run, to the last moment that it had passed.
#[test]
fn a_log_that_was_cut_is_replayed_to_its_last_whole_line() {
    let (_, log, _) = typed();
    let lines: Vec<usize> = (0..log.len()).filter(|&at| log[at] == b'\n').collect();
    for (n, &end) in lines.iter().enumerate() {
        for cut in [end + 1, end + 20] {
            let cut = &log[..cut.min(log.len())];
            let read = entries(cut);
            assert_eq!(read.len(), n + usize::from(cut.len() == log.len() && n + 1 < lines.len()));
            let last = read.last().map(Entry::moment).unwrap_or_default();
            let again = replay(&mut looping(), cut, None).expect("it is the same");
            assert_eq!(again, replay::End::At(last));
        }
    }
    let passed = |entry: &&Entry| matches!(entry, Entry::Passed { .. });
    assert!(entries(&log).iter().filter(passed).count() >= 4, "one for each slice");
}

/// Somebody who watches is shown how far it has come, and it is the same run.
#[test]
fn a_replay_that_is_watched_is_the_same() {
    struct Watching(Vec<u64>);
    impl Audience for Watching {
        fn console(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn wants_to_leave(&mut self) -> bool {
            false
        }
        fn watches(&self) -> bool {
            true
        }
        fn progress(&mut self, moment: Moment) {
            self.0.push(moment.position);
        }
    }
    let (_, log, _) = typed();
    let script = Reader::new(log.as_slice()).and_then(Script::read).expect("it is one");
    let (mut fake, mut watching) = (looping(), Watching(Vec::new()));
    let end = Replay::new(&mut fake, &script).run(None, true, &mut watching).expect("the same");
    assert_eq!(end, replay::End::At(Moment { position: END, clock: END }));
    assert_eq!(fake.typed(), b"ls\n");
    assert!(watching.0.len() >= 4 && watching.0.is_sorted(), "{:?}", watching.0);
}

#[test]
fn another_run_is_noticed_where_it_is() {
    let (_, log, _) = typed();
    let mut other = looping();
    other
        .write_registers(
            Default::default(),
            &stepwell_debuggee::Registers {
                pc: contract::ENTRY.0,
                pstate: 0x3c5,
                sp: 16,
                ..Default::default()
            },
        )
        .expect("it is stopped");
    match replay(&mut other, &log, None) {
        Err(ReplayError::Diverged { at, what }) => {
            assert_eq!((at.position, what.as_str()), (7_000_000, "registers"));
        }
        other => panic!("it differs, not {other:?}"),
    }
}

#[test]
fn a_recording_ends_with_its_guest_and_with_its_user() {
    let mut world = Typist::default();
    let until = Until { position: None, text: None };
    let (end, log) = record(&mut Fake::new(&contract::guest_bytes()), until, &mut world);
    assert!(matches!(end, End::Ended(_)), "{end:?}");
    assert_eq!(world.console, b"h");
    let again = replay(&mut Fake::new(&contract::guest_bytes()), &log, None);
    assert!(matches!(again, Ok(replay::End::Ended(_))), "{again:?}");
    // One that goes on is no replay of it.
    let other = replay(&mut Fake::new(&[0; 4]), &log, None);
    assert!(matches!(other, Err(ReplayError::Diverged { .. })), "{other:?}");
    let mut leaving = Typist { leaves_at: Some(1), ..Typist::default() };
    let (end, log) = record(&mut looping(), until, &mut leaving);
    let End::Left(moment) = end else { panic!("the user leaves, not {end:?}") };
    let again = replay(&mut looping(), &log, None).expect("it is the same");
    assert_eq!(again, replay::End::At(moment));
    match replay(&mut looping(), &log, Some(moment.position + 1)) {
        Err(ReplayError::TooFar { last, wanted }) => assert_eq!(wanted, last + 1),
        other => panic!("nobody knows what came then, not {other:?}"),
    }
}

#[test]
fn a_recording_ends_where_the_console_says_so() {
    let mut world = Typist::default();
    let until = Until { position: None, text: Some(b"h") };
    // The guest prints, and goes on for ever: `b .` in place of its end.
    let mut bytes = contract::guest_bytes();
    bytes[0x28..0x2c].copy_from_slice(&0x1400_0000_u32.to_le_bytes());
    let (end, _) = record(&mut Fake::new(&bytes), until, &mut world);
    assert!(matches!(end, End::Reached(_)), "{end:?}");
}
