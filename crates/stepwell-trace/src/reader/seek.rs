//! Going to an instruction by its number.
//!
//! Chunk headers say which instructions a chunk has, so that the way there reads headers alone,
//! and the chunk that has the instruction. The headers that were read are kept, 24 bytes each.

use super::Reader;
use crate::error::Error;
use crate::format::{ChunkKind, Known, PREAMBLE_LENGTH, Record};
use std::io::{Read, Seek};

/// Where the chunks of records are, as far as that was asked for.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// Where the first chunk begins that was not looked at; 0 for the first of all.
    next: u64,
    /// There are no more.
    is_complete: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    end: u64,
}

impl Index {
    fn find(&self, instruction: u64) -> Option<u64> {
        let place = self.entries.partition_point(|entry| entry.end <= instruction);
        self.entries.get(place).map(|entry| entry.offset)
    }

    fn push(&mut self, offset: u64, end: u64) {
        let last = self.entries.last().map_or(0, |entry| entry.end);
        // Of a damaged recording; the search needs them in order.
        if end > last {
            self.entries.push(Entry { offset, end });
        }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Goes to the instruction that has `instruction` others before it, and tells whether there is
    /// one; if not, to the end. May go back.
    ///
    /// The next records are what is known to hold there ([`Record::Time`], [`Record::Context`] and
    /// [`Record::Register`]s that were found), and then a run that begins with the instruction.
    /// One who salvages may get a later instruction, if this one is missing.
    ///
    /// # Errors
    ///
    /// As [`Reader::next_record`], if there is damage before the instruction.
    pub fn seek(&mut self, instruction: u64) -> Result<bool, Error> {
        (self.failed, self.open, self.ending, self.gap) = (false, None, None, None);
        self.has_skipped = false;
        self.queue.clear();
        let result = self.go(instruction);
        match result {
            Err(error) if self.salvaging && error.is_damage() => {
                self.open = None;
                self.note_damage(&error)?;
                Ok(true)
            }
            result => {
                self.failed = result.is_err();
                result
            }
        }
    }

    fn go(&mut self, instruction: u64) -> Result<bool, Error> {
        let Some(offset) = self.chunk_of(instruction)? else {
            self.chunks.go_to(self.index.next);
            self.position = self.index.entries.last().map_or(0, |entry| entry.end);
            return Ok(false);
        };
        self.chunks.go_to(offset);
        let Some(chunk) = self.chunks.header()? else {
            return Err(Error::Truncated { offset });
        };
        let payload = self.chunks.payload(&chunk)?;
        self.open_at(&chunk, payload, true);
        if chunk.first_instruction > instruction && !self.salvaging {
            return Err(self.chunks.corrupt("instructions are missing before this chunk"));
        }
        self.skip_to(instruction)
    }

    /// Goes on within the chunk that was just opened.
    fn skip_to(&mut self, instruction: u64) -> Result<bool, Error> {
        let mut known = Known::default();
        while let Some(record) = self.next_of_chunk()? {
            let Record::Run { vcpu, pc, length } = record else {
                known.observe(&record);
                continue;
            };
            let skipped = instruction.saturating_sub(self.position);
            if skipped >= u64::from(length) {
                self.position += u64::from(length);
                continue;
            }
            self.position += skipped;
            let length = length - skipped as u32;
            self.queue.extend(known.records());
            self.queue.push_back(Record::Run { vcpu, pc: pc.offset(skipped * 4), length });
            return Ok(true);
        }
        let offset = self.chunks.chunk_offset();
        Err(Error::Corrupt { offset, what: "the chunk has fewer instructions than it says" })
    }

    /// Finds the first chunk that ends behind an instruction.
    fn chunk_of(&mut self, instruction: u64) -> Result<Option<u64>, Error> {
        loop {
            if let Some(offset) = self.index.find(instruction) {
                return Ok(Some(offset));
            }
            if self.index.is_complete {
                return Ok(None);
            }
            self.chunks.go_to(self.index.next.max(PREAMBLE_LENGTH as u64));
            match self.index_chunk() {
                Err(error) if self.salvaging && error.is_damage() => {
                    // It is told to who reads the records there.
                    let from = self.chunks.offset().max(self.chunks.chunk_offset() + 1);
                    self.chunks.find(from)?;
                }
                result => result?,
            }
            self.index.next = self.chunks.offset();
        }
    }

    fn index_chunk(&mut self) -> Result<(), Error> {
        let chunk = self.chunks.header()?;
        let offset = self.chunks.chunk_offset();
        match chunk {
            Some(chunk) if chunk.kind != ChunkKind::End => {
                self.chunks.skip(&chunk)?;
                if chunk.kind == ChunkKind::Records {
                    let end = chunk.first_instruction.saturating_add(chunk.instructions);
                    self.index.push(offset, end);
                }
            }
            // The reader is to find it.
            _ => {
                self.index.is_complete = true;
                self.chunks.go_to(offset);
            }
        }
        Ok(())
    }
}
