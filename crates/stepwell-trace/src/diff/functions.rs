//! Functions by name, and how often two recordings executed them.

use crate::symbols::Symbols;
use std::collections::HashMap;
use stepwell_arch::address::Va;

/// Addresses whose function is remembered, for each recording.
const PLACES_MAX: usize = 1 << 17;
/// Stands for code without a name.
const NAMELESS: u32 = 0;

/// One of the two recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Second,
}

/// A stretch of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of its name.
    pub(super) name: u32,
    first: u64,
    last: u64,
}

impl Place {
    pub(super) const fn is_named(&self) -> bool {
        self.name != NAMELESS
    }

    pub(super) const fn offset(&self, pc: Va) -> u64 {
        pc.0.wrapping_sub(self.first)
    }

    /// Returns how many instructions from `pc` on begin in it.
    pub(super) const fn instructions_from(&self, pc: Va) -> u64 {
        self.last.saturating_sub(pc.0) / 4 + 1
    }
}

/// What was executed of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Its instructions, without those of functions that it called.
    pub instructions: u64,
    /// How often its first instruction was among them.
    pub calls: u64,
}

/// A function that was not executed equally often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionChange {
    /// Its name; all code without a name counts as one.
    pub name: String,
    /// In the first recording.
    pub first: Count,
    /// In the second recording.
    pub second: Count,
}

impl FunctionChange {
    /// Returns how many instructions more the second recording has.
    #[must_use]
    pub const fn change(&self) -> i64 {
        self.second.instructions.wrapping_sub(self.first.instructions) as i64
    }
}

/// The functions of both recordings.
#[derive(Debug)]
pub(super) struct Functions<'a> {
    symbols: [&'a Symbols; 2],
    places: [HashMap<u64, Place>; 2],
    numbers: HashMap<&'a str, u32>,
    names: Vec<&'a str>,
    counts: Vec<[Count; 2]>,
}

impl<'a> Functions<'a> {
    pub(super) fn new(symbols: [&'a Symbols; 2]) -> Self {
        Self {
            symbols,
            places: [HashMap::new(), HashMap::new()],
            numbers: HashMap::new(),
            names: vec!["(no symbol)"],
            counts: vec![[Count::default(); 2]],
        }
    }

    /// Returns the function that `pc` lies in.
    pub(super) fn at(&mut self, which: Which, pc: Va) -> Place {
        if let Some(place) = self.places[which as usize].get(&pc.0) {
            return *place;
        }
        let place = self.look_up(self.symbols[which as usize], pc);
        let places = &mut self.places[which as usize];
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert(pc.0, place);
        place
    }

    fn look_up(&mut self, symbols: &'a Symbols, pc: Va) -> Place {
        let Some(symbol) = symbols.symbol_at(pc) else {
            let last = symbols.next_after(pc).map_or(u64::MAX, |next| next.address - 1);
            return Place { name: NAMELESS, first: pc.0, last };
        };
        let next = self.names.len() as u32;
        let name = *self.numbers.entry(&symbol.name).or_insert(next);
        if name == next {
            self.names.push(&symbol.name);
            self.counts.push([Count::default(); 2]);
        }
        let place = symbols.place_of(symbol);
        Place { name, first: *place.start(), last: *place.end() }
    }

    /// Counts instructions that were executed.
    pub(super) fn count(&mut self, which: Which, place: Place, pc: Va, length: u64) {
        let count = &mut self.counts[place.name as usize][which as usize];
        count.instructions += length;
        count.calls += u64::from(place.is_named() && place.offset(pc) == 0);
    }

    /// Returns the functions whose counts differ, the largest difference first.
    pub(super) fn changes(&self) -> Vec<FunctionChange> {
        let mut changes: Vec<FunctionChange> = (self.names.iter().zip(&self.counts))
            .filter(|(_, [first, second])| first != second)
            .map(|(name, &[first, second])| FunctionChange { name: (*name).into(), first, second })
            .collect();
        changes.sort_by(|a, b| {
            let by_change = b.change().unsigned_abs().cmp(&a.change().unsigned_abs());
            by_change.then_with(|| a.name.cmp(&b.name))
        });
        changes
    }
}
