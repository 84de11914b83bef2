//! Stage-2 table memory at EL2: pages of the heap, and the TLB maintenance that goes with them.

use super::heap;
use super::stage2::TableMemory;
use super::views::CodeMemory;
use crate::hw::registers;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use stepwell_arch::{Ipa, Pa};

const ENTRIES: usize = 512;
const PAGE: u64 = 4096;

/// Pages of the heap, at their own physical addresses.
#[derive(Debug)]
pub struct HeapTables;

fn entry(table: Pa, index: usize) -> Option<&'static AtomicU64> {
    let table = NonNull::new(table.0 as *mut AtomicU64)?;
    if index >= ENTRIES {
        return None;
    }
    // SAFETY: `table` is a page that `allocate` returned and that was not given back, or one of a
    // guest's RAM: Stage2 and Views keep no other. Table walkers, or the guest, read it at the same
    // time, hence the atomic.
    Some(unsafe { table.add(index).as_ref() })
}

impl TableMemory for HeapTables {
    fn allocate(&mut self) -> Option<Pa> {
        heap::pages(1).map(|page| Pa(page.as_ptr() as u64))
    }

    fn free(&mut self, table: Pa) {
        if let Some(page) = NonNull::new(table.0 as *mut u8) {
            heap::give_back(page, 1);
        }
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
        // The same kind of access; a guest may write it meanwhile.
        self.read(page, index)
    }

    fn publish(&mut self, copy: Pa) {
        registers::clean_data_cache(copy.0, PAGE);
        registers::invalidate_instruction_caches();
    }
}
