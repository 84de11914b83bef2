//! The guest's memory, as its kernel sees it.

use crate::Error;
use std::collections::HashMap;

/// Bytes that are fetched at a time: no page boundary lies within.
const LINE: u64 = 512;
/// Lines that a question may fetch: 128 MiB, each line a question to the debuggee.
const LINES_MAX: usize = 1 << 18;
/// How often a question may read: what a guest has written may lead to the same places again and
/// again.
const READS_MAX: u32 = 1 << 26;

/// Memory by kernel virtual address.
pub trait Memory {
    /// Fills `bytes` with what is at `address`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMapped`] where any of it is not there, [`Error::Debuggee`].
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error>;
}

impl dyn Memory + '_ {
    /// Reads a pointer, or another doubleword.
    ///
    /// # Errors
    ///
    /// As [`Memory::read`].
    pub fn read_u64(&mut self, address: u64) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Memory of which every line is fetched once: right for as long as the guest is stopped, and for
/// one question. Whatever that leads to, it ends.
pub struct Cached<M> {
    memory: M,
    lines: HashMap<u64, Box<[u8; LINE as usize]>>,
    reads: u32,
}

impl<M: Memory> Cached<M> {
    /// Puts a cache before `memory`.
    pub fn new(memory: M) -> Self {
        Self { memory, lines: HashMap::new(), reads: 0 }
    }

    fn line(&mut self, number: u64) -> Result<&[u8; LINE as usize], Error> {
        if !self.lines.contains_key(&number) {
            if self.lines.len() >= LINES_MAX {
                return Err(Error::TooMuch);
            }
            let mut line = Box::new([0; LINE as usize]);
            self.memory.read(number.wrapping_mul(LINE), &mut line[..])?;
            self.lines.insert(number, line);
        }
        self.lines.get(&number).map(|line| &**line).ok_or(Error::NotMapped(number * LINE))
    }
}

impl<M: Memory> Memory for Cached<M> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.reads = self.reads.saturating_add(1);
        if self.reads > READS_MAX {
            return Err(Error::TooMuch);
        }
        let mut at = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (at % LINE) as usize;
            let line = self.line(at / LINE)?.get(within..).unwrap_or_default();
            let length = line.len().min(rest.len());
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(line.get(..length).unwrap_or_default());
            (rest, at) = (later, at.wrapping_add(length as u64));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory in which each byte is its address, and which counts how often it was asked.
    struct Counting(u32);

    impl Memory for Counting {
        fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
            self.0 += 1;
            if address < 4096 {
                return Err(Error::NotMapped(address));
            }
            for (at, byte) in (0_u8..=255).cycle().zip(bytes) {
                *byte = at.wrapping_add(address as u8);
            }
            Ok(())
        }
    }

    #[test]
    fn lines_are_fetched_once_and_reads_may_cross_them() {
        let mut memory = Cached::new(Counting(0));
        let mut bytes = [0; 6];
        for _ in 0..3 {
            memory.read(8192 + LINE - 3, &mut bytes).unwrap();
            assert_eq!(bytes, [253, 254, 255, 0, 1, 2]);
        }
        assert_eq!(memory.memory.0, 2);
        assert!(matches!(memory.read(4090, &mut bytes), Err(Error::NotMapped(3584))));
        assert!(memory.read(u64::MAX - 2, &mut bytes).is_err(), "it wraps to 0");
    }

    #[test]
    fn a_question_ends_wherever_it_is_led() {
        let mut memory = Cached::new(Counting(0));
        let mut byte = [0];
        let mut far = (8..).map(|line| memory.read(line * LINE, &mut byte));
        assert!(matches!(far.find(Result::is_err), Some(Err(Error::TooMuch))));
        assert_eq!(memory.memory.0 as usize, LINES_MAX);
        let mut memory = Cached { reads: READS_MAX - 2, ..Cached::new(Counting(0)) };
        let reads = (0..4).map(|_| memory.read(4096, &mut byte).is_ok()).collect::<Vec<_>>();
        assert_eq!(reads, [true, true, false, false]);
    }
}
