//! Runs of the trace: what is stepped, until a jump makes it a record of the ring.

use stepwell_wire::ring::{Encoder, MAX_RUN, Record};

/// Words that one instruction can add to the ring at most: the run that it ends, an interrupt.
pub const WORDS_PER_STEP: u64 = 4;

/// The current run of one vCPU.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    encoder: Encoder,
    start: u64,
    length: u16,
}

impl Recorder {
    /// Takes an instruction that begins to execute. Returns the record of the run that it did not
    /// lengthen.
    pub fn begin(&mut self, vcpu: u8, pc: u64) -> Option<Record> {
        if self.length > 0 && self.length < MAX_RUN && pc == self.next() {
            self.length += 1;
            return None;
        }
        let done = self.finish(vcpu);
        (self.start, self.length) = (pc, 1);
        done
    }

    /// Lengthens the run by what the fast path stepped.
    pub fn lengthen(&mut self, steps: u64) {
        let steps = u16::try_from(steps).unwrap_or(MAX_RUN);
        self.length = self.length.saturating_add(steps).min(MAX_RUN);
    }

    /// The PC that would lengthen the run.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.start.wrapping_add(4 * self.length as u64)
    }

    /// How much longer the run may get.
    #[must_use]
    pub const fn room(&self) -> u64 {
        (MAX_RUN - self.length) as u64
    }

    /// Ends the run and returns its record.
    pub fn finish(&mut self, vcpu: u8) -> Option<Record> {
        let length = core::mem::take(&mut self.length);
        (length > 0).then_some(Record::Run { vcpu, pc: self.start, length })
    }

    /// Forgets the last instruction begun: an interrupt was entered instead.
    pub fn take_back(&mut self) {
        self.length = self.length.saturating_sub(1);
    }

    /// The words of a record.
    pub fn encode(&mut self, record: Record) -> (u64, Option<u64>) {
        self.encoder.encode(record)
    }
}
