//! What an expression's parts are worth: numbers, and places in the guest's memory.

use super::{Evaluation, ExpressionError, meaning};
use crate::btf::{Field, Kind, TypeId};

/// A type of the kernel's, or a pointer to it, or to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) id: TypeId,
    pub(super) pointers: u8,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A number, and its type where it has one.
    Number { number: u64, of: Option<Type> },
    /// What is in memory there; some bits of it, for a bit field.
    Place { address: u64, of: Type, bits: Option<(u8, u8)> },
}

impl Value {
    pub(super) const fn number(number: u64) -> Self {
        Self::Number { number, of: None }
    }
}

impl Evaluation<'_> {
    /// Returns what a type points to.
    pub(super) fn pointee(&self, of: Type) -> Option<Type> {
        if let Some(pointers) = of.pointers.checked_sub(1) {
            return Some(Type { pointers, ..of });
        }
        let btf = self.kernel.btf();
        match btf.get(btf.resolve(of.id))?.kind {
            Kind::Pointer(id) => Some(Type { id, pointers: 0 }),
            _ => None,
        }
    }

    pub(super) fn size(&self, of: Type) -> Option<u64> {
        if of.pointers > 0 { Some(8) } else { self.kernel.btf().size_of(of.id) }
    }

    /// Reads a value as a number; an array as its address.
    pub(super) fn read(&mut self, value: &Value) -> Result<u64, ExpressionError> {
        let (address, of, bits) = match *value {
            Value::Number { number, .. } => return Ok(number),
            Value::Place { address, of, bits } => (address, of, bits),
        };
        let btf = self.kernel.btf();
        let kind = btf.get(btf.resolve(of.id)).map(|one| one.kind);
        if of.pointers == 0 && matches!(kind, Some(Kind::Array { .. })) {
            return Ok(address);
        }
        let size = self.size(of).filter(|size| *size <= 8);
        let size = size.ok_or_else(|| meaning("that is no number: name a member"))?;
        let field = Field { offset: 0, size, id: of.id, bits };
        Ok(field.read(self.memory, address)?)
    }

    pub(super) fn dereference(&mut self, value: &Value) -> Result<Value, ExpressionError> {
        let of = match *value {
            Value::Number { of, .. } => of,
            Value::Place { of, .. } => Some(of),
        };
        let pointee = of.and_then(|of| self.pointee(of));
        let of = pointee.ok_or_else(|| meaning("that is no pointer: cast it, (struct NAME *)"))?;
        Ok(Value::Place { address: self.read(value)?, of, bits: None })
    }

    pub(super) fn member(&mut self, of: &Value, name: &str) -> Result<Value, ExpressionError> {
        let Value::Place { address, of, .. } = *of else {
            return Err(meaning("that has no members: for a pointer write ->"));
        };
        if of.pointers > 0 {
            return Err(meaning("that is a pointer: write ->"));
        }
        let btf = self.kernel.btf();
        // A number would be taken for an element.
        let is_name = !name.starts_with(|first: char| first.is_ascii_digit());
        let field = is_name.then(|| btf.member(of.id, name)).flatten();
        let field = field.ok_or_else(|| {
            let text = btf.get(btf.resolve(of.id)).map(|one| one.text()).unwrap_or_default();
            meaning(&format!("{} has no member {name}", or(&text, "it")))
        })?;
        let address = address.wrapping_add(field.offset);
        Ok(Value::Place { address, of: Type { id: field.id, pointers: 0 }, bits: field.bits })
    }

    pub(super) fn element(&mut self, of: &Value, index: u64) -> Result<Value, ExpressionError> {
        if let Value::Place { address, of: Type { id, pointers: 0 }, .. } = *of {
            let btf = self.kernel.btf();
            let is_array =
                matches!(btf.get(btf.resolve(id)).map(|one| one.kind), Some(Kind::Array { .. }));
            if is_array {
                let field = btf.element(id, index);
                let field = field.ok_or_else(|| meaning("the array has no such element"))?;
                let address = address.wrapping_add(field.offset);
                let of = Type { id: field.id, pointers: 0 };
                return Ok(Value::Place { address, of, bits: None });
            }
        }
        let Value::Place { address, of, bits } = self.dereference(of)? else {
            return Err(meaning("that is no array"));
        };
        let size = self.size(of).ok_or_else(|| meaning("what it points to has no size"))?;
        let address = address.wrapping_add(size.wrapping_mul(index));
        Ok(Value::Place { address, of, bits })
    }
}

pub(super) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}
