//! The trace ring, mapped from the machine's RAM file.
//!
//! Layout and protocol are [`stepwell_wire::ring`]'s: the hypervisor publishes words by a release
//! store of `head`, and we free them by a release store of `tail`. The other side is another
//! process's guest, so its words are never taken for more than numbers: the capacity is read once
//! and held against the mapping, and `head` can claim no more than the capacity.

use crate::RingError;
use crate::shared::SharedMemory;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use stepwell_protocol::TraceRecord;
use stepwell_wire::VERSION;
use stepwell_wire::ring::{
    Decoder, HEADER_BYTES, MAGIC, OFFSET_CAPACITY, OFFSET_HEAD, OFFSET_MAGIC, OFFSET_TAIL,
    OFFSET_VERSION,
};

const WORD: u64 = 8;

/// The tool's side of the trace ring.
pub struct Ring {
    words: SharedMemory,
    capacity: u64,
    decoder: Decoder,
}

impl Ring {
    /// Maps the ring that lies `offset` bytes into `ram`, of `bytes` bytes.
    ///
    /// # Errors
    ///
    /// [`RingError::Map`] where it cannot be mapped, [`RingError::Absent`] and
    /// [`RingError::Header`] where the hypervisor has not made one there.
    pub fn map(ram: &File, offset: u64, bytes: u64) -> Result<Self, RingError> {
        let failed = |error| RingError::Map(Arc::new(error));
        if bytes < HEADER_BYTES + WORD {
            return Err(failed(std::io::Error::other(format!("{bytes} bytes are no ring"))));
        }
        let words = SharedMemory::map(ram, offset, bytes).map_err(failed)?;
        let load = |offset| words.at(offset).load(Ordering::Acquire);
        let (magic, version) = (load(OFFSET_MAGIC), load(OFFSET_VERSION));
        if magic != MAGIC || version != u64::from(VERSION) {
            return Err(RingError::Absent { magic, version });
        }
        let (head, tail, capacity) = (load(OFFSET_HEAD), load(OFFSET_TAIL), load(OFFSET_CAPACITY));
        if capacity == 0 || capacity > (words.bytes() - HEADER_BYTES) / WORD {
            return Err(RingError::Header { head, tail, capacity });
        }
        Ok(Self { words, capacity, decoder: Decoder::default() })
    }

    /// Appends what was written since the last call to `records`, and frees its room.
    ///
    /// # Errors
    ///
    /// [`RingError::Header`] or [`RingError::Record`] for contents that no hypervisor writes.
    pub fn drain(&mut self, records: &mut Vec<TraceRecord>) -> Result<(), RingError> {
        let head = self.words.at(OFFSET_HEAD).load(Ordering::Acquire);
        let tail = self.words.at(OFFSET_TAIL).load(Ordering::Relaxed);
        let capacity = self.capacity;
        match head.checked_sub(tail) {
            Some(waiting) if waiting <= capacity => {}
            _ => return Err(RingError::Header { head, tail, capacity }),
        }
        for count in tail..head {
            let word = self.words.at(HEADER_BYTES + count % capacity * WORD);
            records.extend(self.decoder.push(word.load(Ordering::Relaxed))?);
        }
        self.words.at(OFFSET_TAIL).store(head, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use stepwell_arch::Va;
    use stepwell_wire::ring::Encoder;

    const OFFSET: u64 = 8192;
    const CAPACITY: u64 = 5;
    const BYTES: u64 = HEADER_BYTES + CAPACITY * WORD;

    /// The hypervisor's side, by plain writes to the file.
    struct Writer {
        file: File,
        encoder: Encoder,
        head: u64,
    }

    impl Writer {
        fn new() -> Self {
            let file = tempfile::tempfile().unwrap();
            file.set_len(OFFSET + BYTES).unwrap();
            let writer = Self { file, encoder: Encoder::default(), head: 0 };
            writer.word(OFFSET_MAGIC, MAGIC);
            writer.word(OFFSET_VERSION, u64::from(VERSION));
            writer.word(OFFSET_CAPACITY, CAPACITY);
            writer
        }

        fn word(&self, offset: u64, word: u64) {
            self.file.write_all_at(&word.to_le_bytes(), OFFSET + offset).unwrap();
        }

        fn push(&mut self, record: TraceRecord) {
            for word in self.encoder.encode(record) {
                self.word(HEADER_BYTES + self.head % CAPACITY * WORD, word);
                self.head += 1;
            }
            self.word(OFFSET_HEAD, self.head);
        }

        fn map(&self) -> Result<Ring, RingError> {
            Ring::map(&self.file, OFFSET, BYTES)
        }
    }

    fn run(pc: u64) -> TraceRecord {
        TraceRecord::Run { vcpu: 0, pc: Va(pc), length: 3 }
    }

    #[test]
    fn records_come_out_as_they_went_in_many_times_around() {
        let mut writer = Writer::new();
        let mut ring = writer.map().unwrap();
        for turn in 0..50 {
            let sent =
                [run(0x4000_0000 + turn * 64), TraceRecord::Interrupt { vcpu: 0, pc: Va(turn) }];
            sent.iter().for_each(|&record| writer.push(record));
            let mut got = Vec::new();
            ring.drain(&mut got).unwrap();
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_ring_that_was_never_made_is_refused() {
        let writer = Writer::new();
        writer.word(OFFSET_MAGIC, 0);
        assert!(matches!(writer.map(), Err(RingError::Absent { magic: 0, .. })));
    }

    #[test]
    fn a_capacity_beyond_the_mapping_is_refused() {
        let writer = Writer::new();
        writer.word(OFFSET_CAPACITY, CAPACITY + 1);
        assert!(matches!(writer.map(), Err(RingError::Header { .. })));
    }

    #[test]
    fn a_head_that_claims_too_much_is_an_error() {
        for head in [CAPACITY + 1, u64::MAX] {
            let writer = Writer::new();
            let mut ring = writer.map().unwrap();
            writer.word(OFFSET_HEAD, head);
            assert!(matches!(ring.drain(&mut Vec::new()), Err(RingError::Header { .. })));
        }
    }

    #[test]
    fn an_unknown_record_is_an_error() {
        let writer = Writer::new();
        let mut ring = writer.map().unwrap();
        writer.word(HEADER_BYTES, u64::MAX);
        writer.word(OFFSET_HEAD, 1);
        assert!(matches!(ring.drain(&mut Vec::new()), Err(RingError::Record(_))));
    }

    #[test]
    fn a_ring_outside_the_file_is_refused() {
        let writer = Writer::new();
        assert!(matches!(Ring::map(&writer.file, OFFSET, BYTES + 8), Err(RingError::Map(_))));
    }
}
