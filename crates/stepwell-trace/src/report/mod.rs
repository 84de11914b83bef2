//! `stepwell report`: a recording as one page for a browser.
//!
//! The recording streams by once; what is kept of it is bounded by what a page can show, not by
//! how long the recording is. [`analyse`] collects it, [`Report::write`] puts it into a page that
//! has everything in it: no network, no other file.
//!
//! What the page says is defined by the modules that count it:
//!
//! - `analysis`: headline figures, functions, and who is told what.
//! - `timeline`: activity of the vCPUs over time.
//! - `interrupts`, `exclusives`, `tasks`, `turns`, `mix`: one topic each.
//! - `counts`, `distribution`: how numbers are kept without keeping them all.
//! - `facts`: what is told beside the records.
//! - `data`: all of it as the page's JSON.
//! - `page`: the page.

mod analysis;
mod counts;
mod data;
mod distribution;
mod exclusives;
mod facts;
mod interrupts;
pub mod mix;
mod page;
mod tasks;
mod timeline;
mod turns;

use crate::error::Error;
use crate::export::ExportError;
use crate::format::Record;
use crate::source::Source;
use analysis::Analysis;
use data::Data;
pub use facts::{Completeness, Facts};
use std::io::{self, Write};

/// A report that can be written.
#[derive(Debug)]
pub struct Report {
    data: Data,
}

impl Report {
    /// Writes the page.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn write(&self, output: impl Write) -> io::Result<()> {
        page::write(&self.data, output)
    }
}

/// Reads what is left of a recording, or what was chosen of it, and reports it. `completeness` is
/// asked at the end how that came.
///
/// A damaged recording is reported as far as it can be read, and the damage is told in the report
/// and returned beside it.
///
/// # Errors
///
/// [`ExportError`] if nothing can be read, or the disassembler cannot be set up.
pub fn analyse<S: Source>(
    source: &mut S,
    facts: Facts,
    completeness: impl FnOnce(&S) -> Completeness,
) -> Result<(Report, Option<Error>), ExportError> {
    let (code, symbols) = (source.code_pages()?, source.symbols()?);
    let mut analysis = Analysis::new(&code, &symbols);
    let damage = loop {
        match source.next_record() {
            Ok(Some(record)) => analysis.record(&record),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let completeness = match &damage {
        Some(error) => Completeness::Damaged(error.to_string()),
        None => completeness(source),
    };
    let data = analysis.finish(facts, &completeness)?;
    Ok((Report { data }, damage))
}

/// Reports records from anywhere, such as a test.
///
/// # Errors
///
/// [`ExportError`] if the disassembler cannot be set up.
pub fn of_records(
    records: impl IntoIterator<Item = Record>,
    code: &crate::CodePages,
    symbols: &crate::Symbols,
    facts: Facts,
) -> Result<Report, ExportError> {
    let mut analysis = Analysis::new(code, symbols);
    records.into_iter().for_each(|record| analysis.record(&record));
    let data = analysis.finish(facts, &Completeness::Whole)?;
    Ok(Report { data })
}

#[cfg(test)]
mod tests;
