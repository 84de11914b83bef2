//! EL2's heap: for what is made at boot, and for page tables.

use buddy_system_allocator::LockedHeap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use stepwell_arch::Pa;
use stepwell_vm::stage2::PageUse;

const HEAP_BYTES: usize = 8 << 20;
const PAGE: usize = 4096;

#[repr(C, align(4096))]
struct Arena([u8; HEAP_BYTES]);

static mut ARENA: Arena = Arena([0; HEAP_BYTES]);

#[global_allocator]
static HEAP: LockedHeap<24> = LockedHeap::empty();

/// Gives the heap its memory, before anything allocates. Again it does nothing.
pub fn setup() {
    static IS_SET_UP: AtomicBool = AtomicBool::new(false);
    if !IS_SET_UP.swap(true, Ordering::AcqRel) {
        // SAFETY: the arena is of this size, static, and referred to by nothing else; it is handed
        // over once.
        unsafe { HEAP.lock().init(core::ptr::addr_of_mut!(ARENA) as usize, HEAP_BYTES) }
    }
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

/// How many pages the arena has.
const ARENA_PAGES: usize = HEAP_BYTES / PAGE;
/// A page is lent. Beside what it is lent for, which never changes.
const IS_LENT: u8 = 1 << 7;

/// What each page of the arena was lent for, if it ever was: see [`lend`].
static LENT: [AtomicU8; ARENA_PAGES] = [const { AtomicU8::new(0) }; ARENA_PAGES];

const fn code_of(what: PageUse) -> u8 {
    match what {
        PageUse::Table(1) => 1,
        PageUse::Table(2) => 2,
        PageUse::Table(3) => 3,
        PageUse::Code => 4,
        // There are no tables of other levels.
        PageUse::Table(_) => 0,
    }
}

const fn use_of(code: u8) -> Option<PageUse> {
    match code & !IS_LENT {
        4 => Some(PageUse::Code),
        0 => None,
        level => Some(PageUse::Table(level as u32)),
    }
}

/// The number of the page at an address, if that is a page of the arena.
fn number_of(page: Pa) -> Option<usize> {
    let arena = core::ptr::addr_of!(ARENA) as u64;
    let number = page.0.checked_sub(arena)? as usize / PAGE;
    (page.is_aligned(PAGE as u64) && number < ARENA_PAGES).then_some(number)
}

/// Lends a zeroed page for translation tables or a copy of code, until [`take_back`].
///
/// What was lent for something is lent for nothing else ever after, and the heap does not get it
/// back: whoever keeps an address too long, a TLB among them, finds a table of the same level or a
/// copy of code, and never memory of EL2's.
#[must_use]
pub fn lend(what: PageUse) -> Option<Pa> {
    let code = code_of(what);
    if code == 0 {
        return None;
    }
    let is_free = |entry: &AtomicU8| {
        entry.compare_exchange(code, code | IS_LENT, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    if let Some(number) = LENT.iter().position(is_free) {
        let page = Pa(core::ptr::addr_of!(ARENA) as u64 + (number * PAGE) as u64);
        (0..WORDS).filter_map(|n| word(page, n)).for_each(|word| word.store(0, Ordering::Relaxed));
        return Some(page);
    }
    let page = Pa(Pages::new(1)?.into_raw().as_ptr() as u64);
    LENT.get(number_of(page)?)?.store(code | IS_LENT, Ordering::Release);
    Some(page)
}

/// What the page at an address is lent for, if it is.
#[must_use]
pub fn lent_for(page: Pa) -> Option<PageUse> {
    let code = LENT.get(number_of(page)?)?.load(Ordering::Acquire);
    if code & IS_LENT == 0 { None } else { use_of(code) }
}

/// Doublewords of a page.
const WORDS: usize = PAGE / 8;

/// A doubleword of a page that is lent; nothing for any other address. That, and no memory of
/// anything else, is what a wrong address can reach.
#[must_use]
pub fn word(page: Pa, index: usize) -> Option<&'static AtomicU64> {
    let _is_lent = lent_for(page)?;
    if index >= WORDS {
        return None;
    }
    // SAFETY: the page is one of the static arena's, aligned, was taken from the heap for good, and
    // is referred to in this way alone; the index is within it. Table walkers read it at the same
    // time, hence the atomic.
    Some(unsafe { AtomicU64::from_ptr((page.0 as *mut u64).add(index)) })
}

/// Takes a page back that was lent, if it was.
pub fn take_back(page: Pa) {
    if let Some(entry) = number_of(page).and_then(|number| LENT.get(number)) {
        entry.fetch_and(!IS_LENT, Ordering::AcqRel);
    }
}
