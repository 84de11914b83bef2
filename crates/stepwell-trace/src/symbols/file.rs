//! A file with symbols for debuggers, made from what is known of a kernel that comes without.
//!
//! A distribution's kernel is stripped; what it carries are the names that it prints itself, its
//! kallsyms. A debugger wants an ELF, and to walk a stack it wants to be told how: a kernel built
//! with frame pointers has it all in its instructions, and GDB reads those as well, but gives up at
//! the `nop` that ftrace has at the top of every function. So the file has call frame information
//! too, made by [`frames`].
//!
//! There is no code in it: debuggers read that from the guest, where it may have been patched.
//!
//! All of the image is one segment, so that a debugger that is told how far the kernel has moved
//! moves all of it.

mod frames;
mod regions;

use super::{Symbol, SymbolKind, Symbols};
use regions::Region;
use std::ops::Range;

const HEADER_BYTES: u64 = 64;
const SEGMENT_BYTES: u16 = 56;
const SECTION_BYTES: u16 = 64;
/// Where the contents begin: behind the two headers.
const CONTENTS_AT: u64 = HEADER_BYTES + SEGMENT_BYTES as u64;
const SYMBOL_BYTES: u64 = 24;
/// EM_AARCH64.
const AARCH64: u16 = 183;
const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const NOBITS: u32 = 8;
const ALLOC_WRITE: u64 = 3;
const ALLOC_EXECUTE: u64 = 6;
/// Longest that a function of unknown size is taken to be.
const FUNCTION_MAX: u64 = 1 << 20;

/// Where a function that a debugger calls returns to: GDB takes the entry point for that, and has a
/// breakpoint there meanwhile. So it is code that the kernel keeps and does not execute; the
/// image's first instruction is neither.
const CALLS_RETURN_TO: [&str; 4] = ["machine_halt", "machine_restart", "panic", "_stext"];

/// Makes an ELF of `symbols`. `code` is the image, whose first byte has the link base's address.
#[must_use]
pub fn to_elf(symbols: &Symbols, code: &[u8]) -> Vec<u8> {
    let base = symbols.link_base().or_else(|| symbols.iter().map(|s| s.address).min());
    let base = base.unwrap_or_default();
    let end = base.saturating_add(code.len() as u64);
    let text_end = symbols.address_of("_etext").map_or(end, |va| va.0.clamp(base, end));
    let list = functions(symbols);
    let regions = regions::divide(symbols, &(base..end), text_end);
    let mut strings = vec![0];
    let mut table = vec![0; SYMBOL_BYTES as usize];
    for symbol in symbols.iter().filter(|symbol| (base..=end).contains(&symbol.address)) {
        let size = match symbol.kind {
            SymbolKind::Function => size_of(&list, symbol),
            SymbolKind::Other => symbol.size,
        };
        push_symbol(&mut table, &mut strings, symbol, size, section_of(&regions, symbol));
    }
    let frames = frames::debug_frame(&list, base, code);
    let entry = CALLS_RETURN_TO.iter().find_map(|name| symbols.address_of(name));
    let mut file = File::new(base..end, entry.map_or(base, |va| va.0.clamp(base, end)));
    for (n, Region { range, is_code }) in regions.iter().enumerate() {
        let (name, flags) =
            if *is_code { (".text", ALLOC_EXECUTE) } else { (".data", ALLOC_WRITE) };
        // The first of each has the name that everybody expects.
        let name = if n < 2 { name.to_owned() } else { format!("{name}.{n}") };
        file.add(&name, NOBITS, flags, range.start, Contents::Size(range.end - range.start));
    }
    file.add(".debug_frame", PROGBITS, 0, 0, Contents::Bytes(frames));
    file.add(".symtab", SYMTAB, 0, 0, Contents::Bytes(table));
    file.add(".strtab", STRTAB, 0, 0, Contents::Bytes(strings));
    file.finish()
}

/// Returns the number of the section that a symbol lies in; what lies behind the last byte belongs
/// to the last one.
fn section_of(regions: &[Region], symbol: &Symbol) -> u16 {
    let before = regions.partition_point(|region| region.range.start <= symbol.address);
    u16::try_from(before.max(1)).unwrap_or(1)
}

/// Functions as address and size, in order, one at each address.
fn functions(symbols: &Symbols) -> Vec<(u64, u64)> {
    let functions = symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Function);
    let mut list: Vec<(u64, u64)> = functions.map(|s| (s.address, s.size)).collect();
    list.dedup_by_key(|(address, _)| *address);
    let next: Vec<Option<u64>> =
        (1..=list.len()).map(|n| list.get(n).map(|(address, _)| *address)).collect();
    for ((address, size), next) in list.iter_mut().zip(next) {
        if *size == 0 {
            *size = next.map_or(FUNCTION_MAX, |next| next - *address).min(FUNCTION_MAX);
        }
    }
    list
}

fn size_of(functions: &[(u64, u64)], symbol: &Symbol) -> u64 {
    let found = functions.binary_search_by_key(&symbol.address, |(address, _)| *address);
    found.ok().and_then(|n| functions.get(n)).map_or(0, |(_, size)| *size)
}

fn push_symbol(
    table: &mut Vec<u8>,
    strings: &mut Vec<u8>,
    symbol: &Symbol,
    size: u64,
    section: u16,
) {
    const LOCAL_FUNCTION: u8 = 2;
    const LOCAL_OBJECT: u8 = 1;
    let kind = match symbol.kind {
        SymbolKind::Function => LOCAL_FUNCTION,
        SymbolKind::Other => LOCAL_OBJECT,
    };
    table.extend((strings.len() as u32).to_le_bytes());
    table.extend([kind, 0]);
    table.extend(section.to_le_bytes());
    table.extend(symbol.address.to_le_bytes());
    table.extend(size.to_le_bytes());
    strings.extend(symbol.name.bytes());
    strings.push(0);
}

enum Contents {
    Size(u64),
    Bytes(Vec<u8>),
}

/// An ELF in the making: its sections' headers and contents.
struct File {
    /// Addresses of the image.
    image: Range<u64>,
    entry: u64,
    names: Vec<u8>,
    headers: Vec<u8>,
    contents: Vec<u8>,
    sections: u16,
}

impl File {
    fn new(image: Range<u64>, entry: u64) -> Self {
        // The first section is none, and its name is empty.
        let (names, headers) = (vec![0], vec![0; usize::from(SECTION_BYTES)]);
        Self { image, entry, names, headers, contents: Vec::new(), sections: 1 }
    }

    fn add(&mut self, name: &str, kind: u32, flags: u64, address: u64, contents: Contents) {
        let at = CONTENTS_AT + self.contents.len() as u64;
        let size = match &contents {
            Contents::Size(size) => *size,
            Contents::Bytes(bytes) => bytes.len() as u64,
        };
        // A table of symbols names the section of their names, which follows it, and ends its local
        // symbols where it ends.
        let (link, info, entry) = match kind {
            SYMTAB => (u32::from(self.sections) + 1, (size / SYMBOL_BYTES) as u32, SYMBOL_BYTES),
            _ => (0, 0, 0),
        };
        let header = &mut self.headers;
        header.extend((self.names.len() as u32).to_le_bytes());
        header.extend(kind.to_le_bytes());
        for value in [flags, address, at, size] {
            header.extend(value.to_le_bytes());
        }
        header.extend(link.to_le_bytes());
        header.extend(info.to_le_bytes());
        header.extend(8_u64.to_le_bytes());
        header.extend(entry.to_le_bytes());
        self.names.extend(name.bytes());
        self.names.push(0);
        self.sections += 1;
        if let Contents::Bytes(bytes) = contents {
            self.contents.extend(bytes);
            self.contents.resize(self.contents.len().next_multiple_of(8), 0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        const EXECUTABLE: u16 = 2;
        let mut names = self.names.clone();
        names.extend(b".shstrtab\0");
        self.add(".shstrtab", STRTAB, 0, 0, Contents::Bytes(names));
        let headers_at = CONTENTS_AT + self.contents.len() as u64;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend(EXECUTABLE.to_le_bytes());
        file.extend(AARCH64.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for value in [self.entry, HEADER_BYTES, headers_at] {
            file.extend(value.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        let names = self.sections - 1;
        for value in [HEADER_BYTES as u16, SEGMENT_BYTES, 1, SECTION_BYTES, self.sections, names] {
            file.extend(value.to_le_bytes());
        }
        file.extend(segment(&self.image));
        file.extend(self.contents);
        file.extend(self.headers);
        file
    }
}

/// Returns the header of a segment that has none of its bytes in the file.
fn segment(image: &Range<u64>) -> Vec<u8> {
    const LOAD: u32 = 1;
    const READ_WRITE_EXECUTE: u32 = 7;
    let size = image.end - image.start;
    let mut header: Vec<u8> = [LOAD, READ_WRITE_EXECUTE].map(u32::to_le_bytes).concat();
    for value in [CONTENTS_AT, image.start, image.start, 0, size, 8] {
        header.extend(value.to_le_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::{Object, ObjectSection, ObjectSegment, ObjectSymbol};
    use stepwell_arch::address::Va;

    #[test]
    fn what_is_written_is_read() {
        let symbol =
            |address, kind, name: &str| Symbol { address, size: 0, kind, name: name.into() };
        let base = 0xffff_8000_0800_0000;
        let list = [
            symbol(base, SymbolKind::Other, "_text"),
            symbol(base + 8, SymbolKind::Function, "first"),
            symbol(base + 16, SymbolKind::Function, "second"),
            symbol(base + 24, SymbolKind::Other, "_etext"),
            symbol(base + 28, SymbolKind::Other, "variable"),
            symbol(base + 32, SymbolKind::Function, "start_kernel"),
            symbol(base + 40, SymbolKind::Other, "_end"),
        ];
        let elf = to_elf(&Symbols::new(list, Some(base)), &[0; 40]);
        let symbols = super::super::elf::from_elf(&elf).unwrap();
        assert_eq!(symbols.link_base(), Some(base));
        assert_eq!(symbols.lookup(Va(base + 12)), Some(("first", 4)));
        assert_eq!(symbols.address_of("variable"), Some(Va(base + 28)));
        let file = object::File::parse(elf.as_slice()).unwrap();
        let sections: Vec<(String, u64, u64)> = file
            .sections()
            .map(|section| (section.name().unwrap().to_owned(), section.address(), section.size()))
            .collect();
        assert_eq!(sections[0], (".text".into(), base, 24));
        assert_eq!(sections[1], (".data".into(), base + 24, 8));
        assert_eq!(sections[2], (".text.2".into(), base + 32, 8));
        assert!(file.section_by_name(".debug_frame").unwrap().size() > 0);
        assert_eq!(file.sections().count(), 7);
        for (name, section) in
            [("first", ".text"), ("variable", ".data"), ("start_kernel", ".text.2")]
        {
            let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
            let index = symbol.section_index().unwrap();
            assert_eq!(file.section_by_index(index).unwrap().name(), Ok(section), "{name}");
        }
        let segments: Vec<(u64, u64)> =
            file.segments().map(|it| (it.address(), it.size())).collect();
        assert_eq!(segments, [(base, 40)], "all of it moves together");
        assert_eq!(file.entry(), base);
    }

    #[test]
    fn what_a_debugger_calls_returns_to_code_that_the_kernel_keeps() {
        let symbol = |address, name: &str| Symbol {
            address,
            size: 0,
            kind: SymbolKind::Function,
            name: name.into(),
        };
        let list = [symbol(0x1000, "_head"), symbol(0x1010, "panic"), symbol(0x1020, "_stext")];
        let elf = to_elf(&Symbols::new(list, Some(0x1000)), &[0; 0x100]);
        assert_eq!(object::File::parse(elf.as_slice()).unwrap().entry(), 0x1010);
    }
}
