//! Opening a tree: everything that makes it safe to read, and no more.
//!
//! `dtoolkit` has a check of its own, `Fdt::new`, which holds names to the specification's 31
//! characters. Trees of real boards have longer ones (`snps,dis-u2-freeclk-exists-quirk` in many of
//! Linux's), so this takes its place: the same structure, and any names.

use dtoolkit::fdt::Fdt;

const MAGIC: u32 = 0xd00d_feed;
/// The version of the format that everybody writes, and reads (Devicetree Specification, "Flattened
/// Devicetree (DTB) Format").
const VERSION: u32 = 17;
const HEADER_BYTES: usize = 40;
const RESERVATION_BYTES: usize = 16;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Returns the length of a tree by its header, whose first 8 bytes are enough.
#[must_use]
pub fn total_bytes(header: &[u8]) -> Option<usize> {
    (word(header, 0)? == MAGIC).then_some(size(header, 4)?)
}

/// Opens a tree, which may be followed by anything. Returns nothing where it is damaged.
#[must_use]
pub fn open(bytes: &[u8]) -> Option<Fdt<'_>> {
    let tree = bytes.get(..total_bytes(bytes)?)?;
    check(tree)?;
    Some(Fdt::new_unchecked(tree))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn size(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(word(bytes, at)?).ok()
}

/// Returns something if all is well.
fn check(tree: &[u8]) -> Option<()> {
    let [structure, strings, reservations] = [size(tree, 8)?, size(tree, 12)?, size(tree, 16)?];
    let [strings_bytes, structure_bytes] = [size(tree, 32)?, size(tree, 36)?];
    let is_version = (word(tree, 24)?..=word(tree, 20)?).contains(&VERSION);
    let in_order = HEADER_BYTES <= reservations
        && reservations <= structure
        && structure.checked_add(structure_bytes)? <= strings;
    let is_aligned = reservations.is_multiple_of(8) && structure.is_multiple_of(4);
    let strings = tree.get(strings..strings.checked_add(strings_bytes)?)?;
    if !is_version || !in_order || !is_aligned {
        return None;
    }
    check_reservations(tree.get(reservations..structure)?)?;
    check_structure(tree, structure, strings)
}

/// They end with one that is all zero.
fn check_reservations(block: &[u8]) -> Option<()> {
    let mut entries = block.as_chunks::<RESERVATION_BYTES>().0.iter();
    entries.find(|entry| **entry == [0; RESERVATION_BYTES]).map(|_| ())
}

/// Each node's properties come before its children, all lengths stay inside, all names are UTF-8.
fn check_structure(tree: &[u8], structure: usize, strings: &[u8]) -> Option<()> {
    if word(tree, structure)? != BEGIN_NODE {
        return None;
    }
    let (mut at, mut depth, mut may_have_properties) = (structure, 0_usize, false);
    loop {
        match word(tree, at)? {
            BEGIN_NODE => {
                let name = text(tree.get(at + 4..)?)?;
                at = (at + 4 + name.len() + 1).next_multiple_of(4);
                depth += 1;
                may_have_properties = true;
            }
            PROPERTY if may_have_properties => {
                text(strings.get(size(tree, at + 8)?..)?)?;
                let end = (at + 12).checked_add(size(tree, at + 4)?)?;
                tree.get(at..end)?;
                at = end.next_multiple_of(4);
            }
            END_NODE => {
                at += 4;
                depth -= 1;
                may_have_properties = false;
                if depth == 0 {
                    return (word(tree, at)? == END).then_some(());
                }
            }
            NOP => at += 4,
            _ => return None,
        }
    }
}

/// A text that ends with a zero.
fn text(bytes: &[u8]) -> Option<&str> {
    core::ffi::CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
}

#[cfg(test)]
mod tests;
