//! Programs of a Linux guest's: their symbols, by the files that they were started from.
//!
//! A guest's files are looked for below a folder of the host's (`--sysroot`), which has them as the
//! guest has: its root file system, or the part of it that matters. Where a program is in a process's
//! addresses, the kernel's list of mappings says.

use crate::linux::LinuxError;
use crate::names::{NameError, Names, number};
use crate::questions;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, elf};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stepwell_arch::Va;
use stepwell_debuggee::{Debuggee, VcpuId};
use stepwell_linux::Mapping;
use stepwell_trace::{Symbol, Symbols};

/// Where programs are that are named without a folder.
const FOLDERS: [&str; 8] =
    ["", "bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "root", "lib"];
/// Most mappings whose files are looked at.
const MAPPINGS_MAX: usize = 256;

/// The programs that were looked at, and where those of the last process are.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    root: Option<PathBuf>,
    known: HashMap<String, Option<Arc<Program>>>,
    /// Of the process that a vCPU was last seen in, as it was then.
    placed: Vec<Placed>,
    /// Symbols of all that were seen, at their addresses, for recordings.
    seen: Vec<(u64, Arc<Program>)>,
}

/// A program's symbols, and where in its file they are.
#[derive(Debug)]
struct Program {
    name: String,
    symbols: Symbols,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    address: u64,
    offset: u64,
    bytes: u64,
}

/// A part of a program in a process's addresses.
#[derive(Clone, Debug)]
struct Placed {
    start: u64,
    end: u64,
    /// What is added to an address of the file's.
    moved_by: u64,
    program: Arc<Program>,
}

impl Program {
    fn read(name: &str, bytes: &[u8]) -> Option<Self> {
        let symbols = stepwell_trace::symbols::elf::from_elf(bytes).ok()?;
        let header = elf::FileHeader64::<LittleEndian>::parse(bytes).ok()?;
        let all = header.program_headers(LittleEndian, bytes).ok()?.iter();
        let loaded = all.filter(|one| one.p_type(LittleEndian) == elf::PT_LOAD);
        let segment = |one: &elf::ProgramHeader64<LittleEndian>| Segment {
            address: one.p_vaddr(LittleEndian),
            offset: one.p_offset(LittleEndian),
            bytes: one.p_filesz(LittleEndian),
        };
        Some(Self { name: name.to_owned(), symbols, segments: loaded.map(segment).collect() })
    }

    /// How far a mapping of the file moves what is in it.
    fn moved_by(&self, mapping: &Mapping) -> Option<u64> {
        let offset = mapping.offset;
        let length = mapping.end.saturating_sub(mapping.start);
        // Segments share pages of the file at their borders: the mapping is that of which it has most.
        let shared = |one: &&Segment| {
            let end = one.offset.saturating_add(one.bytes).min(offset.saturating_add(length));
            end.saturating_sub(one.offset.max(offset))
        };
        let segment = self.segments.iter().max_by_key(shared).filter(|one| shared(one) > 0)?;
        let address = segment.address.wrapping_sub(segment.offset).wrapping_add(offset);
        Some(mapping.start.wrapping_sub(address))
    }
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A word of the form `PROGRAM!SYMBOL` or `PROGRAM!SYMBOL+0xOFFSET`.
fn split(word: &str) -> Result<(&str, &str, u64), NameError> {
    let (program, place) = word.split_once('!').unwrap_or(("", word));
    Ok(match place.split_once('+') {
        Some((symbol, offset)) => (program, symbol, number(offset)?),
        None => (program, place, 0),
    })
}

impl Programs {
    /// Has the guest's files looked for below a folder.
    pub fn set_root(&mut self, root: &Path) {
        *self = Self { root: Some(root.to_owned()), ..Self::default() };
    }

    /// Looks for a program, by its path or its name.
    fn find(&mut self, name: &str) -> Option<Arc<Program>> {
        let root = self.root.clone()?;
        let look = || {
            let name = name.trim_start_matches('/');
            let folders: &[&str] = if name.contains('/') { &[""] } else { &FOLDERS };
            let paths = folders.iter().map(|folder| root.join(folder).join(name));
            let bytes =
                paths.filter(|path| path.is_file()).find_map(|path| std::fs::read(path).ok())?;
            Program::read(last(name), &bytes).map(Arc::new)
        };
        self.known.entry(name.to_owned()).or_insert_with(look).clone()
    }

    /// Checks that a word means something in its program, wherever that will be.
    ///
    /// # Errors
    ///
    /// [`NameError`].
    pub fn check(&mut self, word: &str) -> Result<(), NameError> {
        let (name, symbol, _) = split(word)?;
        if self.root.is_none() {
            return Err(NameError::NoSysroot(name.to_owned()));
        }
        let program = self.find(name).ok_or_else(|| NameError::NoProgram {
            name: name.to_owned(),
            root: self.root.clone().unwrap_or_default(),
        })?;
        if program.symbols.address_of(symbol).is_some() {
            return Ok(());
        }
        let closest = program.symbols.suggestions(symbol, 3).into_iter();
        let closest = closest.map(|close| format!("{name}!{close}")).collect();
        Err(NameError::Unknown { name: word.to_owned(), closest })
    }

    /// Where a word leads among a process's mappings; nothing where its program is not among them.
    ///
    /// # Errors
    ///
    /// [`NameError`].
    pub fn resolve(&mut self, word: &str, mappings: &[Mapping]) -> Result<Option<Va>, NameError> {
        self.check(word)?;
        let (name, symbol, offset) = split(word)?;
        let Some(program) = self.find(name) else { return Ok(None) };
        let Some(address) = program.symbols.address_of(symbol) else { return Ok(None) };
        let is_it = |file: &str| if name.contains('/') { file == name } else { last(file) == name };
        let found = mappings
            .iter()
            .filter(|mapping| mapping.file.as_deref().is_some_and(is_it))
            .find_map(|mapping| {
                let va = address.0.wrapping_add(program.moved_by(mapping)?);
                (mapping.start..mapping.end).contains(&va).then(|| Va(va).offset(offset))
            });
        Ok(found)
    }

    /// Learns what a process has where.
    fn place(&mut self, mappings: &[Mapping]) {
        self.placed.clear();
        for mapping in mappings.iter().take(MAPPINGS_MAX) {
            let Some(program) = mapping.file.as_deref().and_then(|file| self.find(file)) else {
                continue;
            };
            let Some(moved_by) = program.moved_by(mapping) else { continue };
            let is_known =
                |(by, one): &(u64, Arc<Program>)| *by == moved_by && Arc::ptr_eq(one, &program);
            if !self.seen.iter().any(is_known) {
                self.seen.push((moved_by, Arc::clone(&program)));
            }
            let Mapping { start, end, .. } = *mapping;
            self.placed.push(Placed { start, end, moved_by, program });
        }
    }

    /// Returns `program!symbol` and how far behind it an address is, in the process that was seen last.
    #[must_use]
    pub fn describe(&self, va: Va) -> Option<(String, u64)> {
        let placed = self.placed.iter().find(|one| (one.start..one.end).contains(&va.0))?;
        let name = &placed.program.name;
        let linked = va.0.wrapping_sub(placed.moved_by);
        Some(match placed.program.symbols.lookup(Va(linked)) {
            Some((symbol, offset)) => (format!("{name}!{symbol}"), offset),
            None => (name.clone(), linked),
        })
    }

    /// How many programs were seen, in how many places: changes with [`Programs::symbols`].
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Returns the symbols of all programs that were seen, as they are shown.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> {
        self.seen.iter().flat_map(|(moved_by, program)| {
            let at = |one: &Symbol| one.address.wrapping_add(*moved_by);
            let called = |one: &Symbol| format!("{}!{}", program.name, one.name);
            let all = program.symbols.iter();
            all.map(move |one| Symbol { address: at(one), name: called(one), ..one.clone() })
        })
    }
}

/// Learns of the program that a vCPU is in at `pc`, in the lower half of addresses. Anew each time: the
/// next process may have its address space where one that has ended had it, and a process may have mapped
/// something else where a library was.
///
/// # Errors
///
/// [`LinuxError`].
pub fn notice(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
    pc: Va,
) -> Result<(), LinuxError> {
    if names.programs().root.is_none() || pc.0 >> 55 & 1 != 0 {
        return Ok(());
    }
    let task = questions::current_task(names, debuggee, vcpu);
    let mappings = task.and_then(|task| questions::mappings(names, debuggee, vcpu, &task));
    // What cannot be told has no names, and not those of another.
    names.programs().place(mappings.as_deref().unwrap_or_default());
    mappings.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_linux::mapping::Identity;
    use stepwell_trace::SymbolKind;

    fn program() -> Program {
        let symbol = Symbol {
            address: 0x1_0234,
            size: 8,
            kind: SymbolKind::Function,
            name: "main".to_owned(),
        };
        let segments = vec![
            Segment { address: 0, offset: 0, bytes: 0x200 },
            Segment { address: 0x1_0200, offset: 0x200, bytes: 0x1000 },
        ];
        Program { name: "prog".to_owned(), symbols: Symbols::new([symbol], None), segments }
    }

    fn mapping(start: u64, end: u64, offset: u64, file: &str) -> Mapping {
        Mapping {
            start,
            end,
            flags: 5,
            file: Some(file.to_owned()),
            special: None,
            offset,
            identity: Identity::default(),
        }
    }

    fn programs() -> Programs {
        let root = Some(PathBuf::from("/nowhere"));
        let known = ["prog", "/bin/prog"].map(|name| (name.to_owned(), Some(Arc::new(program()))));
        Programs { root, known: known.into(), ..Programs::default() }
    }

    #[test]
    fn a_symbol_is_where_its_part_of_the_file_is_mapped() {
        let mut programs = programs();
        let maps = [
            mapping(0xaaaa_0000, 0xaaaa_1000, 0, "/bin/prog"),
            mapping(0xaaab_0000, 0xaaab_2000, 0, "/bin/prog"),
        ];
        // The second segment begins within its page, which is mapped from its start.
        assert_eq!(programs.resolve("prog!main", &maps[1..]), Ok(Some(Va(0xaaab_0234))));
        assert_eq!(programs.resolve("prog!main+0x4", &maps[1..]), Ok(Some(Va(0xaaab_0238))));
        assert_eq!(programs.resolve("prog!main", &[]), Ok(None));
        programs.place(&maps[1..]);
        assert_eq!(programs.describe(Va(0xaaab_0238)), Some(("prog!main".to_owned(), 4)));
        assert_eq!(programs.describe(Va(0xaaac_0000)), None);
        // Another process has another program there, and then one that is not known.
        programs.place(&maps[..1]);
        assert_eq!(programs.describe(Va(0xaaab_0238)), None);
        programs.place(&maps[1..]);
        programs.place(&[mapping(0xaaab_0000, 0xaaab_2000, 0, "/bin/unknown")]);
        assert_eq!(programs.describe(Va(0xaaab_0238)), None);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let mut programs = programs();
        let unknown = programs.check("prog!mian").unwrap_err().to_string();
        assert_eq!(unknown, "unknown symbol prog!mian; close to it: prog!main");
        let none = programs.check("other!main").unwrap_err().to_string();
        assert!(none.contains("no program other") && none.contains("/nowhere"), "{none}");
        let no_root = Programs::default().check("prog!main").unwrap_err().to_string();
        assert!(no_root.contains("--sysroot"), "{no_root}");
    }
}
