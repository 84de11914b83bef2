//! `Code` and `Symbols` payloads: what turns addresses into words and names.
//!
//! A `Code` payload is a sequence of address (8 bytes), length and bytes. A `Symbols` payload is
//! the link base plus one (0 for none), then for each symbol the distance to the one before, kind,
//! size and name.

use super::varint::{self, Cursor};
use crate::code::CodePages;
use crate::symbols::{Symbol, SymbolKind, Symbols};
use stepwell_arch::address::Va;

/// Unpacked size at which a `Symbols` chunk ends and the next begins.
const SYMBOLS_CHUNK: usize = 1 << 20;
/// Longest name; longer ones are no use to anybody, and are left out on both sides: a name is shown
/// again and again.
const NAME_MAX: usize = 4096;

/// Appends one page to a `Code` payload.
pub(crate) fn code_page(out: &mut Vec<u8>, va: Va, bytes: &[u8]) {
    out.extend_from_slice(&va.0.to_le_bytes());
    varint::put_bytes(out, bytes);
}

/// Reads a `Code` payload; `None` if it is damaged.
pub(crate) fn decode_code(payload: &[u8], pages: &mut CodePages) -> Option<()> {
    let mut cursor = Cursor::new(payload);
    while !cursor.is_empty() {
        let va = Va(cursor.take_u64()?);
        pages.insert(va, cursor.take_bytes()?);
    }
    Some(())
}

/// Returns the payloads of `Symbols` chunks.
pub(crate) fn encode_symbols(symbols: &Symbols) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut rest = symbols.iter().peekable();
    while rest.peek().is_some() {
        let mut out = Vec::new();
        varint::put(&mut out, u64::from(symbols.link_base().is_some()));
        out.extend_from_slice(&symbols.link_base().unwrap_or(0).to_le_bytes());
        let mut last = 0u64;
        while let Some(symbol) = rest.next_if(|_| out.len() < SYMBOLS_CHUNK) {
            if symbol.name.len() > NAME_MAX {
                continue;
            }
            varint::put(&mut out, symbol.address.wrapping_sub(last));
            varint::put(&mut out, symbol.kind.number());
            varint::put(&mut out, symbol.size);
            varint::put_bytes(&mut out, symbol.name.as_bytes());
            last = symbol.address;
        }
        payloads.push(out);
    }
    payloads
}

/// Reads a `Symbols` payload and appends it; `None` if it is damaged.
pub(crate) fn decode_symbols(payload: &[u8], found: &mut Vec<Symbol>) -> Option<Option<u64>> {
    let mut cursor = Cursor::new(payload);
    let has_base = cursor.take()? != 0;
    let base = cursor.take_u64()?;
    let mut address = 0u64;
    while !cursor.is_empty() {
        address = address.wrapping_add(cursor.take()?);
        let kind = SymbolKind::from_number(cursor.take()?);
        let size = cursor.take()?;
        let name = cursor.take_bytes()?;
        if name.len() <= NAME_MAX {
            let name = String::from_utf8_lossy(name).into_owned();
            found.push(Symbol { address, size, kind, name });
        }
    }
    Some(has_base.then_some(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_survive_in_several_payloads() {
        let list = (0..60_000u64).map(|n| Symbol {
            address: 0xffff_8000_0800_0000 + n * 12,
            size: n % 3,
            kind: if n % 5 == 0 { SymbolKind::Other } else { SymbolKind::Function },
            name: format!("a_function_with_a_name_{n}"),
        });
        let symbols = Symbols::new(list, Some(0xffff_8000_0800_0000));
        let payloads = encode_symbols(&symbols);
        assert!(payloads.len() > 1);
        let mut found = Vec::new();
        for payload in &payloads {
            assert_eq!(decode_symbols(payload, &mut found), Some(symbols.link_base()));
        }
        assert_eq!(Symbols::new(found, symbols.link_base()), symbols);
    }
}
