//! Types made by hand.

/// A table in the making.
#[derive(Default)]
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
    /// Where the names of the table end that this one goes behind.
    behind: Option<u32>,
}

impl Builder {
    /// Begins a table that goes on where another ends ([`crate::Btf::end`]).
    pub(crate) fn behind((number, name): (u64, u64)) -> Self {
        Self { count: number as u32 - 1, behind: Some(name as u32), ..Self::default() }
    }

    pub(crate) fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.behind.unwrap_or(1) + self.strings.len() as u32;
        self.strings.extend(name.bytes());
        self.strings.push(0);
        at
    }

    /// Adds a type; `rest` is what follows its first three words.
    pub(crate) fn add(
        &mut self,
        name: &str,
        kind: u32,
        count: u32,
        size: u32,
        rest: &[u32],
    ) -> u32 {
        let name = self.name(name);
        for word in [name, kind << 24 | count, size].iter().chain(rest) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    pub(crate) fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.add(name, 1, 0, bytes, &[8 * bytes])
    }

    pub(crate) fn array(&mut self, element: u32, count: u32) -> u32 {
        self.add("", 3, 0, 0, &[element, element, count])
    }

    /// Adds a structure of members: name, type, offset in bytes.
    pub(crate) fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u64)]) -> u32 {
        let mut rest = Vec::new();
        for (name, id, offset) in members {
            rest.extend([self.name(name), *id, 8 * *offset as u32]);
        }
        self.add(name, 4, members.len() as u32, size, &rest)
    }

    /// Adds a section of variables: name, type, offset in bytes.
    pub(crate) fn section(&mut self, name: &str, variables: &[(&str, u32, u64)]) {
        let mut rest = Vec::new();
        for (name, id, offset) in variables {
            rest.extend([self.add(name, 14, 0, *id, &[1]), *offset as u32, 8]);
        }
        self.add(name, 15, variables.len() as u32, 4096, &rest);
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let first = self.behind.is_none().then_some(0);
        let strings: Vec<u8> = first.into_iter().chain(self.strings).collect();
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let (types, count) = (self.types.len() as u32, strings.len() as u32);
        for word in [24, 0, types, types, count] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.types);
        bytes.extend(strings);
        bytes
    }
}
