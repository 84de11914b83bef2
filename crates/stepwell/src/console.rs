//! The guest's console on ours: the escape key of `run`, and the marked lines of the others.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

/// Ctrl-A.
const ESCAPE: u8 = 0x01;
/// Chunks that are read ahead of the guest.
const READ_AHEAD: usize = 16;
/// What stands before a line of the guest's.
const MARK: &str = "  guest| ";

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Goes to the guest.
    Guest(u8),
    /// Leaves.
    Leave,
    /// Asks for help.
    Help,
}

/// Finds the escape sequences in what is typed.
#[derive(Debug, Default)]
pub struct Escapes {
    escaped: bool,
}

impl Escapes {
    /// Takes one byte, and returns what it does, if anything yet.
    pub fn push(&mut self, byte: u8) -> Option<Key> {
        match (std::mem::take(&mut self.escaped), byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                None
            }
            (false, byte) | (true, byte @ ESCAPE) => Some(Key::Guest(byte)),
            (true, b'x' | b'X') => Some(Key::Leave),
            (true, b'h' | b'H' | b'?') => Some(Key::Help),
            (true, _) => None,
        }
    }
}

/// What is typed or piped into this process, read by a thread of its own.
pub struct Input {
    chunks: Receiver<Vec<u8>>,
    /// Read, and not yet typed on the guest's console.
    pub waiting: VecDeque<u8>,
}

impl Input {
    /// Starts reading standard input.
    ///
    /// # Errors
    ///
    /// Where no thread can be had.
    pub fn start() -> std::io::Result<Self> {
        let (sender, chunks) = sync_channel(READ_AHEAD);
        std::thread::Builder::new().name("input".into()).spawn(move || {
            let mut buffer = [0; 256];
            // At its end, closed, or broken: there is no more input, and that is all.
            while let Ok(length @ 1..) = std::io::stdin().lock().read(&mut buffer) {
                let chunk = buffer.get(..length).unwrap_or_default().to_vec();
                if sender.send(chunk).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { chunks, waiting: VecDeque::new() })
    }

    /// Returns what has been read since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        let mut taken = Vec::new();
        loop {
            match self.chunks.try_recv() {
                Ok(chunk) => taken.extend(chunk),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return taken,
            }
        }
    }
}

/// Prints what the guest writes between our own lines, each of its lines marked.
#[derive(Debug, Default)]
pub struct MarkedLines {
    line: Vec<u8>,
}

/// Longest line that is held back for its end.
const LINE_MAX: usize = 500;

impl MarkedLines {
    /// Takes what the guest wrote, and prints whole lines.
    ///
    /// # Errors
    ///
    /// Where `output` cannot be written.
    pub fn push(&mut self, bytes: &[u8], output: &mut dyn Write) -> std::io::Result<()> {
        for &byte in bytes {
            match byte {
                b'\n' => self.print(output)?,
                b'\r' => {}
                byte => self.line.push(byte),
            }
            if self.line.len() >= LINE_MAX {
                self.print(output)?;
            }
        }
        Ok(())
    }

    /// Prints a line that has no end yet, because something else is printed next.
    ///
    /// # Errors
    ///
    /// Where `output` cannot be written.
    pub fn flush(&mut self, output: &mut dyn Write) -> std::io::Result<()> {
        if self.line.is_empty() { Ok(()) } else { self.print(output) }
    }

    fn print(&mut self, output: &mut dyn Write) -> std::io::Result<()> {
        let line = std::mem::take(&mut self.line);
        writeln!(output, "{MARK}{}", String::from_utf8_lossy(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut escapes = Escapes::default();
        bytes.iter().filter_map(|&byte| escapes.push(byte)).collect()
    }

    #[test]
    fn the_escape_key_leaves_helps_and_is_typed_twice() {
        assert_eq!(keys(b"a\x01x"), [Key::Guest(b'a'), Key::Leave]);
        assert_eq!(keys(b"\x01h\x01\x01"), [Key::Help, Key::Guest(1)]);
        assert_eq!(keys(b"\x01qx\x03"), [Key::Guest(b'x'), Key::Guest(3)]);
    }

    #[test]
    fn guest_lines_are_marked_and_kept_whole() {
        let (mut lines, mut out) = (MarkedLines::default(), Vec::new());
        lines.push(b"one\r\ntw", &mut out).unwrap();
        lines.push(b"o\r\n# ", &mut out).unwrap();
        lines.flush(&mut out).unwrap();
        lines.flush(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "  guest| one\n  guest| two\n  guest| # \n");
    }
}
