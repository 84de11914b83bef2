//! This terminal: what the user is told on it, raw mode, and back.
//!
//! There is one terminal, so there is one saved state: whoever ends the process, in whatever way,
//! calls [`restore`].

use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{self, Write};
use std::sync::Mutex;
use stepwell_trace::printable::{self, printable};

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode for as long as this lives.
pub struct RawMode(());

impl RawMode {
    /// Puts the terminal that standard input is into raw mode; `None` where it is no terminal.
    #[must_use]
    pub fn enter() -> Option<Self> {
        if !isatty(stdin()) {
            return None;
        }
        let cooked = tcgetattr(stdin()).ok()?;
        let mut raw = cooked.clone();
        raw.make_raw();
        if let Ok(mut saved) = SAVED.lock() {
            *saved = Some(cooked);
        }
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back to what it was, where that was changed.
pub fn restore() {
    let saved = SAVED.lock().ok().and_then(|mut saved| saved.take());
    if let Some(cooked) = saved {
        // It fails where the terminal is gone, and then there is nothing to put back.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &cooked);
    }
}

/// Output in which what a terminal would obey is made visible, but for ends of lines: whatever of a
/// guest's words it is made of. Each write is of whole characters.
#[derive(Debug)]
pub struct Visible<W>(pub W);

impl<W: Write> Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = String::with_capacity(bytes.len());
        for character in String::from_utf8_lossy(bytes).chars() {
            match character {
                '\n' => text.push('\n'),
                other => printable::push(&mut text, other),
            }
        }
        self.0.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Tells the user something that is not the output. It may have words of a guest's or a file's in
/// it, so what a terminal would obey is made visible, and only the first line is in our name.
pub fn notice(text: &str) {
    let lines: Vec<_> = text.lines().map(printable).collect();
    eprintln!("stepwell: {}", lines.join("\n  "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines_and_nothing_else_is_obeyed() {
        let mut output = Visible(Vec::new());
        writeln!(output, "comm\x1b[2J\tü").unwrap();
        assert_eq!(String::from_utf8(output.0).unwrap(), "comm^[[2J\tü\n");
    }
}
