//! `lcov`: coverage, for genhtml and whatever else reads its tracefiles.
//!
//! Coverage by function needs nothing but the recording. A tracefile is about source files, and
//! there is none, so a list of all functions takes its place, one a line; [`Listing`] says where it
//! is to be. With an ELF that has debug information ([`Lines`]) coverage is by source file and line.
//!
//! A function's count is how often its first instruction was executed, and 1 if only others were:
//! the trace began inside. Functions of one name are counted as one, as lcov can't tell them apart.
//! A line's count is that of the most executed place that belongs to it.

mod counts;
mod lines;

pub use lines::{LineError, Lines};

use super::{ExportError, end_at_broken_pipe};
use crate::format::Record;
use crate::source::Source;
use crate::symbols::{Symbol, SymbolKind, Symbols};
use counts::Counts;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, Write};

/// Where the list of functions goes, which is the source file that genhtml shows.
pub struct Listing<'a> {
    /// How the tracefile calls it.
    pub name: &'a str,
    /// Where it is written; nowhere if it is only to be named.
    pub output: Option<&'a mut dyn Write>,
}

impl std::fmt::Debug for Listing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What was covered, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Functions that there are.
    pub functions: u64,
    /// Functions of which an instruction was executed.
    pub functions_hit: u64,
    /// Lines that there are, where lines are known.
    pub lines: u64,
    /// Lines of which an instruction was executed.
    pub lines_hit: u64,
    /// Instructions that were not counted, because more code was executed than is kept.
    pub uncounted: u64,
}

/// Writes the functions that what is left of a recording covers.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged (after what precedes the damage) or the output
/// fails; a broken pipe is none.
pub fn write_functions(
    source: &mut impl Source,
    listing: Listing<'_>,
    output: impl Write,
) -> Result<Covered, ExportError> {
    let symbols = source.symbols()?;
    let (counts, read) = count(source);
    let functions = functions(&symbols, &counts);
    let mut covered = Covered { uncounted: counts.lost(), ..Covered::default() };
    let written = write_listing(&functions, listing, output, &mut covered);
    end_at_broken_pipe(read.and(written.map_err(ExportError::from)))?;
    Ok(covered)
}

/// Writes the lines and functions of an ELF that what is left of a recording covers.
///
/// # Errors
///
/// As [`write_functions`].
pub fn write_lines(
    source: &mut impl Source,
    lines: &Lines,
    output: impl Write,
) -> Result<Covered, ExportError> {
    let symbols = source.symbols()?;
    let (counts, read) = count(source);
    let mut covered = Covered { uncounted: counts.lost(), ..Covered::default() };
    let files = lines.cover(&symbols, &counts)?;
    let written = write_files(&files, output, &mut covered);
    end_at_broken_pipe(read.and(written.map_err(ExportError::from)))?;
    Ok(covered)
}

/// Counts up to the end, or to the first damage.
fn count(source: &mut impl Source) -> (Counts, Result<(), ExportError>) {
    let mut counts = Counts::default();
    loop {
        match source.next_record() {
            Ok(Some(Record::Run { pc, length, .. })) => counts.run(pc, length),
            Ok(Some(_)) => {}
            Ok(None) => return (counts, Ok(())),
            Err(error) => return (counts, Err(error.into())),
        }
    }
}

/// A function of one name, wherever it runs.
#[derive(Debug)]
struct Function<'a> {
    name: &'a str,
    address: u64,
    count: u64,
}

/// Returns all functions in the order in which the table has them.
fn functions<'a>(symbols: &'a Symbols, counts: &Counts) -> Vec<Function<'a>> {
    let mut functions: Vec<Function<'a>> = Vec::new();
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for symbol in symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Function) {
        let count = entries(symbols, counts, symbol);
        let next = functions.len();
        match by_name.entry(&symbol.name).or_insert(next) {
            index if *index == next => {
                let (name, address) = (symbol.name.as_str(), symbol.address);
                functions.push(Function { name, address, count });
            }
            index => {
                let known = &mut functions[*index];
                known.count += count;
                // A kernel runs at its physical addresses first; its own are those above.
                known.address = known.address.max(symbol.address);
            }
        }
    }
    functions
}

/// Returns how often a function was entered.
fn entries(symbols: &Symbols, counts: &Counts, function: &Symbol) -> u64 {
    let entered = counts.at(function.address);
    if entered > 0 {
        return entered;
    }
    let place = symbols.place_of(function);
    u64::from(counts.any(*place.start(), *place.end()))
}

fn write_listing(
    functions: &[Function<'_>],
    mut listing: Listing<'_>,
    output: impl Write,
    covered: &mut Covered,
) -> io::Result<()> {
    let mut out = BufWriter::new(output);
    writeln!(out, "TN:\nSF:{}", listing.name)?;
    for (line, function) in (1..).zip(functions) {
        writeln!(out, "FN:{line},{}", function.name)?;
        if let Some(list) = &mut listing.output {
            writeln!(list, "{:#018x} {}", function.address, function.name)?;
        }
    }
    for function in functions {
        writeln!(out, "FNDA:{},{}", function.count, function.name)?;
    }
    let hit = functions.iter().filter(|function| function.count > 0).count();
    writeln!(out, "FNF:{}\nFNH:{hit}", functions.len())?;
    for (line, function) in (1..).zip(functions) {
        writeln!(out, "DA:{line},{}", function.count)?;
    }
    writeln!(out, "LF:{}\nLH:{hit}\nend_of_record", functions.len())?;
    (covered.functions, covered.functions_hit) = (functions.len() as u64, hit as u64);
    out.flush()
}

/// A source file and what of it was covered.
#[derive(Debug, Default)]
pub(crate) struct SourceFile {
    name: String,
    /// Counts by line.
    lines: BTreeMap<u64, u64>,
    /// Lines and counts by name.
    functions: BTreeMap<String, (u64, u64)>,
}

fn write_files(files: &[SourceFile], output: impl Write, covered: &mut Covered) -> io::Result<()> {
    let mut out = BufWriter::new(output);
    writeln!(out, "TN:")?;
    for file in files.iter().filter(|file| !file.lines.is_empty()) {
        writeln!(out, "SF:{}", file.name)?;
        for (name, (line, _)) in &file.functions {
            writeln!(out, "FN:{line},{name}")?;
        }
        for (name, (_, count)) in &file.functions {
            writeln!(out, "FNDA:{count},{name}")?;
        }
        let functions = file.functions.len() as u64;
        let functions_hit = hits(file.functions.values().map(|(_, count)| *count));
        writeln!(out, "FNF:{functions}\nFNH:{functions_hit}")?;
        for (line, count) in &file.lines {
            writeln!(out, "DA:{line},{count}")?;
        }
        let (lines, lines_hit) = (file.lines.len() as u64, hits(file.lines.values().copied()));
        writeln!(out, "LF:{lines}\nLH:{lines_hit}\nend_of_record")?;
        covered.functions += functions;
        covered.functions_hit += functions_hit;
        covered.lines += lines;
        covered.lines_hit += lines_hit;
    }
    out.flush()
}

fn hits(counts: impl Iterator<Item = u64>) -> u64 {
    counts.filter(|count| *count > 0).count() as u64
}
