//! Nodes wherever they are in the tree, and their registers as the CPU addresses them.
//!
//! A board's devices lie below buses, each with an address space of its own; `ranges` says where
//! that is in the bus above (Devicetree Specification, "ranges"). A bus without the property has
//! nothing that the CPU could address, and one that is switched off has nothing at all.

use super::range::{self, Range};
use dtoolkit::fdt::FdtNode;
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property, ToCellInt};
use heapless::Vec;
use stepwell_arch::Pa;

/// Buses below buses that are followed. Real boards have five.
const DEPTH: usize = 12;

/// A node, and the way to it.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The node.
    pub node: FdtNode<'a>,
    /// The nodes above it, the root left out, the nearest last.
    above: Vec<FdtNode<'a>, DEPTH>,
}

/// Why a node's registers are nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterError {
    /// It has no `reg`, or none of this number.
    Missing,
    /// Its `reg`, or the `ranges` of a bus above it, makes no sense or leads nowhere.
    Bad,
}

impl<'a> Place<'a> {
    /// Follows a full path, whose last part may have options after a colon.
    #[must_use]
    pub fn at(root: FdtNode<'a>, path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.split(':').next().unwrap_or(path);
        let mut place = Self { node: root, above: Vec::new() };
        for (depth, name) in path.split('/').filter(|name| !name.is_empty()).enumerate() {
            let child = place.node.child(name)?;
            if depth > 0 {
                place.above.push(place.node).ok()?;
            }
            place.node = child;
        }
        Some(place)
    }

    /// A node whose registers are where the CPU finds them, whatever is above it.
    #[must_use]
    pub const fn direct(node: FdtNode<'a>) -> Self {
        Self { node, above: Vec::new() }
    }

    /// Whether neither the node nor a bus above it is switched off.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.above.iter().chain([&self.node]).all(|node| is_enabled(*node))
    }

    /// Returns one of the ranges of its `reg`, as the CPU addresses it.
    ///
    /// # Errors
    ///
    /// [`RegisterError`].
    pub fn registers(&self, index: usize) -> Result<Range, RegisterError> {
        let ranges = self.node.reg().map_err(|_| RegisterError::Bad)?;
        let reg = ranges.and_then(|mut ranges| ranges.nth(index));
        let reg = reg.ok_or(RegisterError::Missing)?;
        let range = range::of(reg.address.to_int(), reg.size.to_int()).ok_or(RegisterError::Bad)?;
        self.above.iter().rev().try_fold(range, |range, bus| through(*bus, range))
    }
}

/// Whether a node's own `status` lets it be used.
#[must_use]
pub fn is_enabled(node: FdtNode<'_>) -> bool {
    node.property("status").is_none_or(|status| matches!(status.value(), b"okay\0" | b"ok\0"))
}

/// Takes a range from a bus's address space to the one above.
fn through(bus: FdtNode<'_>, range: Range) -> Result<Range, RegisterError> {
    let property = bus.property("ranges").ok_or(RegisterError::Bad)?;
    if property.value().is_empty() {
        return Ok(range);
    }
    let windows = bus.ranges().ok().flatten().ok_or(RegisterError::Bad)?;
    for window in windows {
        // A window of another kind, such as PCI's of three cells, is not one for us.
        let (Ok(child), Ok(parent), Ok(length)) = (
            window.child_bus_address.to_int::<u64>(),
            window.parent_bus_address.to_int::<u64>(),
            window.length.to_int::<u64>(),
        ) else {
            continue;
        };
        let Some(offset) = range.base.0.checked_sub(child) else { continue };
        if offset.checked_add(range.bytes).is_some_and(|end| end <= length) {
            let base = parent.checked_add(offset).ok_or(RegisterError::Bad)?;
            base.checked_add(range.bytes).ok_or(RegisterError::Bad)?;
            return Ok(Range { base: Pa(base), bytes: range.bytes });
        }
    }
    Err(RegisterError::Bad)
}

/// All nodes in use below `root`, each before those below it.
#[must_use]
pub fn nodes(root: FdtNode<'_>) -> Nodes<'_> {
    let mut stack = Vec::new();
    let _fits = stack.push((root, root.children()));
    Nodes { stack }
}

/// Iterator of [`nodes`].
pub struct Nodes<'a> {
    /// Each node on the way, with those of its children that are still to come.
    stack: Vec<(FdtNode<'a>, <FdtNode<'a> as Node>::Children<'a>), DEPTH>,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Place<'a>;

    fn next(&mut self) -> Option<Place<'a>> {
        loop {
            let (_, children) = self.stack.last_mut()?;
            let Some(node) = children.next() else {
                self.stack.pop();
                continue;
            };
            if !is_enabled(node) {
                continue;
            }
            let above = self.stack.iter().skip(1).map(|(node, _)| *node).collect();
            // Deeper than any real board: what lies below is not looked at.
            let _deep_enough = self.stack.push((node, node.children()));
            return Some(Place { node, above });
        }
    }
}

/// Finds the first node in use that is compatible with one of `names`.
#[must_use]
pub fn find<'a>(root: FdtNode<'a>, names: &[&str]) -> Option<Place<'a>> {
    nodes(root).find(|place| names.iter().any(|name| place.node.is_compatible(name)))
}

#[cfg(test)]
mod tests;
