//! What each exporter writes of a small recording, compared with files in `golden`, and read back
//! by readers that were written from the formats' descriptions.
//!
//! `STEPWELL_BLESS=1 cargo test -p stepwell-trace --test exporters` writes the golden files anew:
//! look at what changed before it is committed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lcov;
#[cfg(feature = "parquet")]
mod parquet;
mod perfetto;
mod sample;
mod tarmac;

use sample::{records, sample};
use std::io::{self, Write};
use std::path::PathBuf;
use stepwell_trace::export::lcov::Listing;
use stepwell_trace::export::streams::OneStream;
use stepwell_trace::{Filter, Filtered, export};

/// Compares with a golden file.
fn assert_golden(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/exporters/golden").join(name);
    if std::env::var_os("STEPWELL_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (golden, found)) in (1..).zip(golden.lines().zip(found.lines())) {
        assert_eq!(found, golden, "{name}, line {number}");
    }
    assert_eq!(found.lines().count(), golden.lines().count(), "lines of {name}");
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn lines_of_text() {
    let mut out = Vec::new();
    export::pc::write(&mut sample(), &mut out).unwrap();
    assert_golden("pc.txt", &text(out));
    let mut out = Vec::new();
    export::disasm::write(&mut sample(), &mut out).unwrap();
    assert_golden("disasm.txt", &text(out));
}

#[test]
fn json_lines() {
    let mut out = Vec::new();
    export::json::write(&mut sample(), &mut out).unwrap();
    let out = text(out);
    assert_golden("json.jsonl", &out);
    // Another parser than the one that wrote them would be better; that they parse at all is not
    // what they are compared for.
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), records().len() + 1);
    let instructions: u64 = lines.iter().filter_map(|line| line.get("length")?.as_u64()).sum();
    assert_eq!(instructions, 23);
}

#[test]
fn a_filter_is_the_same_for_every_exporter() {
    let selected = || Filtered::new(sample(), Filter::new().vcpu(0).from(3).to(9));
    let mut pcs = Vec::new();
    export::pc::write(&mut selected(), &mut pcs).unwrap();
    let pcs = text(pcs);
    assert_eq!(pcs.lines().count(), 6);
    let mut json = Vec::new();
    export::json::write(&mut selected(), &mut json).unwrap();
    let ats: Vec<u64> = text(json)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["type"] == "run")
        .map(|line| line["at"].as_u64().unwrap())
        .collect();
    assert_eq!(ats, [3, 4, 5, 8]);
    let mut tarmac = OneStream::new(Vec::new());
    export::tarmac::write(&mut selected(), &mut tarmac).unwrap();
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
fn a_broken_pipe_is_a_clean_end() {
    export::json::write(&mut sample(), BrokenPipe).expect("json");
    export::tarmac::write(&mut sample(), &mut OneStream::new(BrokenPipe)).expect("tarmac");
    export::perfetto::write(&mut sample(), Default::default(), BrokenPipe).expect("perfetto");
    let listing = Listing { name: "functions", output: None };
    export::lcov::write_functions(&mut sample(), listing, BrokenPipe).expect("lcov");
    #[cfg(feature = "parquet")]
    {
        let rows = export::parquet::Rows::Runs;
        export::parquet::write(&mut sample(), rows, BrokenPipe).expect("parquet");
    }
}

/// A disk that is full.
struct FullDisk;

impl Write for FullDisk {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error() {
    export::json::write(&mut sample(), FullDisk).expect_err("json");
    export::tarmac::write(&mut sample(), &mut OneStream::new(FullDisk)).expect_err("tarmac");
    export::perfetto::write(&mut sample(), Default::default(), FullDisk).expect_err("perfetto");
    let listing = Listing { name: "functions", output: None };
    export::lcov::write_functions(&mut sample(), listing, FullDisk).expect_err("lcov");
    #[cfg(feature = "parquet")]
    {
        let rows = export::parquet::Rows::Runs;
        export::parquet::write(&mut sample(), rows, FullDisk).expect_err("parquet");
    }
}
