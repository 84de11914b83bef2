//! The writing end of a recording.
//!
//! Records are collected into a chunk, and a chunk reaches the file in one piece. If the file
//! cannot take it (a full disk), what of it got there is cut off again, so that the recording
//! stays whole up to the chunk before.

use crate::error::Error;
use crate::format::{
    self, ChunkHeader, ChunkKind, Event, FLAG_ZSTD, Header, Known, Record, RecordEncoder, Totals,
};
use crate::symbols::Symbols;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use stepwell_arch::address::Va;

/// Unpacked size at which a chunk is full: some 200,000 runs.
const CHUNK_FULL: usize = 512 << 10;
/// Instructions at which it is full, too: what few bytes tell is bounded for who reads them.
const CHUNK_FULL_INSTRUCTIONS: u64 = format::CHUNK_INSTRUCTIONS_MAX / 2;
/// zstd's level: higher ones cost more time than the machine takes to make the steps.
const LEVEL: i32 = 3;

/// Writes a recording, chunk by chunk.
///
/// Dropping it writes what was collected but no `End`: the recording is then an unfinished one.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    /// A second handle of the file, to cut off a chunk that did not fit.
    file: Option<File>,
    records: RecordEncoder,
    /// What the records so far have told, for the chunks to begin with.
    known: Known,
    code: Vec<u8>,
    /// The run that may still grow.
    pending: Option<(u8, Va, u32)>,
    totals: Totals,
    /// Instructions in chunks already written.
    written_instructions: u64,
    done: bool,
}

impl Writer<File> {
    /// Creates the file at `path`, or empties it, and writes `header`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be created or written.
    pub fn create(path: impl AsRef<Path>, header: &Header) -> Result<Self, Error> {
        Self::over(File::create(path)?, header)
    }

    /// Creates the file at `path`, where there must be none, and writes `header`.
    ///
    /// # Errors
    ///
    /// As [`Writer::create`], and where there is something already.
    pub fn create_new(path: impl AsRef<Path>, header: &Header) -> Result<Self, Error> {
        Self::over(File::create_new(path)?, header)
    }

    fn over(out: File, header: &Header) -> Result<Self, Error> {
        // Devices and pipes cannot be cut; for them the reader finds a cut-off chunk.
        let file = if out.metadata()?.is_file() { Some(out.try_clone()?) } else { None };
        Self::start(out, file, header)
    }
}

impl<W: Write> Writer<W> {
    /// Starts a recording on anything that takes bytes; each chunk is one write.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the header cannot be written.
    pub fn new(out: W, header: &Header) -> Result<Self, Error> {
        Self::start(out, None, header)
    }

    fn start(out: W, file: Option<File>, header: &Header) -> Result<Self, Error> {
        let mut writer = Self {
            out,
            file,
            records: RecordEncoder::new(),
            known: Known::default(),
            code: Vec::new(),
            pending: None,
            totals: Totals::default(),
            written_instructions: 0,
            done: false,
        };
        writer.put(&format::preamble())?;
        writer.chunk(ChunkKind::Header, &header.encode(), 0)?;
        Ok(writer)
    }

    /// Records `length` instructions from `pc` on; runs that continue each other are joined.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a full chunk cannot be written.
    pub fn run(&mut self, vcpu: u8, pc: Va, length: u32) -> Result<(), Error> {
        let mut left = length;
        while left > 0 {
            let part = left.min(format::RUN_MAX);
            self.part(vcpu, pc.offset(u64::from(length - left) * 4), part)?;
            left -= part;
        }
        Ok(())
    }

    /// Records a run that is no longer than one may be.
    fn part(&mut self, vcpu: u8, pc: Va, length: u32) -> Result<(), Error> {
        self.totals.instructions += u64::from(length);
        if let Some((last_vcpu, start, count)) = &mut self.pending
            && *last_vcpu == vcpu
            && start.offset(u64::from(*count) * 4) == pc
            && let Some(sum) = count.checked_add(length).filter(|sum| *sum <= format::RUN_MAX)
        {
            *count = sum;
            return Ok(());
        }
        self.settle_run()?;
        self.pending = Some((vcpu, pc, length));
        Ok(())
    }

    /// Records anything.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a full chunk cannot be written.
    pub fn record(&mut self, record: &Record) -> Result<(), Error> {
        match record {
            Record::Run { vcpu, pc, length } => return self.run(*vcpu, *pc, *length),
            Record::Interrupt { vcpu, pc } => return self.interrupt(*vcpu, *pc),
            Record::Event(event) => return self.event(event),
            _ => {}
        }
        self.settle_run()?;
        self.totals.details += 1;
        self.begin_chunk();
        self.records.record(record);
        self.known.observe(record);
        self.flush_if_full()
    }

    /// Records that an interrupt was entered in place of the instruction at `pc`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a full chunk cannot be written.
    pub fn interrupt(&mut self, vcpu: u8, pc: Va) -> Result<(), Error> {
        self.settle_run()?;
        self.totals.interrupts += 1;
        self.begin_chunk();
        self.records.interrupt(vcpu, pc);
        self.flush_if_full()
    }

    /// Records an event; a note of more than 64 KiB is cut.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a full chunk cannot be written.
    pub fn event(&mut self, event: &Event) -> Result<(), Error> {
        const NOTE_MAX: usize = 64 << 10;
        self.settle_run()?;
        self.totals.events += 1;
        self.begin_chunk();
        match event {
            Event::Note(text) if text.len() > NOTE_MAX => {
                let end = text.floor_char_boundary(NOTE_MAX);
                self.records.event(&Event::Note(text[..end].into()));
            }
            event => self.records.event(event),
        }
        self.known.observe(&Record::Event(event.clone()));
        self.flush_if_full()
    }

    /// Adds a snapshot of executed code, usually one page of 4 KiB.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a full chunk cannot be written.
    pub fn code(&mut self, va: Va, bytes: &[u8]) -> Result<(), Error> {
        for (index, page) in bytes.chunks(crate::code::PAGE_SIZE as usize).enumerate() {
            let at = va.offset(index as u64 * crate::code::PAGE_SIZE);
            format::code_page(&mut self.code, at, page);
            self.flush_if_full()?;
        }
        Ok(())
    }

    /// Adds names, with the addresses that the guest runs at. May be called again when more is
    /// known, such as the KASLR offset: a reader sees all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if they cannot be written.
    pub fn symbols(&mut self, symbols: &Symbols) -> Result<(), Error> {
        for payload in format::encode_symbols(symbols) {
            self.chunk(ChunkKind::Symbols, &payload, 0)?;
        }
        Ok(())
    }

    /// Writes what was collected: it is safe from the end of this process from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written; what was written before stays readable.
    pub fn flush_chunk(&mut self) -> Result<(), Error> {
        self.take_pending();
        if !self.code.is_empty() {
            let code = std::mem::take(&mut self.code);
            self.chunk(ChunkKind::Code, &code, 0)?;
        }
        if !self.records.payload().is_empty() {
            let instructions = self.records.instructions();
            let records = std::mem::replace(&mut self.records, RecordEncoder::new());
            self.chunk(ChunkKind::Records, records.payload(), instructions)?;
            self.records = records;
            self.records.clear();
            self.written_instructions += instructions;
        }
        Ok(())
    }

    /// Returns what was recorded so far, written or not.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// Writes what is left and the `End`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written; what was written before stays readable.
    pub fn finish(mut self) -> Result<Totals, Error> {
        self.flush_chunk()?;
        let totals = self.totals;
        self.chunk(ChunkKind::End, &totals.encode(), 0)?;
        self.out.flush()?;
        self.done = true;
        Ok(totals)
    }

    fn settle_run(&mut self) -> Result<(), Error> {
        self.take_pending();
        self.flush_if_full()
    }

    fn take_pending(&mut self) {
        if let Some((vcpu, pc, length)) = self.pending.take() {
            self.totals.runs += 1;
            self.begin_chunk();
            self.records.run(vcpu, pc, length);
        }
    }

    /// Before the first record of a chunk: what a reader who begins with it has to know.
    fn begin_chunk(&mut self) {
        if self.records.payload().is_empty() {
            self.records.repeat(&self.known);
        }
    }

    fn flush_if_full(&mut self) -> Result<(), Error> {
        let is_full = self.records.payload().len() >= CHUNK_FULL
            || self.records.instructions() >= CHUNK_FULL_INSTRUCTIONS
            || self.code.len() >= CHUNK_FULL;
        if is_full {
            return self.flush_chunk();
        }
        Ok(())
    }

    fn chunk(&mut self, kind: ChunkKind, payload: &[u8], instructions: u64) -> Result<(), Error> {
        let packed = zstd::bulk::compress(payload, LEVEL)?;
        let header = ChunkHeader {
            kind,
            flags: FLAG_ZSTD,
            packed_length: chunk_length(&packed)?,
            unpacked_length: chunk_length(payload)?,
            first_instruction: self.written_instructions,
            instructions,
            payload_checksum: crc32fast::hash(&packed),
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&packed);
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.done {
            return Err(io::Error::other("an earlier write of this recording failed").into());
        }
        if let Err(error) = self.out.write_all(bytes) {
            self.done = true;
            if let Some(file) = &mut self.file {
                // If this fails too, the reader sees a cut-off chunk: nothing more is lost.
                let _ = file.set_len(self.totals.bytes);
                let _ = file.seek(SeekFrom::End(0));
            }
            return Err(error.into());
        }
        self.totals.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl<W: Write> Drop for Writer<W> {
    fn drop(&mut self) {
        if !self.done {
            // The way out of an error elsewhere: keep what can be kept.
            let _ = self.flush_chunk();
        }
    }
}

fn chunk_length(bytes: &[u8]) -> Result<u32, Error> {
    u32::try_from(bytes.len())
        .ok()
        .filter(|length| *length <= format::MAX_PAYLOAD)
        .ok_or_else(|| io::Error::other("a chunk grew beyond its limit").into())
}
