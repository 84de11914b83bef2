//! Pages that a debugger has an interest in, and three ways of seeing them.
//!
//! A breakpoint that the guest cannot read back is a BRK in a copy of its page, which the guest can
//! execute and nothing else. Whoever reads or writes the page is caught by stage 2 and gets the
//! original. For that a domain has three sets of stage-2 tables, alike but for these pages:
//!
//! | tables | used | a page with breakpoints | a page with watched bytes |
//! | --- | --- | --- | --- |
//! | *open* (the domain's own) | for one instruction that EL2 lets access such a page | the original, unrestricted | unrestricted |
//! | *running* | where a vCPU runs freely | the copy, execute-only | not for the accesses watched |
//! | *guarded* | where a vCPU is stepped | the original, not for stores | not for the accesses watched |
//!
//! Which of them is in force is each CPU's own choice (VTTBR_EL2), so a vCPU that is stepped past a
//! breakpoint, or performs an access, opens the page to itself alone: the others keep running into
//! the breakpoint, and nobody has to stop for it. The alternative, one set of tables that is
//! changed for an instruction, would need all others to be stopped and every CPU's TLB to be
//! emptied each time. All three have the same VMID, so that the guest's own TLB maintenance reaches
//! what any CPU has cached (VTTBR_EL2.CnP is 0, so CPUs need not agree on the tables of a VMID); a
//! CPU that changes over drops what it has cached itself.
//!
//! Stores reach the original only by EL2's grace in either of the last two, so the copy is kept up
//! to date ([`Views::sync`]): code that patches itself executes what it wrote, with our BRKs in
//! place.
//!
//! Where a page cannot be executed without being read there are no copies: a page with breakpoints is
//! withheld from a vCPU that runs freely, for whatever it wants of it, and the loop has each of its
//! instructions stepped ([`Views::without_copies`]).
//!
//! What a debugger asks for changes only while all vCPUs of the domain are stopped. What follows a virtual
//! address ([`crate::follow`]) changes while others run, as [`Views::sync`] does: by break-before-make,
//! and whoever touches the page in between tries again.

pub mod sequence;
pub mod window;

use crate::device::flash::{self, BANK_BYTES};
use crate::stage2::{
    MemoryKind, PAGE_BYTES, PageUse, Permissions, Stage2, Stage2Error, TableMemory, Vttbr,
};
use alloc::vec::Vec;
use stepwell_arch::{Ipa, Pa};

/// BRK #0xf000.
pub const BRK: u32 = 0xd43e_0000;
/// Doublewords of a page.
const DOUBLEWORDS: usize = 512;
/// Words of [`Page::breakpoints`].
const BITMAP: usize = 16;

/// Memory that copies of guest pages are made in, beside tables.
pub trait CodeMemory: TableMemory {
    /// Reads a doubleword of a page of the guest's.
    fn read_guest(&self, page: Pa, index: usize) -> u64;
    /// Makes what was written into a copy visible to instruction fetch on all CPUs.
    fn publish(&mut self, copy: Pa);
    /// The tables that begin at `root` permit so much of a page from now on. Whoever walks these finds out
    /// by itself.
    fn permits(&mut self, root: Pa, page: Ipa, permissions: Permissions) {
        let _ = (root, page, permissions);
    }
}

/// Why something could not be set or cleared. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewError {
    /// It is set already, or is not set.
    Already,
    /// No memory is left.
    NoMemory,
}

impl From<Stage2Error> for ViewError {
    fn from(_: Stage2Error) -> Self {
        // Callers check that the page is RAM, which all tables map.
        Self::NoMemory
    }
}

/// Which accesses of a page are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
}

/// Which kind of breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// By physical address.
    Physical,
    /// By a virtual address that leads there now: see [`crate::follow`].
    Followed,
}

/// A page that a debugger has an interest in.
#[derive(Debug)]
struct Page {
    ipa: Ipa,
    original: Pa,
    /// What is executed in its place, where that can be.
    copy: Option<Pa>,
    /// One bit for each instruction: breakpoints by physical address,
    breakpoints: [u64; BITMAP],
    /// and those that a virtual address leads to now.
    followed: [u64; BITMAP],
    /// Load-exclusives before those.
    leads: [u64; BITMAP],
    /// How many watchpoints want its loads and its stores.
    reads: u32,
    writes: u32,
}

impl Page {
    const fn new(ipa: Ipa, original: Pa) -> Self {
        let none = [0; BITMAP];
        Self {
            ipa,
            original,
            copy: None,
            breakpoints: none,
            followed: none,
            leads: none,
            reads: 0,
            writes: 0,
        }
    }

    fn bits(&self, whose: Whose) -> &[u64; BITMAP] {
        match whose {
            Whose::Physical => &self.breakpoints,
            Whose::Followed => &self.followed,
        }
    }

    fn change(&mut self, whose: Whose, ipa: Ipa, change: impl FnOnce(u64, u64) -> u64) {
        let bits = match whose {
            Whose::Physical => &mut self.breakpoints,
            Whose::Followed => &mut self.followed,
        };
        let (word, bit) = place(ipa);
        if let Some(word) = bits.get_mut(word) {
            *word = change(*word, 1 << bit);
        }
    }

    /// Tells whether an instruction has a breakpoint of either kind.
    fn has_either(&self, place: (usize, u32)) -> bool {
        has(&self.breakpoints, place) || has(&self.followed, place)
    }

    fn has_breakpoints(&self) -> bool {
        self.breakpoints.iter().chain(&self.followed).any(|&word| word != 0)
    }

    /// Finds the load-exclusives that lead to breakpoints.
    fn find_leads<M: CodeMemory>(&mut self, memory: &M) {
        self.leads = [0; BITMAP];
        let word = |n: usize| (memory.read_guest(self.original, n / 2) >> (n % 2 * 32)) as u32;
        for at in 0..2 * DOUBLEWORDS {
            if self.has_either((at / 64, at as u32 % 64))
                && let Some(load) = sequence::load_before(at, word)
                && let Some(bits) = self.leads.get_mut(load / 64)
            {
                *bits |= 1 << (load % 64);
            }
        }
    }

    fn is_of_interest(&self) -> bool {
        self.reads + self.writes != 0 || self.has_breakpoints()
    }

    /// What the copy has for a doubleword of the original.
    fn with_breakpoints(&self, index: usize, original: u64) -> u64 {
        const LOW: u64 = 0xffff_ffff;
        let bits = |all: &[u64; BITMAP]| all.get(index / 32).map_or(0, |w| w >> (index % 32 * 2));
        let bits = bits(&self.breakpoints) | bits(&self.followed) | bits(&self.leads);
        let mut value = original;
        if bits & 1 != 0 {
            value = value & !LOW | BRK as u64;
        }
        if bits & 2 != 0 {
            value = value & LOW | (BRK as u64) << 32;
        }
        value
    }

    /// Brings the copy up to date, from one doubleword up to another.
    fn refresh<M: CodeMemory>(&self, memory: &mut M, from: usize, to: usize) {
        let Some(copy) = self.copy else { return };
        let mut has_changed = false;
        for index in from..to.min(DOUBLEWORDS) {
            let value = self.with_breakpoints(index, memory.read_guest(self.original, index));
            if memory.read(copy, index) != value {
                memory.write(copy, index, value);
                has_changed = true;
            }
        }
        if has_changed {
            memory.publish(copy);
        }
    }

    fn running(&self) -> (Pa, Permissions) {
        let none = Permissions { read: false, write: false, execute: false };
        match self.copy {
            Some(copy) => (copy, Permissions { execute: true, ..none }),
            None if self.has_breakpoints() => (self.original, none),
            None => (self.original, self.watched()),
        }
    }

    fn guarded(&self) -> (Pa, Permissions) {
        let watched = self.watched();
        let write = watched.write && self.copy.is_none();
        (self.original, Permissions { write, ..watched })
    }

    /// What is left of all permissions by watchpoints. An atomic needs both.
    fn watched(&self) -> Permissions {
        let read = self.reads == 0;
        Permissions { read, write: read && self.writes == 0, execute: true }
    }
}

/// Whether an instruction's bit is set.
fn has(bits: &[u64; BITMAP], (word, bit): (usize, u32)) -> bool {
    bits.get(word).is_some_and(|word| word >> bit & 1 != 0)
}

/// The bit of an instruction in [`Page::breakpoints`].
const fn place(ipa: Ipa) -> (usize, u32) {
    let instruction = ipa.0 as usize % PAGE_BYTES as usize / 4;
    (instruction / 64, instruction as u32 % 64)
}

/// The tables beside a domain's own, and the pages in which they differ.
#[derive(Debug)]
pub struct Views {
    /// The RAM that they map.
    ram: (Ipa, Pa, u64),
    /// The board's flash, and which of its banks are memory now.
    flash: Option<(Pa, [bool; 2])>,
    tables: Option<(Stage2, Stage2)>,
    /// A page with breakpoints is shown as a copy of it.
    has_copies: bool,
    /// The tables are in use even where no page differs: pages may come while vCPUs run.
    is_kept: bool,
    /// What pages in which nobody has an interest begin with: stores may be withheld until the first
    /// one has been seen ([`crate::checkpoint`]).
    others: Permissions,
    /// By address.
    pages: Vec<Page>,
}

/// VTTBR_EL2 without the VMID, for a vCPU that runs freely and for one that is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// For a vCPU that runs freely.
    pub running: Vttbr,
    /// For a vCPU that is stepped.
    pub guarded: Vttbr,
}

impl Views {
    /// Makes the views of a domain whose RAM is `bytes` bytes at `ipa`, and physically at `pa`.
    #[must_use]
    pub const fn new(ipa: Ipa, pa: Pa, bytes: u64) -> Self {
        let others = Permissions::ALL;
        Self {
            ram: (ipa, pa, bytes),
            flash: None,
            tables: None,
            has_copies: true,
            is_kept: false,
            others,
            pages: Vec::new(),
        }
    }

    /// Where a page cannot be executed without being read: one with breakpoints is withheld from a vCPU
    /// that runs freely, and what would be executed in its place is the loop's to step through.
    #[must_use]
    pub const fn without_copies(mut self) -> Self {
        self.has_copies = false;
        self
    }

    /// With flash at address 0, which is physically at `pa`.
    #[must_use]
    pub const fn with_flash(mut self, pa: Pa) -> Self {
        self.flash = Some((pa, [true; 2]));
        self
    }

    /// Gives a bank of flash in all tables, or keeps it back.
    ///
    /// # Errors
    ///
    /// [`ViewError::NoMemory`]; part of it may have changed.
    pub fn show_bank<M: CodeMemory>(
        &mut self,
        memory: &mut M,
        bank: usize,
        is_array: bool,
    ) -> Result<(), ViewError> {
        let Some((_, banks)) = &mut self.flash else { return Ok(()) };
        if let Some(shown) = banks.get_mut(bank) {
            *shown = is_array;
        }
        let permissions = Permissions::of_flash(is_array);
        // A copy with breakpoints is never to be read: between pages of interest, then these.
        let (mut at, end) = (bank as u64 * BANK_BYTES, (bank as u64 + 1) * BANK_BYTES);
        let pages = self.pages.iter().map(|page| page.ipa.0).filter(|&page| page < end);
        let edges: Vec<u64> = pages.chain([end]).collect();
        for edge in edges.into_iter().filter(|&edge| edge >= bank as u64 * BANK_BYTES) {
            for tables in self.tables(None) {
                tables.protect(memory, Ipa(at), edge.saturating_sub(at), permissions)?;
            }
            at = edge.saturating_add(PAGE_BYTES);
        }
        (0..self.pages.len()).try_for_each(|at| self.apply(memory, at).map(drop))
    }

    /// Where an address is, physically.
    fn original(&self, ipa: Ipa) -> Option<Pa> {
        let (base, pa, bytes) = self.ram;
        let in_ram = ipa.0.checked_sub(base.0).filter(|&offset| offset < bytes);
        let in_flash = || flash::place(ipa).and(self.flash).map(|(pa, _)| pa.offset(ipa.0));
        in_ram.map(|offset| pa.offset(offset)).or_else(in_flash)
    }

    /// What pages that nobody has an interest in have where this address is.
    fn others_at(&self, ipa: Ipa) -> Permissions {
        match (flash::place(ipa), self.flash) {
            (Some((bank, _)), Some((_, banks))) => {
                Permissions::of_flash(banks.get(bank).copied().unwrap_or(true))
            }
            _ => self.others,
        }
    }

    /// Has stores withheld from now on until the first one to a page has been seen, or not any more, in
    /// all pages. Nothing is invalidated.
    ///
    /// # Errors
    ///
    /// [`ViewError::NoMemory`], where they are to be withheld; some may be then.
    pub fn set_stores<M: CodeMemory>(
        &mut self,
        memory: &mut M,
        permitted: bool,
    ) -> Result<(), ViewError> {
        self.others.write = permitted;
        let (ipa, _, bytes) = self.ram;
        for tables in self.tables(None) {
            tables.set_stores(memory, ipa, bytes, permitted)?;
        }
        // Those that are withheld for another reason stay so.
        (0..self.pages.len()).try_for_each(|at| self.apply(memory, at).map(drop))
    }

    /// The tables that begin at `root`, if they are of these, and all of them.
    pub fn tables(&mut self, root: Option<Pa>) -> impl Iterator<Item = &mut Stage2> {
        let tables = self.tables.as_mut().map(|(running, guarded)| [running, guarded]);
        let is_meant =
            move |tables: &&mut Stage2| root.is_none_or(|root| tables.vttbr(0).root() == root);
        tables.into_iter().flatten().filter(is_meant)
    }

    /// The tables to use instead of the domain's own, if any page differs.
    #[must_use]
    pub fn roots(&self, vmid: u8) -> Option<Roots> {
        let (running, guarded) =
            self.tables.as_ref().filter(|_| self.is_kept || !self.pages.is_empty())?;
        Some(Roots { running: running.vttbr(vmid), guarded: guarded.vttbr(vmid) })
    }

    /// The tables for stepped vCPUs, if any page differs.
    pub fn guarded(&mut self) -> Option<&mut Stage2> {
        let tables = self.tables.as_mut().filter(|_| self.is_kept || !self.pages.is_empty())?;
        Some(&mut tables.1)
    }

    fn find(&self, ipa: Ipa) -> Result<usize, usize> {
        self.pages.binary_search_by_key(&ipa.align_down(PAGE_BYTES), |page| page.ipa)
    }

    fn page(&self, ipa: Ipa) -> Option<&Page> {
        self.find(ipa).ok().and_then(|place| self.pages.get(place))
    }

    /// Tells whether an address lies in a page that a debugger has an interest in.
    #[must_use]
    pub fn has_page(&self, ipa: Ipa) -> bool {
        self.find(ipa).is_ok()
    }

    /// Tells whether a page has breakpoints.
    #[must_use]
    pub fn has_breakpoints(&self, ipa: Ipa) -> bool {
        self.page(ipa).is_some_and(Page::has_breakpoints)
    }

    /// Tells whether a vCPU that runs freely cannot execute what is in a page, where what it is not to
    /// read it does not execute either.
    #[must_use]
    pub fn is_fetch_withheld(&self, ipa: Ipa) -> bool {
        self.page(ipa).is_some_and(|page| page.has_breakpoints() || page.reads != 0)
    }

    /// Tells whether an instruction has a breakpoint of a kind.
    #[must_use]
    pub fn has_breakpoint(&self, whose: Whose, ipa: Ipa) -> bool {
        self.page(ipa).is_some_and(|page| has(page.bits(whose), place(ipa)))
    }

    /// Tells whether an instruction is a load-exclusive before a breakpoint: it stops the guest,
    /// too.
    #[must_use]
    pub fn leads_to_breakpoint(&self, ipa: Ipa) -> bool {
        self.page(ipa).is_some_and(|page| has(&page.leads, place(ipa)))
    }

    /// Has the tables in use even where no page differs, or not. Before vCPUs run: one that begins to
    /// use them later would not see what comes before it does.
    ///
    /// # Errors
    ///
    /// [`ViewError::NoMemory`], where they are to be used.
    pub fn keep_tables<M: CodeMemory>(
        &mut self,
        memory: &mut M,
        keep: bool,
    ) -> Result<(), ViewError> {
        if keep && self.tables.is_none() {
            self.tables = Some(self.make_tables(memory)?);
        }
        self.is_kept = keep;
        Ok(())
    }

    /// Sets a breakpoint on an instruction in RAM.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn set<M: CodeMemory>(
        &mut self,
        memory: &mut M,
        whose: Whose,
        ipa: Ipa,
    ) -> Result<(), ViewError> {
        if self.has_breakpoint(whose, ipa) {
            return Err(ViewError::Already);
        }
        let at = self.make_page(memory, ipa)?;
        let page = self.pages.get_mut(at).ok_or(ViewError::NoMemory)?;
        if self.has_copies && page.copy.is_none() {
            page.copy = memory.allocate(PageUse::Code);
            if page.copy.is_none() {
                self.tidy(memory, at);
                return Err(ViewError::NoMemory);
            }
        }
        page.change(whose, ipa, |bits, bit| bits | bit);
        page.find_leads(memory);
        if !self.apply(memory, at)? {
            // It is in use already.
            self.refresh(memory, at);
        }
        Ok(())
    }

    /// Removes a breakpoint.
    ///
    /// # Errors
    ///
    /// [`ViewError::Already`] where there is none.
    pub fn clear<M: CodeMemory>(
        &mut self,
        memory: &mut M,
        whose: Whose,
        ipa: Ipa,
    ) -> Result<(), ViewError> {
        let at = self.find(ipa).map_err(|_| ViewError::Already)?;
        let page = self.pages.get_mut(at).ok_or(ViewError::Already)?;
        if !has(page.bits(whose), place(ipa)) {
            return Err(ViewError::Already);
        }
        page.change(whose, ipa, |bits, bit| bits & !bit);
        page.find_leads(memory);
        page.refresh(memory, 0, DOUBLEWORDS);
        if !page.has_breakpoints() {
            let copy = page.copy.take();
            self.apply(memory, at)?;
            if let Some(copy) = copy {
                memory.free(copy);
            }
        }
        self.tidy(memory, at);
        Ok(())
    }

    /// Watches a page, once more.
    ///
    /// # Errors
    ///
    /// [`ViewError::NoMemory`].
    pub fn watch<M: CodeMemory>(
        &mut self,
        memory: &mut M,
        ipa: Ipa,
        what: Watched,
    ) -> Result<(), ViewError> {
        let at = self.make_page(memory, ipa)?;
        if let Some(page) = self.pages.get_mut(at) {
            page.reads += u32::from(what.read);
            page.writes += u32::from(what.write);
        }
        self.apply(memory, at).map(drop)
    }

    /// Watches a page once less.
    pub fn unwatch<M: CodeMemory>(&mut self, memory: &mut M, ipa: Ipa, what: Watched) {
        let Ok(at) = self.find(ipa) else { return };
        if let Some(page) = self.pages.get_mut(at) {
            page.reads = page.reads.saturating_sub(u32::from(what.read));
            page.writes = page.writes.saturating_sub(u32::from(what.write));
        }
        // Its tables were split when it was watched: this cannot fail.
        let _applied = self.apply(memory, at);
        self.tidy(memory, at);
    }

    /// Brings the copy of a page up to date, after `bytes` bytes from `ipa` on were written: all of
    /// them in one page.
    pub fn sync<M: CodeMemory>(&self, memory: &mut M, ipa: Ipa, bytes: u64) {
        if let Some(page) = self.page(ipa) {
            let offset = (ipa.0 % PAGE_BYTES) as usize;
            let end = offset.saturating_add(bytes as usize);
            page.refresh(memory, offset / 8, end.div_ceil(8));
        }
    }

    /// Brings every copy up to date.
    pub fn sync_all<M: CodeMemory>(&self, memory: &mut M) {
        for page in &self.pages {
            page.refresh(memory, 0, DOUBLEWORDS);
        }
    }

    /// Finds or makes the entry of a page, and splits what maps it, so that nothing after this can
    /// run out of memory for tables.
    fn make_page<M: CodeMemory>(&mut self, memory: &mut M, ipa: Ipa) -> Result<usize, ViewError> {
        let at = match self.find(ipa) {
            Ok(at) => return Ok(at),
            Err(at) => at,
        };
        let ipa = ipa.align_down(PAGE_BYTES);
        let original = self.original(ipa).ok_or(ViewError::NoMemory)?;
        self.pages.try_reserve(1).map_err(|_| ViewError::NoMemory)?;
        if self.tables.is_none() {
            self.tables = Some(self.make_tables(memory)?);
        }
        let others = self.others_at(ipa);
        for tables in self.tables(None) {
            tables.protect(memory, ipa, PAGE_BYTES, others)?;
        }
        self.pages.insert(at, Page::new(ipa, original));
        Ok(at)
    }

    /// Puts a page into the tables as it is to be seen. Tells whether that changed them.
    ///
    /// Others may run. A copy is made while nobody reaches the page: what is stored before it is in
    /// it, and what is stored after it brings it up to date ([`Views::sync`]). Whoever reaches it
    /// meanwhile takes a translation fault, and tries again.
    fn apply<M: CodeMemory>(&mut self, memory: &mut M, at: usize) -> Result<bool, ViewError> {
        let others = self.pages.get(at).map_or(self.others, |page| self.others_at(page.ipa));
        let (Some(page), Some((running, guarded))) = (self.pages.get(at), &mut self.tables) else {
            return Ok(false);
        };
        let mut has_changed = false;
        let of = |(pa, permissions): (Pa, Permissions)| (pa, permissions.and(others));
        let mut tables = [(running, of(page.running())), (guarded, of(page.guarded()))];
        for (tables, (pa, permissions)) in &mut tables {
            let now = tables.walk(memory, page.ipa);
            if now.is_none_or(|now| now.pa != *pa || now.permissions != *permissions) {
                tables.unmap(memory, page.ipa, PAGE_BYTES)?;
                has_changed = true;
            }
        }
        if has_changed {
            page.refresh(memory, 0, DOUBLEWORDS);
        }
        for (tables, (pa, permissions)) in &mut tables {
            if tables.walk(memory, page.ipa).is_none() {
                let normal = MemoryKind::Normal;
                tables.map(memory, page.ipa, *pa, PAGE_BYTES, *permissions, normal)?;
                memory.permits(tables.vttbr(0).root(), page.ipa, *permissions);
            }
        }
        Ok(has_changed)
    }

    fn refresh<M: CodeMemory>(&self, memory: &mut M, at: usize) {
        if let Some(page) = self.pages.get(at) {
            page.refresh(memory, 0, DOUBLEWORDS);
        }
    }

    /// Forgets a page that nobody has an interest in any more.
    fn tidy<M: CodeMemory>(&mut self, memory: &mut M, at: usize) {
        if self.pages.get(at).is_some_and(Page::is_of_interest) {
            return;
        }
        // Its tables were split when it was made: this cannot fail.
        let _applied = self.apply(memory, at);
        self.pages.remove(at);
    }

    /// Makes two sets of tables that map all memory.
    fn make_tables<M: TableMemory>(&self, memory: &mut M) -> Result<(Stage2, Stage2), ViewError> {
        let running = self.make_set(memory)?;
        match self.make_set(memory) {
            Ok(guarded) => Ok((running, guarded)),
            Err(error) => {
                running.free(memory);
                Err(error)
            }
        }
    }

    fn make_set<M: TableMemory>(&self, memory: &mut M) -> Result<Stage2, ViewError> {
        let mut tables = Stage2::new(memory)?;
        let flash = self.flash.map(|(pa, _)| {
            [0, BANK_BYTES].map(|offset| (Ipa(offset), pa.offset(offset), BANK_BYTES))
        });
        let ranges = flash.into_iter().flatten().chain([self.ram]);
        let mapped = ranges.into_iter().try_for_each(|(ipa, pa, bytes)| {
            tables.map(memory, ipa, pa, bytes, self.others_at(ipa), MemoryKind::Normal)
        });
        match mapped {
            Ok(()) => Ok(tables),
            Err(error) => {
                tables.free(memory);
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
