//! An image that is the disk, byte for byte.

use super::{Image, length};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
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

    fn next_data(&self, offset: u64) -> Option<u64> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Some(data),
            Err(Errno::NXIO) => None,
            // It has no holes that could be told.
            Err(_) => Some(offset),
        }
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
