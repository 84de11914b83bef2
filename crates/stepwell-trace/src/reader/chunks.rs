//! Chunks of a recording, one after the other, and how to find the next one behind damage.

use crate::error::Error;
use crate::format::{
    CHUNK_HEADER_LENGTH, CHUNK_MAGIC, ChunkHeader, FLAG_ZSTD, MAX_PAYLOAD, PREAMBLE_LENGTH,
};
use std::io::{Read, Seek, SeekFrom};

/// How much is looked at in one go when the next chunk is searched for.
const WINDOW: usize = 64 << 10;

/// A place in a recording, between two chunks or behind a chunk's header.
#[derive(Debug)]
pub(super) struct Chunks<R: Read + Seek> {
    input: R,
    length: u64,
    /// Where the next chunk begins, or the payload of the one whose header was read.
    offset: u64,
    /// Where the chunk begins whose header was read last.
    chunk_offset: u64,
}

impl<R: Read + Seek> Chunks<R> {
    /// Takes a recording of `length` bytes.
    pub(super) const fn new(input: R, length: u64) -> Self {
        let offset = PREAMBLE_LENGTH as u64;
        Self { input, length, offset, chunk_offset: offset }
    }

    /// Returns the length of the recording in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Returns where the next chunk begins.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns where the chunk begins whose header was read last.
    pub(super) const fn chunk_offset(&self) -> u64 {
        self.chunk_offset
    }

    /// Goes to another chunk.
    pub(super) const fn go_to(&mut self, offset: u64) {
        (self.offset, self.chunk_offset) = (offset, offset);
    }

    /// Reads the header at `offset` and goes on to its payload; `None` at the end of the file.
    pub(super) fn header(&mut self) -> Result<Option<ChunkHeader>, Error> {
        self.chunk_offset = self.offset;
        if self.offset >= self.length {
            return Ok(None);
        }
        if self.length - self.offset < CHUNK_HEADER_LENGTH as u64 {
            return Err(Error::Truncated { offset: self.offset });
        }
        self.input.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = [0; CHUNK_HEADER_LENGTH];
        self.input.read_exact(&mut bytes)?;
        let header = ChunkHeader::decode(&bytes).map_err(|what| self.corrupt(what))?;
        self.offset += CHUNK_HEADER_LENGTH as u64;
        Ok(Some(header))
    }

    /// Reads and unpacks the payload behind the header that was just read.
    pub(super) fn payload(&mut self, chunk: &ChunkHeader) -> Result<Vec<u8>, Error> {
        self.skip(chunk)?;
        let mut packed = vec![0; chunk.packed_length as usize];
        self.input.read_exact(&mut packed)?;
        if crc32fast::hash(&packed) != chunk.payload_checksum {
            return Err(self.corrupt("the chunk's checksum is wrong"));
        }
        let payload = if chunk.flags & FLAG_ZSTD == 0 {
            packed
        } else {
            zstd::bulk::decompress(&packed, chunk.unpacked_length.min(MAX_PAYLOAD) as usize)
                .map_err(|_| self.corrupt("the chunk cannot be unpacked"))?
        };
        if payload.len() != chunk.unpacked_length as usize {
            return Err(self.corrupt("the chunk has another length than its header says"));
        }
        Ok(payload)
    }

    /// Moves `offset` behind the payload, if all of it is there; the input stays before it.
    pub(super) fn skip(&mut self, chunk: &ChunkHeader) -> Result<(), Error> {
        let end = self.offset + u64::from(chunk.packed_length);
        if end > self.length {
            return Err(Error::Truncated { offset: self.chunk_offset });
        }
        self.offset = end;
        Ok(())
    }

    /// An error about the chunk whose header was read last.
    pub(super) const fn corrupt(&self, what: &'static str) -> Error {
        Error::Corrupt { offset: self.chunk_offset, what }
    }

    /// Goes to the first whole chunk at or behind `from`, and tells whether there is one.
    ///
    /// Its magic and its header's checksum are right and its payload lies in the file: by chance
    /// that happens once in 2⁶⁴ places.
    pub(super) fn find(&mut self, from: u64) -> Result<bool, Error> {
        let mut at = from;
        let mut window = vec![0; WINDOW];
        while self.length.saturating_sub(at) >= CHUNK_HEADER_LENGTH as u64 {
            let here = (self.length - at).min(WINDOW as u64) as usize;
            self.input.seek(SeekFrom::Start(at))?;
            self.input.read_exact(&mut window[..here])?;
            let last = here - CHUNK_HEADER_LENGTH;
            for place in 0..=last {
                if window[place..].starts_with(&CHUNK_MAGIC)
                    && self.is_chunk(&window[place..], at + place as u64)
                {
                    self.go_to(at + place as u64);
                    return Ok(true);
                }
            }
            at += last as u64 + 1;
        }
        self.go_to(self.length);
        Ok(false)
    }

    fn is_chunk(&self, bytes: &[u8], at: u64) -> bool {
        let header = bytes.first_chunk().map(ChunkHeader::decode);
        let Some(Ok(header)) = header else { return false };
        let end = at + (CHUNK_HEADER_LENGTH as u64) + u64::from(header.packed_length);
        end <= self.length
    }
}
