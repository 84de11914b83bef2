//! The types of a kernel, as it carries them for BPF programs (BTF, BPF Type Format).
//!
//! Only an index of where each type begins is made; all else is read from the bytes when it is
//! asked for. So garbage costs no more memory than its own size, and whatever refers to itself is
//! followed a limited number of times.
//!
//! Source: Linux, Documentation/bpf/btf.rst, "BTF Type and String Encoding".

mod member;
mod types;

pub use member::Field;
pub(crate) use member::{field, text};
pub use types::{Encoding, Kind, Member, Type};

/// Most types that are believed; Debian's kernels have some 150,000.
const TYPES_MAX: usize = 4 << 20;
/// How often a chain of typedefs and qualifiers is followed.
const CHAIN_MAX: usize = 32;
/// What every BTF begins with.
const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 24;
/// Where Linux has what is one a CPU.
const PER_CPU_SECTION: &str = ".data..percpu";

/// The number of a type; 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// Types could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// There are none.
    #[error("the kernel carries no types (CONFIG_DEBUG_INFO_BTF)")]
    Absent,
    /// What is there is damaged.
    #[error("the kernel's types (BTF) are damaged: {0}")]
    Damaged(&'static str),
}

/// A table of types.
#[derive(Clone, Debug)]
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins in `types`; type 1 is the first.
    starts: Vec<u32>,
}

impl Btf {
    /// Reads a table that begins with `bytes`; what follows it does not matter.
    ///
    /// # Errors
    ///
    /// [`BtfError::Damaged`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        let header = Header::read(bytes).filter(|header| header.is_whole(bytes));
        Self::read(header.ok_or(BtfError::Damaged("its header"))?, bytes)
    }

    /// Returns this table with that of a module behind it (split BTF): its types have the numbers that
    /// follow, and its names are where these end.
    ///
    /// # Errors
    ///
    /// [`BtfError::Damaged`].
    pub fn extended(&self, bytes: &[u8]) -> Result<Self, BtfError> {
        let header = Header::read(bytes).ok_or(BtfError::Damaged("its header"))?;
        let own = Self::read(header, bytes)?;
        let before = u32::try_from(self.types.len());
        let before = before.map_err(|_| BtfError::Damaged("it is too long"))?;
        let later = own.starts.iter().map(|start| start.checked_add(before));
        let later: Option<Vec<u32>> = later.collect();
        let later = later.ok_or(BtfError::Damaged("it is too long"))?;
        Ok(Self {
            types: [&self.types[..], &own.types[..]].concat(),
            strings: [&self.strings[..], &own.strings[..]].concat(),
            starts: [&self.starts[..], &later[..]].concat(),
        })
    }

    /// Returns the number of the type and the place of the name that would follow.
    #[must_use]
    pub fn end(&self) -> (u64, u64) {
        (1 + self.starts.len() as u64, self.strings.len() as u64)
    }

    fn read(header: Header, bytes: &[u8]) -> Result<Self, BtfError> {
        let part = |(at, length)| bytes.get(at..usize::checked_add(at, length)?);
        let types = part(header.types).ok_or(BtfError::Damaged("it is cut off"))?;
        let strings = part(header.strings).ok_or(BtfError::Damaged("it is cut off"))?;
        let starts = index(types)?;
        Ok(Self { types: types.to_vec(), strings: strings.to_vec(), starts })
    }

    /// Finds the table in a kernel's image, where nothing else tells where it is: the largest that
    /// is sound.
    ///
    /// # Errors
    ///
    /// [`BtfError::Absent`], or what is wrong with the one that looked like it.
    pub fn find(image: &[u8]) -> Result<Self, BtfError> {
        let headers = (0..image.len()).step_by(4).filter_map(|at| {
            let bytes = image.get(at..)?;
            let header = Header::read(bytes).filter(|header| header.is_whole(bytes))?;
            let size = header.types.1.checked_add(header.strings.1)?;
            (header.end()? <= bytes.len()).then_some((size, at))
        });
        let (_, at) = headers.max().ok_or(BtfError::Absent)?;
        Self::parse(image.get(at..).unwrap_or_default())
    }

    /// Returns how many types there are, without `void`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Returns a type.
    #[must_use]
    pub fn get(&self, id: TypeId) -> Option<Type<'_>> {
        let index = usize::try_from(id.0).ok()?.checked_sub(1)?;
        let start = usize::try_from(*self.starts.get(index)?).ok()?;
        Type::read(self.types.get(start..)?, &self.strings)
    }

    /// Returns all types, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (TypeId, Type<'_>)> {
        let numbers = (1_u32..).take(self.starts.len()).map(TypeId);
        numbers.filter_map(|id| Some((id, self.get(id)?)))
    }

    /// Finds a structure or union by its name, or a typedef of one that has none itself.
    #[must_use]
    pub fn structure(&self, name: &str) -> Option<TypeId> {
        let named = |wanted: fn(&Kind<'_>) -> bool| {
            self.called(name).find(|id| self.get(*id).is_some_and(|one| wanted(&one.kind)))
        };
        named(|kind| matches!(kind, Kind::Composite(_)))
            .or_else(|| named(|kind| matches!(kind, Kind::Typedef(_))))
    }

    /// Returns the types of a name. No name is read for it: one may be long, and there are many.
    fn called(&self, name: &str) -> impl Iterator<Item = TypeId> {
        let is_it = move |start: &u32| {
            let at = types::word(&self.types, usize::try_from(*start).ok()?)?;
            let rest =
                self.strings.get(usize::try_from(at).ok()?..)?.strip_prefix(name.as_bytes())?;
            matches!(rest.first(), None | Some(0)).then_some(())
        };
        let numbered = (1_u32..).map(TypeId).zip(&self.starts);
        numbered.filter_map(move |(id, start)| is_it(start).map(|()| id))
    }

    /// Finds a type that C would call `name` in one word: a base type, a typedef, or an enumeration.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<TypeId> {
        let plain = |kind: &Kind<'_>| {
            matches!(kind, Kind::Int { .. } | Kind::Typedef(_) | Kind::Enum { .. } | Kind::Float)
        };
        self.called(name).find(|id| self.get(*id).is_some_and(|one| plain(&one.kind)))
    }

    /// Finds a variable that each CPU has its own of: how far into their section it is, and its
    /// type.
    #[must_use]
    pub fn per_cpu(&self, name: &str) -> Option<(u64, TypeId)> {
        let variables = self.called(PER_CPU_SECTION).find_map(|id| match self.get(id)?.kind {
            Kind::DataSection(variables) => Some(variables),
            _ => None,
        })?;
        variables.iter().find_map(|(id, offset)| {
            let variable = self.get(id)?;
            let Kind::Variable(of) = variable.kind else { return None };
            (variable.name == name.as_bytes()).then_some((u64::from(offset), of))
        })
    }

    /// Follows typedefs, qualifiers and tags to what a type is.
    #[must_use]
    pub fn resolve(&self, mut id: TypeId) -> TypeId {
        for _ in 0..CHAIN_MAX {
            match self.get(id).map(|one| one.kind) {
                Some(Kind::Typedef(to) | Kind::Qualifier(to)) => id = to,
                _ => break,
            }
        }
        id
    }

    /// Returns how many bytes a value of a type has.
    #[must_use]
    pub fn size_of(&self, id: TypeId) -> Option<u64> {
        let (mut id, mut times) = (self.resolve(id), 1_u64);
        for _ in 0..CHAIN_MAX {
            match self.get(id)?.kind {
                Kind::Array { element, count } => {
                    times = times.checked_mul(u64::from(count))?;
                    id = self.resolve(element);
                }
                Kind::Pointer(_) => return times.checked_mul(8),
                _ => return times.checked_mul(u64::from(self.get(id)?.bytes()?)),
            }
        }
        None
    }
}

/// Where the parts are, from the header's first byte on.
#[derive(Clone, Copy, Debug)]
struct Header {
    types: (usize, usize),
    strings: (usize, usize),
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let magic = u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
        if magic != MAGIC || bytes.get(2) != Some(&VERSION) {
            return None;
        }
        let word = |at| usize::try_from(types::word(bytes, at)?).ok();
        let length = word(4)?;
        let part = |at, bytes| Some((length.checked_add(word(at)?)?, word(bytes)?));
        let header = Self { types: part(8, 12)?, strings: part(16, 20)? };
        (length >= HEADER_BYTES && header.types.1 > 0).then_some(header)
    }

    /// Tells whether this is no module's table: any other has names, the first of which is empty.
    fn is_whole(&self, bytes: &[u8]) -> bool {
        bytes.get(self.strings.0) == Some(&0)
    }

    fn end(&self) -> Option<usize> {
        let end = |(at, length)| usize::checked_add(at, length);
        Some(end(self.types)?.max(end(self.strings)?))
    }
}

/// Finds where each type begins.
fn index(types: &[u8]) -> Result<Vec<u32>, BtfError> {
    let (mut starts, mut at) = (Vec::new(), 0_usize);
    while at < types.len() {
        let rest = types.get(at..).unwrap_or_default();
        let length = Type::length(rest).ok_or(BtfError::Damaged("a type of unknown kind"))?;
        if length > rest.len() {
            return Err(BtfError::Damaged("a type is cut off"));
        }
        if starts.len() == TYPES_MAX {
            return Err(BtfError::Damaged("there are too many types"));
        }
        starts.push(u32::try_from(at).map_err(|_| BtfError::Damaged("it is too long"))?);
        at = at.saturating_add(length);
    }
    Ok(starts)
}

#[cfg(test)]
mod tests;
