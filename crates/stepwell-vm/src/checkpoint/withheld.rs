//! Stores that stage 2 withholds until the first one to a page has been seen.
//!
//! From the first moment on that is kept, no page of RAM can be stored to in any of the domain's tables.
//! The first store comes to EL2, which has the page copied and permits stores to it in the tables that
//! were in force; in others it comes once more. When the next moment is kept, what was permitted is
//! withheld again. So RAM that nobody writes costs nothing, not even smaller blocks.
//!
//! Nothing is invalidated where stores are permitted: a TLB that goes on refusing them shows by a fault of
//! what is permitted, and then it is. Nor is the table's write waited for: whoever does not see it yet
//! faults once more.
//!
//! A store that faults has not executed. To the guest it is as if EL2 had stopped it there, and what holds
//! for a stop holds for this: see [`crate::vcpu::counted`]. The CPU's own updates of the guest's tables
//! (the access flag, the dirty state) are stores like others, of a walk.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Permission faults" and HPFAR_EL2, which has the address of a walk's
//! fault, and of a permission fault's it is UNKNOWN.

use super::address;
use crate::cpu::Cpu;
use crate::device::board::RAM_BASE;
use crate::domain::Domain;
use crate::memory::GuestMemory;
use crate::stage2::{PAGE_BYTES, Stage2, Stage2Error, TableMemory, Vttbr};
use core::sync::atomic::Ordering;
use stepwell_arch::Ipa;
use stepwell_protocol::Refusal;

/// What became of a store that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was withheld to be seen, and is permitted now.
    Permitted,
    /// It was permitted before, as far as this is concerned.
    Already,
    /// It is no store to a page that was withheld for this.
    NotOurs,
}

impl<C: Cpu> Domain<C> {
    /// A vCPU that runs with these tables has met a permission fault at an address in RAM.
    pub fn has_faulted(&self, tables: Vttbr, ipa: Ipa) -> Seen {
        let page = ipa.align_down(PAGE_BYTES);
        let is_of_interest = tables != self.vttbr && self.views.lock().has_page(page);
        let is_ram = self.ram.locate(page, 1).is_ok_and(|pa| self.ram.is_stored_to(pa));
        if !self.checkpoints.withholds() || is_of_interest || !is_ram {
            return Seen::NotOurs;
        }
        if self.is_permitted(tables, page) {
            return Seen::Already;
        }
        self.open_pages(page, PAGE_BYTES);
        if self.set_stores(tables, page, true).is_err() {
            self.give_up();
        }
        Seen::Permitted
    }

    /// Withholds stores to all RAM, for the first time.
    pub(super) fn withhold_all_stores(&self) -> Result<(), Refusal> {
        self.checkpoints.withholds.store(true, Ordering::Release);
        let result = self.set_all_stores(false);
        self.ram.tables().invalidate(RAM_BASE, self.ram.bytes());
        result
    }

    /// Withholds stores to pages again, where they were permitted.
    pub(super) fn withhold_stores(&self, pages: impl Iterator<Item = usize>) {
        let mut views = self.views.lock();
        let mut own = self.stage2.lock();
        let memory = &mut self.ram.tables();
        for page in pages.map(address) {
            let all = core::iter::once(&mut *own).chain(views.tables(None));
            for tables in all {
                if permits(tables, memory, page) {
                    // A page is permitted by itself: there is nothing to split.
                    let _withheld = tables.set_stores(memory, page, PAGE_BYTES, false);
                }
            }
        }
        memory.invalidate(RAM_BASE, self.ram.bytes());
    }

    /// There is no memory for the tables that it takes to permit a page by itself: lets go of all
    /// moments, and permits everything. None of it needs memory.
    fn give_up(&self) {
        if let Some(state) = self.checkpoints.state.lock().as_mut() {
            while state.thin_out(None) {}
            state.versions.reset();
        }
        let _permitted = self.set_all_stores(true);
        self.checkpoints.withholds.store(false, Ordering::Release);
    }

    fn set_all_stores(&self, permitted: bool) -> Result<(), Refusal> {
        let memory = &mut self.ram.tables();
        let all = (RAM_BASE, self.ram.bytes());
        let own = self.stage2.lock().set_stores(memory, all.0, all.1, permitted);
        let others = self.views.lock().set_stores(memory, permitted);
        own.map_err(|_| Refusal::NoMemory).and(others.map_err(|_| Refusal::NoMemory))
    }

    fn is_permitted(&self, tables: Vttbr, page: Ipa) -> bool {
        let is_permitted = |stage2: &mut Stage2| permits(stage2, &self.ram.tables(), page);
        self.with_tables(tables, is_permitted).unwrap_or(true)
    }

    fn set_stores(&self, tables: Vttbr, page: Ipa, permitted: bool) -> Result<(), Stage2Error> {
        let memory = &mut self.ram.tables();
        let set = |stage2: &mut Stage2| stage2.set_stores(memory, page, PAGE_BYTES, permitted);
        self.with_tables(tables, set).unwrap_or(Ok(()))
    }

    fn with_tables<T>(&self, tables: Vttbr, act: impl FnOnce(&mut Stage2) -> T) -> Option<T> {
        if tables.root() == self.vttbr.root() {
            return Some(act(&mut self.stage2.lock()));
        }
        self.views.lock().tables(Some(tables.root())).next().map(act)
    }
}

fn permits<M: TableMemory>(tables: &Stage2, memory: &M, page: Ipa) -> bool {
    tables.walk(memory, page).is_some_and(|mapping| mapping.permissions.write)
}
