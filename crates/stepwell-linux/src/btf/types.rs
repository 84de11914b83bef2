//! One type, read from its bytes.

use super::TypeId;

const PREFIX_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;
const VARIABLE_BYTES: usize = 12;

/// A type.
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    /// Its name; empty where it has none. The guest wrote it: any bytes.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// The word that is a size for some kinds, and a type for others.
    size_or_type: u32,
}

/// What a type is.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// An integer.
    Int(Encoding),
    /// A pointer.
    Pointer(TypeId),
    /// An array.
    Array {
        /// Of what.
        element: TypeId,
        /// Of how many.
        count: u32,
    },
    /// A structure or a union.
    Composite(Members<'a>),
    /// An enumeration.
    Enum(Values<'a>),
    /// A structure or union that is declared only.
    Forward,
    /// Another name for a type.
    Typedef(TypeId),
    /// `const`, `volatile`, `restrict`, or a tag: the same type.
    Qualifier(TypeId),
    /// A function, or the type of one.
    Function,
    /// A variable.
    Variable(TypeId),
    /// The variables of a section.
    DataSection(Variables<'a>),
    /// A floating-point number.
    Float,
    /// A tag on a declaration.
    DeclarationTag,
}

/// How the bits of an integer are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// From 0 on.
    Unsigned,
    /// Two's complement.
    Signed,
    /// A letter.
    Character,
    /// True or false.
    Boolean,
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name; empty where it has none.
    pub name: &'a [u8],
    /// Its type.
    pub id: TypeId,
    /// Where it begins, in bits.
    pub bit_offset: u32,
    /// How many bits it has, where it is a bit field.
    pub bits: Option<u8>,
}

/// The members of a structure or union.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// Whether offsets hold the sizes of bit fields.
    bit_fields: bool,
    /// Whether they lie over one another.
    pub is_union: bool,
}

impl<'a> Members<'a> {
    /// Returns them in their order.
    pub fn iter(self) -> impl Iterator<Item = Member<'a>> {
        self.bytes.chunks_exact(MEMBER_BYTES).filter_map(move |bytes| {
            let offset = word(bytes, 8)?;
            let (bit_offset, bits) = match self.bit_fields {
                true => (offset & 0xff_ffff, (offset >> 24) as u8),
                false => (offset, 0),
            };
            Some(Member {
                name: string(self.strings, word(bytes, 0)?),
                id: TypeId(word(bytes, 4)?),
                bit_offset,
                bits: (bits != 0).then_some(bits),
            })
        })
    }
}

/// The values of an enumeration.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    is_wide: bool,
}

impl<'a> Values<'a> {
    /// Returns names and values in their order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], u64)> {
        let size = if self.is_wide { 12 } else { 8 };
        self.bytes.chunks_exact(size).filter_map(move |bytes| {
            let low = u64::from(word(bytes, 4)?);
            let high = if self.is_wide { u64::from(word(bytes, 8)?) } else { 0 };
            Some((string(self.strings, word(bytes, 0)?), low | high << 32))
        })
    }
}

/// The variables of a section.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    bytes: &'a [u8],
}

impl Variables<'_> {
    /// Returns which variables there are, and how far into the section.
    pub fn iter(&self) -> impl Iterator<Item = (TypeId, u32)> {
        let entries = self.bytes.chunks_exact(VARIABLE_BYTES);
        entries.filter_map(|bytes| Some((TypeId(word(bytes, 0)?), word(bytes, 4)?)))
    }
}

impl<'a> Type<'a> {
    /// Returns how many bytes the type that `bytes` begin with has; nothing for an unknown kind.
    pub(super) fn length(bytes: &[u8]) -> Option<usize> {
        let info = word(bytes, 4)?;
        let count = (info & 0xffff) as usize;
        let rest = match kind(info) {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 => MEMBER_BYTES * count,
            6 | 13 => 8 * count,
            15 | 19 => 12 * count,
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        };
        Some(PREFIX_BYTES + rest)
    }

    pub(super) fn read(bytes: &'a [u8], strings: &'a [u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::length(bytes)?)?;
        let (info, size_or_type) = (word(bytes, 4)?, word(bytes, 8)?);
        let rest = bytes.get(PREFIX_BYTES..)?;
        let (flag, to) = (info >> 31 != 0, TypeId(size_or_type));
        let kind = match kind(info) {
            1 => Kind::Int(match word(rest, 0)? >> 24 & 0xf {
                1 => Encoding::Signed,
                2 | 3 => Encoding::Character,
                4 => Encoding::Boolean,
                _ => Encoding::Unsigned,
            }),
            2 => Kind::Pointer(to),
            3 => Kind::Array { element: TypeId(word(rest, 0)?), count: word(rest, 8)? },
            number @ (4 | 5) => Kind::Composite(Members {
                bytes: rest,
                strings,
                bit_fields: flag,
                is_union: number == 5,
            }),
            number @ (6 | 19) => Kind::Enum(Values { bytes: rest, strings, is_wide: number == 19 }),
            7 => Kind::Forward,
            8 => Kind::Typedef(to),
            9..=11 | 18 => Kind::Qualifier(to),
            12 | 13 => Kind::Function,
            14 => Kind::Variable(to),
            15 => Kind::DataSection(Variables { bytes: rest }),
            16 => Kind::Float,
            _ => Kind::DeclarationTag,
        };
        Some(Self { name: string(strings, word(bytes, 0)?), kind, size_or_type })
    }

    /// Returns how many bytes a value has, where the type itself says so.
    #[must_use]
    pub const fn bytes(&self) -> Option<u32> {
        match self.kind {
            Kind::Int(_)
            | Kind::Composite(_)
            | Kind::Enum(_)
            | Kind::DataSection(_)
            | Kind::Float => Some(self.size_or_type),
            _ => None,
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn text(&self) -> String {
        super::text(self.name)
    }
}

const fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Returns the string that begins at `at`, up to its end or that of the table.
fn string(strings: &[u8], at: u32) -> &[u8] {
    let rest = usize::try_from(at).ok().and_then(|at| strings.get(at..)).unwrap_or_default();
    // A name is looked at as often as its type is: not further than any is long.
    const NAME_MAX: usize = 512;
    let rest = rest.get(..NAME_MAX).unwrap_or(rest);
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
