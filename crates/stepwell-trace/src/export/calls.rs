//! `calls`: an indented outline of who called whom, with how many instructions each call took.
//!
//! ```text
//! vcpu 0: 52 instructions
//!         52  start_kernel
//!         20    boot_cpu_init ×2
//!         12    [interrupt at start_kernel+0x18]
//!         12      vectors
//! ```
//!
//! A number counts what was executed below a line too, and in all calls that were folded into it.
//! Calls that are next to each other and made the same calls become one line with `×N`.
//!
//! The tree is held in memory until the end, because a call's number is known only when it
//! returned. A trace with more calls than fit is shown less deep, never wrongly.

mod stack;
mod tree;

use super::{ExportError, end_at_broken_pipe};
use crate::code::CodePages;
use crate::format::Record;
use crate::reader::Reader;
use crate::symbols::Symbols;
use stack::Stack;
use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Seek, Write};
use tree::Tree;

/// Writes the outline of what is left of a recording, with the code and symbols in it, at most
/// `depth_max` calls deep.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged (after the outline of what precedes the damage) or
/// the output fails; a broken pipe is none.
pub fn write<R: Read + Seek>(
    reader: &mut Reader<R>,
    depth_max: Option<usize>,
    output: impl Write,
) -> Result<(), ExportError> {
    let (code, symbols) = (reader.code_pages()?, reader.symbols()?);
    let mut outline = Outline::new(&code, &symbols);
    let read = loop {
        match reader.next_record() {
            Ok(Some(record)) => outline.record(&record),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    let written = outline.write(depth_max, output);
    read.and(written)
}

/// Writes the outline of records from anywhere, such as a trace that is not in a file.
///
/// # Errors
///
/// [`ExportError::Output`] if the output fails; a broken pipe is none.
pub fn outline(
    records: impl IntoIterator<Item = Record>,
    code: &CodePages,
    symbols: &Symbols,
    output: impl Write,
) -> Result<(), ExportError> {
    let mut outline = Outline::new(code, symbols);
    for record in records {
        outline.record(&record);
    }
    outline.write(None, output)
}

/// Follows the calls of every vCPU.
#[derive(Debug)]
struct Outline<'a> {
    code: &'a CodePages,
    symbols: &'a Symbols,
    tree: Tree,
    stacks: BTreeMap<u8, Stack>,
}

impl<'a> Outline<'a> {
    fn new(code: &'a CodePages, symbols: &'a Symbols) -> Self {
        Self { code, symbols, tree: Tree::new(), stacks: BTreeMap::new() }
    }

    fn record(&mut self, record: &Record) {
        let names = stack::Names { code: self.code, symbols: self.symbols };
        match *record {
            Record::Run { vcpu, pc, length } => {
                let stack = self.stacks.entry(vcpu).or_default();
                stack.run(&mut self.tree, names, pc, length);
            }
            Record::Interrupt { vcpu, pc } => {
                let stack = self.stacks.entry(vcpu).or_default();
                stack.interrupt(&mut self.tree, names, pc);
            }
            Record::Event(_) => {}
        }
    }

    fn write(mut self, depth_max: Option<usize>, output: impl Write) -> Result<(), ExportError> {
        let mut output = BufWriter::new(output);
        let mut result = Ok(());
        for (vcpu, stack) in std::mem::take(&mut self.stacks) {
            let root = stack.finish(&mut self.tree);
            result = result.and_then(|()| self.tree.write(vcpu, &root, depth_max, &mut output));
        }
        let result = result.and_then(|()| output.flush());
        end_at_broken_pipe(result.map_err(ExportError::from))
    }
}

#[cfg(test)]
mod tests;
