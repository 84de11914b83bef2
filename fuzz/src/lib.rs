//! What both fuzz targets do with a recording: everything that can be asked of one.
//!
//! `ASAN_OPTIONS=detect_odr_violation=0 cargo +nightly fuzz run chunks`: the disassembler's tables
//! look to the sanitizer as if one of them were defined twice.

#![forbid(unsafe_code)]

use std::io::{Cursor, sink};
use stepwell_trace::{Error, Reader, Record, export};

/// More than the records of any input of libFuzzer's usual length, were each byte one.
const RECORDS_MAX: usize = 1 << 20;
/// Most instructions that are printed: a run of two bytes may claim billions, and they would come.
const PRINTED_MAX: u64 = 10_000;

/// Reads a recording in order, salvaging, and from the middle; the three have to agree.
///
/// # Panics
///
/// Where they do not.
pub fn read(bytes: &[u8]) {
    let strict = in_order(Reader::new(Cursor::new(bytes)));
    let salvaged = in_order(Reader::salvage(Cursor::new(bytes)));
    if let Some((records, is_whole)) = strict {
        let (others, _) = salvaged.expect("what can be read can be salvaged");
        if is_whole {
            assert!(others == records, "a whole recording is salvaged as it is");
        } else {
            assert!(others.starts_with(&records), "salvaging loses nothing before the damage");
        }
    }
    from_the_middle(bytes);
    let Some((records, _)) = in_order(Reader::salvage(Cursor::new(bytes))) else { return };
    let lengths = records.iter().map(|record| match record {
        Record::Run { length, .. } => u64::from(*length),
        _ => 0,
    });
    if lengths.sum::<u64>() > PRINTED_MAX {
        return;
    }
    if let Ok(mut reader) = Reader::salvage(Cursor::new(bytes)) {
        // Damage is reported, whatever came of it.
        let _ = export::disasm::write(&mut reader, sink());
    }
}

type Read<'a> = Result<Reader<Cursor<&'a [u8]>>, Error>;

/// All records up to the first damage, and whether there is none.
fn in_order(reader: Read<'_>) -> Option<(Vec<Record>, bool)> {
    let mut reader = reader.ok()?;
    let mut records = Vec::new();
    let mut instructions = 0u64;
    loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                if let Record::Run { length, .. } = record {
                    instructions = instructions.saturating_add(u64::from(length));
                }
                records.push(record);
            }
            Ok(None) => break,
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                assert!(matches!(reader.next_record(), Ok(None)));
                return Some((records, false));
            }
        }
        assert!(records.len() < RECORDS_MAX, "records without end");
    }
    assert!(reader.ending().is_some());
    if reader.damages().is_empty() {
        assert_eq!(reader.position(), instructions);
    }
    reader.code_pages().expect("memory can be read");
    reader.symbols().expect("memory can be read");
    Some((records, true))
}

fn from_the_middle(bytes: &[u8]) {
    let Ok(mut reader) = Reader::salvage(Cursor::new(bytes)) else { return };
    let length = bytes.len() as u64;
    for instruction in [length, length / 2, 1, 0, u64::MAX] {
        reader.seek(instruction).expect("it salvages");
        for _ in 0..100 {
            if reader.next_record().expect("it salvages").is_none() {
                break;
            }
        }
    }
}
