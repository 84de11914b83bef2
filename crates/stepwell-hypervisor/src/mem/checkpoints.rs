//! The memory that was set aside for what differs between the moments that are kept of a domain.

use crate::devicetree::host::Range;
use stepwell_vm::checkpoint::versions::Memory;

/// Shares out a range for a domain's RAM of so many pages; nothing where it is too small for anything.
///
/// # Safety
///
/// The range must be RAM, mapped at EL2, and used by nothing else from now on.
#[must_use]
pub unsafe fn memory(range: Range, pages: usize) -> Option<Memory> {
    let words = usize::try_from(range.bytes / 8).ok()?;
    if !range.base.is_aligned(8) || range.base.0 == 0 {
        return None;
    }
    // SAFETY: the caller's promise, and alignment. Any bits are a number.
    Memory::new(unsafe { core::slice::from_raw_parts_mut(range.base.0 as *mut u64, words) }, pages)
}
