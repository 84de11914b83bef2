//! Exporters: a recording turned into text. One file each.
//!
//! All of them stream: a record goes out before the next is read. Whoever reads the output may
//! stop at any time (`| head`): a broken pipe is an end like any other. A damaged recording is
//! exported up to the damage, and then the error is returned.

pub mod calls;
pub mod disasm;
pub mod flamegraph;
pub mod pc;

use crate::disassemble::DisassemblerError;
use std::io;

/// An export did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording is damaged; what stands before was exported.
    #[error(transparent)]
    Recording(#[from] crate::Error),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// The disassembler.
    #[error(transparent)]
    Disassembler(#[from] DisassemblerError),
}

/// Turns a broken pipe into a clean end.
fn end_at_broken_pipe(result: Result<(), ExportError>) -> Result<(), ExportError> {
    match result {
        Err(ExportError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
