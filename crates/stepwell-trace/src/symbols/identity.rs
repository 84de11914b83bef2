//! Whether an ELF's symbols are those of a kernel.
//!
//! Names of another build are worse than none: they lead to addresses where something else is. What
//! tells builds apart, the best first: the build ID, which linkers put into an ELF and into what is
//! made of it; the symbols that a kernel carries itself; the code.

use super::{SymbolKind, Symbols};
use object::elf::{PT_LOAD, SHF_EXECINSTR};
use object::read::elf::ProgramHeader;
use object::read::{Object, ObjectSection};
use object::{ObjectKind, SectionFlags, SectionKind};
use std::collections::HashMap;

/// The symbols of an ELF are not those of the kernel. Reads well after the file's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It says so itself.
    #[error("is of another build: its build ID is {elf}, the kernel's {kernel}")]
    BuildId {
        /// The ELF's.
        elf: String,
        /// The kernel's, or one of those in it.
        kernel: String,
    },
    /// The kernel's own symbols have other addresses.
    #[error(
        "is of another build: {differing} of {common} functions that it shares with the kernel are \
         elsewhere"
    )]
    Addresses {
        /// Functions that are elsewhere.
        differing: usize,
        /// Functions that both have.
        common: usize,
    },
    /// It shares nothing with the kernel, or some names only.
    #[error("is not this kernel's: its functions are not the kernel's own")]
    Foreign,
    /// The code is other code.
    #[error("is of another build: its code is not the kernel's")]
    Code,
}

/// Fewest functions in common that tell something.
const COMMON_MIN: usize = 16;
/// Code that is compared of each section.
const CODE_BYTES: usize = 64 << 10;
/// One word in so many that differs makes another build.
const OTHER_CODE: usize = 8;

/// Compares an ELF with the kernel whose bytes are `image`, the first of which was linked at `base`,
/// and whose own symbols are `own`, if it carries any.
///
/// # Errors
///
/// [`Mismatch`] says what tells them apart. An ELF that cannot be compared passes.
pub fn check(
    elf: &[u8],
    symbols: &Symbols,
    image: &[u8],
    base: Option<u64>,
    own: Option<&Symbols>,
) -> Result<(), Mismatch> {
    let Ok(file) = object::File::parse(elf) else { return Ok(()) };
    if let Ok(Some(id)) = file.build_id() {
        let ids = build_ids(image);
        if ids.contains(&id) {
            // It may be that of a program which the kernel carries, its vDSO.
            return match own.map(|own| compare_symbols(symbols, own)) {
                Some(Err(foreign @ Mismatch::Foreign)) => Err(foreign),
                _ => Ok(()),
            };
        }
        if let Some(kernel) = ids.last() {
            return Err(Mismatch::BuildId { elf: hex(id), kernel: hex(kernel) });
        }
    }
    if let Some(own) = own {
        return compare_symbols(symbols, own);
    }
    match base {
        Some(base) if has_other_code(&file, image, base) => Err(Mismatch::Code),
        _ => Ok(()),
    }
}

/// Tells whether all code of an ELF lies outside of the kernel whose image has `bytes` bytes, the first
/// of them at `base`, both where it is linked and where it is loaded. That may be another program; or
/// the kernel, which moves itself there.
#[must_use]
pub fn lies_elsewhere(elf: &[u8], base: u64, bytes: u64) -> bool {
    let Ok(file) = object::File::parse(elf) else { return false };
    let is_in = |at: u64| at.checked_sub(base).is_some_and(|offset| offset < bytes);
    // By its flags: what `--write-symbols` makes has code sections without contents.
    let is_code = |flags| matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(SHF_EXECINSTR));
    let code = file.sections().filter(|section| is_code(section.flags()));
    let mut linked = code.map(|section| section.address()).peekable();
    if linked.peek().is_none() || linked.any(is_in) {
        return false;
    }
    // Symbols are where it is linked; it may be loaded where the kernel is all the same.
    !physical_addresses(&file).into_iter().any(is_in)
}

/// Where the segments of an ELF are loaded.
fn physical_addresses(file: &object::File<'_>) -> Vec<u64> {
    let object::File::Elf64(file) = file else { return Vec::new() };
    let endian = file.endian();
    let segments = file.elf_program_headers().iter();
    segments.filter(|one| one.p_type(endian) == PT_LOAD).map(|one| one.p_paddr(endian)).collect()
}

/// Tells whether an ELF is one that was not linked, such as a module: its addresses say nothing.
#[must_use]
pub fn is_relocatable<'data>(file: &impl Object<'data>) -> bool {
    file.kind() == ObjectKind::Relocatable
}

/// Returns the build IDs in an image: its own, and those of programs that it carries, such as a vDSO.
fn build_ids(image: &[u8]) -> Vec<&[u8]> {
    /// Of a note: length of the name, length of the contents, NT_GNU_BUILD_ID, and the name.
    const HEADER: usize = 16;
    const BUILD_ID: [u8; 8] = *b"\x03\0\0\0GNU\0";
    let mut found = Vec::new();
    for (at, note) in image.as_chunks::<4>().0.windows(4).enumerate() {
        if note[0] != [4, 0, 0, 0] || note[2..].as_flattened() != BUILD_ID {
            continue;
        }
        let length = u32::from_le_bytes(note[1]) as usize;
        let start = at * 4 + HEADER;
        if (8..=64).contains(&length)
            && let Some(id) = image.get(start..start + length)
        {
            found.push(id);
        }
    }
    found
}

fn compare_symbols(symbols: &Symbols, own: &Symbols) -> Result<(), Mismatch> {
    let own_base = own.link_base().unwrap_or_default();
    // A name that several have tells nothing.
    let mut places: HashMap<&str, Option<u64>> = HashMap::new();
    for symbol in own.iter().filter(|symbol| symbol.kind == SymbolKind::Function) {
        let place = Some(symbol.address.wrapping_sub(own_base));
        places.entry(&symbol.name).and_modify(|place| *place = None).or_insert(place);
    }
    let base = symbols.link_base().unwrap_or_default();
    let (mut common, mut differing) = (0, 0);
    for symbol in symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Function) {
        if let Some(Some(place)) = places.get(symbol.name.as_str()) {
            common += 1;
            // Of a part of the kernel it is not known where that was linked as a whole.
            let places = [base, own_base].map(|base| symbol.address.wrapping_sub(base));
            differing += usize::from(!places.contains(place));
        }
    }
    match differing * 2 > common {
        true if common >= COMMON_MIN => Err(Mismatch::Addresses { differing, common }),
        // Any program may have a `memcpy` or a `main` of its own.
        true => Err(Mismatch::Foreign),
        false if common == 0 => Err(Mismatch::Foreign),
        false => Ok(()),
    }
}

/// Tells whether an ELF has code that the image has not, where that code would be. Debug information
/// alone has none.
fn has_other_code<'data>(file: &impl Object<'data>, image: &[u8], base: u64) -> bool {
    let (mut words, mut differing) = (0, 0);
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Ok(code) = section.data() else { continue };
        let code = &code[..code.len().min(CODE_BYTES)];
        let offset = section.address().checked_sub(base).and_then(|at| usize::try_from(at).ok());
        // Where it is linked elsewhere than it is loaded, nobody knows where it would be.
        let loaded = offset.and_then(|at| image.get(at..)).filter(|rest| !rest.is_empty());
        let Some(loaded) = loaded else { continue };
        let same = code.chunks(4).zip(loaded.chunks(4)).filter(|(a, b)| a == b).count();
        words += code.len().div_ceil(4);
        differing += code.len().div_ceil(4) - same;
    }
    // Tools patch an image here and there after it was linked; and builds share what is at the start.
    differing * OTHER_CODE > words
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Symbol, elf, file};
    use super::*;

    fn table(base: u64, functions: impl Iterator<Item = (u64, String)>) -> Symbols {
        let symbol = |(offset, name)| Symbol {
            address: base + offset,
            size: 0,
            kind: SymbolKind::Function,
            name,
        };
        Symbols::new(functions.map(symbol), Some(base))
    }

    /// Functions 16 bytes apart, `shift` further on.
    fn functions(shift: u64) -> impl Iterator<Item = (u64, String)> {
        (0..40).map(move |n| (n * 16 + shift, format!("function_{n}")))
    }

    #[test]
    fn another_builds_functions_are_elsewhere() {
        let own = table(0x1000, functions(0));
        let compare = |other: Symbols| compare_symbols(&other, &own);
        assert_eq!(compare(table(0x1000, functions(0))), Ok(()));
        assert_eq!(compare(table(0x8000, functions(0))), Ok(()), "linked elsewhere as a whole");
        let moved = Mismatch::Addresses { differing: 40, common: 40 };
        assert_eq!(compare(table(0x1000, functions(4))), Err(moved));
        let program = table(0x40_0000, [(0, "main".to_owned())].into_iter());
        assert_eq!(compare(program), Err(Mismatch::Foreign));
        let names = |count| functions(4).take(count).chain([(0, "main".to_owned())]);
        let program = |count| table(0x40_0000, names(count));
        assert_eq!(compare(program(COMMON_MIN - 1)), Err(Mismatch::Foreign), "shared names");
        let part =
            table(0x1100, functions(0).skip(16).take(3).map(|(at, name)| (at - 0x100, name)));
        assert_eq!(compare(part), Ok(()), "of a part of the kernel");
    }

    /// An ELF that has a build ID and nothing else.
    fn with_build_id(id: &[u8]) -> Vec<u8> {
        use object::{Architecture, BinaryFormat, Endianness, write::Object};
        let mut object = Object::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
        let section = object.add_section(vec![], b".note.gnu.build-id".to_vec(), SectionKind::Note);
        object.append_section_data(section, &note(id), 4);
        object.write().unwrap()
    }

    fn note(id: &[u8]) -> Vec<u8> {
        let length = (id.len() as u32).to_le_bytes();
        [&[4, 0, 0, 0], length.as_slice(), b"\x03\0\0\0GNU\0", id].concat()
    }

    /// The build ID of a vDSO is in the kernel's image as well.
    #[test]
    fn a_program_that_the_kernel_carries_is_not_the_kernel() {
        let (vdso, kernel, other) = (with_build_id(&[7; 20]), with_build_id(&[9; 20]), [5; 20]);
        let image = [note(&[7; 20]), note(&[9; 20])].concat();
        let own = table(0x1000, functions(0));
        let of_vdso = table(0, [(0x340, "__kernel_clock_gettime".to_owned())].into_iter());
        assert_eq!(check(&kernel, &own, &image, None, Some(&own)), Ok(()));
        assert_eq!(check(&vdso, &of_vdso, &image, None, Some(&own)), Err(Mismatch::Foreign));
        let told = check(&with_build_id(&other), &own, &image, None, Some(&own));
        assert!(matches!(told, Err(Mismatch::BuildId { .. })), "{told:?}");
    }

    #[test]
    fn build_ids_are_found_wherever_they_lie() {
        let (vdso, own) = ([7; 20], [9; 20]);
        let image = [vec![0; 64], note(&vdso), vec![1; 32], note(&own), vec![0; 4]].concat();
        assert_eq!(build_ids(&image), [vdso.as_slice(), own.as_slice()]);
        assert!(build_ids(&note(&[1; 20])[..30]).is_empty(), "cut off");
    }

    #[test]
    fn code_outside_of_the_image_is_noticed() {
        let written = file::to_elf(&table(0x1000, functions(0)), &[0; 0x1000]);
        assert!(!lies_elsewhere(&written, 0x1000, 0x1000));
        assert!(!lies_elsewhere(&written, 0, 0x2000));
        assert!(lies_elsewhere(&written, 0x10_0000, 0x1000));
        assert!(!lies_elsewhere(b"no ELF", 0, 1));
    }

    #[test]
    fn what_cannot_be_compared_passes() {
        let own = table(0x1000, functions(0));
        let written = file::to_elf(&own, &[0; 0x1000]);
        let symbols = elf::from_elf(&written).unwrap();
        assert_eq!(check(&written, &symbols, &[1; 0x1000], Some(0x1000), None), Ok(()));
        assert_eq!(check(&written, &symbols, &[1; 0x1000], None, Some(&own)), Ok(()));
        assert_eq!(check(b"no ELF", &symbols, &[], None, None), Ok(()));
    }
}
