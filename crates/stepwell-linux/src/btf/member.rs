//! Where a member is, however deep, and the values of those that fit into a register.

use super::{Btf, Kind, TypeId};
use crate::{Error, Memory};
use stepwell_trace::printable;

/// How deep structures without a name may lie in each other.
const NESTED_MAX: usize = 16;
/// How many members are looked at for one name.
const LOOKED_AT_MAX: usize = 100_000;

/// A member's place in a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Its type.
    pub id: TypeId,
    /// The lowest bit and the number of bits, of a bit field.
    pub bits: Option<(u8, u8)>,
}

impl Field {
    /// Reads its value from the structure at `address`; 0 for one that is no number.
    ///
    /// # Errors
    ///
    /// Where nothing is there.
    pub fn read(&self, memory: &mut dyn Memory, address: u64) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        let length = usize::try_from(self.size).unwrap_or(0).min(8);
        let at = address.wrapping_add(self.offset);
        memory.read(at, bytes.get_mut(..length).unwrap_or_default())?;
        let value = u64::from_le_bytes(bytes);
        Ok(match self.bits {
            Some((low, bits)) => value >> (low & 63) & mask(bits),
            None => value,
        })
    }

    /// Reads text that ends with a zero, or fills the member.
    ///
    /// # Errors
    ///
    /// Where nothing is there.
    pub fn read_text(&self, memory: &mut dyn Memory, address: u64) -> Result<String, Error> {
        let length = usize::try_from(self.size).unwrap_or(0).min(TEXT_MAX);
        let mut bytes = vec![0; length];
        memory.read(address.wrapping_add(self.offset), &mut bytes)?;
        Ok(text(&bytes))
    }
}

/// Longest text that is taken from a member.
const TEXT_MAX: usize = 256;

/// Returns the text that `bytes` have up to the first zero. It is a guest's, and will be shown.
pub(crate) fn text(bytes: &[u8]) -> String {
    let used = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    printable(&String::from_utf8_lossy(used)).into_owned()
}

const fn mask(bits: u8) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// Finds a member, or says that there is none.
pub(crate) fn field(btf: &Btf, structure: &str, paths: &[&str]) -> Result<Field, Error> {
    let missing = || Error::NoMember(format!("{structure}.{}", paths.join(" or ")));
    let id = btf.structure(structure).ok_or_else(missing)?;
    paths.iter().find_map(|path| btf.member(id, path)).ok_or_else(missing)
}

impl Btf {
    /// Finds a member by a path such as `thread.cpu_context.fp`, through structures that have no
    /// name. A number is an element of an array: `mem.0.base`.
    #[must_use]
    pub fn member(&self, id: TypeId, path: &str) -> Option<Field> {
        let mut budget = LOOKED_AT_MAX;
        let mut field = Field { offset: 0, size: self.size_of(id).unwrap_or(0), id, bits: None };
        for name in path.split('.') {
            let step = match name.parse::<u64>() {
                Ok(index) => self.element(field.id, index)?,
                Err(_) => self.direct(field.id, name.as_bytes(), NESTED_MAX, &mut budget)?,
            };
            field = Field { offset: field.offset.checked_add(step.offset)?, ..step };
        }
        Some(field)
    }

    /// Finds an element of an array. One behind its end is none, unless the array has no length of
    /// its own: it ends a structure then, and has as many as were made room for.
    #[must_use]
    pub fn element(&self, id: TypeId, index: u64) -> Option<Field> {
        let Kind::Array { element, count } = self.get(self.resolve(id))?.kind else { return None };
        let size = self.size_of(element)?;
        let exists = count == 0 || index < u64::from(count);
        let offset = index.checked_mul(size)?;
        exists.then_some(Field { offset, size, id: element, bits: None })
    }

    fn direct(&self, id: TypeId, name: &[u8], depth: usize, budget: &mut usize) -> Option<Field> {
        let Kind::Composite(members) = self.get(self.resolve(id))?.kind else { return None };
        let depth = depth.checked_sub(1)?;
        for member in members.iter() {
            *budget = budget.checked_sub(1)?;
            let bit_offset = u64::from(member.bit_offset);
            if member.name == name {
                return self.field(member.id, bit_offset, member.bits);
            }
            if member.name.is_empty()
                && let Some(inner) = self.direct(member.id, name, depth, budget)
            {
                let offset = (bit_offset / 8).checked_add(inner.offset)?;
                return Some(Field { offset, ..inner });
            }
        }
        None
    }

    /// Makes the field of a member.
    pub(crate) fn field(&self, id: TypeId, bit_offset: u64, bits: Option<u8>) -> Option<Field> {
        let size = self.size_of(id).unwrap_or(0);
        let Some(bits) = bits else {
            return Some(Field { offset: bit_offset / 8, size, id, bits: None });
        };
        // A bit field is read as the unit of its type that it lies in.
        let unit = size.clamp(1, 8);
        let offset = (bit_offset / 8).checked_div(unit)?.checked_mul(unit)?;
        let low = u8::try_from(bit_offset - 8 * offset).ok()?;
        Some(Field { offset, size: unit, id, bits: Some((low, bits)) })
    }
}
