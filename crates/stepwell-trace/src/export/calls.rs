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
//! Calls that are next to each other and made the same calls become one line with `×N`. A call that
//! a switch of tasks interrupts has a line for each part of it that ran.
//!
//! The tree is held in memory until the end, because a call's number is known only when it
//! returned. A trace with more calls than fit is shown less deep, never wrongly.

mod tree;

use super::{ExportError, end_at_broken_pipe};
use crate::call_stack::{CallStacks, CallVisitor, Entry, Exit, FrameKind};
use crate::code::CodePages;
use crate::format::Record;
use crate::source::Source;
use crate::symbols::Symbols;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write};
use stepwell_arch::address::Va;
use tree::{OpenNode, Tree};

/// Most labels that are remembered by their address.
const LABELS_MAX: usize = 1 << 16;

/// Writes the outline of what is left of a recording, with the code and symbols in it, at most
/// `depth_max` calls deep.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged (after the outline of what precedes the damage) or
/// the output fails; a broken pipe is none.
pub fn write(
    source: &mut impl Source,
    depth_max: Option<usize>,
    output: impl Write,
) -> Result<(), ExportError> {
    let (code, symbols) = (source.code_pages()?, source.symbols()?);
    let mut outline = Outline::new(&code, &symbols);
    let read = loop {
        match source.next_record() {
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
    stacks: CallStacks<'a>,
    calls: Calls<'a>,
}

impl<'a> Outline<'a> {
    fn new(code: &'a CodePages, symbols: &'a Symbols) -> Self {
        let (tree, vcpus, labels) = (Tree::new(), BTreeMap::new(), HashMap::new());
        let calls = Calls { symbols, tree, vcpus, labels };
        Self { stacks: CallStacks::new(code, symbols), calls }
    }

    fn record(&mut self, record: &Record) {
        self.stacks.record(record, &mut self.calls);
    }

    fn write(mut self, depth_max: Option<usize>, output: impl Write) -> Result<(), ExportError> {
        self.stacks.finish(&mut self.calls);
        let mut output = BufWriter::new(output);
        let mut result = Ok(());
        for (vcpu, calls) in &self.calls.vcpus {
            let tree = &self.calls.tree;
            result = result.and_then(|()| tree.write(*vcpu, &calls.root, depth_max, &mut output));
        }
        let result = result.and_then(|()| output.flush());
        end_at_broken_pipe(result.map_err(ExportError::from))
    }
}

/// The calls of one vCPU.
#[derive(Debug, Default)]
struct VcpuCalls {
    /// What began the others: the trace itself.
    root: OpenNode,
    /// Those that have not ended.
    open: Vec<OpenNode>,
}

/// Puts calls into the tree as they end.
#[derive(Debug)]
struct Calls<'a> {
    symbols: &'a Symbols,
    tree: Tree,
    vcpus: BTreeMap<u8, VcpuCalls>,
    /// Labels by what they name: there are millions of calls, and few that differ.
    labels: HashMap<(FrameKind, u64), u32>,
}

impl Calls<'_> {
    fn label(&mut self, entry: &Entry<'_>) -> u32 {
        let key = (entry.kind, entry.at.0);
        if let Some(&label) = self.labels.get(&key) {
            return label;
        }
        let text = match entry.kind {
            FrameKind::Interrupt => format!("[interrupt at {}]", self.place(entry.at)),
            FrameKind::Exception => format!("[exception at {}]", self.place(entry.at)),
            FrameKind::Found => self.function(entry.at),
            FrameKind::Function | FrameKind::TailCall => self.callee(entry.at),
        };
        let label = self.tree.label(&text);
        if self.labels.len() < LABELS_MAX {
            self.labels.insert(key, label);
        }
        label
    }

    fn function(&self, at: Va) -> String {
        self.symbols.lookup(at).map_or("(unknown)", |(name, _)| name).to_owned()
    }

    fn callee(&self, at: Va) -> String {
        match self.symbols.lookup(at) {
            Some((name, 0)) => name.to_owned(),
            _ => self.place(at),
        }
    }

    fn place(&self, at: Va) -> String {
        match self.symbols.lookup(at) {
            Some((name, offset)) => format!("{name}+{offset:#x}"),
            None => format!("{at}"),
        }
    }
}

impl CallVisitor for Calls<'_> {
    fn enter(&mut self, entry: Entry<'_>) {
        let node = OpenNode::new(self.label(&entry));
        self.vcpus.entry(entry.vcpu).or_default().open.push(node);
    }

    fn leave(&mut self, exit: Exit) {
        let Some(calls) = self.vcpus.get_mut(&exit.vcpu) else { return };
        let Some(ended) = calls.open.pop() else { return };
        let node = self.tree.close(ended);
        self.tree.attach(calls.open.last_mut().unwrap_or(&mut calls.root), node);
    }

    fn execute(&mut self, vcpu: u8, _pc: Va, length: u32) {
        let top = self.vcpus.get_mut(&vcpu).and_then(|calls| calls.open.last_mut());
        if let Some(top) = top {
            top.instructions += u64::from(length);
        }
    }
}

#[cfg(test)]
mod tests;
