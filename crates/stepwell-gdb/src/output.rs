//! What is to be sent, shared between the session and the `gdbstub` that it may have to replace.

use crate::framing::checksum;
use gdbstub::conn::Connection;
use std::cell::RefCell;
use std::rc::Rc;

/// Most bytes of replies that are held for a client that does not read them.
pub const REPLY_MAX: usize = 1 << 20;

/// A client asked for more than [`REPLY_MAX`] without reading any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client asks for more than it reads")]
pub(crate) struct Overflow;

/// Bytes to be sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output(Rc<RefCell<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    tail: Tail,
}

/// Where the next packet of `gdbstub`'s is, whose body is to end with more than `gdbstub` knows of.
#[derive(Clone, Copy, Debug, Default)]
enum Tail {
    /// Nothing is to be added.
    #[default]
    None,
    /// It has not begun.
    Before(&'static [u8]),
    /// Its body is being written; the sum of it so far.
    Body(&'static [u8], u8),
    /// So many digits of its own checksum are to come, which is another's now.
    Checksum(usize),
}

impl Output {
    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().bytes.len()
    }

    /// Takes back what was written since there were `length` bytes.
    pub(crate) fn truncate(&self, length: usize) {
        self.0.borrow_mut().bytes.truncate(length);
    }

    /// What was written since there were `length` bytes.
    pub(crate) fn since(&self, length: usize) -> Vec<u8> {
        self.0.borrow().bytes.get(length..).unwrap_or_default().to_vec()
    }

    /// Takes all.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().bytes)
    }

    pub(crate) fn push(&self, bytes: &[u8]) -> Result<(), Overflow> {
        let waiting = &mut self.0.borrow_mut().bytes;
        if waiting.len() + bytes.len() > REPLY_MAX {
            return Err(Overflow);
        }
        waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Has the next packet that `gdbstub` writes end with `text`.
    pub(crate) fn add_to_next_packet(&self, text: &'static [u8]) {
        self.0.borrow_mut().tail = Tail::Before(text);
    }

    /// Adds nothing any more.
    pub(crate) fn add_nothing(&self) {
        self.0.borrow_mut().tail = Tail::None;
    }

    /// Takes a byte of `gdbstub`'s.
    fn pass(&self, byte: u8) -> Result<(), Overflow> {
        let tail = self.0.borrow().tail;
        let next = match (tail, byte) {
            (Tail::Before(text), b'$') => Tail::Body(text, 0),
            (Tail::Body(text, sum), b'#') => {
                let sum = sum.wrapping_add(checksum(text));
                self.push(text)?;
                self.push(format!("#{sum:02x}").as_bytes())?;
                self.0.borrow_mut().tail = Tail::Checksum(2);
                return Ok(());
            }
            (Tail::Body(text, sum), byte) => Tail::Body(text, sum.wrapping_add(byte)),
            (Tail::Checksum(left), _) => {
                let is_last = left <= 1;
                self.0.borrow_mut().tail =
                    if is_last { Tail::None } else { Tail::Checksum(left - 1) };
                return Ok(());
            }
            (same, _) => same,
        };
        self.0.borrow_mut().tail = next;
        self.push(&[byte])
    }
}

impl Connection for Output {
    type Error = Overflow;

    fn write(&mut self, byte: u8) -> Result<(), Overflow> {
        self.pass(byte)
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        bytes.iter().try_for_each(|&byte| self.pass(byte))
    }

    fn flush(&mut self) -> Result<(), Overflow> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::framed;

    #[test]
    fn what_is_added_is_within_the_packet_and_its_checksum() {
        let mut output = Output::default();
        output.add_to_next_packet(b";more+");
        output.write_all(b"+").unwrap();
        output.write_all(&framed(b"some+")).unwrap();
        output.write_all(&framed(b"OK")).unwrap();
        let expected = [b"+".to_vec(), framed(b"some+;more+"), framed(b"OK")].concat();
        assert_eq!(output.take(), expected);
    }

    #[test]
    fn nothing_is_added_where_it_was_given_up() {
        let mut output = Output::default();
        output.add_to_next_packet(b";more+");
        output.add_nothing();
        output.write_all(&framed(b"OK")).unwrap();
        assert_eq!(output.take(), framed(b"OK"));
    }
}
