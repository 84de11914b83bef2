//! EL2's heap: for what is made at boot, and for page tables.

use buddy_system_allocator::LockedHeap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

const HEAP_BYTES: usize = 8 << 20;
const PAGE: usize = 4096;

#[repr(C, align(4096))]
struct Arena([u8; HEAP_BYTES]);

static mut ARENA: Arena = Arena([0; HEAP_BYTES]);

#[global_allocator]
static HEAP: LockedHeap<24> = LockedHeap::empty();

/// Gives the heap its memory. Once, before anything allocates.
pub fn setup() {
    // SAFETY: called once by the boot CPU before any other code of ours allocates; the arena is
    // referred to nowhere else.
    unsafe { HEAP.lock().init(core::ptr::addr_of_mut!(ARENA) as usize, HEAP_BYTES) }
}

fn page_layout(pages: usize) -> Option<Layout> {
    Layout::from_size_align(pages.checked_mul(PAGE)?, PAGE).ok().filter(|l| l.size() > 0)
}

/// Returns zeroed, page-aligned memory, or nothing where the heap is full.
#[must_use]
pub fn pages(pages: usize) -> Option<NonNull<u8>> {
    // SAFETY: the layout is not of size 0.
    NonNull::new(unsafe { HEAP.alloc_zeroed(page_layout(pages)?) })
}

/// Takes back what [`pages`] returned.
pub fn give_back(page: NonNull<u8>, pages: usize) {
    if let Some(layout) = page_layout(pages) {
        // SAFETY: callers pass what `pages` gave them, once, with the same count.
        unsafe { HEAP.dealloc(page.as_ptr(), layout) }
    }
}
