//! Where virtual addresses lead to in whichever address space is current, followed through every
//! change of the guest's tables: for breakpoints, and for watched bytes.
//!
//! A CPU has a handful of breakpoints by virtual address. All further ones are BRKs in copies of
//! pages ([`crate::views`]), which are physical; so for each of them the walk is kept that leads from
//! its address to its page, in every address space that a vCPU is in. The pages of the tables on the
//! way are withheld from stores, which come to EL2: after a store the walk is made anew, and before
//! one of which the value is known, too, so that no vCPU finds the new page without its BRKs. Another
//! address space begins with a write of TTBR0_EL1 and relatives, which traps (HCR_EL2.TVM) while
//! anything is followed. So a breakpoint is there before the first instruction is fetched through a
//! mapping that did not exist when it was set: that of a program that starts, a page that is copied
//! on its first store, moved, or brought back from a disk.
//!
//! Watchpoints that find no register of the CPU's have the pages withheld that their addresses lead to,
//! found in the same way.
//!
//! A translation that a TLB still has may be used until it is invalidated. So the BRKs of a page go
//! only when a walk no longer leads there, and the guest invalidates after that change; a vCPU that
//! executes through the stale one for a moment executes the original, as the architecture allows the
//! new one to have been used from the store on.
//!
//! A walk of tables that nobody is in any more is forgotten at the next store to one of them: they
//! have been freed, and the pages serve another purpose.
//!
//! Bounds: [`PAGES_MAX`] pages of addresses, [`ROUTES_MAX`] walks. What the guest writes into its
//! tables makes a walk longer by nothing: each has four descriptors at most.
//!
//! Source: Arm ARM, DDI 0487 L.b, "TLB maintenance requirements and the TLB maintenance
//! instructions", and HCR_EL2, TVM.

use crate::memory::{GuestMemory, OutsideRam, Physical};
use crate::stage2::PAGE_BYTES;
use crate::views::{ViewError, Views, Watched, Whose};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;
use stepwell_arch::stage1::{Access, PhysicalMemory, Regime, walk};
use stepwell_arch::{Ipa, Va};

/// Most pages of virtual addresses that are followed.
pub const PAGES_MAX: usize = 64;
/// Most walks that are kept: each page in the address space of each vCPU, and as many again that
/// nobody is in just now.
const ROUTES_MAX: usize = 2 * PAGES_MAX * crate::domain::MAX_VCPUS;
/// Descriptors of a walk.
const LEVELS: usize = 4;

/// SCTLR_EL1.M and EE: what a walk depends on.
const SCTLR_OF_WALKS: u64 = 1 | 1 << 25;
/// TTBRn_EL1 without the ASID and CnP.
const TTBR_BASE: u64 = 0x0000_ffff_ffff_fffe;

/// What is followed, shared by the vCPUs of a domain.
#[derive(Debug, Default)]
pub struct Follow {
    is_used: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Addresses of breakpoints, in order.
    addresses: Vec<u64>,
    /// Pages with watched bytes, and for which accesses: an entry for each page of each watchpoint.
    watches: Vec<(u64, Watched)>,
    routes: Vec<Route>,
    /// The address spaces that vCPUs are in.
    current: [Option<Regime>; crate::domain::MAX_VCPUS],
}

/// A walk, and where it led.
#[derive(Debug)]
struct Route {
    /// What of the registers it depends on.
    space: Regime,
    /// The page of virtual addresses.
    page: u64,
    /// Pages with the descriptors on its way.
    tables: heapless::Vec<Ipa, LEVELS>,
    /// The page of RAM that it leads to.
    leaf: Option<Ipa>,
}

/// Guest memory as it will be after a store.
struct After<'a, M> {
    ram: &'a M,
    /// The doubleword that the store changes, and what it will be.
    store: Option<(Ipa, u64)>,
}

impl<M: GuestMemory> PhysicalMemory for After<'_, M> {
    type Error = OutsideRam;

    fn read_u64(&self, ipa: Ipa) -> Result<u64, OutsideRam> {
        match self.store {
            Some((at, value)) if at == ipa => Ok(value),
            _ => Physical(self.ram).read_u64(ipa),
        }
    }
}

impl Follow {
    /// Tells whether anything is followed.
    #[inline]
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Acquire)
    }

    /// Tells whether there is a breakpoint at an address.
    #[must_use]
    pub fn contains(&self, va: u64) -> bool {
        self.is_used() && self.state.lock().addresses.binary_search(&va).is_ok()
    }

    /// Tells whether there is a breakpoint in a page of virtual addresses.
    #[must_use]
    pub fn has_page(&self, va: Va) -> bool {
        self.is_used() && self.state.lock().has_page(page_of(va.0))
    }

    /// Sets a breakpoint, while every vCPU is stopped. `spaces` are the address spaces that they are in.
    ///
    /// # Errors
    ///
    /// [`ViewError`]; nothing has changed then.
    pub fn add<M: GuestMemory>(
        &self,
        va: u64,
        spaces: impl Iterator<Item = (usize, Regime)>,
        ram: &M,
        views: &Mutex<Views>,
    ) -> Result<(), ViewError> {
        let mut state = self.state.lock();
        let Err(at) = state.addresses.binary_search(&va) else { return Err(ViewError::Already) };
        state.addresses.try_reserve(1).map_err(|_| ViewError::NoMemory)?;
        let mut views = views.lock();
        state.make_room(page_of(va), ram, &mut views)?;
        state.addresses.insert(at, va);
        let mut result = Ok(());
        for route in 0..state.routes.len() {
            result = result.and(state.place(route, va, ram, &mut views));
        }
        for (vcpu, regime) in spaces {
            result = result.and(state.enter(vcpu, regime, ram, &mut views));
        }
        if result.is_err() {
            state.remove(va, ram, &mut views);
        }
        self.is_used.store(state.is_used(), Ordering::Release);
        result
    }

    /// Watches a page of virtual addresses once more, while every vCPU is stopped, as [`Follow::add`].
    ///
    /// # Errors
    ///
    /// [`ViewError::NoMemory`]; nothing has changed then.
    pub fn watch<M: GuestMemory>(
        &self,
        page: u64,
        what: Watched,
        spaces: impl Iterator<Item = (usize, Regime)>,
        ram: &M,
        views: &Mutex<Views>,
    ) -> Result<(), ViewError> {
        let mut state = self.state.lock();
        state.watches.try_reserve(1).map_err(|_| ViewError::NoMemory)?;
        let mut views = views.lock();
        state.make_room(page, ram, &mut views)?;
        let mut watched = 0;
        let mut result = Ok(());
        for leaf in state.routes.iter().filter(|route| route.page == page).flat_map(|one| one.leaf)
        {
            result = result.and(views.watch(&mut ram.tables(), leaf, what));
            watched += usize::from(result.is_ok());
        }
        if result.is_err() {
            for leaf in state.leaves(page).take(watched) {
                views.unwatch(&mut ram.tables(), leaf, what);
            }
            return result;
        }
        state.watches.push((page, what));
        for (vcpu, regime) in spaces {
            result = result.and(state.enter(vcpu, regime, ram, &mut views));
        }
        if result.is_err() {
            state.unwatch(page, what, ram, &mut views);
        }
        self.is_used.store(state.is_used(), Ordering::Release);
        result
    }

    /// Watches a page once less, as it was watched.
    pub fn unwatch<M: GuestMemory>(&self, page: u64, what: Watched, ram: &M, views: &Mutex<Views>) {
        let mut state = self.state.lock();
        state.unwatch(page, what, ram, &mut views.lock());
        self.is_used.store(state.is_used(), Ordering::Release);
    }

    /// Takes a breakpoint away, while every vCPU is stopped. Tells whether there was one.
    pub fn remove<M: GuestMemory>(&self, va: u64, ram: &M, views: &Mutex<Views>) -> bool {
        if !self.contains(va) {
            return false;
        }
        let mut state = self.state.lock();
        state.remove(va, ram, &mut views.lock());
        self.is_used.store(state.is_used(), Ordering::Release);
        true
    }

    /// A vCPU is in another address space now, or may be.
    ///
    /// # Errors
    ///
    /// [`ViewError::NoMemory`]: a breakpoint is not where it should be.
    pub fn enter<M: GuestMemory>(
        &self,
        vcpu: usize,
        regime: Regime,
        ram: &M,
        views: &Mutex<Views>,
    ) -> Result<(), ViewError> {
        let mut state = self.state.lock();
        state.enter(vcpu, regime, ram, &mut views.lock())
    }

    /// Before a store of an aligned doubleword: has the BRKs where its walks will lead.
    ///
    /// # Errors
    ///
    /// As [`Follow::enter`].
    pub fn before_store<M: GuestMemory>(
        &self,
        at: Ipa,
        value: u64,
        ram: &M,
        views: &Mutex<Views>,
    ) -> Result<(), ViewError> {
        let state = self.state.lock();
        let after = After { ram, store: Some((at, value)) };
        let page = at.align_down(PAGE_BYTES);
        let mut result = Ok(());
        for route in 0..state.routes.len() {
            let Some(Route { space, page: va, tables, .. }) = state.routes.get(route) else {
                break;
            };
            if !tables.contains(&page) || !state.is_current(space) {
                continue;
            }
            let leaf = find(space, *va, &after).1;
            let Some(leaf) = leaf.filter(|leaf| ram.locate(*leaf, PAGE_BYTES).is_ok()) else {
                continue;
            };
            let addresses = state.addresses.iter().filter(|&&address| page_of(address) == *va);
            let mut views = views.lock();
            for address in addresses {
                let place = leaf.offset(address % PAGE_BYTES);
                result = result.and(set(&mut views, ram, place));
            }
        }
        result
    }

    /// After stores to `bytes` bytes from `at` on, or to whatever where that is not known.
    ///
    /// # Errors
    ///
    /// As [`Follow::enter`].
    pub fn stored<M: GuestMemory>(
        &self,
        at: Option<(Ipa, u64)>,
        ram: &M,
        views: &Mutex<Views>,
    ) -> Result<(), ViewError> {
        let mut state = self.state.lock();
        let is_hit = |table: &Ipa| {
            at.is_none_or(|(at, bytes)| {
                table.0 < at.0.saturating_add(bytes) && at.0 < table.0.saturating_add(PAGE_BYTES)
            })
        };
        let mut result = Ok(());
        let mut route = 0;
        while let Some(known) = state.routes.get(route) {
            if !known.tables.iter().any(is_hit) {
                route += 1;
            } else if state.is_current(&known.space) {
                result = result.and(state.renew(route, ram, &mut views.lock()));
                route += 1;
            } else {
                state.forget(route, ram, &mut views.lock());
            }
        }
        result
    }
}

impl State {
    fn has_page(&self, page: u64) -> bool {
        let at = self.addresses.partition_point(|&va| va < page);
        self.addresses.get(at).is_some_and(|&va| page_of(va) == page)
    }

    const fn is_used(&self) -> bool {
        !self.addresses.is_empty() || !self.watches.is_empty()
    }

    /// Tells whether a page is followed, for whatever there is in it.
    fn has_interest(&self, page: u64) -> bool {
        self.has_page(page) || self.watches.iter().any(|watch| watch.0 == page)
    }

    /// How many pages are followed, each counted once.
    fn pages(&self) -> usize {
        let mut last = None;
        let addresses = self.addresses.iter().map(|&va| page_of(va)).filter(|&page| {
            let is_new = last != Some(page);
            last = Some(page);
            is_new
        });
        let is_new = |&(n, &(page, _)): &(usize, &(u64, Watched))| {
            let mut before = self.watches.iter().take(n);
            !self.has_page(page) && !before.any(|watch| watch.0 == page)
        };
        addresses.count() + self.watches.iter().enumerate().filter(is_new).count()
    }

    /// Before a page may be followed that was not.
    fn make_room<M: GuestMemory>(
        &mut self,
        page: u64,
        ram: &M,
        views: &mut Views,
    ) -> Result<(), ViewError> {
        if !self.has_interest(page) && self.pages() >= PAGES_MAX {
            return Err(ViewError::NoMemory);
        }
        self.routes.try_reserve(ROUTES_MAX).map_err(|_| ViewError::NoMemory)?;
        views.keep_tables(&mut ram.tables(), true)
    }

    /// Where the walks for a page lead.
    fn leaves(&self, page: u64) -> impl Iterator<Item = Ipa> {
        self.routes.iter().filter(move |route| route.page == page).filter_map(|route| route.leaf)
    }

    fn unwatch<M: GuestMemory>(&mut self, page: u64, what: Watched, ram: &M, views: &mut Views) {
        let Some(at) = self.watches.iter().position(|&watch| watch == (page, what)) else { return };
        self.watches.swap_remove(at);
        for leaf in self.leaves(page) {
            views.unwatch(&mut ram.tables(), leaf, what);
        }
        self.forget_page(page, ram, views);
    }

    /// Follows a page no more, unless there is something left in it.
    fn forget_page<M: GuestMemory>(&mut self, page: u64, ram: &M, views: &mut Views) {
        let mut route = 0;
        while let Some(known) = self.routes.get(route) {
            if known.page == page && !self.has_interest(page) {
                self.forget(route, ram, views);
            } else {
                route += 1;
            }
        }
        if !self.is_used() {
            self.current = Default::default();
            // Taking tables out of use needs no memory.
            let _kept = views.keep_tables(&mut ram.tables(), false);
        }
    }

    fn is_current(&self, space: &Regime) -> bool {
        self.current
            .iter()
            .flatten()
            .any(|regime| [space_of(regime, 0), space_of(regime, u64::MAX)].contains(space))
    }

    fn enter<M: GuestMemory>(
        &mut self,
        vcpu: usize,
        regime: Regime,
        ram: &M,
        views: &mut Views,
    ) -> Result<(), ViewError> {
        if let Some(current) = self.current.get_mut(vcpu) {
            *current = Some(regime);
        }
        let mut result = Ok(());
        let mut next = 0;
        // By position: the addresses are borrowed for no longer than it takes to look.
        while let Some(&va) = self.addresses.get(next) {
            let page = page_of(va);
            next = self.addresses.partition_point(|&va| page_of(va) <= page);
            result = result.and(self.enter_page(&regime, page, ram, views));
        }
        for n in 0..self.watches.len() {
            let Some(&(page, _)) = self.watches.get(n) else { break };
            result = result.and(self.enter_page(&regime, page, ram, views));
        }
        result
    }

    fn enter_page<M: GuestMemory>(
        &mut self,
        regime: &Regime,
        page: u64,
        ram: &M,
        views: &mut Views,
    ) -> Result<(), ViewError> {
        let space = space_of(regime, page);
        if self.routes.iter().any(|route| route.page == page && route.space == space) {
            return Ok(());
        }
        self.begin(space, page, ram, views)
    }

    /// Begins to follow a page in an address space.
    fn begin<M: GuestMemory>(
        &mut self,
        space: Regime,
        page: u64,
        ram: &M,
        views: &mut Views,
    ) -> Result<(), ViewError> {
        if self.routes.len() >= ROUTES_MAX {
            let unused = self.routes.iter().position(|route| !self.is_current(&route.space));
            // Not all of them are in use: there are twice as many as vCPUs can be in.
            self.forget(unused.ok_or(ViewError::NoMemory)?, ram, views);
        }
        self.routes.try_reserve(1).map_err(|_| ViewError::NoMemory)?;
        self.routes.push(Route { space, page, tables: heapless::Vec::new(), leaf: None });
        self.renew(self.routes.len() - 1, ram, views)
    }

    /// Makes a walk anew, and puts everything where it belongs now.
    fn renew<M: GuestMemory>(
        &mut self,
        at: usize,
        ram: &M,
        views: &mut Views,
    ) -> Result<(), ViewError> {
        let Some(route) = self.routes.get_mut(at) else { return Ok(()) };
        let stores = Watched { read: false, write: true };
        // Withheld before it is read: nothing is stored in between.
        loop {
            let (tables, _) = find(&route.space, route.page, &Physical(ram));
            let missing = tables.iter().find(|table| !route.tables.contains(table));
            let Some(&missing) = missing else { break };
            views.watch(&mut ram.tables(), missing, stores)?;
            if route.tables.push(missing).is_err()
                && let Some(last) = route.tables.last_mut()
            {
                // The tables changed under the walk: one of those known is not on it any more.
                views.unwatch(&mut ram.tables(), core::mem::replace(last, missing), stores);
            }
        }
        let (tables, leaf) = find(&route.space, route.page, &Physical(ram));
        while let Some(gone) = route.tables.iter().position(|table| !tables.contains(table)) {
            views.unwatch(&mut ram.tables(), route.tables.swap_remove(gone), stores);
        }
        let leaf = leaf.filter(|leaf| ram.locate(*leaf, PAGE_BYTES).is_ok());
        let before = core::mem::replace(&mut route.leaf, leaf);
        let page = route.page;
        let mut result = Ok(());
        if before != leaf {
            for &(_, what) in self.watches.iter().filter(|watch| watch.0 == page) {
                if let Some(leaf) = leaf {
                    result = result.and(views.watch(&mut ram.tables(), leaf, what));
                }
                if let Some(before) = before {
                    views.unwatch(&mut ram.tables(), before, what);
                }
            }
        }
        for n in 0..self.addresses.len() {
            let Some(&va) = self.addresses.get(n).filter(|&&va| page_of(va) == page) else {
                continue;
            };
            result = result.and(self.place(at, va, ram, views));
            if let Some(before) = before.filter(|&before| Some(before) != leaf) {
                self.clear_unless_used(before.offset(va % PAGE_BYTES), ram, views);
            }
        }
        result
    }

    /// Sets the BRK of a breakpoint where a route leads, if it is one of its page.
    fn place<M: GuestMemory>(
        &self,
        at: usize,
        va: u64,
        ram: &M,
        views: &mut Views,
    ) -> Result<(), ViewError> {
        match self.routes.get(at) {
            Some(Route { page, leaf: Some(leaf), .. }) if *page == page_of(va) => {
                set(views, ram, leaf.offset(va % PAGE_BYTES))
            }
            _ => Ok(()),
        }
    }

    /// Clears a BRK, unless another breakpoint or another address space has it there, too.
    fn clear_unless_used<M: GuestMemory>(&self, place: Ipa, ram: &M, views: &mut Views) {
        let page = place.align_down(PAGE_BYTES);
        let mut leading = self.routes.iter().filter(|route| route.leaf == Some(page));
        let is_used = leading.any(|route| {
            let va = route.page.wrapping_add(place.0 % PAGE_BYTES);
            self.addresses.binary_search(&va).is_ok()
        });
        if !is_used {
            // It may have been there only for a moment, or not at all where memory ran out.
            let _cleared = views.clear(&mut ram.tables(), Whose::Followed, place);
        }
    }

    /// Follows a route no more.
    fn forget<M: GuestMemory>(&mut self, at: usize, ram: &M, views: &mut Views) {
        let Route { page, tables, leaf, .. } = self.routes.swap_remove(at);
        for table in tables {
            views.unwatch(&mut ram.tables(), table, Watched { read: false, write: true });
        }
        let Some(leaf) = leaf else { return };
        for &(_, what) in self.watches.iter().filter(|watch| watch.0 == page) {
            views.unwatch(&mut ram.tables(), leaf, what);
        }
        for &va in self.addresses.iter().filter(|&&va| page_of(va) == page) {
            self.clear_unless_used(leaf.offset(va % PAGE_BYTES), ram, views);
        }
    }

    fn remove<M: GuestMemory>(&mut self, va: u64, ram: &M, views: &mut Views) {
        let Ok(at) = self.addresses.binary_search(&va) else { return };
        self.addresses.remove(at);
        let page = page_of(va);
        for route in 0..self.routes.len() {
            let known = self.routes.get(route).filter(|known| known.page == page);
            if let Some(leaf) = known.and_then(|known| known.leaf) {
                self.clear_unless_used(leaf.offset(va % PAGE_BYTES), ram, views);
            }
        }
        self.forget_page(page, ram, views);
    }
}

/// Sets a BRK where there may be one.
fn set<M: GuestMemory>(views: &mut Views, ram: &M, place: Ipa) -> Result<(), ViewError> {
    match views.set(&mut ram.tables(), Whose::Followed, place) {
        Err(ViewError::Already) => Ok(()),
        result => result,
    }
}

/// Walks: the pages with the descriptors, and the page that it leads to.
fn find<M: PhysicalMemory>(
    space: &Regime,
    page: u64,
    memory: &M,
) -> (heapless::Vec<Ipa, LEVELS>, Option<Ipa>) {
    // Whether the access flag is set, or who may execute there, changes nothing about where it leads.
    let found = walk(space, Va(page), Access::PRIVILEGED_READ, memory);
    let mut tables = heapless::Vec::new();
    for step in found.steps() {
        let table = step.descriptor_ipa.align_down(PAGE_BYTES);
        if !tables.contains(&table) {
            // There is room for every level.
            let _fits = tables.push(table);
        }
    }
    (tables, found.outcome.ok().map(|mapping| mapping.ipa.align_down(PAGE_BYTES)))
}

/// What of the registers a walk for an address depends on.
const fn space_of(regime: &Regime, va: u64) -> Regime {
    let sctlr = regime.sctlr & SCTLR_OF_WALKS;
    let pa_bits = regime.pa_bits;
    if sctlr & 1 == 0 {
        return Regime { sctlr, tcr: 0, ttbr0: 0, ttbr1: 0, mair: 0, pa_bits };
    }
    // Bit 55 chooses, whether the byte above it is ignored or not.
    let (ttbr0, ttbr1) = if va >> 55 & 1 == 0 { (regime.ttbr0, 0) } else { (0, regime.ttbr1) };
    let tcr = regime.tcr;
    Regime { sctlr, tcr, ttbr0: ttbr0 & TTBR_BASE, ttbr1: ttbr1 & TTBR_BASE, mair: 0, pa_bits }
}

const fn page_of(va: u64) -> u64 {
    va & !(PAGE_BYTES - 1)
}
