//! Which parts of an image are code.
//!
//! A debugger takes a symbol for a function only if it lies in a section of code, whatever kind the
//! symbol says that it is. An image has no sections, and its functions are not all in its text:
//! Linux has those that it needs only to boot, or to unload, behind its data. So code is where
//! functions are.

use super::super::{SymbolKind, Symbols};
use super::FUNCTION_MAX;
use std::ops::Range;

/// Most parts: a table that has more makes no sense, and the smallest gaps count as code then.
const PARTS_MAX: usize = 64;

/// A part of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) range: Range<u64>,
    pub(super) is_code: bool,
}

/// Divides `image` into code and what is none. Up to `text_end` all is code.
pub(super) fn divide(symbols: &Symbols, image: &Range<u64>, text_end: u64) -> Vec<Region> {
    let text = image.start..text_end;
    let mut code = Vec::from([text]);
    let mut addresses: Vec<(u64, bool)> = Vec::new();
    for symbol in symbols.iter().filter(|symbol| (text_end..image.end).contains(&symbol.address)) {
        let is_function = symbol.kind == SymbolKind::Function;
        match addresses.last_mut() {
            Some((address, any)) if *address == symbol.address => *any |= is_function,
            _ => addresses.push((symbol.address, is_function)),
        }
    }
    let ends = addresses.iter().skip(1).map(|(address, _)| *address).chain([image.end]);
    for (&(start, is_function), end) in addresses.iter().zip(ends) {
        if !is_function {
            continue;
        }
        let end = end.min(start.saturating_add(FUNCTION_MAX));
        match code.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => code.push(start..end),
        }
    }
    join_nearest(&mut code);
    with_gaps(code, image)
}

/// Joins the parts with the smallest gaps between them, until there are few enough.
fn join_nearest(code: &mut Vec<Range<u64>>) {
    if code.len() <= PARTS_MAX {
        return;
    }
    let mut gaps: Vec<u64> = code.windows(2).map(|pair| pair[1].start - pair[0].end).collect();
    gaps.sort_unstable_by_key(|&gap| std::cmp::Reverse(gap));
    // So many gaps stay at most; of equal ones none does.
    let least = gaps.get(PARTS_MAX - 1).copied().unwrap_or_default();
    code.dedup_by(|next, before| {
        let is_near = next.start - before.end <= least;
        if is_near {
            before.end = next.end;
        }
        is_near
    });
}

fn with_gaps(code: Vec<Range<u64>>, image: &Range<u64>) -> Vec<Region> {
    let mut regions = Vec::new();
    let mut at = image.start;
    for range in code {
        if at < range.start {
            regions.push(Region { range: at..range.start, is_code: false });
        }
        at = range.end;
        regions.push(Region { range, is_code: true });
    }
    if at < image.end {
        regions.push(Region { range: at..image.end, is_code: false });
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Symbol;

    fn table(list: &[(u64, SymbolKind)]) -> Symbols {
        let symbol = |(n, &(address, kind)): (usize, &(u64, SymbolKind))| Symbol {
            address,
            size: 0,
            kind,
            name: format!("s{n}"),
        };
        Symbols::new(list.iter().enumerate().map(symbol), None)
    }

    #[test]
    fn functions_behind_the_data_are_code() {
        use SymbolKind::{Function, Other};
        let symbols = table(&[
            (0x1000, Function),
            (0x2000, Other),
            (0x3000, Other),
            (0x3000, Function),
            (0x3010, Function),
            (0x3020, Other),
            (0x4000, Function),
        ]);
        let regions = divide(&symbols, &(0x1000..0x5000), 0x2000);
        let expected = [
            (0x1000..0x2000, true),
            (0x2000..0x3000, false),
            (0x3000..0x3020, true),
            (0x3020..0x4000, false),
            (0x4000..0x5000, true),
        ];
        let expected = expected.map(|(range, is_code)| Region { range, is_code });
        assert_eq!(regions, expected);
    }

    #[test]
    fn there_are_not_many_parts_whatever_the_table_says() {
        use SymbolKind::{Function, Other};
        let list: Vec<(u64, SymbolKind)> =
            (1..5000).map(|n| (n * 16, if n % 2 == 0 { Function } else { Other })).collect();
        let regions = divide(&table(&list), &(0..0x2_0000), 8);
        assert!(regions.len() <= 2 * PARTS_MAX + 1, "{}", regions.len());
        let mut at = 0;
        for region in regions {
            assert_eq!(region.range.start, at);
            at = region.range.end;
        }
        assert_eq!(at, 0x2_0000);
    }
}
