//! What a mapping without a file is known as.
//!
//! Source: Linux, fs/proc/task_mmu.c, `show_map_vma`, and mm/mmap.c, `special_mapping_name`.

use crate::btf::{Field, field, text};
use crate::{Btf, Error, Memory};
use std::ops::Range;

/// Longest name of a mapping.
const NAME_MAX: usize = 64;
/// From this version on a heap is not one with what only touches it.
const APART_SINCE: (u32, u32) = (6, 6);

/// Where the members are that tell.
#[derive(Clone, Debug)]
pub(super) struct Special {
    heap: Option<(Field, Field)>,
    stack: Option<Field>,
    /// Of the kernel's own: what names them, and with what.
    named: Option<Named>,
    /// Whether what ends where the heap begins is shown as it.
    touching_counts: bool,
}

#[derive(Clone, Debug)]
struct Named {
    operations: Field,
    name_of: Field,
    private: Field,
    name: Field,
}

impl Special {
    pub(super) fn new(btf: &Btf, version: &str) -> Self {
        let mm = |member: &str| field(btf, "mm_struct", &[member]).ok();
        Self {
            heap: mm("start_brk").zip(mm("brk")),
            stack: mm("start_stack"),
            named: Named::new(btf).ok(),
            touching_counts: numbers(version).is_some_and(|version| version < APART_SINCE),
        }
    }

    /// Returns what the area is known as. The kernel's own have `names_itself` among their
    /// operations.
    ///
    /// # Errors
    ///
    /// Those of `memory`.
    pub(super) fn name(
        &self,
        memory: &mut dyn Memory,
        area: u64,
        mm: u64,
        addresses: Range<u64>,
        names_itself: Option<u64>,
    ) -> Result<Option<String>, Error> {
        if let (Some(named), Some(function)) = (&self.named, names_itself)
            && let Some(name) = named.read(memory, area, function)?
        {
            return Ok(Some(name));
        }
        let Range { start, end } = addresses;
        if let Some((first, last)) = &self.heap {
            let (first, last) = (first.read(memory, mm)?, last.read(memory, mm)?);
            let touches = start <= last && end >= first;
            let overlaps = start < last && end > first;
            if if self.touching_counts { touches } else { overlaps } {
                return Ok(Some("[heap]".to_owned()));
            }
        }
        let stack = self.stack.as_ref().map(|stack| stack.read(memory, mm)).transpose()?;
        let is_stack = stack.is_some_and(|stack| start <= stack && end >= stack);
        Ok(is_stack.then(|| "[stack]".to_owned()))
    }
}

impl Named {
    fn new(btf: &Btf) -> Result<Self, Error> {
        Ok(Self {
            operations: field(btf, "vm_area_struct", &["vm_ops"])?,
            name_of: field(btf, "vm_operations_struct", &["name"])?,
            private: field(btf, "vm_area_struct", &["vm_private_data"])?,
            name: field(btf, "vm_special_mapping", &["name"])?,
        })
    }

    fn read(
        &self,
        memory: &mut dyn Memory,
        area: u64,
        function: u64,
    ) -> Result<Option<String>, Error> {
        let operations = self.operations.read(memory, area)?;
        if operations == 0 || self.name_of.read(memory, operations)? != function {
            return Ok(None);
        }
        let private = self.private.read(memory, area)?;
        let at = self.name.read(memory, private)?;
        let mut bytes = Vec::new();
        while bytes.len() < NAME_MAX && bytes.last() != Some(&0) {
            let mut byte = [0];
            memory.read(at.wrapping_add(bytes.len() as u64), &mut byte)?;
            bytes.extend(byte);
        }
        Ok(Some(text(&bytes)))
    }
}

/// Returns the first two numbers of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(numbers("6.12.118+deb13-cloud-arm64"), Some((6, 12)));
        assert_eq!(numbers("6.1.0-44-arm64"), Some((6, 1)));
        assert_eq!(numbers("rolling"), None);
    }
}
