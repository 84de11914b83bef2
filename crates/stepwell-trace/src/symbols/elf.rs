//! Symbols of an ELF: a `vmlinux`, a bare-metal image, or a file with nothing but symbols.

use super::{Symbol, SymbolKind, Symbols};
use object::read::{Object, ObjectSegment, ObjectSymbol};

/// An ELF gave no symbols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The bytes are no ELF, or a damaged one.
    #[error("not a readable ELF: {0}")]
    Unreadable(String),
    /// It is for another machine.
    #[error("is an ELF for {0}, not for 64-bit Arm")]
    WrongMachine(String),
    /// It was not linked.
    #[error(
        "is relocatable (a module, or an object file): it does not say where anything is; name the \
         kernel's own ELF"
    )]
    Relocatable,
    /// It was stripped.
    #[error("has no symbols: it was stripped")]
    NoSymbols,
}

/// Reads the symbols of an AArch64 ELF. The link base is `_text` where there is one (Linux), else
/// the lowest address that is loaded.
///
/// # Errors
///
/// [`ElfError`] says what is wrong with the file.
pub fn from_elf(bytes: &[u8]) -> Result<Symbols, ElfError> {
    let file =
        object::File::parse(bytes).map_err(|error| ElfError::Unreadable(error.to_string()))?;
    from_object(&file)
}

/// Reads the symbols of an ELF that is open already.
pub(crate) fn from_object<'data>(file: &impl Object<'data>) -> Result<Symbols, ElfError> {
    if file.architecture() != object::Architecture::Aarch64 {
        return Err(ElfError::WrongMachine(format!("{:?}", file.architecture())));
    }
    if super::identity::is_relocatable(file) {
        return Err(ElfError::Relocatable);
    }
    let symbols: Vec<Symbol> = file.symbols().filter_map(convert).collect();
    if symbols.is_empty() {
        return Err(ElfError::NoSymbols);
    }
    let text = symbols.iter().find(|symbol| symbol.name == "_text").map(|symbol| symbol.address);
    let lowest = file.segments().filter(|segment| segment.size() > 0).map(|s| s.address()).min();
    Ok(Symbols::new(symbols, text.or(lowest)))
}

fn convert<'data>(symbol: impl ObjectSymbol<'data>) -> Option<Symbol> {
    use object::SymbolKind as Elf;
    if symbol.is_undefined() {
        return None;
    }
    let kind = match symbol.kind() {
        Elf::Text => SymbolKind::Function,
        // Assembly without `.type` gives labels no type: they are code more often than not.
        Elf::Data | Elf::Unknown | Elf::Label => SymbolKind::Other,
        _ => return None,
    };
    let name = symbol.name().ok().filter(|name| !name.is_empty())?;
    Some(Symbol { address: symbol.address(), size: symbol.size(), kind, name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_and_other_machines_are_refused() {
        assert!(matches!(from_elf(b""), Err(ElfError::Unreadable(_))));
        assert!(matches!(from_elf(&[0x7f; 200]), Err(ElfError::Unreadable(_))));
        let mut header = vec![0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[6] = 1;
        header[18] = 62;
        header[20] = 1;
        header[52] = 64;
        assert_eq!(from_elf(&header), Err(ElfError::WrongMachine("X86_64".into())));
        // For this machine, and an ET_REL as every module is.
        (header[16], header[18]) = (1, 183);
        assert_eq!(from_elf(&header), Err(ElfError::Relocatable));
    }
}
