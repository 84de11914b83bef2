//! `pc`: one line an instruction, vCPU and PC: what other tools read most easily, and what a trace
//! is compared by.
//!
//! Hundreds of millions of lines are usual, so the digits are put by hand into a large buffer:
//! within a run only the last few digits change.

use super::{ExportError, end_at_broken_pipe};
use crate::format::Record;
use crate::source::Source;
use std::io::Write;
use stepwell_arch::address::Va;

/// Size at which the buffer is written.
const BUFFER: usize = 256 << 10;
/// Longest line: three digits, a blank, sixteen digits and the end of the line.
const LINE_MAX: usize = 21;

/// Writes the PC stream of what is left of a recording.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged or the output fails; a broken pipe is none.
pub fn write(source: &mut impl Source, output: impl Write) -> Result<(), ExportError> {
    let mut lines = PcLines::new(output);
    let result = lines.copy(source);
    let flushed = lines.flush();
    end_at_broken_pipe(result.and(flushed))
}

/// Writes lines of `vcpu pc`: for a recording, or live.
#[derive(Debug)]
pub struct PcLines<W: Write> {
    output: W,
    buffer: Vec<u8>,
}

impl<W: Write> PcLines<W> {
    /// Writes to `output`, in large pieces.
    pub fn new(output: W) -> Self {
        Self { output, buffer: Vec::with_capacity(BUFFER + LINE_MAX) }
    }

    /// Writes the instructions of one run.
    ///
    /// # Errors
    ///
    /// [`ExportError::Output`] if the output fails.
    pub fn run(&mut self, vcpu: u8, pc: Va, length: u32) -> Result<(), ExportError> {
        let mut line = [b'\n'; LINE_MAX + 1];
        let (text, digits) = head(vcpu);
        line[..digits].copy_from_slice(&text[..digits]);
        line[digits] = b' ';
        let start = digits + 1;
        for index in 0..u64::from(length) {
            let pc = pc.offset(index * 4).0;
            let width = 16 - (pc.leading_zeros() as usize / 4).min(15);
            put_hex(&mut line[start..start + width], pc);
            line[start + width] = b'\n';
            self.buffer.extend_from_slice(&line[..=start + width]);
            if self.buffer.len() >= BUFFER {
                self.drain()?;
            }
        }
        Ok(())
    }

    /// Writes what is still in the buffer.
    ///
    /// # Errors
    ///
    /// [`ExportError::Output`] if the output fails.
    pub fn flush(&mut self) -> Result<(), ExportError> {
        self.drain()?;
        Ok(self.output.flush()?)
    }

    fn copy(&mut self, source: &mut impl Source) -> Result<(), ExportError> {
        while let Some(record) = source.next_record()? {
            if let Record::Run { vcpu, pc, length } = record {
                self.run(vcpu, pc, length)?;
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), ExportError> {
        self.output.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Returns the decimal digits of a vCPU's number and how many there are.
fn head(vcpu: u8) -> ([u8; 3], usize) {
    let mut text = [0; 3];
    let digits = match vcpu {
        0..10 => 1,
        10..100 => 2,
        _ => 3,
    };
    let mut rest = vcpu;
    for place in text[..digits].iter_mut().rev() {
        *place = b'0' + rest % 10;
        rest /= 10;
    }
    (text, digits)
}

fn put_hex(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}
