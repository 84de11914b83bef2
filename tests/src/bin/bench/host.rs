//! The tool by itself: ring words in, a recording on disk out.

use std::time::Instant;

use anyhow::{Context, Result};

use stepwell::recorder::Recorder;
use stepwell_arch::Va;
use stepwell_debuggee::TraceRecord;
use stepwell_trace::Header;
use stepwell_wire::ring::{Decoder, Encoder};

use crate::table::Table;

const RECORDS: u64 = 5_000_000;
/// Records that come at once, as when the ring is drained.
const BATCH: usize = 20_000;

/// Prints how many runs a second the tool decodes, packs and writes.
pub fn measure() -> Result<()> {
    let words = words();
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let file = folder.path().join("bench.stepwell");
    let started = Instant::now();
    let mut recorder = Recorder::create(&file, &Header::default())?;
    let mut decoder = Decoder::default();
    let mut batch = Vec::new();
    for &word in &words {
        batch.extend(decoder.push(word)?);
        if batch.len() >= BATCH {
            recorder.take(&mut batch)?;
        }
    }
    recorder.take(&mut batch)?;
    recorder.flush()?;
    let seconds = started.elapsed().as_secs_f64();
    let totals = recorder.totals();
    let mut table = Table::new(["the tool alone, one core", "a second", "MB"]);
    let megabytes = totals.bytes as f64 / 1e6;
    table.row("records", [Some((RECORDS as f64 / seconds).round()), Some(megabytes)]);
    table.row("instructions", [Some((totals.instructions as f64 / seconds).round()), None]);
    println!("{table}");
    Ok(())
}

/// The ring's words of a program that jumps every few instructions, as kernels do.
fn words() -> Vec<u64> {
    let mut encoder = Encoder::default();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pc = 0xffff_8000_0801_0000;
    let mut words = Vec::new();
    for _ in 0..RECORDS {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let length = 1 + (state >> 60) as u32;
        words.extend(encoder.encode(TraceRecord::Run { vcpu: 0, pc: Va(pc), length }));
        // One of sixteen targets, which depend on where we are.
        pc = 0xffff_8000_0801_0000
            + (pc.wrapping_mul(31) >> 2 ^ (state >> 40 & 0xf) << 6) % 0x8_0000 * 4;
    }
    words
}
