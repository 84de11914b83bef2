//! What a filter lets pass, against asking for each instruction alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use std::io::Cursor;
use stepwell_arch::address::Va;
use stepwell_trace::{
    Context, Event, Filter, Filtered, Header, Reader, Record, Register, Source, Writer,
};

/// Failures are not kept in files: a case that was found becomes a test of its own.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() }
}

fn open(records: &[Record], chunk: usize) -> Reader<Cursor<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &Header::default()).unwrap();
    for (index, record) in records.iter().enumerate() {
        writer.record(record).unwrap();
        if index % chunk == chunk - 1 {
            writer.flush_chunk().unwrap();
        }
    }
    writer.finish().unwrap();
    Reader::new(Cursor::new(bytes)).unwrap()
}

/// An instruction, and its number in the recording.
type Instruction = (u64, u8, u64);

fn instructions(source: &mut impl Source) -> Vec<Instruction> {
    let mut found = Vec::new();
    while let Some(record) = source.next_record().unwrap() {
        if let Record::Run { vcpu, pc, length } = record {
            let first = source.position() - u64::from(length);
            found.extend((0..u64::from(length)).map(|n| (first + n, vcpu, pc.offset(4 * n).0)));
        }
    }
    found
}

#[derive(Clone, Debug)]
struct Wanted {
    vcpu: Option<u8>,
    level: Option<u8>,
    places: Vec<(u64, u64)>,
    from: u64,
    to: Option<u64>,
}

impl Wanted {
    fn filter(&self) -> Filter {
        let mut filter = Filter::new().from(self.from);
        filter = self.vcpu.map_or(filter.clone(), |vcpu| filter.vcpu(vcpu));
        filter = self.level.map_or(filter.clone(), |level| filter.level(level));
        for (first, last) in &self.places {
            filter = filter.place(*first..=*last);
        }
        self.to.map_or(filter.clone(), |to| filter.to(to))
    }

    fn takes(&self, (at, vcpu, pc): Instruction, level: u8) -> bool {
        self.vcpu.is_none_or(|wanted| wanted == vcpu)
            && self.level.is_none_or(|wanted| wanted == level)
            && at >= self.from
            && self.to.is_none_or(|to| at < to)
            && (self.places.is_empty()
                || self.places.iter().any(|(first, last)| (*first..=*last).contains(&pc)))
    }
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let place = (0..200u64, 0..60u64).prop_map(|(first, length)| (first, first + length));
    (
        prop::option::of(0..3u8),
        prop::option::of(0..2u8),
        prop_oneof![Just(Vec::new()), prop::collection::vec(place, 1..4)],
        prop_oneof![2 => Just(0), 3 => 0..120u64],
        prop::option::of(0..150u64),
    )
        .prop_map(|(vcpu, level, places, from, to)| Wanted { vcpu, level, places, from, to })
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        8 => (0..3u8, 0..50u64, 1..20u32)
            .prop_map(|(vcpu, word, length)| Record::Run { vcpu, pc: Va(word * 4), length }),
        1 => (0..3u8, 0..50u64).prop_map(|(vcpu, pc)| Record::Interrupt { vcpu, pc: Va(pc * 4) }),
        2 => (0..3u8, 0..2u8).prop_map(|(vcpu, el)| {
            Record::Context(Context { vcpu, el, vmid: 1, asid: 0, ttbr0: 0 })
        }),
        1 => (0..3u8, 0..2u8)
            .prop_map(|(vcpu, el)| Record::ExceptionReturn { vcpu, to: Va(0), el }),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_run_is_cut_exactly(
        records in prop::collection::vec(any_record(), 0..30),
        chunk in 1..10usize,
        wanted in any_wanted(),
    ) {
        // Every vCPU says at the beginning where it is, so that nothing is guessed.
        let contexts = (0..3).map(|vcpu| {
            Record::Context(Context { vcpu, el: 1, vmid: 1, asid: 0, ttbr0: 0 })
        });
        let records: Vec<Record> = contexts.chain(records).collect();
        let mut levels = [1; 3];
        let mut at = 0;
        let mut expected = Vec::new();
        for record in &records {
            match *record {
                Record::Run { vcpu, pc, length } => {
                    for n in 0..u64::from(length) {
                        let one = (at, vcpu, pc.offset(4 * n).0);
                        expected.extend(wanted.takes(one, levels[usize::from(vcpu)]).then_some(one));
                        at += 1;
                    }
                }
                Record::Context(context) => levels[usize::from(context.vcpu)] = context.el,
                Record::ExceptionReturn { vcpu, el, .. } => levels[usize::from(vcpu)] = el,
                _ => {}
            }
        }
        let mut filtered = Filtered::new(open(&records, chunk), wanted.filter());
        prop_assert_eq!(instructions(&mut filtered), expected);
    }
}

fn all(source: &mut impl Source) -> Vec<Record> {
    std::iter::from_fn(|| source.next_record().unwrap()).collect()
}

#[test]
fn what_is_known_of_an_instruction_goes_with_it() {
    let register =
        |value| Record::Register { vcpu: 0, register: Register::SP, value, found: false };
    let run = |pc, length| Record::Run { vcpu: 0, pc: Va(pc), length };
    let interrupt = |pc| Record::Interrupt { vcpu: 0, pc: Va(pc) };
    let note = Record::Event(Event::Note("between".into()));
    let records = [
        run(0, 2),
        register(1),
        run(0x100, 4),
        register(2),
        interrupt(0x108),
        note.clone(),
        run(0x108, 1),
        register(3),
        interrupt(0x10c),
        run(0, 1),
    ];
    let filter = Filter::new().place(0x108..=0x10b);
    let mut filtered = Filtered::new(open(&records, 100), filter);
    // Of the four, the third passes and the last, which the register belongs to, does not.
    assert_eq!(
        all(&mut filtered),
        [run(0x108, 1), interrupt(0x108), note.clone(), run(0x108, 1), register(3)]
    );
    let filter = Filter::new().from(4).to(7);
    let mut filtered = Filtered::new(open(&records, 2), filter);
    let known = Record::Register { vcpu: 0, register: Register::SP, value: 1, found: true };
    assert_eq!(
        all(&mut filtered),
        [known, run(0x108, 2), register(2), interrupt(0x108), note, run(0x108, 1), register(3)]
    );
}

#[test]
fn a_run_around_the_end_of_the_addresses_is_cut_too() {
    let records = [Record::Run { vcpu: 0, pc: Va(u64::MAX - 7), length: 4 }];
    let filter = Filter::new().place(u64::MAX - 3..=u64::MAX).place(4..=100);
    let mut filtered = Filtered::new(open(&records, 1), filter);
    assert_eq!(instructions(&mut filtered), [(1, 0, u64::MAX - 3), (3, 0, 4)]);
}

#[test]
fn places_that_touch_are_one() {
    let records = [Record::Run { vcpu: 0, pc: Va(0), length: 10 }];
    let filter = Filter::new().place(8..=11).place(12..=15).place(10..=13);
    let mut filtered = Filtered::new(open(&records, 1), filter);
    assert_eq!(all(&mut filtered), [Record::Run { vcpu: 0, pc: Va(8), length: 2 }]);
    assert_eq!(filtered.position(), 4);
}
