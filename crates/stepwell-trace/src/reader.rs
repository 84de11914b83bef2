//! The reading end of a recording.
//!
//! Records are read in order, one chunk in memory at a time. Code and symbols may come after the
//! records that need them (they are fetched once the machine stopped), so they are collected by a
//! pass of their own, which looks at chunk headers and skips the rest.
//!
//! A damaged recording is read up to the damage, and then there is an error. Or, with
//! [`Reader::salvage`], what is damaged is skipped and told by [`Reader::damages`].

mod chunks;
mod seek;

use crate::code::CodePages;
use crate::error::Error;
use crate::format::{
    self, ChunkHeader, ChunkKind, Decoded, Header, MAJOR, PREAMBLE_LENGTH, Record, RecordDecoder,
    Totals,
};
use crate::symbols::{Symbol, Symbols};
use chunks::Chunks;
use seek::Index;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Most bytes of symbols that are kept of a recording, names included: ten kernels have less.
const SYMBOL_BYTES_MAX: usize = 96 << 20;
/// Most damages that are told one by one.
const DAMAGES_MAX: usize = 1000;
const MISCOUNTED: &str = "the chunk has another number of instructions than it says";

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

/// A part of a recording that could not be read and was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// What is wrong there.
    pub what: &'static str,
    /// Where reading went on; `None` if there was nothing more to be read.
    pub resumed_at: Option<u64>,
    /// How many instructions are missing; `None` if nothing tells.
    pub missing_instructions: Option<u64>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, what, resumed_at, missing_instructions } = self;
        write!(f, "damaged at byte {offset}: {what}; ")?;
        match missing_instructions {
            Some(missing) => write!(f, "{missing} instructions are missing, ")?,
            None => write!(f, "nothing tells how many instructions are missing, ")?,
        }
        match resumed_at {
            Some(resumed) => write!(f, "reading went on at byte {resumed}"),
            None => write!(f, "nothing after it could be read"),
        }
    }
}

/// Reads a recording, chunk by chunk.
#[derive(Debug)]
pub struct Reader<R: Read + Seek> {
    chunks: Chunks<R>,
    header: Header,
    /// The chunk that is being read.
    open: Option<Open>,
    /// Instructions before the next record.
    position: u64,
    /// Records that come before the next one of the chunk.
    queue: VecDeque<Record>,
    index: Index,
    ending: Option<Ending>,
    failed: bool,
    salvaging: bool,
    damages: Vec<Damage>,
    /// Where damage begins of which the cost is not known yet.
    gap: Option<u64>,
    /// Instructions were left out before the next chunk.
    has_skipped: bool,
}

/// A chunk of records.
#[derive(Debug)]
struct Open {
    decoder: RecordDecoder,
    /// Where the chunk begins.
    offset: u64,
    /// The position behind it.
    end: u64,
    /// What is only repeated is told, too: the chunks before were not read.
    tells_all: bool,
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

    /// Opens the recording at `path` to read what of it can be read.
    ///
    /// # Errors
    ///
    /// As [`Reader::salvage`].
    pub fn open_salvaging(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::salvage(BufReader::with_capacity(1 << 16, File::open(path)?))
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Starts reading a recording.
    ///
    /// # Errors
    ///
    /// [`Error::NotARecording`], [`Error::FutureVersion`], or what is wrong with its header.
    pub fn new(input: R) -> Result<Self, Error> {
        Self::start(input, false)
    }

    /// Starts reading what of a recording can be read: damaged chunks are skipped, and told by
    /// [`Reader::damages`].
    ///
    /// # Errors
    ///
    /// [`Error::NotARecording`] where there is not a single chunk, [`Error::FutureVersion`], and
    /// [`Error::Io`].
    pub fn salvage(input: R) -> Result<Self, Error> {
        Self::start(input, true)
    }

    fn start(mut input: R, salvaging: bool) -> Result<Self, Error> {
        let length = input.seek(SeekFrom::End(0))?;
        input.seek(SeekFrom::Start(0))?;
        let preamble = read_preamble(&mut input, length);
        let mut reader = Self {
            chunks: Chunks::new(input, length),
            header: Header::default(),
            open: None,
            position: 0,
            queue: VecDeque::new(),
            index: Index::default(),
            ending: None,
            failed: false,
            salvaging,
            damages: Vec::new(),
            gap: None,
            has_skipped: false,
        };
        match preamble {
            Ok(()) => {}
            Err(error @ (Error::Io(_) | Error::FutureVersion { .. })) => return Err(error),
            Err(error) if !salvaging || !reader.chunks.find(0)? => return Err(error),
            Err(error) => reader.note_damage_up_to(&error, reader.chunks.offset())?,
        }
        match reader.read_header() {
            Err(error) if salvaging && error.is_damage() => {
                let from = reader.chunks.offset().max(PREAMBLE_LENGTH as u64);
                reader.note_damage_up_to(&error, from)?;
            }
            result => result?,
        }
        Ok(reader)
    }

    fn read_header(&mut self) -> Result<(), Error> {
        let Some(chunk) = self.chunks.header()? else {
            return Err(Error::Truncated { offset: PREAMBLE_LENGTH as u64 });
        };
        if chunk.kind != ChunkKind::Header {
            let error = self.chunks.corrupt("the first chunk is not the header");
            // It may be a good one all the same.
            self.chunks.go_to(self.chunks.chunk_offset());
            return Err(error);
        }
        let payload = self.chunks.payload(&chunk)?;
        self.header = Header::decode(&payload)
            .ok_or_else(|| self.chunks.corrupt("the header makes no sense"))?;
        Ok(())
    }

    /// Returns what the recording tells about itself.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Returns how many instructions the recording has before the next record.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Returns how many bytes were read, and how many there are.
    #[must_use]
    pub const fn bytes(&self) -> (u64, u64) {
        (self.chunks.offset(), self.chunks.length())
    }

    /// Returns what was skipped so far, at most a thousand of it. Only one who salvages skips.
    #[must_use]
    pub fn damages(&self) -> &[Damage] {
        &self.damages
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
        loop {
            match self.advance() {
                Err(error) if self.salvaging && error.is_damage() => {
                    self.open = None;
                    if let Err(error) = self.note_damage(&error) {
                        self.failed = true;
                        return Err(error);
                    }
                }
                result => {
                    self.failed = result.is_err();
                    return result;
                }
            }
        }
    }

    /// Tells how the recording ends; `None` as long as [`Reader::next_record`] has not got there.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Collects the code of the whole recording, up to the first damage; all that is there, if
    /// this reader salvages.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub fn code_pages(&mut self) -> Result<CodePages, Error> {
        let mut pages = CodePages::default();
        self.scan(ChunkKind::Code, |payload| format::decode_code(payload, &mut pages))?;
        Ok(pages)
    }

    /// Collects the symbols of the whole recording, as [`Reader::code_pages`] does the code. Of
    /// more than 96 MiB the rest is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub fn symbols(&mut self) -> Result<Symbols, Error> {
        let mut found: Vec<Symbol> = Vec::new();
        let mut link_base = None;
        let mut bytes = 0;
        self.scan(ChunkKind::Symbols, |payload| {
            // A symbol in memory is larger than its bytes by the distance of a pointer or five.
            let before = found.len();
            let base = format::decode_symbols(payload, &mut found)?;
            link_base = link_base.or(base);
            bytes += payload.len() + (found.len() - before) * size_of::<Symbol>();
            (bytes < SYMBOL_BYTES_MAX).then_some(())
        })?;
        Ok(Symbols::new(found, link_base))
    }

    fn advance(&mut self) -> Result<Option<Record>, Error> {
        loop {
            let next = match self.queue.pop_front() {
                Some(record) => Some(record),
                None => self.next_of_chunk()?,
            };
            if let Some(record) = next {
                if let Record::Run { length, .. } = record {
                    self.position = self.position.saturating_add(u64::from(length));
                }
                return Ok(Some(record));
            }
            if self.ending.is_some() {
                return Ok(None);
            }
            let Some(chunk) = self.chunks.header()? else {
                self.ending = Some(Ending::Unfinished { offset: self.chunks.offset() });
                return Ok(None);
            };
            self.take_chunk(&chunk)?;
        }
    }

    fn take_chunk(&mut self, chunk: &ChunkHeader) -> Result<(), Error> {
        self.settle_missing(chunk);
        match chunk.kind {
            ChunkKind::Records => self.open_chunk(chunk),
            ChunkKind::End => {
                let totals = Totals::decode(&self.chunks.payload(chunk)?)
                    .ok_or_else(|| self.chunks.corrupt("the end makes no sense"))?;
                self.ending = Some(Ending::Finished(totals));
                Ok(())
            }
            _ => self.chunks.skip(chunk),
        }
    }

    fn open_chunk(&mut self, chunk: &ChunkHeader) -> Result<(), Error> {
        let payload = self.chunks.payload(chunk)?;
        if chunk.first_instruction != self.position {
            let what = "instructions are missing before this chunk";
            if !self.salvaging {
                return Err(self.chunks.corrupt(what));
            }
            let offset = self.chunks.chunk_offset();
            let missing_instructions = chunk.first_instruction.checked_sub(self.position);
            self.push_damage(Damage {
                offset,
                what,
                resumed_at: Some(offset),
                missing_instructions,
            });
            self.has_skipped = true;
        }
        let tells_all = std::mem::take(&mut self.has_skipped);
        self.open_at(chunk, payload, tells_all);
        Ok(())
    }

    fn open_at(&mut self, chunk: &ChunkHeader, payload: Vec<u8>, tells_all: bool) {
        self.position = chunk.first_instruction;
        self.open = Some(Open {
            decoder: RecordDecoder::new(payload),
            offset: self.chunks.chunk_offset(),
            end: chunk.first_instruction.saturating_add(chunk.instructions),
            tells_all,
        });
    }

    /// The next record of the chunk that is being read.
    fn next_of_chunk(&mut self) -> Result<Option<Record>, Error> {
        while let Some(open) = &mut self.open {
            let (offset, end) = (open.offset, open.end);
            match open.decoder.next_record() {
                Ok(Some(Decoded { repeated: true, .. })) if !open.tells_all => {}
                // Before anything is done for it: a few bytes may tell of very many.
                Ok(Some(Decoded { record: Record::Run { length, .. }, .. }))
                    if self.position.saturating_add(u64::from(length)) > end =>
                {
                    return Err(Error::Corrupt { offset, what: MISCOUNTED });
                }
                Ok(Some(Decoded { record, .. })) => return Ok(Some(record)),
                Ok(None) => {
                    self.open = None;
                    if self.position != end {
                        return Err(Error::Corrupt { offset, what: MISCOUNTED });
                    }
                }
                Err(what) => return Err(Error::Corrupt { offset, what }),
            }
        }
        Ok(None)
    }

    /// Remembers what cannot be read, and goes to the next chunk that can.
    fn note_damage(&mut self, error: &Error) -> Result<(), Error> {
        // A chunk whose payload is damaged ends where its header says, if that is one.
        let behind = self.chunks.offset().max(self.chunks.chunk_offset() + 1);
        self.note_damage_up_to(error, behind)
    }

    /// As [`Reader::note_damage`], where nothing before `from` can be read.
    fn note_damage_up_to(&mut self, error: &Error, from: u64) -> Result<(), Error> {
        let (offset, what) = match *error {
            Error::Truncated { offset } => (offset, "it is cut off"),
            Error::Corrupt { offset, what } => (offset, what),
            _ => (0, "no recording begins here"),
        };
        let found = self.chunks.find(from)?;
        self.gap = Some(offset);
        let resumed_at = found.then(|| self.chunks.offset());
        self.push_damage(Damage { offset, what, resumed_at, missing_instructions: None });
        Ok(())
    }

    /// The first chunk behind damage says how many instructions are missing.
    fn settle_missing(&mut self, chunk: &ChunkHeader) {
        if matches!(chunk.kind, ChunkKind::Unknown(_) | ChunkKind::Header) {
            return;
        }
        let Some(gap) = self.gap.take() else { return };
        let missing = chunk.first_instruction.checked_sub(self.position);
        if let Some(damage) = self.damages.iter_mut().rfind(|damage| damage.offset == gap) {
            damage.missing_instructions = missing;
        }
        self.has_skipped |= missing != Some(0);
        self.position = chunk.first_instruction;
    }

    fn push_damage(&mut self, damage: Damage) {
        // Who seeks may get here twice.
        let is_known = self.damages.iter().any(|known| known.offset == damage.offset);
        if !is_known && self.damages.len() < DAMAGES_MAX {
            self.damages.push(damage);
        }
    }

    /// Hands all payloads of one kind to `take`, until it answers `None` or the file is damaged,
    /// and goes back to where the reader was.
    fn scan(
        &mut self,
        kind: ChunkKind,
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), Error> {
        let before = self.chunks.offset();
        self.chunks.go_to(PREAMBLE_LENGTH as u64);
        let result = loop {
            match self.scan_chunk(kind, &mut take) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) if !error.is_damage() => break Err(error),
                // Who reads the records is told of it.
                Err(_) if !self.salvaging => break Ok(()),
                Err(_) => {
                    let from = self.chunks.offset().max(self.chunks.chunk_offset() + 1);
                    if let Err(error) = self.chunks.find(from) {
                        break Err(error);
                    }
                }
            }
        };
        self.chunks.go_to(before);
        result
    }

    /// Looks at one chunk; tells whether more are wanted.
    fn scan_chunk(
        &mut self,
        kind: ChunkKind,
        take: &mut impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<bool, Error> {
        let Some(chunk) = self.chunks.header()? else { return Ok(false) };
        if chunk.kind != kind {
            self.chunks.skip(&chunk)?;
            return Ok(true);
        }
        let payload = self.chunks.payload(&chunk)?;
        Ok(take(&payload).is_some())
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
