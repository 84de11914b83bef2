//! Going to an instruction by its number, and what is known there.

mod samples;

use proptest::prelude::*;
use samples::{any_records, config, flatten, recording};
use std::io::Cursor;
use stepwell_arch::address::Va;
use stepwell_trace::{Context, Ending, Event, Reader, Record, Register, Writer};

fn rest(reader: &mut Reader<Cursor<&Vec<u8>>>) -> Vec<Record> {
    std::iter::from_fn(|| reader.next_record().expect("a good recording")).collect()
}

/// State that may come before the instruction that was sought.
fn is_state(record: &Record) -> bool {
    matches!(
        record,
        Record::Time { .. }
            | Record::Context(_)
            | Record::InstructionSet { .. }
            | Record::Event(Event::Task { .. })
            | Record::Register { found: true, .. }
    )
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn every_instruction_is_found(
        records in any_records(),
        chunk in 1..8usize,
        targets in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let bytes = recording(&records, chunk);
        let all = flatten(&records);
        let places: Vec<usize> = (0..all.len())
            .filter(|&place| matches!(all[place], Record::Run { .. }))
            .collect();
        let mut reader = Reader::new(Cursor::new(&bytes)).expect("a good recording");
        for target in targets {
            let target = target.index(places.len() + 2);
            let found = reader.seek(target as u64).expect("a good recording");
            prop_assert_eq!(found, target < places.len());
            prop_assert_eq!(reader.position(), target.min(places.len()) as u64);
            let after = flatten(&rest(&mut reader));
            prop_assert!(matches!(reader.ending(), Some(Ending::Finished(_))));
            prop_assert_eq!(reader.position(), places.len() as u64);
            let expected = places.get(target).map_or(&[][..], |&place| &all[place..]);
            let state = after.len() - expected.len();
            prop_assert!(after[..state].iter().all(is_state));
            prop_assert_eq!(&after[state..], expected);
        }
    }
}

#[test]
fn what_holds_at_an_instruction_is_told() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &samples::header()).expect("memory takes everything");
    let x3 = Register::new(3).expect("there is an X3");
    let context = |el, ttbr0| Record::Context(Context { vcpu: 1, el, vmid: 1, asid: 9, ttbr0 });
    let register = |value| Record::Register { vcpu: 1, register: x3, value, found: false };
    let run = |pc| Record::Run { vcpu: 1, pc: Va(pc), length: 10 };
    let records = [
        context(1, 0x1000),
        run(0x4000),
        register(7),
        Record::ExceptionReturn { vcpu: 1, to: Va(0x8000), el: 0 },
        Record::Time { ns: 500 },
        run(0x8000),
        register(8),
        run(0xc000),
    ];
    for record in &records {
        writer.record(record).expect("memory takes everything");
        writer.flush_chunk().expect("memory takes everything");
    }
    writer.finish().expect("memory takes everything");
    // Read in order, nothing is told twice.
    let mut reader = Reader::new(Cursor::new(&bytes)).expect("a good recording");
    assert_eq!(rest(&mut reader), records);
    assert_eq!(reader.seek(14).ok(), Some(true));
    let found = Record::Register { vcpu: 1, register: x3, value: 7, found: true };
    let run = Record::Run { vcpu: 1, pc: Va(0x8010), length: 6 };
    let expected = [Record::Time { ns: 500 }, context(0, 0x1000), found, run];
    assert_eq!(rest(&mut reader)[..4], expected);
}
