//! Exporter.
use super::ExportError;
use crate::reader::Reader;
use std::io::{Read, Seek, Write};
/// Writes it.
///
/// # Errors
///
/// [`ExportError`].
pub fn write<R: Read + Seek>(
    reader: &mut Reader<R>,
    output: impl Write,
) -> Result<(), ExportError> {
    super::pc::write(reader, output)
}
/// Writes the outline of records.
///
/// # Errors
///
/// [`ExportError`].
pub fn outline(
    _records: impl IntoIterator<Item = crate::Record>,
    _code: &crate::CodePages,
    _symbols: &crate::Symbols,
    _output: impl Write,
) -> Result<(), ExportError> {
    Ok(())
}
