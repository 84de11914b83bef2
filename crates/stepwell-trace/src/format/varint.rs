//! Variable-length integers: seven bits a byte, the lowest first, the top bit says "more".
//!
//! Trace records are small numbers nearly always, and what zstd sees should be short and regular.

/// Appends `value`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a string or other bytes behind their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Maps small magnitudes of either sign to small numbers.
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A place in a payload; every read is checked, and `None` means that the payload is damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the beginning of `bytes`.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Tells whether everything was read.
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns how many bytes are left.
    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Reads one integer.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Some(value);
            }
        }
        None
    }

    /// Reads exactly `length` bytes.
    pub(crate) fn take_exact(&mut self, length: u64) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(head)
    }

    /// Reads bytes that follow their length.
    pub(crate) fn take_bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.take()?;
        self.take_exact(length)
    }

    /// Reads one byte.
    pub(crate) fn take_u8(&mut self) -> Option<u8> {
        self.take_exact(1)?.first().copied()
    }

    /// Reads a 64-bit integer of fixed size.
    pub(crate) fn take_u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take_exact(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_survive(value: u64, signed: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            put(&mut bytes, zigzag(signed));
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.take(), Some(value));
            prop_assert_eq!(cursor.take().map(unzigzag), Some(signed));
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn garbage_is_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut cursor = Cursor::new(&bytes);
            while !cursor.is_empty() {
                if cursor.take_bytes().is_none() {
                    break;
                }
            }
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(Cursor::new(&[0xff; 9]).take(), None);
        let mut eleven = [0xff; 10];
        eleven[9] = 2;
        assert_eq!(Cursor::new(&eleven).take(), None);
        eleven[9] = 1;
        assert_eq!(Cursor::new(&eleven).take(), Some(u64::MAX));
    }
}
