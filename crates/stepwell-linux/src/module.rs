//! Modules: which are loaded, where, and the names of what is in them.

use crate::btf::{Field, field, text};
use crate::{Btf, Error, Kernel, Memory, list};
use std::ops::Range;
use stepwell_trace::{Symbol, SymbolKind, Symbols};

/// Most modules that are read.
const MODULES_MAX: usize = 4096;
/// Most symbols of a module that are read.
const SYMBOLS_MAX: u64 = 1 << 16;
/// Longest name of a symbol (`KSYM_NAME_LEN` in `include/linux/kallsyms.h`).
const SYMBOL_NAME_MAX: usize = 512;
/// What a module's own reference counts for (`MODULE_REF_BASE` in `kernel/module/main.c`).
const OWN_REFERENCE: u64 = 1;
/// The size of a symbol of the ELF format (`Elf64_Sym`), and where its value and its size are.
const ELF_SYMBOL_BYTES: usize = 24;
/// Most kinds of memory that a module may have (`MOD_MEM_NUM_TYPES` is 7).
const REGIONS_MAX: u64 = 16;

/// Where the members of a module are that are asked for here.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    state: Field,
    list: Field,
    name: Field,
    references: Option<Field>,
    init: Field,
    kallsyms: Option<Kallsyms>,
    /// Base and size of each region; the first has the module's code.
    regions: Vec<(Field, Field)>,
    /// Base and size of the variables that each CPU has its own of.
    per_cpu: Option<(Field, Field)>,
}

/// Where a module's symbols are.
#[derive(Clone, Debug)]
struct Kallsyms {
    pointer: Field,
    symbols: Field,
    count: Field,
    strings: Field,
    types: Option<Field>,
}

impl Layout {
    pub(crate) fn new(btf: &Btf) -> Result<Self, Error> {
        let module = |path: &str| field(btf, "module", &[path]);
        Ok(Self {
            state: module("state")?,
            list: module("list")?,
            name: module("name")?,
            references: module("refcnt").ok(),
            init: module("init")?,
            kallsyms: Kallsyms::new(btf).ok(),
            regions: regions(btf)?,
            per_cpu: module("percpu").ok().zip(module("percpu_size").ok()),
        })
    }
}

/// Finds the regions: an array of them since Linux 6.4, `core_layout` and `init_layout` before.
fn regions(btf: &Btf) -> Result<Vec<(Field, Field)>, Error> {
    let module = |path: &str| field(btf, "module", &[path]);
    let region = |path: &str| {
        Ok::<_, Error>((module(&format!("{path}.base"))?, module(&format!("{path}.size"))?))
    };
    let of_array: Vec<_> =
        (0..REGIONS_MAX).map_while(|index| region(&format!("mem.{index}")).ok()).collect();
    if !of_array.is_empty() {
        return Ok(of_array);
    }
    Ok(vec![region("core_layout")?, region("init_layout")?])
}

impl Kallsyms {
    fn new(btf: &Btf) -> Result<Self, Error> {
        let part = |path: &str| field(btf, "mod_kallsyms", &[path]);
        Ok(Self {
            pointer: field(btf, "module", &["kallsyms"])?,
            symbols: part("symtab")?,
            count: part("num_symtab")?,
            strings: part("strtab")?,
            types: part("typetab").ok(),
        })
    }
}

/// How far a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It is used.
    Live,
    /// It is complete, and its `init` is to run, or runs.
    Coming,
    /// It is being removed.
    Going,
    /// It is being set up.
    Unformed,
}

impl State {
    const fn new(number: u64) -> Self {
        match number {
            0 => Self::Live,
            1 => Self::Coming,
            2 => Self::Going,
            _ => Self::Unformed,
        }
    }

    /// Returns the word of `/proc/modules`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "Live",
            Self::Coming => "Loading",
            Self::Going => "Unloading",
            Self::Unformed => "Unformed",
        }
    }
}

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Where its `struct module` is.
    pub address: u64,
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: State,
    /// How many use it.
    pub references: u64,
    /// Where its `init` is.
    pub init: u64,
    /// Its memory; the first region, its code, tells where it is.
    pub regions: Vec<Range<u64>>,
    /// The addresses of its variables that each CPU has its own of, before a CPU's offset.
    pub per_cpu: Range<u64>,
    /// Where its symbols are, which changes once its `init` has returned.
    kallsyms: u64,
}

impl Module {
    /// Reads the module at `address`.
    ///
    /// # Errors
    ///
    /// [`Error::NoMember`], and those of `memory`.
    pub fn read(kernel: &Kernel, memory: &mut dyn Memory, address: u64) -> Result<Self, Error> {
        let layout = kernel.module_layout()?;
        let mut read = |field: &Field| field.read(memory, address);
        let state = State::new(read(&layout.state)?);
        let references = layout.references.as_ref().map(&mut read).transpose()?.unwrap_or_default();
        let init = read(&layout.init)?;
        let kallsyms = layout.kallsyms.as_ref().map(|k| read(&k.pointer)).transpose()?;
        let mut regions = Vec::new();
        for (base, size) in &layout.regions {
            let (base, size) = (read(base)?, read(size)?);
            regions.push(base..base.saturating_add(size));
        }
        let per_cpu = match &layout.per_cpu {
            Some((base, size)) => (read(base)?, read(size)?),
            None => (0, 0),
        };
        let per_cpu = per_cpu.0..per_cpu.0.saturating_add(per_cpu.1);
        let name = layout.name.read_text(memory, address)?;
        let references = references.saturating_sub(OWN_REFERENCE);
        let kallsyms = kallsyms.unwrap_or_default();
        Ok(Self { address, name, state, references, init, regions, per_cpu, kallsyms })
    }

    /// Returns where its code begins: the address in `/proc/modules`.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.regions.first().map_or(0, |region| region.start)
    }

    /// Returns how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        let sizes = self.regions.iter().map(|region| region.end.saturating_sub(region.start));
        sizes.fold(0, u64::saturating_add)
    }

    /// Tells whether `other`, read later, is the same module with the same symbols.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let known = |one: &Self| (one.address, one.kallsyms, one.base(), one.init);
        known(self) == known(other) && self.name == other.name && self.regions == other.regions
    }

    /// Tells whether `name` is its name: `-` and `_` are the same, as for `modprobe`.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name.replace('-', "_") == name.replace('-', "_")
    }

    /// Tells whether a word that begins with `MODULE:` means this one.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        word.split_once(':').is_some_and(|(name, _)| self.is_called(name))
    }

    /// Tells whether an address is one of its own.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.regions.iter().any(|region| region.contains(&address))
    }

    /// Reads its symbols: those of its `init` too while that has not returned.
    ///
    /// # Errors
    ///
    /// [`Error::NoMember`] without kallsyms, [`Error::Endless`], and those of `memory`.
    pub fn symbols(&self, kernel: &Kernel, memory: &mut dyn Memory) -> Result<Symbols, Error> {
        let layout = kernel.module_layout()?.kallsyms.as_ref();
        let layout = layout.ok_or_else(|| Error::NoMember("module.kallsyms".to_owned()))?;
        if self.kallsyms == 0 {
            return Ok(Symbols::default());
        }
        let mut read = |field: &Field| field.read(memory, self.kallsyms);
        let (symbols, count) = (read(&layout.symbols)?, read(&layout.count)?);
        let (strings, types) =
            (read(&layout.strings)?, layout.types.as_ref().map(read).transpose()?);
        if count > SYMBOLS_MAX {
            return Err(Error::Endless { what: "a module's symbols", most: SYMBOLS_MAX as usize });
        }
        let mut found = Vec::new();
        for index in 0..count {
            let at = symbols.wrapping_add(index * ELF_SYMBOL_BYTES as u64);
            let kind = match types {
                Some(types) => Some(byte(memory, types.wrapping_add(index))?),
                None => None,
            };
            found.extend(self.symbol(memory, at, strings, kind)?);
        }
        Ok(Symbols::new(found, None))
    }

    /// Reads a symbol; nothing for one that is none of the module's own.
    fn symbol(
        &self,
        memory: &mut dyn Memory,
        at: u64,
        strings: u64,
        kind: Option<u8>,
    ) -> Result<Option<Symbol>, Error> {
        let mut bytes = [0; ELF_SYMBOL_BYTES];
        memory.read(at, &mut bytes)?;
        let part = |from: usize, length: usize| {
            let bytes = bytes.get(from..from + length).unwrap_or_default();
            bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        let (name, info, section) = (part(0, 4), part(4, 1), part(6, 2));
        let (address, size) = (part(8, 8), part(16, 8));
        let is_own = self.contains(address) || self.per_cpu.contains(&address);
        if section == 0 || name == 0 || !is_own {
            return Ok(None);
        }
        // The kernel's letter where it keeps one, else the ELF's STT_FUNC.
        let is_function = match kind {
            Some(letter) => matches!(letter, b't' | b'T' | b'w' | b'W'),
            None => info & 0xf == 2,
        };
        let kind = if is_function { SymbolKind::Function } else { SymbolKind::Other };
        let name = string(memory, strings.wrapping_add(name))?;
        Ok(Some(Symbol { address, size, kind, name }))
    }
}

fn byte(memory: &mut dyn Memory, at: u64) -> Result<u8, Error> {
    let mut byte = [0];
    memory.read(at, &mut byte)?;
    Ok(byte[0])
}

fn string(memory: &mut dyn Memory, at: u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    while bytes.len() < SYMBOL_NAME_MAX {
        match byte(memory, at.wrapping_add(bytes.len() as u64))? {
            0 => break,
            byte => bytes.push(byte),
        }
    }
    Ok(text(&bytes))
}

/// Returns the loaded modules, the newest first, as `/proc/modules` has them: without those that
/// are still being set up.
///
/// # Errors
///
/// [`Error::NoMember`], [`Error::NoVariable`], [`Error::Damaged`], [`Error::Endless`], and those of
/// `memory`.
pub fn all(kernel: &Kernel, memory: &mut dyn Memory) -> Result<Vec<Module>, Error> {
    let layout = kernel.module_layout()?;
    let head = kernel.module_list(memory)?;
    let entries = list::entries(memory, head, "modules", MODULES_MAX)?;
    let read = |entry: u64| Module::read(kernel, memory, entry.wrapping_sub(layout.list.offset));
    let modules: Result<Vec<Module>, Error> = entries.into_iter().map(read).collect();
    Ok(modules?.into_iter().filter(|module| module.state != State::Unformed).collect())
}
