//! `token_table` and `token_index`: the 256 strings that names are spelled with.
//!
//! A byte that occurs in symbols stands for itself, so the digits are ten tokens in a row, and
//! that pattern is what the search looks for. The index behind the table then confirms it.

use super::{align, u16_at};

/// The tokens for `0` to `9`.
const DIGITS: &[u8; 20] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
/// Longest token that is believed; the kernel's own are shorter.
const TOKEN_MAX: usize = 512;

/// The tokens of one kernel.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    /// Where the table begins.
    pub(super) table_at: usize,
    /// Where the index ends.
    pub(super) index_end: usize,
    starts: [u16; 256],
}

impl Tokens {
    /// Returns every place of the Image that can be a token table.
    pub(super) fn candidates(image: &[u8]) -> impl Iterator<Item = Self> {
        let digits = image.windows(DIGITS.len()).enumerate();
        digits
            .filter(|(_, window)| window[0] == b'0' && window == DIGITS)
            .filter_map(|(at, _)| Self::around(image, at))
    }

    /// Returns the token's bytes.
    pub(super) fn get<'a>(&self, image: &'a [u8], token: u8) -> &'a [u8] {
        let start = self.table_at + usize::from(self.starts[usize::from(token)]);
        token_at(image, start).unwrap_or(&[])
    }

    /// Takes `digits_at` for the token of `0`, and looks whether an index agrees.
    fn around(image: &[u8], digits_at: usize) -> Option<Self> {
        const FIRST: usize = b'0' as usize;
        let mut at = digits_at;
        for _ in FIRST..256 {
            at += token_at(image, at)?.len() + 1;
        }
        let index_at = align(at);
        let mut starts = [0; 256];
        for (token, start) in starts.iter_mut().enumerate() {
            *start = u16_at(image, index_at + token * 2)?;
        }
        let table_at = digits_at.checked_sub(usize::from(starts[FIRST]))?;
        let mut expected = 0;
        for start in starts {
            if usize::from(start) != expected {
                return None;
            }
            expected += token_at(image, table_at + expected)?.len() + 1;
        }
        Some(Self { table_at, index_end: index_at + 512, starts })
    }
}

fn token_at(image: &[u8], at: usize) -> Option<&[u8]> {
    let rest = image.get(at..)?;
    let length = rest.iter().take(TOKEN_MAX).position(|byte| *byte == 0)?;
    Some(&rest[..length])
}
