//! The tables that the boot CPU turns its MMU on with: what it needs to read the device tree.
//!
//! Identity, in blocks of 2 MiB, out of a handful of tables in the image: there is no heap before
//! there is an MMU, because its lock needs exclusives, and those need caches. `el2` replaces them.

use crate::devicetree::range::Range;

/// Tables that suffice: for each of image, device tree and console, two of level 2 and two of level
/// 1 where it crosses their borders, and the root.
pub const TABLES: usize = 13;
/// Entries of a table.
pub const ENTRIES: usize = 512;

const BLOCK: u64 = 2 << 20;
const TABLE: u64 = 0b11;
/// A block with the access flag set.
const BLOCK_ENTRY: u64 = 1 << 10 | 0b01;
const INNER_SHAREABLE: u64 = 3 << 8;
const EXECUTE_NEVER: u64 = 1 << 54;
const READ_ONLY: u64 = 1 << 7;
/// MAIR index 1, as `start.S` sets it up.
const NORMAL: u64 = 1 << 2 | INNER_SHAREABLE;
const ADDRESS: u64 = 0xffff_ffff_f000;

/// What a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The image: everything is allowed.
    Image,
    /// Memory to be read.
    Data,
    /// Registers.
    Device,
}

impl Kind {
    const fn bits(self) -> u64 {
        BLOCK_ENTRY
            | match self {
                Self::Image => NORMAL,
                Self::Data => NORMAL | EXECUTE_NEVER | READ_ONLY,
                Self::Device => EXECUTE_NEVER,
            }
    }
}

/// A range lies beyond 48 bits, or there are more than were counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what:?} at {base:#x} cannot be mapped: is that address right?")]
pub struct EarlyMapError {
    what: Kind,
    base: u64,
}

/// Tables being filled.
pub struct EarlyTables<'a> {
    tables: &'a mut [[u64; ENTRIES]; TABLES],
    base: u64,
    used: usize,
}

impl<'a> EarlyTables<'a> {
    /// Begins with nothing mapped. `base` is the address of `tables`, which are all zero; the root
    /// is the first of them.
    pub fn new(tables: &'a mut [[u64; ENTRIES]; TABLES], base: u64) -> Self {
        Self { tables, base, used: 1 }
    }

    /// Maps the blocks in which a range lies. What is mapped already stays as it is.
    ///
    /// # Errors
    ///
    /// [`EarlyMapError`].
    pub fn map(&mut self, range: Range, what: Kind) -> Result<(), EarlyMapError> {
        let error = EarlyMapError { what, base: range.base.0 };
        let mut at = range.base.0 & !(BLOCK - 1);
        if range.end() > 1 << 48 {
            return Err(error);
        }
        while at < range.end() {
            let level1 = self.below(0, at >> 39).ok_or(error)?;
            let level2 = self.below(level1, at >> 30).ok_or(error)?;
            let entry = self.entry(level2, at >> 21).ok_or(error)?;
            if *entry == 0 {
                *entry = at | what.bits();
            }
            at += BLOCK;
        }
        Ok(())
    }

    fn entry(&mut self, table: usize, index: u64) -> Option<&mut u64> {
        self.tables.get_mut(table)?.get_mut(index as usize % ENTRIES)
    }

    /// The number of the table that an entry points to, made if there is none yet.
    fn below(&mut self, table: usize, index: u64) -> Option<usize> {
        let (base, next) = (self.base, self.used);
        let entry = self.entry(table, index)?;
        if *entry != 0 {
            return usize::try_from(((*entry & ADDRESS) - base) / 4096).ok();
        }
        if next == TABLES {
            return None;
        }
        *entry = (base + next as u64 * 4096) | TABLE;
        self.used = next + 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_arch::Pa;

    const BASE: u64 = 0x5000_0000;

    /// Walks the tables as the MMU does.
    fn walk(tables: &[[u64; ENTRIES]; TABLES], address: u64) -> Option<u64> {
        let mut table = 0;
        for shift in [39, 30] {
            let entry = tables[table][(address >> shift) as usize % ENTRIES];
            if entry & 3 != 3 {
                return None;
            }
            table = ((entry & ADDRESS) - BASE) as usize / 4096;
        }
        let entry = tables[table][(address >> 21) as usize % ENTRIES];
        (entry & 3 == 1).then_some(entry)
    }

    fn range(base: u64, bytes: u64) -> Range {
        Range { base: Pa(base), bytes }
    }

    #[test]
    fn what_is_mapped_is_where_it_is_and_nothing_else() {
        let mut tables = [[0; ENTRIES]; TABLES];
        let mut early = EarlyTables::new(&mut tables, BASE);
        // Each across the borders of two tables of level 2.
        early.map(range(0x7f_ffe0_0000, 16 << 20), Kind::Image).unwrap();
        early.map(range(0xbfff_f008, 0x1_2345), Kind::Data).unwrap();
        early.map(range(0x900_0000, 0x1000), Kind::Device).unwrap();
        assert_eq!(walk(&tables, 0x80_00c0_0123), Some(0x80_00c0_0000 | 0x705));
        assert_eq!(walk(&tables, 0xc000_0000), Some(0xc000_0000 | 1 << 54 | 0x785));
        assert_eq!(walk(&tables, 0xbfff_f008).map(|entry| entry & ADDRESS), Some(0xbfe0_0000));
        assert_eq!(walk(&tables, 0x900_0018), Some(0x900_0000 | 1 << 54 | 0x401));
        assert_eq!(walk(&tables, 0x80_00e0_0000), None);
        assert_eq!(walk(&tables, 0x920_0000), None);
    }

    #[test]
    fn the_first_to_map_a_block_has_it() {
        let mut tables = [[0; ENTRIES]; TABLES];
        let mut early = EarlyTables::new(&mut tables, BASE);
        early.map(range(0x4020_0000, 0x1000), Kind::Image).unwrap();
        early.map(range(0x4030_0000, 0x1000), Kind::Data).unwrap();
        assert_eq!(walk(&tables, 0x4030_0000), Some(0x4020_0000 | 0x705));
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let mut tables = [[0; ENTRIES]; TABLES];
        let mut early = EarlyTables::new(&mut tables, BASE);
        let beyond = early.map(range((1 << 48) - 1, 2), Kind::Data);
        assert_eq!(beyond, Err(EarlyMapError { what: Kind::Data, base: (1 << 48) - 1 }));
        let everywhere =
            (0..TABLES as u64).try_for_each(|n| early.map(range(n << 39, 1), Kind::Device));
        assert!(everywhere.is_err(), "13 tables are soon used up");
    }
}
