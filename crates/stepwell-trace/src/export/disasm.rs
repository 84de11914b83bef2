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
