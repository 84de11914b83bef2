//! Exporters: a recording turned into something else. One file each.
//!
//! All of them take a [`Source`](crate::Source), which is a whole recording or what a
//! [`Filter`](crate::Filter) lets pass of one, and most stream: a record goes out before the next
//! is read. Whoever reads the output may stop at any time (`| head`): a broken pipe is an end like
//! any other. A damaged recording is exported up to the damage, and then the error is returned.

pub mod calls;
pub mod disasm;
pub mod flamegraph;
pub mod json;
pub mod lcov;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod pc;
pub mod perfetto;
pub mod streams;
pub mod tarmac;

use crate::disassemble::DisassemblerError;
use std::io;

/// An export did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording is damaged; what comes before it was exported.
    #[error(transparent)]
    Recording(#[from] crate::Error),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// The disassembler.
    #[error(transparent)]
    Disassembler(#[from] DisassemblerError),
    /// The ELF with the source lines.
    #[error(transparent)]
    Lines(#[from] lcov::LineError),
    /// The Parquet library: ours to fix, no recording can cause it.
    #[cfg(feature = "parquet")]
    #[error("the table cannot be written: {0}")]
    Table(::parquet::errors::ParquetError),
}

#[cfg(feature = "parquet")]
impl From<::parquet::errors::ParquetError> for ExportError {
    fn from(error: ::parquet::errors::ParquetError) -> Self {
        use ::parquet::errors::ParquetError;
        match error {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(error) => Self::Output(*error),
                Err(other) => Self::Table(ParquetError::External(other)),
            },
            other => Self::Table(other),
        }
    }
}

/// Turns a broken pipe into a clean end.
fn end_at_broken_pipe(result: Result<(), ExportError>) -> Result<(), ExportError> {
    match result {
        Err(ExportError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
