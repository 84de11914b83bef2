//! Coverage by function and by line, and whether genhtml takes it.

use super::sample::{self, sample};
use super::{assert_golden, text};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolScope};
use std::path::Path;
use std::process::Command;
use stepwell_trace::export::lcov::{
    Covered, LineError, Lines, Listing, write_functions, write_lines,
};

fn functions(name: &str, list: &mut Vec<u8>) -> (String, Covered) {
    let mut out = Vec::new();
    let listing = Listing { name, output: Some(list) };
    let covered = write_functions(&mut sample(), listing, &mut out).unwrap();
    (text(out), covered)
}

/// What genhtml says of a tracefile; `None` if it is not installed.
fn genhtml(folder: &Path, tracefile: &str) -> Option<String> {
    if Command::new("genhtml").arg("--version").output().is_err() {
        println!("left out: genhtml is not installed (Debian package lcov)");
        return None;
    }
    let output = Command::new("genhtml")
        .current_dir(folder)
        .args(["--function-coverage", "--output-directory", "html", tracefile])
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    assert!(folder.join("html/index.html").exists(), "{said}");
    Some(said)
}

#[test]
fn functions_are_counted_and_genhtml_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let list_path = folder.path().join("list.functions");
    let mut list = Vec::new();
    let (tracefile, covered) = functions(list_path.to_str().unwrap(), &mut list);
    assert_eq!((covered.functions, covered.functions_hit, covered.uncounted), (5, 4, 0));
    assert_golden("functions.txt", &text(list.clone()));
    assert_golden("functions.info", &tracefile.replace(list_path.to_str().unwrap(), "/LIST"));
    std::fs::write(&list_path, list).unwrap();
    std::fs::write(folder.path().join("trace.info"), tracefile).unwrap();
    let Some(said) = genhtml(folder.path(), "trace.info") else { return };
    let lower = said.to_lowercase();
    assert!(!lower.contains("warning") && !lower.contains("error"), "{said}");
    assert!(said.contains("80.0% (4 of 5 functions)"), "{said}");
}

/// A line table of version 4 for one file: rows of address, line.
fn line_table(folder: &str, file: &str, sequences: &[&[(u64, i64)]]) -> Vec<u8> {
    let mut header = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    header.extend(folder.bytes().chain([0, 0]));
    header.extend(file.bytes().chain([0, 1, 0, 0, 0]));
    let mut program = Vec::new();
    for rows in sequences {
        let mut line = 1;
        for &(address, next) in *rows {
            program.extend([0, 9, 2]);
            program.extend(address.to_le_bytes());
            // DW_LNS_advance_line by one byte of SLEB128, DW_LNS_copy.
            program.extend([3, ((next - line) & 0x7f) as u8, 1]);
            line = next;
        }
        // DW_LNS_advance_pc by 4, DW_LNE_end_sequence.
        program.extend([2, 4, 0, 1, 1]);
    }
    let mut unit = Vec::new();
    unit.extend(4u16.to_le_bytes());
    unit.extend((header.len() as u32).to_le_bytes());
    unit.extend(header);
    unit.extend(program);
    let mut table = (unit.len() as u32).to_le_bytes().to_vec();
    table.extend(unit);
    table
}

/// An ELF with the sample's functions, linked at another address, and lines for some of them.
fn elf(folder: &str, with_lines: bool) -> Vec<u8> {
    /// Where the header has the kind of file.
    const E_TYPE: usize = 16;
    const MOVED: u64 = 0x10_0000;
    let mut elf = Object::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
    let functions =
        [("main", sample::MAIN), ("work", sample::WORK), ("never_called", sample::UNUSED)];
    for (name, address) in functions {
        elf.add_symbol(Symbol {
            name: name.into(),
            value: address - MOVED,
            size: 0x40,
            kind: object::SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Absolute,
            flags: SymbolFlags::None,
        });
    }
    if with_lines {
        let at = |base: u64, instruction: u64| base - MOVED + 4 * instruction;
        let main = [(at(sample::MAIN, 0), 3), (at(sample::MAIN, 2), 4), (at(sample::MAIN, 5), 5)];
        let work = [(at(sample::WORK, 0), 8), (at(sample::WORK, 2), 9)];
        let unused = [(at(sample::UNUSED, 0), 12)];
        let mut table = line_table(folder, "main.c", &[&main, &work]);
        table.extend(line_table(folder, "unused.c", &[&unused]));
        let id = elf.add_section(Vec::new(), b".debug_line".to_vec(), SectionKind::Debug);
        elf.append_section_data(id, &table, 1);
    }
    let mut bytes = elf.write().unwrap();
    // What `object` writes is relocatable; a kernel is ready to be executed (ET_EXEC).
    bytes[E_TYPE..E_TYPE + 2].copy_from_slice(&object::elf::ET_EXEC.0.to_le_bytes());
    bytes
}

#[test]
fn lines_are_counted_where_the_kernel_ran_and_genhtml_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("src");
    std::fs::create_dir(&sources).unwrap();
    for name in ["main.c", "unused.c"] {
        std::fs::write(sources.join(name), "line\n".repeat(14)).unwrap();
    }
    let path = folder.path().join("vmlinux");
    std::fs::write(&path, elf(sources.to_str().unwrap(), true)).unwrap();
    let mut out = Vec::new();
    let covered = write_lines(&mut sample(), &Lines::open(&path).unwrap(), &mut out).unwrap();
    assert_eq!((covered.functions, covered.functions_hit), (3, 2));
    assert_eq!((covered.lines, covered.lines_hit), (6, 4));
    let tracefile = text(out);
    assert_golden("lines.info", &tracefile.replace(sources.to_str().unwrap(), "/SRC"));
    std::fs::write(folder.path().join("trace.info"), tracefile).unwrap();
    let Some(said) = genhtml(folder.path(), "trace.info") else { return };
    let lower = said.to_lowercase();
    assert!(!lower.contains("warning") && !lower.contains("error"), "{said}");
    assert!(said.contains("66.7% (4 of 6 lines)"), "{said}");
}

#[test]
fn an_elf_without_lines_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmlinux");
    std::fs::write(&path, elf("/src", false)).unwrap();
    assert!(matches!(Lines::open(&path), Err(LineError::NoLines)));
    std::fs::write(&path, b"no ELF at all").unwrap();
    assert!(matches!(Lines::open(&path), Err(LineError::Elf(_))));
    assert!(matches!(Lines::open(&folder.path().join("none")), Err(LineError::Io(_))));
    let mut damaged = elf("/src", true);
    let name = b"/src\0";
    let at = damaged.windows(name.len()).position(|bytes| bytes == name).unwrap();
    // The unit's length, long before the name of its folder.
    damaged[at - 28..at - 24].fill(0xf0);
    std::fs::write(&path, damaged).unwrap();
    let lines = Lines::open(&path).unwrap();
    assert!(write_lines(&mut sample(), &lines, Vec::new()).is_err());
}
