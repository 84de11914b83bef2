//! Programs for Linux guests, written as words: neither a compiler nor a C library is needed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::guest::folder;
use crate::kernel_module::cpio;

/// Where a program is linked that [`of_words`] makes, and where its first instruction is.
pub const START: u64 = 0x40_1000;
const PAGE: u64 = 0x1000;
/// How far into its file that is.
const TEXT: usize = 0x1000;

/// An ELF of one segment, which may be read and executed.
#[must_use]
pub fn of_words(contents: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let halves = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    let words = |file: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    let longs = |file: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    // ET_EXEC, EM_AARCH64.
    halves(&mut file, &[2, 183]);
    words(&mut file, &[1]);
    longs(&mut file, &[START, 64, 0]);
    words(&mut file, &[0]);
    halves(&mut file, &[64, 56, 1, 64, 0, 0]);
    // PT_LOAD, readable and executable.
    words(&mut file, &[1, 5]);
    let bytes = contents.len() as u64;
    longs(&mut file, &[TEXT as u64, START, START, bytes, bytes, PAGE]);
    file.resize(TEXT, 0);
    file.extend(contents);
    file
}

/// Makes an initial file system that is Debian's with a program added, at `path` in the guest.
///
/// # Errors
/// When a file cannot be read or written.
pub fn install(root: &Path, path: &str, program: &[u8]) -> Result<PathBuf> {
    let mut archive = fs::read(folder().join("debian/initramfs.cpio.gz"))?;
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(cpio(path.trim_start_matches('/'), 0o100_755, program));
    let initramfs = root.join("initramfs");
    fs::write(&initramfs, archive)?;
    Ok(initramfs)
}
