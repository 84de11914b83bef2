//! Names for addresses.
//!
//! A table holds the addresses of where the code was *linked*, or of where it runs once
//! [`Symbols::relocated`] moved it: a kernel first runs at its load address with the MMU off, then
//! at its link address plus the KASLR offset. Whoever knows the machine makes a table for each.
//!
//! Looking an address up prefers functions, and never answers with a mapping symbol (`$x`, `$d`).
//! An address far beyond the last symbol has no name, rather than the last name and a huge offset.

pub mod elf;
pub mod file;
pub mod identity;
pub mod kallsyms;
mod suggest;

use crate::printable::printable;
use std::borrow::Cow;
use std::ops::RangeInclusive;
use stepwell_arch::address::Va;

/// How far beyond a symbol of unknown size an address may lie and still be called by its name.
const REACH: u64 = 1 << 20;

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolKind {
    /// Code.
    Function,
    /// Data, a section's border, or unknown.
    Other,
}

impl SymbolKind {
    pub(crate) const fn number(self) -> u64 {
        match self {
            Self::Function => 1,
            Self::Other => 0,
        }
    }

    pub(crate) const fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Function,
            _ => Self::Other,
        }
    }
}

/// A name and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// First address.
    pub address: u64,
    /// Bytes, 0 if unknown.
    pub size: u64,
    /// What it names.
    pub kind: SymbolKind,
    /// The name.
    pub name: String,
}

/// A table of symbols, sorted by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Sorted by address; of those at one address the best name comes last.
    entries: Vec<Symbol>,
    link_base: Option<u64>,
}

impl Symbols {
    /// Makes a table. `link_base` is the address that the image's first byte was linked at, if
    /// the table belongs to an image.
    ///
    /// Mapping symbols and empty names are dropped. Names are made [`printable`]: they come from
    /// files and guests, and go to terminals.
    pub fn new(symbols: impl IntoIterator<Item = Symbol>, link_base: Option<u64>) -> Self {
        let symbols = symbols.into_iter().filter(|symbol| !is_mapping_symbol(&symbol.name));
        let mut entries: Vec<Symbol> = symbols.map(with_printable_name).collect();
        entries.sort_by(|a, b| (a.address, rank(a), &b.name).cmp(&(b.address, rank(b), &a.name)));
        entries.dedup();
        Self { entries, link_base }
    }

    /// Returns the name of the function (or else the symbol) that `va` lies in, and the offset in
    /// bytes.
    #[must_use]
    pub fn lookup(&self, va: Va) -> Option<(&str, u64)> {
        self.symbol_at(va).map(|symbol| (symbol.name.as_str(), va.0 - symbol.address))
    }

    /// Returns the symbol that `va` lies in.
    ///
    /// A function that is known to cover `va` wins over labels inside it. Between a function's end
    /// and the next symbol there is padding, which belongs to nobody.
    #[must_use]
    pub fn symbol_at(&self, va: Va) -> Option<&Symbol> {
        /// Labels in one function that are looked past.
        const LABELS_MAX: usize = 16;
        let after = self.entries.partition_point(|symbol| symbol.address <= va.0);
        let covers = |symbol: &&Symbol| va.0 - symbol.address < symbol.size;
        let near = self.entries[..after].iter().rev().take(LABELS_MAX);
        let function =
            near.clone().find(|symbol| symbol.kind == SymbolKind::Function && covers(symbol));
        function.or_else(|| {
            let symbol = self.entries[..after].last()?;
            let reached = symbol.size == 0 && va.0 - symbol.address < REACH;
            if reached { Some(symbol) } else { near.into_iter().find(covers) }
        })
    }

    /// Returns the first symbol that begins after `va`.
    #[must_use]
    pub fn next_after(&self, va: Va) -> Option<&Symbol> {
        self.entries.get(self.entries.partition_point(|symbol| symbol.address <= va.0))
    }

    /// Returns where `name` is; if several have it, functions first, then the lowest address.
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<Va> {
        let named = self.entries.iter().filter(|symbol| symbol.name == name);
        named.min_by_key(|symbol| (symbol.kind, symbol.address)).map(|symbol| Va(symbol.address))
    }

    /// Returns the addresses that `name` covers, from its first byte to its last: of each function
    /// that has the name, else of each symbol. Where a size is not known, the next symbol ends it.
    #[must_use]
    pub fn places_of(&self, name: &str) -> Vec<RangeInclusive<u64>> {
        let named = self.entries.iter().filter(|symbol| symbol.name == name);
        let kind = named.clone().map(|symbol| symbol.kind).min();
        let best = named.filter(|symbol| Some(symbol.kind) == kind);
        best.map(|symbol| self.place_of(symbol)).collect()
    }

    /// Returns the addresses that a symbol of this table covers, from its first byte to its last.
    #[must_use]
    pub fn place_of(&self, symbol: &Symbol) -> RangeInclusive<u64> {
        let first = symbol.address;
        if symbol.size > 0 {
            return first..=first.saturating_add(symbol.size - 1);
        }
        let reach = first.saturating_add(REACH - 1);
        first..=self.next_after(Va(first)).map_or(reach, |next| reach.min(next.address - 1))
    }

    /// Returns a table with all addresses moved by `delta`, wrapping: KASLR, or the load address
    /// minus the link address for what runs before the MMU is on.
    #[must_use]
    pub fn relocated(&self, delta: u64) -> Self {
        let moved = self
            .entries
            .iter()
            .map(|symbol| Symbol { address: symbol.address.wrapping_add(delta), ..symbol.clone() });
        Self::new(moved, self.link_base.map(|base| base.wrapping_add(delta)))
    }

    /// Returns a table that holds both, for code that runs at two addresses in its life.
    ///
    /// The link base stays that of `self`.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let both = self.entries.iter().chain(&other.entries).cloned();
        Self::new(both, self.link_base)
    }

    /// Returns the address of the image's first byte in this table, if it belongs to an image and
    /// that is known.
    #[must_use]
    pub const fn link_base(&self) -> Option<u64> {
        self.link_base
    }

    /// Returns how far into the image `name` is, in bytes.
    #[must_use]
    pub fn image_offset(&self, name: &str) -> Option<u64> {
        let address = self.address_of(name)?;
        Some(address.0.wrapping_sub(self.link_base?))
    }

    /// Returns up to `count` names that somebody who typed `name` may have meant, the best first.
    #[must_use]
    pub fn suggestions(&self, name: &str, count: usize) -> Vec<&str> {
        suggest::closest(self.entries.iter().map(|symbol| symbol.name.as_str()), name, count)
    }

    /// Returns the symbols in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = &Symbol> {
        self.entries.iter()
    }

    /// Returns how many symbols there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn with_printable_name(symbol: Symbol) -> Symbol {
    match printable(&symbol.name) {
        Cow::Borrowed(_) => symbol,
        Cow::Owned(name) => Symbol { name, ..symbol },
    }
}

/// Orders symbols at one address: the last one is shown.
fn rank(symbol: &Symbol) -> (bool, bool, bool) {
    // `_stext`, `__irqentry_text_start` and the like name borders, not functions.
    let border = symbol.name.ends_with("_start") || symbol.name.ends_with("_end");
    (symbol.kind == SymbolKind::Function, !border, !symbol.name.starts_with('_'))
}

/// Tells whether the name marks code or data for tools, in the way of the Arm ELF ABI. Linux puts
/// prefixes before all names of code that it builds a second time, and these do not spare them.
fn is_mapping_symbol(name: &str) -> bool {
    let prefixes = ["__pi_", "__efistub_"];
    let bare = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let mut bytes = bare.bytes();
    match (bytes.next(), bytes.next()) {
        (None, _) => true,
        (Some(b'$'), Some(b'x' | b'd' | b'a' | b't')) => matches!(bytes.next(), None | Some(b'.')),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(address: u64, size: u64, kind: SymbolKind, name: &str) -> Symbol {
        Symbol { address, size, kind, name: name.into() }
    }

    fn table() -> Symbols {
        use SymbolKind::{Function, Other};
        let list = [
            symbol(0x1000, 0, Other, "_text"),
            symbol(0x1000, 0, Function, "primary_entry"),
            symbol(0x1010, 0, Function, "$x"),
            symbol(0x1010, 0, Other, "$d.42"),
            symbol(0x1010, 0, Function, "__pi_$x"),
            symbol(0x1120, 0, Other, "a_label_inside"),
            symbol(0x1100, 0x40, Function, "do_one_initcall"),
            symbol(0x1c00, 8, Function, "tiny"),
            symbol(0x2000, 0, Function, "start_kernel"),
        ];
        Symbols::new(list, Some(0x1000))
    }

    #[test]
    fn functions_win_and_mapping_symbols_never_do() {
        let table = table();
        assert_eq!(table.lookup(Va(0x1000)), Some(("primary_entry", 0)));
        assert_eq!(table.lookup(Va(0x1014)), Some(("primary_entry", 0x14)));
        assert_eq!(table.lookup(Va(0x113f)), Some(("do_one_initcall", 0x3f)));
        assert_eq!(table.address_of("a_label_inside"), Some(Va(0x1120)));
        assert_eq!(table.lookup(Va(0x1120)), Some(("do_one_initcall", 0x20)));
        assert_eq!(table.lookup(Va(0x1c07)), Some(("tiny", 7)));
        assert_eq!(table.lookup(Va(0x1c08)), None);
        assert_eq!(table.lookup(Va(0xfff)), None);
        assert_eq!(table.lookup(Va(0x2000 + REACH)), None);
    }

    #[test]
    fn a_place_ends_with_its_size_or_the_next_symbol() {
        let table = table();
        assert_eq!(table.places_of("do_one_initcall"), [0x1100..=0x113f]);
        assert_eq!(table.places_of("primary_entry"), [0x1000..=0x10ff]);
        assert_eq!(table.places_of("start_kernel"), [0x2000..=0x2000 + REACH - 1]);
        assert!(table.places_of("nothing").is_empty());
    }

    #[test]
    fn relocation_moves_the_base_too() {
        let moved = table().relocated(0u64.wrapping_sub(0x800));
        assert_eq!(moved.address_of("start_kernel"), Some(Va(0x1800)));
        assert_eq!(moved.link_base(), Some(0x800));
        assert_eq!(moved.image_offset("start_kernel"), Some(0x1000));
        let both = moved.merged(&table());
        assert_eq!(both.lookup(Va(0x1804)), Some(("start_kernel", 4)));
        assert_eq!(both.lookup(Va(0x2004)), Some(("start_kernel", 4)));
    }

    #[test]
    fn no_name_reaches_a_terminal_with_an_escape_in_it() {
        let names = ["evil\x1b[2J", "evil\nvcpu0  forged"];
        let list = names.map(|name| symbol(0x1000, 4, SymbolKind::Function, name));
        let table = Symbols::new(list, None);
        let names: Vec<&str> = table.iter().map(|symbol| symbol.name.as_str()).collect();
        assert_eq!(names, ["evil^[[2J", "evil^Jvcpu0  forged"]);
    }

    #[test]
    fn suggestions_come_closest_first() {
        assert_eq!(table().suggestions("start_kernal", 2)[0], "start_kernel");
        assert_eq!(table().suggestions("initcall", 1), ["do_one_initcall"]);
        assert!(table().suggestions("zzzzzzzzzzzzzz", 3).is_empty());
    }
}
