//! An ELF turned into the bytes that it describes in memory.

use super::{KernelError, KernelImage, KernelKind, LoadPlan, UNPACKED_MAX, is_image};
use crate::symbols::elf as elf_symbols;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object, elf as abi};

/// Flattens an ELF to what its PT_LOAD segments say.
///
/// A `vmlinux` begins with an Image header in memory, and then it is loaded as an Image is: its
/// addresses are virtual ones. Any other ELF goes to its physical addresses.
pub(super) fn elf(file: &[u8]) -> Result<KernelImage, KernelError> {
    let reason = |error: object::Error| KernelError::Elf(error.to_string());
    if file.get(4) == Some(&1) {
        return Err(KernelError::Elf("it is a 32-bit one".into()));
    }
    let parsed = ElfFile64::<Endianness>::parse(file).map_err(reason)?;
    if parsed.architecture() != object::Architecture::Aarch64 {
        return Err(KernelError::Elf(format!("it is for {:?}", parsed.architecture())));
    }
    let endian = parsed.endian();
    if endian == Endianness::Big {
        return Err(KernelError::BigEndian);
    }
    let segments: Vec<_> = parsed
        .elf_program_headers()
        .iter()
        .filter(|segment| segment.p_type(endian) == abi::PT_LOAD && segment.p_filesz(endian) > 0)
        .collect();
    let start = segments.iter().map(|segment| segment.p_paddr(endian)).min();
    let start = start.ok_or_else(|| KernelError::Elf("it has nothing to load".into()))?;
    let mut bytes = Vec::new();
    for segment in &segments {
        let found = file.len() as u64;
        let expected = segment.p_offset(endian).saturating_add(segment.p_filesz(endian));
        let data =
            segment.data(endian, file).map_err(|()| KernelError::Truncated { expected, found })?;
        place(&mut bytes, segment.p_paddr(endian) - start, data)?;
    }
    let load = load_plan(&bytes, start, physical_entry(&parsed, endian));
    let elf_symbols = elf_symbols::from_elf(file).ok();
    Ok(KernelImage { bytes, kind: KernelKind::Elf, load, elf_symbols })
}

fn place(bytes: &mut Vec<u8>, at: u64, data: &[u8]) -> Result<(), KernelError> {
    let too_far = || KernelError::Elf("its segments lie more than 512 MiB apart".into());
    let at = usize::try_from(at).map_err(|_| too_far())?;
    let end = at.checked_add(data.len()).filter(|end| *end <= UNPACKED_MAX).ok_or_else(too_far)?;
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
    Ok(())
}

/// Returns the entry as a physical address: it is given as a virtual one.
fn physical_entry(parsed: &ElfFile64<'_, Endianness>, endian: Endianness) -> u64 {
    let entry = parsed.entry();
    parsed
        .elf_program_headers()
        .iter()
        .filter(|segment| segment.p_type(endian) == abi::PT_LOAD)
        .find(|segment| entry.wrapping_sub(segment.p_vaddr(endian)) < segment.p_memsz(endian))
        .map_or(entry, |segment| {
            entry.wrapping_sub(segment.p_vaddr(endian)).wrapping_add(segment.p_paddr(endian))
        })
}

fn load_plan(bytes: &[u8], start: u64, entry: u64) -> LoadPlan {
    if is_image(bytes) {
        return LoadPlan::of_image(bytes);
    }
    LoadPlan::Fixed { address: start, entry }
}
