//! A module for Debian's kernel, made without its build system: a loop that counts, and a message.
//!
//! What a kernel demands of a module is in the kernel (the layout of `struct module`, by its types)
//! and in any module that came with it (its version, and the checksums of what it imports). So
//! neither headers nor a compiler are needed, and the module fits whatever kernel the tests have.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::write::{Object, Relocation, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, Object as _, ObjectSection as _, RelocationFlags,
    SectionKind, SymbolFlags, SymbolKind, SymbolScope, elf,
};
use stepwell_linux::Btf;
use stepwell_trace::{KernelImage, RawPolicy};

use crate::guest::folder;

/// The module's name.
pub const NAME: &str = "stepwell_loop";
/// Where the guest finds it.
pub const FILE: &str = "/stepwell_loop.ko";
/// Turns of its loop, of three instructions.
pub const TURNS: u32 = 1000;
/// What it says once it has counted them.
pub const SAYS: &str = "stepwell_loop: counted 1000";

/// What its functions do. `adrp`, `add` and `bl` get their targets from relocations.
const INIT: [u32; 14] = [
    0xa9bf_7bfd,              // stp x29, x30, [sp, #-16]!
    0x9100_03fd,              // mov x29, sp
    0xd280_0001,              // mov x1, #0
    0x5280_0002 | TURNS << 5, // mov w2, #TURNS
    0x9100_0421,              // add x1, x1, #1
    0xf100_0442,              // subs x2, x2, #1
    0x54ff_ffc1,              // b.ne two instructions before
    0x9000_0000,              // adrp x0, message
    0x9100_0000,              // add x0, x0, message
    0x9400_0000,              // bl _printk
    0x5280_0000,              // mov w0, #0
    0xa8c1_7bfd,              // ldp x29, x30, [sp], #16
    0xd65f_03c0,              // ret
    0xd503_201f,              // nop
];
const EXIT: [u32; 2] = [0xd503_201f, 0xd65f_03c0];
const MESSAGE: &[u8] = b"\x016stepwell_loop: counted %lu\n\0";
/// Words before those that are relocated.
const ADRP: u64 = 7;

/// What other modules of the kernel say about it.
struct Sample {
    versions: Vec<u8>,
    vermagic: String,
}

impl Sample {
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| {
            format!("{}: fetch it with `cargo xtask guests --refresh`", path.display())
        })?;
        let file = object::File::parse(bytes.as_slice())?;
        let section = |name: &str| -> Result<Vec<u8>> {
            Ok(file.section_by_name(name).context("a section is missing")?.data()?.to_vec())
        };
        let info = section(".modinfo")?;
        let vermagic = info
            .split(|byte| *byte == 0)
            .find_map(|word| word.strip_prefix(b"vermagic="))
            .context("it has no version")?;
        let vermagic = String::from_utf8(vermagic.to_vec())?;
        Ok(Self { versions: section("__versions")?, vermagic })
    }

    /// Returns the entries of `__versions` for what our module imports.
    fn imports(&self) -> Vec<u8> {
        /// A checksum of 8 bytes and a name.
        const ENTRY: usize = 64;
        let is_ours = |entry: &&[u8]| {
            let name = entry[8..].split(|byte| *byte == 0).next().unwrap_or_default();
            [b"module_layout".as_slice(), b"_printk"].contains(&name)
        };
        self.versions.chunks_exact(ENTRY).filter(is_ours).flatten().copied().collect()
    }
}

/// Makes the module, and an initial file system that is Debian's with it added.
///
/// # Errors
/// When the kernel or the module that came with it cannot be read.
pub fn initramfs(scratch: &Path) -> Result<PathBuf> {
    initramfs_of("debian", scratch, &[])
}

/// As [`initramfs`], for the kernel in a folder of the guests', and with more programs in the file
/// system.
///
/// # Errors
/// As [`initramfs`].
pub fn initramfs_of(guest: &str, scratch: &Path, programs: &[(&str, &[u8])]) -> Result<PathBuf> {
    let debian = folder().join(guest);
    let module = build(&debian.join("vmlinuz"), &Sample::read(&debian.join("xt_limit.ko"))?)?;
    let mut archive = fs::read(debian.join("initramfs.cpio.gz"))?;
    let module = (FILE.trim_start_matches('/'), 0o100_644, module.as_slice());
    let programs = programs.iter().map(|(name, contents)| (*name, 0o100_755, *contents));
    for (name, mode, contents) in std::iter::once(module).chain(programs) {
        // Each archive begins at a multiple of four.
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(cpio(name, mode, contents));
    }
    let path = scratch.join("initramfs");
    fs::write(&path, archive)?;
    Ok(path)
}

fn build(kernel: &Path, sample: &Sample) -> Result<Vec<u8>> {
    let kernel = KernelImage::recognise(fs::read(kernel)?, RawPolicy::Refuse)?;
    let btf = Btf::find(&kernel.bytes)?;
    let layout = btf.structure("module").context("no struct module")?;
    let offset =
        |path: &str| Ok::<_, anyhow::Error>(btf.member(layout, path).context("no member")?.offset);
    let size = btf.size_of(layout).context("struct module has no size")?;
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
    let section = |object: &mut Object<'_>, name: &str, kind, data: &[u8]| {
        let id = object.add_section(Vec::new(), name.into(), kind);
        object.append_section_data(id, data, 8);
        id
    };
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let init_text = section(&mut object, ".init.text", SectionKind::Text, &words(&INIT));
    let exit_text = section(&mut object, ".exit.text", SectionKind::Text, &words(&EXIT));
    let message = section(&mut object, ".rodata.str", SectionKind::ReadOnlyData, MESSAGE);
    for name in [".plt", ".init.plt", ".text.ftrace_trampoline"] {
        section(&mut object, name, SectionKind::Text, &[0]);
    }
    let info = format!("license=GPL\0name={NAME}\0depends=\0vermagic={}\0", sample.vermagic);
    section(&mut object, ".modinfo", SectionKind::ReadOnlyData, info.as_bytes());
    section(&mut object, "__versions", SectionKind::ReadOnlyData, &sample.imports());
    let mut this = vec![0; usize::try_from(size)?];
    let name = usize::try_from(offset("name")?)?;
    this[name..name + NAME.len()].copy_from_slice(NAME.as_bytes());
    let this = section(&mut object, ".gnu.linkonce.this_module", SectionKind::Data, &this);
    let init = function(&mut object, "init_module", SymbolSection::Section(init_text), &INIT);
    let exit = function(&mut object, "cleanup_module", SymbolSection::Section(exit_text), &EXIT);
    let printk = function(&mut object, "_printk", SymbolSection::Undefined, &[]);
    let text = object.section_symbol(message);
    for (section, offset, symbol, r_type) in [
        (init_text, 4 * ADRP, text, elf::R_AARCH64_ADR_PREL_PG_HI21),
        (init_text, 4 * ADRP + 4, text, elf::R_AARCH64_ADD_ABS_LO12_NC),
        (init_text, 4 * ADRP + 8, printk, elf::R_AARCH64_CALL26),
        (this, offset("init")?, init, elf::R_AARCH64_ABS64),
        (this, offset("exit")?, exit, elf::R_AARCH64_ABS64),
    ] {
        let flags = RelocationFlags::Elf { r_type };
        object.add_relocation(section, Relocation { offset, symbol, addend: 0, flags })?;
    }
    Ok(object.write()?)
}

fn function(
    object: &mut Object<'_>,
    name: &str,
    section: SymbolSection,
    code: &[u32],
) -> object::write::SymbolId {
    object.add_symbol(Symbol {
        name: name.into(),
        value: 0,
        size: 4 * code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section,
        flags: SymbolFlags::None,
    })
}

/// An archive of one file, as the kernel unpacks it.
pub(crate) fn cpio(name: &str, mode: usize, contents: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, mode, contents) in [(name, mode, contents), ("TRAILER!!!", 0, &[][..])] {
        let sizes = (contents.len(), name.len() + 1);
        bytes.extend(b"070701");
        for field in [1, mode, 0, 0, 1, 0, sizes.0, 0, 0, 0, 0, sizes.1, 0] {
            bytes.extend(format!("{field:08X}").bytes());
        }
        for part in [&[name.as_bytes(), &[0]].concat(), contents] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_archive_are_aligned() {
        let archive = cpio("a", 0o100_644, b"12345");
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8(archive).unwrap();
        assert!(text.contains("12345\0\0\x00070701"));
        assert!(text.contains("TRAILER!!!"));
    }
}
