//! EL2's heap: for what is made at boot, and for page tables.

use buddy_system_allocator::LockedHeap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use stepwell_arch::Pa;

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

/// Zeroed, page-aligned memory, which goes back when this is dropped.
#[derive(Debug)]
pub struct Pages {
    first: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    /// Takes so many from the heap, if it has them.
    #[must_use]
    pub fn new(pages: usize) -> Option<Self> {
        let layout = page_layout(pages)?;
        // SAFETY: the layout is not of size 0.
        let first = NonNull::new(unsafe { HEAP.alloc_zeroed(layout) })?;
        Some(Self { first, layout })
    }

    /// Hands them out for good, or until [`Pages::from_raw`].
    #[must_use]
    pub fn into_raw(self) -> NonNull<u8> {
        core::mem::ManuallyDrop::new(self).first
    }

    /// Takes back what [`Pages::into_raw`] handed out.
    ///
    /// # Safety
    ///
    /// `first` must be from `into_raw` of so many pages, which nobody refers to any more, and come
    /// back once.
    pub unsafe fn from_raw(first: NonNull<u8>, pages: usize) -> Option<Self> {
        Some(Self { first, layout: page_layout(pages)? })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `new` got it with this layout, or `from_raw`'s contract says so.
        unsafe { HEAP.dealloc(self.first.as_ptr(), self.layout) }
    }
}

/// One bit for each page of the arena: it is lent for translation tables.
static LENT: [AtomicU64; HEAP_BYTES / PAGE / 64] =
    [const { AtomicU64::new(0) }; HEAP_BYTES / PAGE / 64];

/// The bit of the page at an address, if that is a page of the arena.
fn lent_bit(page: Pa) -> Option<(&'static AtomicU64, u64)> {
    let arena = core::ptr::addr_of!(ARENA) as u64;
    let number = page.0.checked_sub(arena)? as usize / PAGE;
    if !page.is_aligned(PAGE as u64) {
        return None;
    }
    Some((LENT.get(number / 64)?, 1 << (number % 64)))
}

/// Lends a page for translation tables, until [`take_back`].
pub fn lend(page: Pages) -> Pa {
    let page = Pa(page.into_raw().as_ptr() as u64);
    if let Some((word, bit)) = lent_bit(page) {
        word.fetch_or(bit, Ordering::Release);
    }
    page
}

/// The page at an address, if it is lent for tables. That, and no memory of anything else, is what a
/// wrong address can reach.
#[must_use]
pub fn lent(page: Pa) -> Option<NonNull<u8>> {
    let (word, bit) = lent_bit(page)?;
    if word.load(Ordering::Acquire) & bit == 0 {
        return None;
    }
    NonNull::new(page.0 as *mut u8)
}

/// Takes a page back that was lent, if it was.
pub fn take_back(page: Pa) -> Option<Pages> {
    let (word, bit) = lent_bit(page)?;
    if word.fetch_and(!bit, Ordering::AcqRel) & bit == 0 {
        return None;
    }
    // SAFETY: `lend` had it from `into_raw` of one page, and the bit, which is clear now, says that
    // it has not come back before.
    unsafe { Pages::from_raw(NonNull::new(page.0 as *mut u8)?, 1) }
}
