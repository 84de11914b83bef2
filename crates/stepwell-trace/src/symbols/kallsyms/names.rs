//! `num_syms`, `names` and `markers`: how many symbols, and how each is spelled.
//!
//! They lie before the token table. Their beginning is found backwards from there: a number that
//! can be a count, names of that number behind it, and markers that agree with every 256th of
//! them and end where the token table begins.

use super::tokens::Tokens;
use super::{ALIGNMENT, SYMBOLS_MAX, SYMBOLS_MIN, align, u32_at, u64_at};

/// Names looked at in all before the search gives up: a real kernel needs a few hundred thousand.
pub(super) const BUDGET: usize = 64 << 20;
/// Symbols from one marker to the next.
const MARKER_STEP: usize = 256;
/// Longest spelled-out symbol, with room to spare.
const NAME_MAX: usize = 2048;

/// The names of one kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// Where `num_syms` is.
    pub(super) count_at: usize,
    /// How many symbols there are.
    pub(super) count: usize,
}

impl Names {
    /// Looks for the names that go with `tokens`; each name looked at costs one of `budget`.
    pub(super) fn find(image: &[u8], tokens: &Tokens, budget: &mut usize) -> Option<Self> {
        let end = tokens.table_at;
        let last = end.checked_sub(2 * ALIGNMENT)? & !(ALIGNMENT - 1);
        for step in (0..=last / ALIGNMENT).rev() {
            let candidate = Self::can_be(image, step * ALIGNMENT, end);
            if candidate.is_some_and(|names| names.fits(image, end, budget)) {
                return candidate;
            }
            if *budget == 0 {
                break;
            }
        }
        None
    }

    /// Quickly tells whether `count_at` can hold the count, by the room that the names would have.
    fn can_be(image: &[u8], count_at: usize, end: usize) -> Option<Self> {
        let count = usize::try_from(u32_at(image, count_at)?).ok()?;
        let padding = u32_at(image, count_at + 4)?;
        let room = end - count_at - ALIGNMENT;
        let likely = (SYMBOLS_MIN..=SYMBOLS_MAX).contains(&count)
            && padding == 0
            && count * 2 <= room
            && room <= count * 64 + 4096;
        likely.then_some(Self { count_at, count })
    }
    /// Walks all names, and tells whether markers that agree lead up to the token table.
    fn fits(&self, image: &[u8], end: usize, budget: &mut usize) -> bool {
        let start = self.count_at + ALIGNMENT;
        let mut at = start;
        let mut marks = Vec::new();
        for index in 0..self.count {
            if index % MARKER_STEP == 0 {
                marks.push(at - start);
            }
            *budget = budget.saturating_sub(1);
            match name_at(image, at) {
                Some(name) if at < end && *budget > 0 => at = name.end,
                _ => return false,
            }
        }
        let markers_at = align(at);
        [4, 8].into_iter().any(|width| {
            let agree = marks.iter().enumerate().all(|(index, mark)| {
                marker(image, markers_at + index * width, width) == Some(*mark as u64)
            });
            let behind = align(markers_at + marks.len() * width);
            agree && (behind == end || align(behind + self.count * 3) == end)
        })
    }

    /// Spells all symbols: type and name.
    pub(super) fn spell(&self, image: &[u8], tokens: &Tokens) -> Vec<(char, String)> {
        let mut at = self.count_at + ALIGNMENT;
        let mut symbols = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let Some(name) = name_at(image, at) else { break };
            let mut spelled = Vec::new();
            for token in &image[name.clone()] {
                if spelled.len() < NAME_MAX {
                    spelled.extend_from_slice(tokens.get(image, *token));
                }
            }
            let text = String::from_utf8_lossy(&spelled);
            let mut letters = text.chars();
            let kind = letters.next().unwrap_or('?');
            symbols.push((kind, letters.as_str().to_owned()));
            at = name.end;
        }
        symbols
    }
}

/// Returns where the tokens of the name at `at` are. Lengths of 128 and more have a second byte
/// since 6.1; shorter names were all there was before.
fn name_at(image: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let first = usize::from(*image.get(at)?);
    let (start, length) = if first & 0x80 == 0 {
        (at + 1, first)
    } else {
        (at + 2, first & 0x7f | usize::from(*image.get(at + 1)?) << 7)
    };
    let end = start + length;
    (length > 0 && end <= image.len()).then_some(start..end)
}

fn marker(image: &[u8], at: usize, width: usize) -> Option<u64> {
    if width == 4 { u32_at(image, at).map(u64::from) } else { u64_at(image, at) }
}
