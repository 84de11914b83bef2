//! ELF to raw binary, as `objcopy -O binary` does it.
//!
//! QEMU's `-kernel` and an arm64 boot loader want memory contents, not ELF. Doing it here spares
//! the user a cross binutils package.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::{FileHeader64, PF_X, PT_LOAD, R_AARCH64_RELATIVE, SHT_RELA};
use object::read::elf::{FileHeader, ProgramHeader, Rela, SectionHeader};

/// A raw image larger than this is a linker script gone wrong, not a program of ours.
const IMAGE_BYTES_MAX: u64 = 64 << 20;

/// Writes the loadable segments of `elf`, laid out by physical address from the lowest, to `raw`.
///
/// A file that already has these contents is left alone, so that nothing downstream is rebuilt.
/// Bytes that are in memory but not in the file (.bss) are left out at the end, as an arm64 Image
/// header's `image_size` covers them.
///
/// # Errors
/// When `elf` cannot be read, is no 64-bit ELF, has nothing to load, or `raw` cannot be written.
pub fn write_raw(elf: &Path, raw: &Path) -> Result<()> {
    let file = fs::read(elf).with_context(|| format!("reading {}", elf.display()))?;
    let bytes = flatten(&file).with_context(|| format!("in {}", elf.display()))?;
    if fs::read(raw).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(raw, bytes).with_context(|| format!("writing {}", raw.display()))
}

/// Checks that an image can relocate itself by adding its address to words of data.
///
/// # Errors
/// When `elf` cannot be read, has relocations of another kind, or one in code.
pub fn check_relocations(elf: &Path) -> Result<()> {
    let file = fs::read(elf).with_context(|| format!("reading {}", elf.display()))?;
    let count = relocations(&file).with_context(|| format!("in {}", elf.display()))?;
    ensure!(count > 0, "{} has no relocations: was it linked with -pie?", elf.display());
    Ok(())
}

fn relocations(file: &[u8]) -> Result<usize> {
    let header = FileHeader64::<Endianness>::parse(file).context("not a 64-bit ELF file")?;
    let endian = header.endian().context("ELF of unknown byte order")?;
    let segments = header.program_headers(endian, file).context("broken program headers")?;
    let mut count = 0;
    for section in header.section_headers(endian, file).context("broken section headers")? {
        if section.sh_type(endian) != SHT_RELA {
            continue;
        }
        let entries = section.rela(endian, file).context("broken relocations")?;
        for entry in entries.into_iter().flat_map(|(entries, _)| entries) {
            let (place, kind) = (entry.r_offset(endian), entry.r_type(endian, false));
            ensure!(kind == R_AARCH64_RELATIVE, "relocation of type {kind} at {place:#x}");
            let is_code = segments.iter().any(|segment| {
                let start = segment.p_vaddr(endian);
                segment.p_type(endian) == PT_LOAD
                    && segment.p_flags(endian).0 & PF_X.0 != 0
                    && (start..start + segment.p_memsz(endian)).contains(&place)
            });
            ensure!(!is_code, "relocation in code, at {place:#x}");
            count += 1;
        }
    }
    Ok(count)
}

fn flatten(file: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader64::<Endianness>::parse(file).context("not a 64-bit ELF file")?;
    let endian = header.endian().context("ELF of unknown byte order")?;
    let mut segments = Vec::new();
    for segment in header.program_headers(endian, file).context("broken program headers")? {
        if segment.p_type(endian) != PT_LOAD || segment.p_filesz(endian) == 0 {
            continue;
        }
        let data = segment.data(endian, file).ok().context("a segment outside the file")?;
        segments.push((segment.p_paddr(endian), data));
    }
    let base = segments.iter().map(|(address, _)| *address).min().context("nothing to load")?;
    let mut image = Vec::new();
    for (address, data) in segments {
        let start = address - base;
        ensure!(start < IMAGE_BYTES_MAX, "segments more than {IMAGE_BYTES_MAX} bytes apart");
        let start = usize::try_from(start).context("segment address")?;
        let end = start + data.len();
        if image.len() < end {
            image.resize(end, 0);
        }
        image[start..end].copy_from_slice(data);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal ELF: the header and program headers of (paddr, contents), contents appended.
    fn elf(segments: &[(u64, &[u8])]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend([2, 0, 0xb7, 0, 1, 0, 0, 0]);
        file.extend(0_u64.to_le_bytes());
        file.extend(64_u64.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file.extend([0, 0, 0, 0, 64, 0, 56, 0]);
        file.extend(u16::try_from(segments.len()).unwrap().to_le_bytes());
        file.extend([64, 0, 0, 0, 0, 0]);
        let mut offset = 64 + 56 * segments.len() as u64;
        for (address, data) in segments {
            let len = data.len() as u64;
            file.extend(PT_LOAD.0.to_le_bytes());
            file.extend(5_u32.to_le_bytes());
            for word in [offset, 0xffff_0000, *address, len, len + 8, 1] {
                file.extend(word.to_le_bytes());
            }
            offset += len;
        }
        for (_, data) in segments {
            file.extend(*data);
        }
        file
    }

    #[test]
    fn segments_are_placed_by_physical_address() {
        let file = elf(&[(0x4000_0008, b"later"), (0x4000_0000, b"first")]);
        assert_eq!(flatten(&file).unwrap(), b"first\0\0\0later");
    }

    /// An ELF of 0x100 bytes of code at 0, with one relocation.
    fn relocated(place: u64, kind: u32) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend([3, 0, 0xb7, 0, 1, 0, 0, 0]);
        let (program_headers, sections, relocation) = (64_u64, 64 + 56, 64 + 56 + 64 * 2);
        file.extend([0, program_headers, sections].map(u64::to_le_bytes).as_flattened());
        file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 2, 0, 0, 0]);
        file.extend([PT_LOAD.0, PF_X.0].map(u32::to_le_bytes).as_flattened());
        file.extend([0, 0, 0, 0, 0x100, 1].map(u64::to_le_bytes).as_flattened());
        // The first section is none, as always.
        file.extend([0; 64]);
        file.extend([0, SHT_RELA.0].map(u32::to_le_bytes).as_flattened());
        file.extend([0, 0, relocation, 24, 0, 8, 24].map(u64::to_le_bytes).as_flattened());
        file.extend([place, u64::from(kind), 0].map(u64::to_le_bytes).as_flattened());
        file
    }

    #[test]
    fn only_relocations_that_the_image_can_apply_are_let_through() {
        assert_eq!(relocations(&relocated(0x100, R_AARCH64_RELATIVE.0)).unwrap(), 1);
        let in_code = relocations(&relocated(0xf8, R_AARCH64_RELATIVE.0)).unwrap_err();
        assert_eq!(in_code.to_string(), "relocation in code, at 0xf8");
        let absolute = relocations(&relocated(0x100, 257)).unwrap_err();
        assert_eq!(absolute.to_string(), "relocation of type 257 at 0x100");
        assert_eq!(relocations(&elf(&[])).unwrap(), 0, "linked to one place");
    }

    #[test]
    fn nothing_to_load_and_garbage_are_errors() {
        assert!(flatten(&elf(&[])).is_err());
        assert!(flatten(b"garbage").is_err());
        assert!(flatten(&elf(&[(0, b"a"), (1 << 40, b"b")])).is_err());
    }
}
