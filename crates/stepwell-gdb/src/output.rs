//! What is to be sent, shared between the session and the `gdbstub` that it may have to replace.

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
pub(crate) struct Output(Rc<RefCell<Vec<u8>>>);

impl Output {
    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Takes back what was written since there were `length` bytes.
    pub(crate) fn truncate(&self, length: usize) {
        self.0.borrow_mut().truncate(length);
    }

    /// What was written since there were `length` bytes.
    pub(crate) fn since(&self, length: usize) -> Vec<u8> {
        self.0.borrow().get(length..).unwrap_or_default().to_vec()
    }

    /// Takes all.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut())
    }

    pub(crate) fn push(&self, bytes: &[u8]) -> Result<(), Overflow> {
        let mut waiting = self.0.borrow_mut();
        if waiting.len() + bytes.len() > REPLY_MAX {
            return Err(Overflow);
        }
        waiting.extend_from_slice(bytes);
        Ok(())
    }
}

impl Connection for Output {
    type Error = Overflow;

    fn write(&mut self, byte: u8) -> Result<(), Overflow> {
        self.push(&[byte])
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        self.push(bytes)
    }

    fn flush(&mut self) -> Result<(), Overflow> {
        Ok(())
    }
}
