//! Tables, read back by the row reader of the Parquet library.

use super::assert_golden;
use super::sample::sample;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fmt::Write;
use std::fs::File;
use stepwell_trace::export::parquet::{Rows, write};

fn table(rows: Rows) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(&mut sample(), rows, file.reopen().unwrap()).unwrap();
    let reader = SerializedFileReader::new(File::open(file.path()).unwrap()).unwrap();
    let mut out = String::new();
    for pair in reader.metadata().file_metadata().key_value_metadata().unwrap() {
        if pair.key.starts_with("stepwell.") {
            writeln!(out, "{}: {}", pair.key, pair.value.as_deref().unwrap()).unwrap();
        }
    }
    for row in reader.get_row_iter(None).unwrap() {
        writeln!(out, "{}", row.unwrap()).unwrap();
    }
    out
}

#[test]
fn a_row_a_run() {
    assert_golden("runs.txt", &table(Rows::Runs));
}

#[test]
fn a_row_an_instruction() {
    let text = table(Rows::Instructions);
    assert_golden("instructions.txt", &text);
    assert_eq!(text.lines().filter(|line| line.contains("at:")).count(), 23);
}
