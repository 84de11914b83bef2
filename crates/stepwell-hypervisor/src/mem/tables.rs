//! Stage-2 table memory at EL2: pages of the heap, and the TLB maintenance that goes with them.

use super::guest::GuestRam;
use super::heap;
use crate::hw::registers;
use core::sync::atomic::Ordering;
use stepwell_arch::{Ipa, Pa};
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::stage2::{PageUse, TableMemory, Target, target};
use stepwell_vm::views::CodeMemory;

const PAGE: u64 = 4096;

/// Pages of the heap, at their own physical addresses, and the RAM of a guest to copy code from.
#[derive(Debug)]
pub struct HeapTables {
    ram: GuestRam,
}

impl HeapTables {
    /// The tables of the guest that has this RAM.
    #[must_use]
    pub const fn of(ram: GuestRam) -> Self {
        Self { ram }
    }

    /// Tells whether a page that is lent for this may hold this value: a table leads to tables of the
    /// next level, to this guest's RAM, and to copies of code. That is what keeps a guest out of
    /// everything else, whoever writes.
    fn may_hold(&self, what: PageUse, value: u64) -> bool {
        let PageUse::Table(level) = what else { return true };
        match target(level, value) {
            Target::Nothing => true,
            Target::Table(next) => heap::lent_for(next) == Some(PageUse::Table(level + 1)),
            Target::Memory { pa, bytes } => self.may_map(pa, bytes),
        }
    }
}

impl TableMemory for HeapTables {
    fn allocate(&mut self, what: PageUse) -> Option<Pa> {
        heap::lend(what)
    }

    fn free(&mut self, page: Pa) {
        heap::take_back(page);
    }

    fn may_map(&self, pa: Pa, bytes: u64) -> bool {
        self.ram.contains(pa, bytes) || bytes == PAGE && heap::lent_for(pa) == Some(PageUse::Code)
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        heap::word(table, index).map_or(0, |entry| entry.load(Ordering::Relaxed))
    }

    fn write(&mut self, table: Pa, index: usize, value: u64) {
        let Some(what) = heap::lent_for(table) else { return };
        if self.may_hold(what, value)
            && let Some(entry) = heap::word(table, index)
        {
            entry.store(value, Ordering::Release);
        }
    }

    fn invalidate(&mut self, _: Ipa, _: u64) {
        // Everything of the VMID: changes are rare, and stage-1 entries that were combined with
        // stage 2 would have to go as well.
        registers::invalidate_guest_translations();
    }
}

impl CodeMemory for HeapTables {
    fn read_guest(&self, page: Pa, index: usize) -> u64 {
        let at = page.offset(index as u64 * 8);
        self.ram.peek(at, 8, false).map_or(0, |[value, _]| value)
    }

    fn publish(&mut self, copy: Pa) {
        registers::clean_data_cache(copy.0, PAGE);
        registers::invalidate_instruction_caches();
    }
}
