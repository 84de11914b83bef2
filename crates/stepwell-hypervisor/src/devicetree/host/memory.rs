//! RAM, and what of it is somebody else's.

use super::error::HostTreeError;
use crate::devicetree::bus;
use crate::devicetree::range::{self, Range};
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property, ToCellInt};
use heapless::Vec;
use stepwell_arch::Pa;

/// Ranges of RAM.
pub const MAX_BANKS: usize = 16;
/// Ranges that are reserved.
pub(super) const MAX_RESERVED: usize = 64;

/// Memory that is not ours to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Where.
    pub range: Range,
    /// Nobody may have it mapped, because the firmware or a device would not bear even speculative
    /// accesses.
    pub is_unmapped: bool,
}

/// Reads the ranges of RAM.
///
/// # Errors
///
/// [`HostTreeError`] where there are none, or too many.
pub fn banks(root: FdtNode<'_>) -> Result<Vec<Range, MAX_BANKS>, HostTreeError> {
    let is_memory = |node: &FdtNode<'_>| {
        node.property("device_type").is_some_and(|kind| kind.value() == b"memory\0")
            && bus::is_enabled(*node)
    };
    let bad = HostTreeError::PropertyBad { node: "memory", property: "reg" };
    let mut memory = Vec::new();
    for node in root.children().filter(is_memory) {
        for reg in node.reg().map_err(|_| bad)?.into_iter().flatten() {
            let range = range::of(reg.address.to_int(), reg.size.to_int()).ok_or(bad)?;
            if range.bytes == 0 {
                // What a board's tree has until its boot loader has filled it in.
                continue;
            }
            let too_many = HostTreeError::TooMany { what: "memory ranges", max: MAX_BANKS };
            memory.push(range).map_err(|_| too_many)?;
        }
    }
    if memory.is_empty() { Err(HostTreeError::NodeMissing("memory")) } else { Ok(memory) }
}

/// The memory reservation block, which says no more than where, and `/reserved-memory`.
pub(super) fn reserved(tree: Fdt<'_>) -> Result<Vec<Reserved, MAX_RESERVED>, HostTreeError> {
    let too_many = HostTreeError::TooMany { what: "reserved memory ranges", max: MAX_RESERVED };
    let mut reserved = Vec::new();
    for entry in tree.memory_reservations() {
        let range = Range { base: Pa(entry.address()), bytes: entry.size() };
        reserved.push(Reserved { range, is_unmapped: false }).map_err(|_| too_many)?;
    }
    let node = tree.root().child("reserved-memory");
    let bad = HostTreeError::PropertyBad { node: "reserved-memory", property: "reg" };
    for node in node.into_iter().flat_map(|node| node.children()).filter(|n| bus::is_enabled(*n)) {
        let is_unmapped = node.property("no-map").is_some();
        // Those without reg are to be placed by a system that has drivers for them.
        for reg in node.reg().map_err(|_| bad)?.into_iter().flatten() {
            let range = range::of(reg.address.to_int(), reg.size.to_int()).ok_or(bad)?;
            reserved.push(Reserved { range, is_unmapped }).map_err(|_| too_many)?;
        }
    }
    Ok(reserved)
}
