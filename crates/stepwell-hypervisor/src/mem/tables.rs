//! Stage-2 table memory at EL2: pages of the heap, and the TLB maintenance that goes with them.

use super::guest::GuestRam;
use super::heap::{self, Pages};
use crate::hw::registers;
use core::sync::atomic::{AtomicU64, Ordering};
use stepwell_arch::{Ipa, Pa};
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::stage2::TableMemory;
use stepwell_vm::views::CodeMemory;

const ENTRIES: usize = 512;
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
}

/// An entry of a page that the heap lent for tables; nothing for any other address.
fn entry(table: Pa, index: usize) -> Option<&'static AtomicU64> {
    let table = heap::lent(table)?.cast::<AtomicU64>();
    if index >= ENTRIES {
        return None;
    }
    // SAFETY: the heap says that it has lent this page for tables, which is 4 KiB and aligned, and
    // the index is within it. Table walkers read it at the same time, hence the atomic.
    Some(unsafe { table.add(index).as_ref() })
}

impl TableMemory for HeapTables {
    fn allocate(&mut self) -> Option<Pa> {
        Pages::new(1).map(heap::lend)
    }

    fn free(&mut self, table: Pa) {
        drop(heap::take_back(table));
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        entry(table, index).map_or(0, |entry| entry.load(Ordering::Relaxed))
    }

    fn write(&mut self, table: Pa, index: usize, value: u64) {
        if let Some(entry) = entry(table, index) {
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
