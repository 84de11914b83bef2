//! The symbol table that a Linux kernel carries for its own backtraces (`CONFIG_KALLSYMS`),
//! recovered from the bytes of an arm64 Image.
//!
//! An Image has no section headers that say where the table is, so it is found by its shape: a
//! compressed table whose parts check each other. The parts are (names as in the kernel, without
//! `kallsyms_`):
//!
//! - `token_table`, 256 strings, and `token_index`, where each of them begins;
//! - `num_syms`, and `names`: for each symbol a length and that many tokens, which spell the
//!   symbol's type and name; `markers`: where every 256th name begins;
//! - `offsets`, 32 bits for each symbol, to be added to `relative_base`.
//!
//! Kernels up to 6.3 put `offsets` and `relative_base` before `num_syms`, later ones behind
//! `token_index`; 6.2 and 6.3 have `seqs_of_names` (3 bytes a symbol) before `token_table`.
//! Markers have 64 bits before 4.20 and 32 bits since. On arm64 there are no absolute per-CPU
//! symbols: every address is `relative_base` plus its offset.
//!
//! A relocatable kernel's `relative_base` is zero in the file, to be filled in by the kernel's own
//! relocation; then the relocation entry is looked for. Deliberately not here: kernels without
//! `CONFIG_KALLSYMS_BASE_RELATIVE` (before 4.6), and big-endian ones.

mod names;
mod relocation;
mod tokens;

use super::{Symbol, SymbolKind, Symbols};
use names::Names;
use tokens::Tokens;

/// Most symbols of a table that is believed.
const SYMBOLS_MAX: usize = 2 << 20;
/// Fewest symbols of a table that is believed.
const SYMBOLS_MIN: usize = 8;
/// Largest offset that is believed: arm64 kernels are linked within 1 GiB.
const OFFSET_MAX: u32 = 1 << 30;
/// Every label in the table is aligned to this.
const ALIGNMENT: usize = 8;

/// No table could be recovered from an Image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KallsymsError {
    /// There are no tokens: the kernel was built without `CONFIG_KALLSYMS`, or this is no kernel.
    #[error("the kernel carries no symbol table (CONFIG_KALLSYMS)")]
    NoTokens,
    /// Tokens were found, but no names that use them.
    #[error("the kernel's symbol table has no names in a known layout")]
    NoNames,
    /// Names were found, but no addresses for them.
    #[error("the kernel's symbol table has no addresses in a known layout")]
    NoAddresses,
}

/// Recovers the symbols of a raw arm64 Image.
///
/// Addresses are link addresses, and the link base is that of the Image's first byte, which need
/// not have a symbol. If no relocation tells where the kernel was linked there is no link base, and
/// addresses count from the lowest symbol.
///
/// # Errors
///
/// [`KallsymsError`] says how far the search got.
pub fn from_image(image: &[u8]) -> Result<Symbols, KallsymsError> {
    let mut furthest = KallsymsError::NoTokens;
    let mut budget = names::BUDGET;
    for tokens in Tokens::candidates(image) {
        let Some(names) = Names::find(image, &tokens, &mut budget) else {
            furthest = further(furthest, KallsymsError::NoNames);
            continue;
        };
        match Addresses::find(image, &tokens, &names) {
            Some(addresses) => return Ok(build(image, &tokens, &names, &addresses)),
            None => furthest = further(furthest, KallsymsError::NoAddresses),
        }
    }
    Err(furthest)
}

const fn further(a: KallsymsError, b: KallsymsError) -> KallsymsError {
    match (a, b) {
        (KallsymsError::NoAddresses, _) | (_, KallsymsError::NoTokens) => a,
        _ => b,
    }
}

/// Where `offsets` begins and what `relative_base` says.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    offsets_at: usize,
    base_at: usize,
}

impl Addresses {
    fn find(image: &[u8], tokens: &Tokens, names: &Names) -> Option<Self> {
        let length = align(names.count * 4);
        let before = names
            .count_at
            .checked_sub(8)
            .and_then(|base_at| Some(Self { offsets_at: base_at.checked_sub(length)?, base_at }));
        let behind_index = align(tokens.index_end);
        let behind = Self { offsets_at: behind_index, base_at: behind_index + length };
        [before, Some(behind)].into_iter().flatten().find(|found| found.fits(image, names.count))
    }

    /// Tells whether there are offsets that grow, and a base that can be one.
    fn fits(&self, image: &[u8], count: usize) -> bool {
        let Some(base) = u64_at(image, self.base_at) else { return false };
        if base != 0 && base >> 48 != 0xffff {
            return false;
        }
        let offsets = (0..count).map(|index| self.offset(image, index));
        let mut last = 0;
        let grow = offsets.into_iter().all(|offset| match offset {
            Some(offset) if offset >= last && offset <= OFFSET_MAX => {
                last = offset;
                true
            }
            _ => false,
        });
        grow && last > 0
    }

    fn offset(&self, image: &[u8], index: usize) -> Option<u32> {
        u32_at(image, self.offsets_at + index * 4)
    }
}

fn build(image: &[u8], tokens: &Tokens, names: &Names, addresses: &Addresses) -> Symbols {
    let link = relocation::link(image, addresses.base_at);
    let base = link.map_or(0, |link| link.relative_base);
    let spelled = names.spell(image, tokens).into_iter().enumerate();
    let symbols = spelled.filter_map(|(index, (kind, name))| {
        let offset = u64::from(addresses.offset(image, index)?);
        let kind = match kind {
            't' | 'T' | 'w' | 'W' => SymbolKind::Function,
            _ => SymbolKind::Other,
        };
        Some(Symbol { address: base.wrapping_add(offset), size: 0, kind, name })
    });
    Symbols::new(symbols, link.map(|link| link.image))
}

const fn align(at: usize) -> usize {
    at.saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

fn u16_at(image: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(image.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(image: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(image: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(image.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
