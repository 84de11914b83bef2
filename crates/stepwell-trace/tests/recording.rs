//! Recordings written, read back, damaged and cut off.

mod samples;

use proptest::prelude::*;
use samples::{any_records, config, flatten, header, read_all, recording, sample};
use std::io::{self, Cursor, Write};
use stepwell_arch::address::Va;
use stepwell_trace::{
    Ending, Error, Event, Reader, Record, Symbol, SymbolKind, Symbols, Writer, export,
};

proptest! {
    // Every one of these reads some thousand recordings.
    #![proptest_config(config(8))]

    #[test]
    fn every_cut_leaves_a_readable_beginning(records in any_records(), chunk in 1..8usize) {
        let bytes = recording(&records, chunk);
        let whole = flatten(&records);
        for length in 0..bytes.len() {
            let (found, ending) = read_all(&bytes[..length]);
            let found = flatten(&found);
            prop_assert_eq!(&found[..], &whole[..found.len()]);
            match ending {
                Ok(Some(Ending::Unfinished { offset })) => prop_assert_eq!(offset, length as u64),
                Err(Error::Truncated { offset }) => prop_assert!(offset <= length as u64),
                Err(Error::NotARecording) => prop_assert_eq!(length, 0),
                other => prop_assert!(false, "{length}: {other:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn records_survive(records in any_records(), chunk in 1..20usize) {
        let bytes = recording(&records, chunk);
        let (found, ending) = read_all(&bytes);
        prop_assert_eq!(flatten(&found), flatten(&records));
        let Ok(Some(Ending::Finished(totals))) = ending else { panic!("{ending:?}") };
        let runs = flatten(&records);
        let instructions = runs.iter().filter(|record| matches!(record, Record::Run { .. }));
        prop_assert_eq!(totals.instructions, instructions.count() as u64);
        let others = totals.interrupts + totals.events + totals.details;
        prop_assert_eq!(totals.instructions + others, runs.len() as u64);
    }

    #[test]
    fn random_bytes_are_an_answer(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        start in 0..3usize,
    ) {
        // Random, behind a good preamble, behind a good header chunk.
        let (good, _) = sample();
        bytes.splice(0..0, good[..[0, 16, 16 + 40][start]].iter().copied());
        let (_, ending) = read_all(&bytes);
        prop_assert!(ending.is_err());
    }

    #[test]
    fn flipped_bits_are_found(bit in any::<prop::sample::Index>()) {
        let (mut bytes, records) = sample();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (found, ending) = read_all(&bytes);
        prop_assert_eq!(&found[..], &records[..found.len()]);
        // A flip in a chunk that holds no records is found by those who want that chunk.
        match ending {
            Err(Error::Corrupt { offset, .. }) => prop_assert!(offset <= bit as u64 / 8),
            Err(Error::NotARecording) => prop_assert!(bit < 64),
            Err(error) => prop_assert!(false, "{error}"),
            Ok(_) => {
                prop_assert_eq!(found, records);
                let mut reader = Reader::new(Cursor::new(&bytes)).expect("the header is whole");
                let code = reader.code_pages().expect("memory can be read").len();
                let symbols = reader.symbols().expect("memory can be read").len();
                prop_assert!(code < 5 || symbols < 1);
            }
        }
    }
}

#[test]
fn code_and_symbols_are_found_wherever_they_stand() {
    let (bytes, records) = sample();
    let mut reader = Reader::new(Cursor::new(&bytes)).expect("a good recording");
    assert_eq!(reader.header(), &header());
    assert_eq!(reader.next_record().expect("a good recording").as_ref(), records.first());
    let code = reader.code_pages().expect("memory can be read");
    assert_eq!(code.word(Va(0x3004)), Some(0x0303_0303));
    let symbols = reader.symbols().expect("memory can be read");
    assert_eq!(symbols.lookup(Va(0x1004)), Some(("f", 4)));
    assert_eq!(reader.next_record().expect("a good recording").as_ref(), records.get(1));
}

#[test]
fn a_newer_version_is_refused_and_newer_chunks_are_skipped() {
    use stepwell_trace::format::{ChunkHeader, ChunkKind};
    let (bytes, records) = sample();
    let mut newer = bytes.clone();
    newer[8] = 2;
    let checksum = crc32fast::hash(&newer[..12]);
    newer[12..16].copy_from_slice(&checksum.to_le_bytes());
    let refused = read_all(&newer).1;
    assert!(matches!(refused, Err(Error::FutureVersion { found: 2, ours: 1 })), "{refused:?}");

    let unknown = ChunkHeader {
        kind: ChunkKind::Unknown(77),
        flags: 0x8000,
        packed_length: 3,
        unpacked_length: 9,
        first_instruction: 0,
        instructions: 0,
        payload_checksum: 0,
    };
    let mut first = [0; 40];
    first.copy_from_slice(&bytes[16..56]);
    let after_header =
        56 + ChunkHeader::decode(&first).expect("a good recording").packed_length as usize;
    let mut with_unknown = bytes;
    let chunk: Vec<u8> = unknown.encode().into_iter().chain(*b"new").collect();
    with_unknown.splice(after_header..after_header, chunk);
    let (found, ending) = read_all(&with_unknown);
    assert_eq!(found, records);
    assert!(matches!(ending, Ok(Some(Ending::Finished(_)))));
}

/// Takes so many bytes, and then the disk is full.
struct SmallDisk {
    taken: Vec<u8>,
    room: usize,
}

impl Write for &mut SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.room - self.taken.len());
        if fits == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.taken.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_leaves_what_was_written() {
    let (whole, _) = sample();
    for room in 200..whole.len() {
        let mut disk = SmallDisk { taken: Vec::new(), room };
        let mut writer = Writer::new(&mut disk, &header()).expect("the header fits");
        let mut failure = None;
        let mut written = Vec::new();
        for round in 0..40 {
            let record = Record::Run { vcpu: 0, pc: Va(round * 0x1234_5678), length: 1 };
            written.push(record.clone());
            let done = writer.record(&record).and_then(|()| writer.flush_chunk());
            if let Err(error) = done {
                failure = Some(error);
                break;
            }
        }
        assert!(failure.is_some_and(|error| error.is_disk_full()), "room {room}");
        assert!(writer.finish().is_err());
        let (found, ending) = read_all(&disk.taken);
        assert_eq!(found, written[..written.len() - 1]);
        assert!(
            matches!(ending, Err(Error::Truncated { .. }) | Ok(Some(Ending::Unfinished { .. }))),
            "{ending:?}"
        );
    }
}

#[test]
fn a_dropped_writer_leaves_an_unfinished_recording() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("trace.step");
    let mut writer = Writer::create(&path, &header()).expect("the file can be made");
    writer.run(1, Va(0x1000), 7).expect("the disk has room");
    drop(writer);
    let mut reader = Reader::open(&path).expect("a good recording");
    let expected = Record::Run { vcpu: 1, pc: Va(0x1000), length: 7 };
    assert_eq!(reader.next_record().expect("a good recording"), Some(expected));
    assert_eq!(reader.next_record().expect("a good recording"), None);
    assert!(matches!(reader.ending(), Some(Ending::Unfinished { .. })));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_says_so() {
    let refused = Writer::create("/dev/full", &header()).expect_err("that device is full");
    assert!(refused.is_disk_full(), "{refused}");
}

/// Code like a kernel's: functions of a few blocks that call each other, loop and return.
fn kernel_like(instructions: u64) -> Vec<(Va, u32)> {
    const FUNCTIONS: u64 = 3000;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let start = |function: u64| 0xffff_8000_0801_0000 + function * 0x140;
    let mut runs = Vec::new();
    let mut done = 0;
    let mut stack: Vec<(u64, u64)> = vec![(0, 0)];
    while done < instructions {
        let (function, block) = stack.pop().unwrap_or((random(FUNCTIONS), 0));
        let length = 2 + (function * 7 + block * 3) % 9;
        runs.push((Va(start(function) + block * 0x20), length as u32));
        done += length;
        if block >= 8 {
            continue;
        }
        let callee = (function * 31 + block * 17 + random(2)) % FUNCTIONS;
        match random(8) {
            0..3 => stack.push((function, block + 1)),
            3 => stack.push((function, block)),
            4 | 5 if stack.len() < 12 => stack.extend([(function, block + 1), (callee, 0)]),
            _ => stack.push((function, block + 2)),
        }
    }
    runs
}

#[test]
fn an_instruction_costs_less_than_half_a_byte() {
    let runs = kernel_like(5_000_000);
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header()).expect("memory takes everything");
    for (pc, length) in &runs {
        writer.run(0, *pc, *length).expect("memory takes everything");
    }
    let totals = writer.finish().expect("memory takes everything");
    let cost = bytes.len() as f64 / totals.instructions as f64;
    println!("{cost:.3} bytes an instruction, {} runs", totals.runs);
    assert!(cost < 0.5, "{cost} bytes an instruction");
}

#[test]
fn the_pc_stream_is_the_one_that_was_recorded() {
    let records = [
        Record::Run { vcpu: 0, pc: Va(0xffff_8000_0800_0000), length: 2 },
        Record::Interrupt { vcpu: 0, pc: Va(0xffff_8000_0800_0008) },
        Record::Run { vcpu: 12, pc: Va(0), length: 1 },
        Record::Run { vcpu: 255, pc: Va(0xffc), length: 2 },
    ];
    let bytes = recording(&records, 2);
    let mut reader = Reader::new(Cursor::new(&bytes)).expect("a good recording");
    let mut text = Vec::new();
    export::pc::write(&mut reader, &mut text).expect("memory takes everything");
    let expected = "0 ffff800008000000\n0 ffff800008000004\n12 0\n255 ffc\n255 1000\n";
    assert_eq!(String::from_utf8_lossy(&text), expected);
}

/// A reader that went away.
struct BrokenPipe;

impl Write for BrokenPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_pipe_is_a_clean_end_for_every_exporter() {
    let (bytes, _) = sample();
    let reader = || Reader::new(Cursor::new(&bytes)).expect("a good recording");
    export::pc::write(&mut reader(), BrokenPipe).expect("pc");
    export::disasm::write(&mut reader(), BrokenPipe).expect("disasm");
    export::calls::write(&mut reader(), None, BrokenPipe).expect("calls");
}

#[test]
fn disassembly_names_places_and_targets() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header()).expect("memory takes everything");
    writer.run(0, Va(0x1000), 3).expect("memory takes everything");
    writer.interrupt(0, Va(0x100c)).expect("memory takes everything");
    writer.event(&Event::Note("two\nlines".into())).expect("memory takes everything");
    writer.run(1, Va(0x9000), 1).expect("memory takes everything");
    let words = [0xd503_201fu32, 0xffff_ffff, 0x97ff_fffe];
    let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    writer.code(Va(0x1000), &code).expect("memory takes everything");
    let name = Symbol { address: 0x1000, size: 64, kind: SymbolKind::Function, name: "f".into() };
    writer.symbols(&Symbols::new([name], None)).expect("memory takes everything");
    writer.finish().expect("memory takes everything");
    let mut text = Vec::new();
    let mut reader = Reader::new(Cursor::new(&bytes)).expect("a good recording");
    export::disasm::write(&mut reader, &mut text).expect("memory takes everything");
    let expected = "0 1000 f+0x0 d503201f nop
0 1004 f+0x4 ffffffff .inst 0xffffffff
0 1008 f+0x8 97fffffe bl #0x1000 <f>
# 0 100c f+0xc interrupted here
# two
# lines
1 9000 - ........ (code not recorded)
";
    assert_eq!(String::from_utf8_lossy(&text), expected);
}
