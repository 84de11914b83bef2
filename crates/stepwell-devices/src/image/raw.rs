//! An image that is the disk, byte for byte.

use super::{Image, length};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The file.
pub(super) struct Raw {
    file: File,
    bytes: u64,
}

impl Raw {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let bytes = length(&file)?;
        Ok(Self { file, bytes })
    }
}

impl Image for Raw {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.file.write_all_at(from, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
