//! Source lines of an ELF, from its debug information.
//!
//! Only the line table is read (`.debug_line`), one unit at a time: it has what coverage needs, and
//! is a tenth of a kernel's debug information. In DWARF 4 and older a unit's own folder is not in
//! it: names of files are then relative to where the kernel was built.

use super::SourceFile;
use super::counts::Counts;
use crate::symbols::{SymbolKind, Symbols, elf};
use gimli::{
    AttributeValue, DebugLine, DebugLineOffset, EndianSlice, LineProgramHeader, LittleEndian,
};
use object::{Object, ObjectSection, ReadCache};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// An ELF has no lines to offer.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
    /// It has no symbols, or is not for this machine.
    #[error(transparent)]
    Symbols(#[from] elf::ElfError),
    /// It is no ELF, or damaged.
    #[error("not an ELF that can be read: {0}")]
    Elf(#[from] object::Error),
    /// It was built or stripped so.
    #[error("has no debug information: build it with -g, or leave it out for coverage by function")]
    NoLines,
    /// Its debug information is damaged.
    #[error("its debug information makes no sense: {0}")]
    Damaged(#[from] gimli::Error),
}

/// The line table of an ELF, and its functions.
#[derive(Debug)]
pub struct Lines {
    line: Vec<u8>,
    line_strings: Vec<u8>,
    strings: Vec<u8>,
    symbols: Symbols,
}

impl Lines {
    /// Reads the parts of an ELF that are needed.
    ///
    /// # Errors
    ///
    /// [`LineError`] says what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, LineError> {
        let cache = ReadCache::new(File::open(path)?);
        let elf = object::File::parse(&cache)?;
        let section = |name| match elf.section_by_name(name) {
            Some(section) => Ok(section.data()?.to_vec()),
            None => Ok::<_, LineError>(Vec::new()),
        };
        let line = section(".debug_line")?;
        if line.is_empty() {
            return Err(LineError::NoLines);
        }
        let symbols = elf::from_object(&elf)?;
        Ok(Self {
            line,
            line_strings: section(".debug_line_str")?,
            strings: section(".debug_str")?,
            symbols,
        })
    }

    /// Counts each line by the instructions that belong to it.
    ///
    /// # Errors
    ///
    /// [`LineError::Damaged`].
    pub(super) fn cover(
        &self,
        recorded: &Symbols,
        counts: &Counts,
    ) -> Result<Vec<SourceFile>, LineError> {
        let moves = moves(&self.symbols, recorded);
        let names = self.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Function);
        let mut coverage = Coverage {
            lines: self,
            count: &|address| moves.iter().map(|by| counts.at(address.wrapping_add(*by))).sum(),
            functions: names.map(|symbol| (symbol.address, symbol.name.as_str())).collect(),
            files: Vec::new(),
            by_name: HashMap::new(),
        };
        let table = DebugLine::new(&self.line, LittleEndian);
        let mut offset = 0;
        while offset < self.line.len() {
            let program = table.program(DebugLineOffset(offset), 8, None, None)?;
            let header = program.header();
            let prefix = usize::from(header.format().initial_length_size());
            offset = offset.saturating_add(prefix).saturating_add(header.unit_length());
            coverage.unit(program)?;
        }
        coverage.files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(coverage.files)
    }

    fn text<'a>(&'a self, value: &AttributeValue<Slice<'a>>) -> String {
        let from = |section: &'a [u8], offset: usize| {
            let rest = section.get(offset..).unwrap_or_default();
            rest.split(|byte| *byte == 0).next().unwrap_or_default()
        };
        let bytes = match value {
            AttributeValue::String(text) => text.slice(),
            AttributeValue::DebugLineStrRef(offset) => from(&self.line_strings, offset.0),
            AttributeValue::DebugStrRef(offset) => from(&self.strings, offset.0),
            _ => b"",
        };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// Returns by how much the recorded code was moved from where it was linked: once for each address
/// that a kernel runs at, which are at most two.
fn moves(linked: &Symbols, recorded: &Symbols) -> Vec<u64> {
    let mut places: HashMap<&str, Option<u64>> = HashMap::new();
    for symbol in linked.iter().filter(|symbol| symbol.kind == SymbolKind::Function) {
        // A name that several have tells nothing.
        places
            .entry(&symbol.name)
            .and_modify(|place| *place = None)
            .or_insert(Some(symbol.address));
    }
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for symbol in recorded.iter() {
        if let Some(Some(address)) = places.get(symbol.name.as_str()) {
            *votes.entry(symbol.address.wrapping_sub(*address)).or_default() += 1;
        }
    }
    if votes.is_empty() {
        return vec![0];
    }
    let total: usize = votes.values().sum();
    votes.into_iter().filter(|(_, count)| count * 4 >= total).map(|(by, _)| by).collect()
}

struct Coverage<'a> {
    lines: &'a Lines,
    count: &'a dyn Fn(u64) -> u64,
    functions: HashMap<u64, &'a str>,
    files: Vec<SourceFile>,
    by_name: HashMap<String, usize>,
}

impl<'a> Coverage<'a> {
    fn unit(&mut self, program: gimli::IncompleteLineProgram<Slice<'a>>) -> Result<(), LineError> {
        let mut rows = program.rows();
        let mut files: HashMap<u64, usize> = HashMap::new();
        while let Some((header, row)) = rows.next_row()? {
            let Some(line) = row.line().filter(|_| !row.end_sequence() && row.is_stmt()) else {
                continue;
            };
            let number = row.file_index();
            let file = match files.get(&number) {
                Some(file) => *file,
                None => {
                    let file = self.file(header, number);
                    files.insert(number, file);
                    file
                }
            };
            let count = (self.count)(row.address());
            let file = &mut self.files[file];
            let known = file.lines.entry(line.get()).or_default();
            *known = count.max(*known);
            if let Some(name) = self.functions.get(&row.address())
                && !file.functions.contains_key(*name)
            {
                file.functions.insert((*name).to_owned(), (line.get(), count));
            }
        }
        Ok(())
    }

    fn file(&mut self, header: &LineProgramHeader<Slice<'a>>, number: u64) -> usize {
        let name = self.file_name(header, number);
        let next = self.files.len();
        let index = *self.by_name.entry(name.clone()).or_insert(next);
        if index == next {
            self.files.push(SourceFile { name, ..SourceFile::default() });
        }
        index
    }

    fn file_name(&self, header: &LineProgramHeader<Slice<'a>>, number: u64) -> String {
        let Some(entry) = header.file(number) else { return "(unknown)".into() };
        let name = self.lines.text(&entry.path_name());
        // Folder 0 is the unit's own, to which the others are relative.
        let own = header.directory(0).map(|folder| self.lines.text(&folder)).unwrap_or_default();
        let folder = entry.directory(header).map(|folder| self.lines.text(&folder));
        let path = Path::new(&own).join(folder.unwrap_or_default()).join(name);
        path.to_string_lossy().into_owned()
    }
}
