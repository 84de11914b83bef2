//! The guest's console on ours: the escape key of `run`, and the marked lines of the others.
//!
//! Marked lines are the guest's and can be nothing else: what a terminal would obey is made visible
//! in them, so that a guest cannot write over what we wrote, nor in our name.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use stepwell_trace::printable::{self, printable};

/// Ctrl-A.
const ESCAPE: u8 = 0x01;
/// Chunks that are read ahead of the guest.
const READ_AHEAD: usize = 16;
/// What a line of the guest's is prefixed with.
const MARK: &str = "  guest| ";
/// A line of the guest's with nothing in it.
const EMPTY: &str = "  guest| \n";

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
        writeln!(output, "{MARK}{}", printable(&String::from_utf8_lossy(&line)))
    }
}

/// Prints what the guest writes as it comes, each of its lines marked: for who types at its prompt,
/// which has no end of line.
#[derive(Debug, Default)]
pub struct MarkedText {
    /// A line has begun.
    within: bool,
    /// The beginning of a character whose end has not come.
    partial: Vec<u8>,
}

impl MarkedText {
    /// Takes what the guest wrote, and prints it.
    ///
    /// # Errors
    ///
    /// Where `output` cannot be written.
    pub fn push(&mut self, bytes: &[u8], output: &mut dyn Write) -> std::io::Result<()> {
        let mut bytes = [std::mem::take(&mut self.partial).as_slice(), bytes].concat();
        let cut = begun_at_end(&bytes);
        self.partial = bytes.split_off(bytes.len() - cut);
        let mut text = String::new();
        for character in String::from_utf8_lossy(&bytes).chars() {
            match character {
                '\n' => text.push_str(if std::mem::take(&mut self.within) { "\n" } else { EMPTY }),
                '\r' => {}
                character => {
                    if !std::mem::replace(&mut self.within, true) {
                        text.push_str(MARK);
                    }
                    printable::push(&mut text, character);
                }
            }
        }
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    /// Ends a line that has begun, because something else is printed next.
    ///
    /// # Errors
    ///
    /// Where `output` cannot be written.
    pub fn end_line(&mut self, output: &mut dyn Write) -> std::io::Result<()> {
        if !std::mem::take(&mut self.within) {
            return Ok(());
        }
        output.write_all(b"\n")?;
        output.flush()
    }
}

/// Returns how many bytes at the end are the beginning of a character that may still be completed.
fn begun_at_end(bytes: &[u8]) -> usize {
    let longest = bytes.len().min(3);
    let is_begun = |&count: &usize| {
        let tail = bytes.get(bytes.len() - count..).unwrap_or_default();
        std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none())
            && tail.first().is_some_and(|&first| first >= 0xc0)
    };
    (1..=longest).rev().find(is_begun).unwrap_or(0)
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

    #[test]
    fn a_guest_cannot_write_in_our_name() {
        let forged = b"\x1b]0;title\x07hello\x1b[1A\x1b[2K\rvcpu0  0xdead\n";
        let seen = "  guest| ^[]0;title^Ghello^[[1A^[[2Kvcpu0  0xdead\n";
        let (mut lines, mut out) = (MarkedLines::default(), Vec::new());
        lines.push(forged, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), seen);
        let (mut text, mut out) = (MarkedText::default(), Vec::new());
        forged.iter().for_each(|&byte| text.push(&[byte], &mut out).unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), seen);
    }

    #[test]
    fn a_prompt_is_seen_at_once_and_ended_before_something_else() {
        let (mut text, mut out) = (MarkedText::default(), Vec::new());
        text.push(b"\r\n\r\nlogin: ", &mut out).unwrap();
        text.end_line(&mut out).unwrap();
        text.end_line(&mut out).unwrap();
        text.push(b"root\r\n", &mut out).unwrap();
        let seen = "  guest| \n  guest| \n  guest| login: \n  guest| root\n";
        assert_eq!(String::from_utf8(out).unwrap(), seen);
    }

    #[test]
    fn characters_may_come_in_pieces() {
        for pieces in [vec![b"\xc3".as_slice(), b"\xbc"], vec![b"\xe2\x80", b"\xae"]] {
            let (mut text, mut out) = (MarkedText::default(), Vec::new());
            pieces.iter().for_each(|piece| text.push(piece, &mut out).unwrap());
            let whole = String::from_utf8(pieces.concat()).unwrap();
            let seen = format!("  guest| {}", printable(&whole));
            assert_eq!(String::from_utf8(out).unwrap(), seen);
        }
        let (mut text, mut out) = (MarkedText::default(), Vec::new());
        text.push(b"\xff\xc3", &mut out).unwrap();
        text.push(b"a", &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "  guest| \u{fffd}\u{fffd}a");
    }
}
