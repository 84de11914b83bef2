//! What a kernel file is, unpacked to the bytes that get loaded.
//!
//! People hand in what their distribution or build left them: a plain Image, one that is packed
//! in one of two ways, an ELF, or bare-metal bytes. Anything else is refused with what it seems to
//! be, so that the reason is in the message. The file's name is left to the caller.
//!
//! An Image's `image_size` counts memory that the file does not hold (BSS), so it cannot tell
//! whether a file is complete. The section table that the EFI stub carries can.

mod flatten;
mod packed;

use crate::symbols::{Symbols, kallsyms};

/// Largest kernel that is unpacked.
pub(crate) const UNPACKED_MAX: usize = 512 << 20;
/// Length of the header of an arm64 Image.
const IMAGE_HEADER: usize = 64;

/// Whether bytes without any header are taken for a bare-metal kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawPolicy {
    /// No: most likely the wrong file was named.
    Refuse,
    /// Yes, as they are.
    Accept,
}

/// In which wrapping a kernel came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelKind {
    /// An arm64 Image, with or without EFI stub: also Debian's `vmlinuz`.
    Image,
    /// A gzipped Image.
    ImageGz,
    /// An EFI application that unpacks an Image.
    EfiZboot,
    /// An ELF.
    Elf,
    /// Bytes without a header.
    Raw,
}

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadPlan {
    /// To a multiple of 2 MiB in RAM plus `text_offset`; the first byte is the entry.
    Image {
        /// Bytes after the 2 MiB border. Kernels before 3.17 mean 0x8_0000 where `image_size` is 0.
        text_offset: u64,
        /// Bytes of memory that the kernel uses from there on, BSS included; 0 if not said.
        image_size: u64,
        /// The header's flags.
        flags: u64,
    },
    /// To this physical address.
    Fixed {
        /// Address of the first byte.
        address: u64,
        /// Where execution begins.
        entry: u64,
    },
    /// Wherever the machine puts bare-metal code; the first byte is the entry.
    Anywhere,
}

/// A kernel, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelImage {
    /// What gets loaded.
    pub bytes: Vec<u8>,
    /// What it came in.
    pub kind: KernelKind,
    /// Where it goes.
    pub load: LoadPlan,
    /// Symbols of the ELF that it was, if it was one and had any.
    elf_symbols: Option<Symbols>,
}

/// A file is no kernel that can be booted, and why. Reads well after the file's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It is for a PC.
    #[error("is an x86 bzImage, not an arm64 kernel")]
    X86,
    /// It is for a 32-bit Arm.
    #[error("is an arm (32-bit) zImage, not an arm64 kernel")]
    Arm32,
    /// It is wrapped for U-Boot.
    #[error("is a U-Boot uImage: give the Image inside it")]
    UBoot,
    /// It is packed in a way that no arm64 kernel is.
    #[error("is packed with {0}: unpack it first")]
    UnknownPacking(&'static str),
    /// Part of it is missing.
    #[error("is truncated: its header says {expected} bytes, the file has {found}")]
    Truncated {
        /// Bytes that there should be.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The packed part is damaged or cut off.
    #[error("cannot be unpacked: {0}")]
    Unpacking(String),
    /// It is an ELF that cannot be loaded.
    #[error("is an ELF that cannot be loaded: {0}")]
    Elf(String),
    /// It is for a big-endian kernel, which Stepwell does not run.
    #[error("is a big-endian arm64 kernel, which is not supported")]
    BigEndian,
    /// It is something else.
    #[error("is not a kernel: it starts with {0}")]
    NotAKernel(String),
}

impl KernelImage {
    /// Takes firmware as it is, which is executed where it lies: from address 0 on.
    #[must_use]
    pub const fn firmware(bytes: Vec<u8>) -> Self {
        let load = LoadPlan::Fixed { address: 0, entry: 0 };
        Self { bytes, kind: KernelKind::Raw, load, elf_symbols: None }
    }

    /// Finds out what `file` is, and unpacks it.
    ///
    /// # Errors
    ///
    /// [`KernelError`] says what is wrong with the file.
    pub fn recognise(file: Vec<u8>, raw: RawPolicy) -> Result<Self, KernelError> {
        if file.is_empty() {
            return Err(KernelError::Empty);
        }
        if file.starts_with(b"\x7fELF") {
            return flatten::elf(&file);
        }
        if file.starts_with(&[0x1f, 0x8b]) {
            let unpacked = packed::gunzip(&file)?;
            return Self::unpacked(unpacked, KernelKind::ImageGz);
        }
        if packed::is_zboot(&file) {
            let unpacked = packed::unpack_zboot(&file)?;
            return Self::unpacked(unpacked, KernelKind::EfiZboot);
        }
        if is_image(&file) {
            return Self::image(file, KernelKind::Image);
        }
        match (raw, known_stranger(&file)) {
            (RawPolicy::Accept, _) => Ok(Self {
                bytes: file,
                kind: KernelKind::Raw,
                load: LoadPlan::Anywhere,
                elf_symbols: None,
            }),
            (RawPolicy::Refuse, Some(reason)) => Err(reason),
            (RawPolicy::Refuse, None) => Err(KernelError::NotAKernel(first_bytes(&file))),
        }
    }

    /// Returns the kernel's own symbols: those of its ELF, or those it carries for its backtraces.
    #[must_use]
    pub fn symbols(&self) -> Option<Symbols> {
        match &self.elf_symbols {
            Some(symbols) => Some(symbols.clone()),
            None => kallsyms::from_image(&self.bytes).ok(),
        }
    }

    fn unpacked(bytes: Vec<u8>, kind: KernelKind) -> Result<Self, KernelError> {
        if bytes.starts_with(b"\x7fELF") {
            return flatten::elf(&bytes);
        }
        if !is_image(&bytes) {
            let start = first_bytes(&bytes);
            return Err(KernelError::NotAKernel(format!("a packed file, and that with {start}")));
        }
        Self::image(bytes, kind)
    }

    fn image(bytes: Vec<u8>, kind: KernelKind) -> Result<Self, KernelError> {
        let found = bytes.len() as u64;
        let expected = needed_length(&bytes);
        if found < expected {
            return Err(KernelError::Truncated { expected, found });
        }
        let load = LoadPlan::of_image(&bytes);
        if matches!(load, LoadPlan::Image { flags, .. } if flags & 1 != 0) {
            return Err(KernelError::BigEndian);
        }
        Ok(Self { bytes, kind, load, elf_symbols: None })
    }
}

impl LoadPlan {
    /// Reads the header of an Image.
    fn of_image(image: &[u8]) -> Self {
        let field = |at| u64_at(image, at).unwrap_or(0);
        let (text_offset, image_size, flags) = (field(8), field(16), field(24));
        let text_offset = if image_size == 0 { 0x8_0000 } else { text_offset };
        Self::Image { text_offset, image_size, flags }
    }
}

fn is_image(file: &[u8]) -> bool {
    file.get(0x38..0x3c) == Some(b"ARM\x64")
}

/// Returns how long a whole Image would be at least, as far as its headers tell.
fn needed_length(image: &[u8]) -> u64 {
    /// Header and one instruction.
    const LEAST: u64 = IMAGE_HEADER as u64 + 4;
    sections_end(image).unwrap_or(LEAST).max(LEAST)
}

/// Returns where the last section of the EFI stub's section table ends in the file.
fn sections_end(image: &[u8]) -> Option<u64> {
    const COFF_HEADER: usize = 24;
    const SECTION: usize = 40;
    let pe = usize::try_from(u32_at(image, 0x3c)?).ok()?;
    if !image.starts_with(b"MZ") || image.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let sections = usize::from(u16_at(image, pe + 6)?);
    let optional = usize::from(u16_at(image, pe + 20)?);
    let table = pe + COFF_HEADER + optional;
    (0..sections)
        .map_while(|index| {
            let section = table + index * SECTION;
            let size = u32_at(image, section + 16)?;
            let start = u32_at(image, section + 20)?;
            Some(u64::from(start) + u64::from(size))
        })
        .max()
}

/// Recognises what people name by mistake.
fn known_stranger(file: &[u8]) -> Option<KernelError> {
    const PACKINGS: [(&[u8], &str); 5] = [
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x02\x21\x4c\x18", "lz4"),
    ];
    if file.get(0x202..0x206) == Some(b"HdrS") {
        return Some(KernelError::X86);
    }
    if u32_at(file, 0x24) == Some(0x016f_2818) {
        return Some(KernelError::Arm32);
    }
    if file.starts_with(&[0x27, 0x05, 0x19, 0x56]) {
        return Some(KernelError::UBoot);
    }
    let packing = PACKINGS.iter().find(|(magic, _)| file.starts_with(magic))?;
    Some(KernelError::UnknownPacking(packing.1))
}

/// Returns the first bytes of a file for a message: as text if they are.
fn first_bytes(file: &[u8]) -> String {
    let start = &file[..file.len().min(16)];
    if start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return format!("{:?}", String::from_utf8_lossy(start));
    }
    let bytes: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
