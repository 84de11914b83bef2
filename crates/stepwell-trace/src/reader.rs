//! The reading end of a recording.
//!
//! Records are read in order, one chunk in memory at a time. Code and symbols may stand after the
//! records that need them (they are fetched once the machine stopped), so they are collected by a
//! pass of their own, which looks at chunk headers and skips the rest.

use crate::code::CodePages;
use crate::error::Error;
use crate::format::{
    self, CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind, FLAG_ZSTD, Header, MAJOR, PREAMBLE_LENGTH,
    Record, RecordDecoder, Totals,
};
use crate::symbols::{Symbol, Symbols};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Most symbols that are kept of a recording.
const SYMBOLS_MAX: usize = 8 << 20;

/// How a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was finished.
    Finished(Totals),
    /// The one who recorded was ended in the middle; everything before `offset` is there.
    Unfinished {
        /// Where the next chunk would begin, in bytes from the start of the file.
        offset: u64,
    },
}

/// Reads a recording, chunk by chunk.
#[derive(Debug)]
pub struct Reader<R: Read + Seek> {
    input: R,
    length: u64,
    header: Header,
    /// Where the next chunk begins.
    offset: u64,
    /// Where the chunk of `decoder` begins.
    chunk_offset: u64,
    decoder: Option<RecordDecoder>,
    ending: Option<Ending>,
    failed: bool,
}

impl Reader<BufReader<File>> {
    /// Opens the recording at `path`.
    ///
    /// # Errors
    ///
    /// As [`Reader::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::new(BufReader::with_capacity(1 << 16, File::open(path)?))
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Starts reading a recording.
    ///
    /// # Errors
    ///
    /// [`Error::NotARecording`], [`Error::FutureVersion`], or what is wrong with its header.
    pub fn new(mut input: R) -> Result<Self, Error> {
        let length = input.seek(SeekFrom::End(0))?;
        input.seek(SeekFrom::Start(0))?;
        read_preamble(&mut input, length)?;
        let mut reader = Self {
            input,
            length,
            header: Header::default(),
            offset: PREAMBLE_LENGTH as u64,
            chunk_offset: PREAMBLE_LENGTH as u64,
            decoder: None,
            ending: None,
            failed: false,
        };
        let Some(chunk) = reader.chunk_header()? else {
            return Err(Error::Truncated { offset: PREAMBLE_LENGTH as u64 });
        };
        if chunk.kind != ChunkKind::Header {
            return Err(reader.corrupt("the first chunk is not the header"));
        }
        let payload = reader.payload(&chunk)?;
        reader.header =
            Header::decode(&payload).ok_or_else(|| reader.corrupt("the header makes no sense"))?;
        Ok(reader)
    }

    /// Returns what the recording tells about itself.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the next record; `Ok(None)` at the end, and ever after an error.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] or [`Error::Corrupt`] once everything before the damage was returned.
    pub fn next_record(&mut self) -> Result<Option<Record>, Error> {
        if self.failed {
            return Ok(None);
        }
        let result = self.advance();
        self.failed = result.is_err();
        result
    }

    /// Tells how the recording ends; `None` as long as [`Reader::next_record`] has not got there.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Collects the code of the whole recording, up to the first damage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub fn code_pages(&mut self) -> Result<CodePages, Error> {
        let mut pages = CodePages::default();
        self.scan(ChunkKind::Code, |payload| format::decode_code(payload, &mut pages))?;
        Ok(pages)
    }

    /// Collects the symbols of the whole recording, up to the first damage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub fn symbols(&mut self) -> Result<Symbols, Error> {
        let mut found: Vec<Symbol> = Vec::new();
        let mut link_base = None;
        self.scan(ChunkKind::Symbols, |payload| {
            let base = format::decode_symbols(payload, &mut found)?;
            link_base = link_base.or(base);
            (found.len() < SYMBOLS_MAX).then_some(())
        })?;
        Ok(Symbols::new(found, link_base))
    }

    fn advance(&mut self) -> Result<Option<Record>, Error> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                match decoder.next_record() {
                    Ok(Some(record)) => return Ok(Some(record)),
                    Ok(None) => self.decoder = None,
                    Err(what) => return Err(self.corrupt(what)),
                }
            }
            if self.ending.is_some() {
                return Ok(None);
            }
            let Some(chunk) = self.chunk_header()? else {
                self.ending = Some(Ending::Unfinished { offset: self.offset });
                return Ok(None);
            };
            match chunk.kind {
                ChunkKind::Records => {
                    self.decoder = Some(RecordDecoder::new(self.payload(&chunk)?));
                }
                ChunkKind::End => {
                    let totals = Totals::decode(&self.payload(&chunk)?)
                        .ok_or_else(|| self.corrupt("the end makes no sense"))?;
                    self.ending = Some(Ending::Finished(totals));
                }
                _ => self.skip(&chunk)?,
            }
        }
    }

    /// Hands all payloads of one kind to `take`, until it answers `None` or the file is damaged,
    /// and goes back to where the reader was.
    fn scan(
        &mut self,
        kind: ChunkKind,
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), Error> {
        let before = (self.offset, self.chunk_offset);
        self.offset = PREAMBLE_LENGTH as u64;
        let result = loop {
            match self.scan_chunk(kind) {
                Ok(Some(Some(payload))) => {
                    if take(&payload).is_none() {
                        break Ok(());
                    }
                }
                Ok(Some(None)) => {}
                Ok(None) | Err(Error::Truncated { .. } | Error::Corrupt { .. }) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (self.offset, self.chunk_offset) = before;
        result
    }

    fn scan_chunk(&mut self, kind: ChunkKind) -> Result<Option<Option<Vec<u8>>>, Error> {
        let Some(chunk) = self.chunk_header()? else { return Ok(None) };
        if chunk.kind == kind {
            return self.payload(&chunk).map(Some).map(Some);
        }
        self.skip(&chunk)?;
        Ok(Some(None))
    }

    /// Reads the header at `offset` and goes on to its payload; `None` at the end of the file.
    fn chunk_header(&mut self) -> Result<Option<ChunkHeader>, Error> {
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

    fn payload(&mut self, chunk: &ChunkHeader) -> Result<Vec<u8>, Error> {
        self.skip(chunk)?;
        let mut packed = vec![0; chunk.packed_length as usize];
        self.input.read_exact(&mut packed)?;
        if crc32fast::hash(&packed) != chunk.payload_checksum {
            return Err(self.corrupt("the chunk's checksum is wrong"));
        }
        if chunk.flags & FLAG_ZSTD == 0 {
            return Ok(packed);
        }
        zstd::bulk::decompress(&packed, chunk.unpacked_length as usize)
            .map_err(|_| self.corrupt("the chunk cannot be unpacked"))
    }

    /// Moves `offset` behind the payload, if all of it is there; the input stays before it.
    fn skip(&mut self, chunk: &ChunkHeader) -> Result<(), Error> {
        let end = self.offset + u64::from(chunk.packed_length);
        if end > self.length {
            return Err(Error::Truncated { offset: self.chunk_offset });
        }
        self.offset = end;
        Ok(())
    }

    const fn corrupt(&self, what: &'static str) -> Error {
        Error::Corrupt { offset: self.chunk_offset, what }
    }
}

fn read_preamble(input: &mut impl Read, length: u64) -> Result<(), Error> {
    let mut bytes = [0; PREAMBLE_LENGTH];
    let have = length.min(PREAMBLE_LENGTH as u64) as usize;
    input.read_exact(&mut bytes[..have])?;
    let magic = have.min(format::MAGIC.len());
    if have == 0 || bytes[..magic] != format::MAGIC[..magic] {
        return Err(Error::NotARecording);
    }
    if have < PREAMBLE_LENGTH {
        return Err(Error::Truncated { offset: 0 });
    }
    let checksum = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    if crc32fast::hash(&bytes[..12]) != checksum {
        return Err(Error::Corrupt { offset: 0, what: "the preamble's checksum is wrong" });
    }
    let found = u16::from_le_bytes([bytes[8], bytes[9]]);
    if found > MAJOR {
        return Err(Error::FutureVersion { found, ours: MAJOR });
    }
    Ok(())
}
