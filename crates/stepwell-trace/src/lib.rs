//! Recordings of executed instructions: the file format, its reader and writer, the symbols that
//! give them names, and the exporters that turn them into something people read.
//!
//! The tool records gigabytes and has to survive its own death, so everything here streams, and
//! a recording is readable up to the last chunk that reached the disk. Nothing here talks to a
//! machine: the tool hands in what it drained and fetched, and reads it back without one.
//!
//! - [`mod@format`]: the layout of a recording, and how records become bytes.
//! - [`Writer`] and [`Reader`]: the two ends of it.
//! - [`symbols`]: names for addresses, from a kernel's own tables or an ELF.
//! - [`kernel_image`]: what a kernel file is, unpacked to what gets loaded.
//! - [`call_stack`]: who called whom, rebuilt as a recording streams by.
//! - [`flame_tree`]: calls added up by how they were reached.
//! - [`Source`], [`Filter`], [`Filtered`]: a recording, or a part of it.
//! - [`diff`]: where two recordings part.
//! - [`export`]: one file for each output of `stepwell show`.
//! - [`report`]: a recording as one page for a browser.
//! - [`Disassembler`]: the text of one instruction.
#![forbid(unsafe_code)]

pub mod call_stack;
pub mod code;
pub mod diff;
pub mod disassemble;
pub mod error;
pub mod export;
pub mod filter;
pub mod flame_tree;
pub mod flow;
pub mod format;
pub mod instruction_sets;
pub mod kernel_image;
pub mod level;
pub mod printable;
pub mod reader;
pub mod report;
pub mod source;
pub mod symbols;
pub mod writer;

pub use call_stack::{CallStacks, CallVisitor};
pub use code::CodePages;
pub use disassemble::Disassembler;
pub use error::Error;
pub use filter::{Filter, Filtered};
pub use flow::{Flow, branch_target};
pub use format::{
    Context, Event, ExceptionCause, ExceptionEntry, Header, MemoryAccess, MemoryAccessKind, Record,
    Register, Totals, Waiting,
};
pub use instruction_sets::InstructionSets;
pub use kernel_image::{KernelError, KernelImage, KernelKind, LoadPlan, RawPolicy};
pub use level::Levels;
pub use printable::printable;
pub use reader::{Damage, Ending, Reader};
pub use source::Source;
pub use symbols::{Symbol, SymbolKind, Symbols};
pub use writer::Writer;
