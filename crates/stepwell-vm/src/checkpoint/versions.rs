//! Pages of RAM as they are at several moments, each version of them once.
//!
//! Up to 64 moments are kept, one bit each. Of a page that was never written since the first of them
//! nothing is kept: what is in RAM is what it is at all of them. Before a page is written for the first
//! time since it was looked at last, what it holds is copied, for whichever moments share it. So the
//! state of a page is what the RAM holds of it ([`Ram`]) and a list of versions, each with the moments
//! that it is of; and every moment is in exactly one of these.
//!
//! Moments are in no order here. Keeping one adds its bit to what is in RAM; going to one puts back the
//! version that it is in, wherever that is not in RAM already, and copies what would be lost by that. So
//! going ahead again is the same as going back, and so is a run that departs from another.
//!
//! All of it lies in memory that was set aside for it: flat tables of words, which are not touched
//! before they are needed. There is nothing to allocate, and what is full says so before anything has
//! changed.
//!
//! Deliberately absent: how it is noticed that a page is written ([`super::withheld`]).

use crate::memory::PAGE_WORDS;

/// What is kept of each page beside its versions, and of each version beside its copy.
const PAIR: usize = 2;
/// Doublewords for each page of RAM: its row, and its place in either list.
const WORDS_PER_PAGE: usize = PAIR + 2;
/// No version.
const NONE: u64 = 0;

/// RAM, by numbers of its pages.
pub trait Pages {
    /// Copies a page out.
    fn save(&self, page: usize, into: &mut [u64; PAGE_WORDS]);
    /// Puts a page back.
    fn restore(&self, page: usize, from: &[u64; PAGE_WORDS]);
}

/// No copy is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What the RAM holds of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ram {
    /// What it is at all moments.
    Untouched,
    /// What it is at the moments of the row; nobody has written it since, and there is no copy.
    Uncopied,
    /// What was written since it was looked at last.
    Open,
    /// What a version has.
    Version(usize),
}

impl Ram {
    const VERSIONS: u64 = 3;

    const fn of(word: u64) -> Self {
        match word {
            0 => Self::Untouched,
            1 => Self::Uncopied,
            2 => Self::Open,
            version => Self::Version((version - Self::VERSIONS) as usize),
        }
    }

    const fn word(self) -> u64 {
        match self {
            Self::Untouched => 0,
            Self::Uncopied => 1,
            Self::Open => 2,
            Self::Version(version) => version as u64 + Self::VERSIONS,
        }
    }
}

/// What is kept of a page.
#[derive(Clone, Copy)]
struct Row {
    ram: Ram,
    /// The first of its versions, less one, or [`NONE`].
    first: u64,
    /// Moments of what is in RAM, where that is [`Ram::Uncopied`].
    moments: u64,
}

/// What is kept of a version: the moments that it is of, and the next one of its page, as
/// [`Row::first`].
#[derive(Clone, Copy)]
struct Version {
    moments: u64,
    next: u64,
}

/// Where a moment's version of a page is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Ram,
    Copy(usize),
}

/// The memory, shared out.
pub struct Memory {
    rows: &'static mut [[u64; PAIR]],
    /// Pages that have a row, and those that are open.
    tracked: &'static mut [u64],
    open: &'static mut [u64],
    versions: &'static mut [[u64; PAIR]],
    copies: &'static mut [[u64; PAGE_WORDS]],
}

impl Memory {
    /// Shares out `words` for a RAM of so many pages; nothing where they are too few for anything.
    #[must_use]
    pub fn new(words: &'static mut [u64], pages: usize) -> Option<Self> {
        let (tables, rest) = words.split_at_mut_checked(pages.checked_mul(WORDS_PER_PAGE)?)?;
        let (rows, lists) = tables.split_at_mut_checked(pages * PAIR)?;
        let (tracked, open) = lists.split_at_mut_checked(pages)?;
        let count = rest.len() / (PAGE_WORDS + PAIR);
        let (versions, copies) = rest.split_at_mut_checked(count * PAIR)?;
        let ((rows, _), (versions, _)) = (rows.as_chunks_mut(), versions.as_chunks_mut());
        let (copies, _) = copies.as_chunks_mut();
        (count > 0).then_some(Self { rows, tracked, open, versions, copies })
    }
}

/// The versions of all pages.
pub struct Versions {
    memory: Memory,
    tracked: usize,
    open: usize,
    /// The first of the versions that were given back, as [`Row::first`].
    given_back: u64,
    /// Versions that were never taken.
    fresh: usize,
    /// Versions that can be taken.
    left: usize,
}

impl Versions {
    /// Makes an empty one. What the memory held before does not matter.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        let mut versions =
            Self { memory, tracked: 0, open: 0, given_back: NONE, fresh: 0, left: 0 };
        versions.reset();
        versions
    }

    /// Forgets everything: what was kept of any page.
    pub fn reset(&mut self) {
        self.memory.rows.fill([0; PAIR]);
        (self.tracked, self.open, self.given_back, self.fresh) = (0, 0, NONE, 0);
        self.left = self.memory.versions.len().min(self.memory.copies.len());
    }

    /// Pages that were written since they were looked at last.
    pub fn open_pages(&self) -> impl Iterator<Item = usize> + '_ {
        self.memory.open.iter().take(self.open).map(|&page| page as usize)
    }

    /// Before a page is written: copies it, if that is the first time. `moments`: all that are kept.
    ///
    /// # Errors
    ///
    /// [`Full`]; it must not be written then.
    pub fn open(&mut self, pages: &impl Pages, page: usize, moments: u64) -> Result<(), Full> {
        let Some(mut row) = self.row(page) else { return Ok(()) };
        let sharing = match row.ram {
            Ram::Open => return Ok(()),
            Ram::Untouched => moments,
            Ram::Uncopied => row.moments,
            Ram::Version(_) => 0,
        };
        if sharing != 0 {
            let _version = self.copy(pages, page, &mut row, sharing)?;
        }
        if row.ram == Ram::Untouched {
            push(self.memory.tracked, &mut self.tracked, page);
        }
        push(self.memory.open, &mut self.open, page);
        (row.ram, row.moments) = (Ram::Open, 0);
        self.set_row(page, row);
        Ok(())
    }

    /// Keeps a moment, one bit of `moment`. No page is open after that.
    pub fn keep(&mut self, moment: u64) {
        for n in 0..self.tracked {
            let (page, Some(mut row)) = self.tracked_row(n) else { continue };
            match row.ram {
                Ram::Version(version) => self.change(version, |moments| moments | moment),
                Ram::Untouched | Ram::Uncopied => row.moments |= moment,
                Ram::Open => (row.ram, row.moments) = (Ram::Uncopied, moment),
            }
            self.set_row(page, row);
        }
        self.open = 0;
    }

    /// Has the RAM as it is at a moment. No page is open after that.
    ///
    /// # Errors
    ///
    /// [`Full`]; nothing has changed then.
    pub fn go_to(&mut self, pages: &impl Pages, moment: u64) -> Result<(), Full> {
        let is_lost = |&n: &usize| {
            let (_, Some(row)) = self.tracked_row(n) else { return false };
            row.ram == Ram::Uncopied && row.moments != 0 && row.moments & moment == 0
        };
        if (0..self.tracked).filter(is_lost).count() > self.left {
            return Err(Full);
        }
        for n in 0..self.tracked {
            let (page, Some(mut row)) = self.tracked_row(n) else { continue };
            let Some(Place::Copy(wanted)) = self.place(row, moment) else { continue };
            if row.ram == Ram::Version(wanted) {
                continue;
            }
            if row.ram == Ram::Uncopied && row.moments != 0 {
                let moments = row.moments;
                let _version = self.copy(pages, page, &mut row, moments)?;
            }
            if let Some(copy) = self.memory.copies.get(wanted) {
                pages.restore(page, copy);
            }
            (row.ram, row.moments) = (Ram::Version(wanted), 0);
            self.set_row(page, row);
        }
        self.open = 0;
        Ok(())
    }

    /// Lets moments go, one bit each.
    pub fn forget(&mut self, moments: u64) {
        for n in 0..self.tracked {
            let (page, Some(mut row)) = self.tracked_row(n) else { continue };
            row.moments &= !moments;
            self.forget_versions(&mut row, moments);
            self.set_row(page, row);
        }
    }

    /// Tells whether a page may have been written between two moments.
    #[must_use]
    pub fn differs(&self, page: usize, one: u64, other: u64) -> bool {
        let Some(row) = self.row(page).filter(|row| row.ram != Ram::Untouched) else {
            return false;
        };
        self.place(row, one) != self.place(row, other)
    }

    /// Where a moment's version is.
    fn place(&self, row: Row, moment: u64) -> Option<Place> {
        if row.ram == Ram::Uncopied && row.moments & moment != 0 {
            return Some(Place::Ram);
        }
        let mut next = row.first;
        while let Some(at) = index(next) {
            let version = self.version(at)?;
            if version.moments & moment != 0 {
                return Some(Place::Copy(at));
            }
            next = version.next;
        }
        None
    }

    /// Copies a page from RAM, as a version of these moments.
    fn copy(
        &mut self,
        pages: &impl Pages,
        page: usize,
        row: &mut Row,
        moments: u64,
    ) -> Result<usize, Full> {
        let at = self.take().ok_or(Full)?;
        let copy = self.memory.copies.get_mut(at).ok_or(Full)?;
        pages.save(page, copy);
        self.set_version(at, Version { moments, next: row.first });
        row.first = at as u64 + 1;
        Ok(at)
    }

    fn take(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let Some(at) = index(self.given_back) else {
            let at = self.fresh;
            self.fresh += 1;
            return Some(at);
        };
        self.given_back = self.version(at)?.next;
        Some(at)
    }

    /// Takes moments from the versions of a page, and versions that are of none from the page.
    fn forget_versions(&mut self, row: &mut Row, forgotten: u64) {
        let (mut next, mut before) = (row.first, None);
        while let Some((at, version)) = index(next).and_then(|at| Some((at, self.version(at)?))) {
            next = version.next;
            let moments = version.moments & !forgotten;
            if moments != 0 {
                self.set_version(at, Version { moments, ..version });
                before = Some(at);
                continue;
            }
            match before {
                None => row.first = next,
                Some(before) => {
                    if let Some(version) = self.version(before) {
                        self.set_version(before, Version { next, ..version });
                    }
                }
            }
            if row.ram == Ram::Version(at) {
                row.ram = Ram::Uncopied;
            }
            self.set_version(at, Version { moments: 0, next: self.given_back });
            self.given_back = at as u64 + 1;
            self.left += 1;
        }
    }

    fn tracked_row(&self, n: usize) -> (usize, Option<Row>) {
        let page = self.memory.tracked.get(n).map_or(usize::MAX, |&page| page as usize);
        (page, self.row(page))
    }

    fn row(&self, page: usize) -> Option<Row> {
        let &[state, moments] = self.memory.rows.get(page)?;
        Some(Row { ram: Ram::of(state >> 32), first: state & u64::from(u32::MAX), moments })
    }

    fn set_row(&mut self, page: usize, row: Row) {
        if let Some(place) = self.memory.rows.get_mut(page) {
            *place = [row.ram.word() << 32 | row.first, row.moments];
        }
    }

    fn version(&self, at: usize) -> Option<Version> {
        self.memory.versions.get(at).map(|&[moments, next]| Version { moments, next })
    }

    fn set_version(&mut self, at: usize, version: Version) {
        if let Some(place) = self.memory.versions.get_mut(at) {
            *place = [version.moments, version.next];
        }
    }

    fn change(&mut self, at: usize, change: impl FnOnce(u64) -> u64) {
        if let Some([moments, _]) = self.memory.versions.get_mut(at) {
            *moments = change(*moments);
        }
    }
}

/// The version that a word names.
const fn index(word: u64) -> Option<usize> {
    match word {
        NONE => None,
        word => Some(word as usize - 1),
    }
}

/// Adds to a list that has room for every page once.
fn push(list: &mut [u64], count: &mut usize, page: usize) {
    if let Some(place) = list.get_mut(*count) {
        *place = page as u64;
        *count += 1;
    }
}

#[cfg(test)]
mod tests;
