//! Recordings for the tests of this folder: any records, written, read back, compared.

#![allow(dead_code, reason = "each test takes what it needs")]

use proptest::prelude::*;
use std::io::Cursor;
use stepwell_arch::InstructionSet;
use stepwell_arch::address::Va;
use stepwell_trace::{
    Context, Ending, Error, Event, ExceptionCause, ExceptionEntry, Header, MemoryAccess,
    MemoryAccessKind, Reader, Record, Register, Symbol, SymbolKind, Symbols, Waiting, Writer,
};

/// Failures are not kept in files: a case that was found becomes a test of its own.
pub fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

pub fn header() -> Header {
    Header {
        stepwell_version: "0.1.0".into(),
        cpu_model: "cortex-a57".into(),
        command_line: "console=ttyAMA0".into(),
        interrupt_policy: "into".into(),
        time_policy: "stopped".into(),
        recorded: "pc".into(),
        vcpus: 2,
    }
}

/// Writes records, with a chunk border after each `chunk` of them.
pub fn recording(records: &[Record], chunk: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header()).expect("memory takes everything");
    for (index, record) in records.iter().enumerate() {
        writer.record(record).expect("memory takes everything");
        if index % chunk == chunk - 1 {
            writer.flush_chunk().expect("memory takes everything");
        }
    }
    writer.finish().expect("memory takes everything");
    bytes
}

/// Reads as far as it goes.
pub fn read_all(bytes: &[u8]) -> (Vec<Record>, Result<Option<Ending>, Error>) {
    let mut records = Vec::new();
    let mut reader = match Reader::new(Cursor::new(bytes)) {
        Ok(reader) => reader,
        Err(error) => return (records, Err(error)),
    };
    loop {
        match reader.next_record() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return (records, Ok(reader.ending())),
            Err(error) => {
                assert!(matches!(reader.next_record(), Ok(None)));
                return (records, Err(error));
            }
        }
    }
}

/// One item for each instruction and each other record: what joining of runs must not change.
pub fn flatten(records: &[Record]) -> Vec<Record> {
    let single = |record: &Record| match *record {
        Record::Run { vcpu, pc, length } => (0..u64::from(length))
            .map(|index| Record::Run { vcpu, pc: pc.offset(index * 4), length: 1 })
            .collect(),
        ref other => vec![other.clone()],
    };
    records.iter().flat_map(single).collect()
}

pub fn any_pc() -> impl Strategy<Value = Va> {
    prop_oneof![
        8 => (0..4096u64).prop_map(|word| Va(0xffff_8000_0800_0000 + word * 4)),
        1 => any::<u64>().prop_map(Va),
    ]
}

pub fn any_record() -> impl Strategy<Value = Record> {
    let vcpu = || prop_oneof![8 => 0..2u8, 1 => any::<u8>()];
    prop_oneof![
        8 => (vcpu(), any_pc(), 1..40u32)
            .prop_map(|(vcpu, pc, length)| Record::Run { vcpu, pc, length }),
        1 => (vcpu(), any_pc()).prop_map(|(vcpu, pc)| Record::Interrupt { vcpu, pc }),
        1 => (vcpu(), any_pc(), any::<u16>()).prop_map(|(vcpu, pc, immediate)| {
            Record::Event(Event::PrivilegedCall { vcpu, pc, immediate })
        }),
        1 => ".{0,20}".prop_map(|text| Record::Event(Event::Note(text))),
        1 => (vcpu(), any::<u32>(), any::<u32>(), ".{0,16}").prop_map(|(vcpu, pid, tgid, name)| {
            Record::Event(Event::Task { vcpu, pid, tgid, name })
        }),
        4 => any_detail(),
    ]
}

fn any_detail() -> impl Strategy<Value = Record> {
    let vcpu = || prop_oneof![8 => 0..2u8, 1 => any::<u8>()];
    let cause = (0..4u8).prop_filter_map("no cause", ExceptionCause::from_number);
    let access = (0..3u8).prop_filter_map("no access", MemoryAccessKind::from_number);
    let register = (0..Register::COUNT as u8).prop_filter_map("no register", Register::new);
    prop_oneof![
        (vcpu(), cause, any_pc(), any_pc(), any::<u64>(), any::<Option<u32>>()).prop_map(
            |(vcpu, cause, return_address, vector, syndrome, intid)| {
                Record::ExceptionEntry(ExceptionEntry {
                    vcpu,
                    cause,
                    return_address,
                    vector,
                    syndrome,
                    intid,
                })
            }
        ),
        (vcpu(), any_pc(), 0..2u8).prop_map(|(vcpu, to, el)| Record::ExceptionReturn {
            vcpu,
            to,
            el
        }),
        (vcpu(), any_set()).prop_map(|(vcpu, set)| Record::InstructionSet { vcpu, set }),
        (vcpu(), any_pc(), any_waiting(), any::<u64>())
            .prop_map(|(vcpu, pc, why, steps)| Record::Turns { vcpu, pc, why, steps }),
        (vcpu(), any_pc(), any::<bool>()).prop_map(|(vcpu, pc, stored)| Record::Exclusive {
            vcpu,
            pc,
            stored
        }),
        (vcpu(), 0..2u8, any::<u16>(), any::<u16>(), any::<u64>()).prop_map(
            |(vcpu, el, vmid, asid, ttbr0)| {
                Record::Context(Context { vcpu, el, vmid, asid, ttbr0 })
            }
        ),
        any::<u64>().prop_map(|ns| Record::Time { ns }),
        (vcpu(), register, any::<u64>(), any::<bool>()).prop_map(
            |(vcpu, register, value, found)| Record::Register { vcpu, register, value, found }
        ),
        (vcpu(), access, any_pc(), any::<u16>(), any::<Option<u128>>()).prop_map(
            |(vcpu, access, address, size, value)| {
                Record::Memory(MemoryAccess { vcpu, access, address, size, value })
            }
        ),
    ]
}

pub fn any_records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(any_record(), 0..60)
}

/// A recording whose every part is there, in several chunks.
pub fn sample() -> (Vec<u8>, Vec<Record>) {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header()).expect("memory takes everything");
    let mut records = Vec::new();
    for round in 0..5u64 {
        let record = Record::Run { vcpu: 0, pc: Va(0x1000 + round * 64), length: 3 };
        writer.record(&record).expect("memory takes everything");
        records.push(record);
        writer.code(Va(0x1000 * round), &[round as u8; 4096]).expect("memory takes everything");
        writer.flush_chunk().expect("memory takes everything");
    }
    let name = Symbol { address: 0x1000, size: 0, kind: SymbolKind::Function, name: "f".into() };
    writer.symbols(&Symbols::new([name], None)).expect("memory takes everything");
    writer.finish().expect("memory takes everything");
    (bytes, records)
}

fn any_waiting() -> impl Strategy<Value = Waiting> {
    prop_oneof![Just(Waiting::Event), Just(Waiting::Interrupt), Just(Waiting::Memory)]
}

fn any_set() -> impl Strategy<Value = InstructionSet> {
    prop_oneof![Just(InstructionSet::A64), Just(InstructionSet::A32), Just(InstructionSet::T32)]
}
