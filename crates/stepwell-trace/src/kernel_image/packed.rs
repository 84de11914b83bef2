//! Kernels that come packed: gzip, and the EFI zboot wrapping of newer distributions.

use super::{KernelError, UNPACKED_MAX, u32_at};
use std::io::Read;

/// Tells whether the file is an EFI zboot image.
pub(super) fn is_zboot(file: &[u8]) -> bool {
    file.starts_with(b"MZ") && file.get(4..8) == Some(b"zimg")
}

/// Returns what an EFI zboot image carries.
///
/// Its header holds the payload's offset and size (32 bits each, at 8 and 12) and the packing's
/// name (at 24, zero-terminated).
pub(super) fn unpack_zboot(file: &[u8]) -> Result<Vec<u8>, KernelError> {
    let found = file.len() as u64;
    let field = |at| u32_at(file, at).ok_or(KernelError::Truncated { expected: 64, found });
    let (offset, size) = (field(8)?, field(12)?);
    let expected = u64::from(offset) + u64::from(size);
    let payload = file
        .get(offset as usize..expected as usize)
        .ok_or(KernelError::Truncated { expected, found })?;
    let name = file.get(24..56).unwrap_or(&[]);
    match name.split(|byte| *byte == 0).next().unwrap_or(&[]) {
        b"gzip" => gunzip(payload),
        b"zstd" | b"zstd22" => {
            let decoder = zstd::stream::Decoder::new(payload).map_err(unpacking)?;
            read_bounded(decoder)
        }
        b"lzma" => Err(KernelError::UnknownPacking("lzma")),
        b"lzo" => Err(KernelError::UnknownPacking("lzo")),
        b"lz4" => Err(KernelError::UnknownPacking("lz4")),
        b"xzkern" => Err(KernelError::UnknownPacking("xz")),
        _ => Err(KernelError::UnknownPacking("something unknown")),
    }
}

/// Unpacks gzip; what follows the packed data is ignored, as boot loaders do.
pub(super) fn gunzip(packed: &[u8]) -> Result<Vec<u8>, KernelError> {
    read_bounded(flate2::read::GzDecoder::new(packed))
}

fn read_bounded(unpacker: impl Read) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    unpacker.take(UNPACKED_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unpacking)?;
    if bytes.len() > UNPACKED_MAX {
        return Err(KernelError::Unpacking("it grows beyond 512 MiB".into()));
    }
    Ok(bytes)
}

fn unpacking(error: std::io::Error) -> KernelError {
    KernelError::Unpacking(error.to_string())
}
