//! Where an Image was linked.
//!
//! A relocatable kernel's own pointers are zero in the file: it carries a table of `Elf64_Rela`
//! entries and applies them to itself. The entry for `relative_base` is found by what has to be
//! true of it: the place that it names, less where `relative_base` lies in the Image, is where the
//! Image was linked, and that is congruent to the header's `text_offset` modulo 2 MiB; and every
//! other entry names a place inside the Image too.

use super::u64_at;

/// `R_AARCH64_RELATIVE` (ELF for the Arm 64-bit Architecture, "Dynamic relocations").
const R_AARCH64_RELATIVE: u64 = 0x403;
/// Kernels are linked at a multiple of this plus `text_offset`.
const LINK_ALIGNMENT: u64 = 2 << 20;

/// What an Image was linked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Link address of the Image's first byte.
    pub(super) image: u64,
    /// What `relative_base` is to be.
    pub(super) relative_base: u64,
}

/// Finds out where the Image was linked, from its `relative_base` at `base_at`.
pub(super) fn link(image: &[u8], base_at: usize) -> Option<Link> {
    let text_offset = text_offset(image);
    match u64_at(image, base_at)? {
        0 => by_entry(image, base_at as u64, text_offset),
        base => {
            // The lowest symbol lies a few pages into the Image at most.
            let block = base.wrapping_sub(text_offset) & !(LINK_ALIGNMENT - 1);
            Some(Link { image: block.wrapping_add(text_offset), relative_base: base })
        }
    }
}

fn by_entry(image: &[u8], base_at: u64, text_offset: u64) -> Option<Link> {
    let length = image.len() as u64;
    let mut lowest = u64::MAX;
    let mut highest = 0;
    let mut candidates = Vec::new();
    for (place, value) in entries(image) {
        lowest = lowest.min(place);
        highest = highest.max(place);
        let link = place.wrapping_sub(base_at);
        let aligned = link.wrapping_sub(text_offset) % LINK_ALIGNMENT == 0;
        if aligned && value.wrapping_sub(link) < length {
            candidates.push(Link { image: link, relative_base: value });
        }
    }
    candidates
        .into_iter()
        .find(|link| link.image <= lowest && highest.wrapping_sub(link.image) < length)
}

/// Returns what looks like a relocation entry for the kernel's half of the address space: place
/// and value.
fn entries(image: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    (0..image.len()).step_by(8).filter_map(|at| {
        let found = u64_at(image, at + 8)? == R_AARCH64_RELATIVE;
        let (place, value) = (u64_at(image, at)?, u64_at(image, at + 16)?);
        (found && place >> 48 == 0xffff && value >> 48 == 0xffff).then_some((place, value))
    })
}

fn text_offset(image: &[u8]) -> u64 {
    const HEADER_MAGIC: &[u8] = b"ARM\x64";
    let is_image = image.get(0x38..0x3c) == Some(HEADER_MAGIC);
    if is_image { u64_at(image, 8).unwrap_or(0) } else { 0 }
}
