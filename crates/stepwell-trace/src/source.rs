//! Where exporters get their records from.
//!
//! An exporter does not care whether it reads a whole recording, a part of it, or is watched by a
//! progress bar: all of these are a [`Source`]. One wraps another, and the innermost is a
//! [`Reader`].

use crate::code::CodePages;
use crate::error::Error;
use crate::format::{Header, Record};
use crate::reader::Reader;
use crate::symbols::Symbols;
use std::io::{Read, Seek};

/// A recording, or what somebody chose of one.
pub trait Source {
    /// Returns what the recording tells about itself.
    fn header(&self) -> &Header;

    /// Collects the code of the whole recording, whatever was chosen of its records.
    ///
    /// # Errors
    ///
    /// As [`Reader::code_pages`].
    fn code_pages(&mut self) -> Result<CodePages, Error>;

    /// Collects the symbols of the whole recording, whatever was chosen of its records.
    ///
    /// # Errors
    ///
    /// As [`Reader::symbols`].
    fn symbols(&mut self) -> Result<Symbols, Error>;

    /// Returns the next record; `Ok(None)` at the end, and ever after an error.
    ///
    /// # Errors
    ///
    /// As [`Reader::next_record`].
    fn next_record(&mut self) -> Result<Option<Record>, Error>;

    /// Returns how many instructions of the whole recording come before what comes after the
    /// record that was returned last. A run of `n` instructions thus began `n` before.
    fn position(&self) -> u64;

    /// Goes to the instruction that has `instruction` others before it, as [`Reader::seek`].
    ///
    /// # Errors
    ///
    /// As [`Reader::seek`].
    fn seek(&mut self, instruction: u64) -> Result<bool, Error>;
}

impl<R: Read + Seek> Source for Reader<R> {
    fn header(&self) -> &Header {
        self.header()
    }

    fn code_pages(&mut self) -> Result<CodePages, Error> {
        self.code_pages()
    }

    fn symbols(&mut self) -> Result<Symbols, Error> {
        self.symbols()
    }

    fn next_record(&mut self) -> Result<Option<Record>, Error> {
        self.next_record()
    }

    fn position(&self) -> u64 {
        self.position()
    }

    fn seek(&mut self, instruction: u64) -> Result<bool, Error> {
        self.seek(instruction)
    }
}

impl<S: Source + ?Sized> Source for &mut S {
    fn header(&self) -> &Header {
        (**self).header()
    }

    fn code_pages(&mut self) -> Result<CodePages, Error> {
        (**self).code_pages()
    }

    fn symbols(&mut self) -> Result<Symbols, Error> {
        (**self).symbols()
    }

    fn next_record(&mut self) -> Result<Option<Record>, Error> {
        (**self).next_record()
    }

    fn position(&self) -> u64 {
        (**self).position()
    }

    fn seek(&mut self, instruction: u64) -> Result<bool, Error> {
        (**self).seek(instruction)
    }
}
