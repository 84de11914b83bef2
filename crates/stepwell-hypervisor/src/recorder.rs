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

    /// The run as the fast path takes it over: its first PC, and the one that would lengthen it.
    #[must_use]
    pub const fn run(&self) -> (u64, u64) {
        (self.start, self.next())
    }

    /// Takes the run back from the fast path, which has written those before it.
    pub fn resume(&mut self, start: u64, next: u64) {
        self.start = start;
        self.length = u16::try_from(next.wrapping_sub(start) / 4).unwrap_or(MAX_RUN).min(MAX_RUN);
    }

    /// The full PC that near records build on, once there is one.
    #[must_use]
    pub const fn base(&self) -> Option<u64> {
        self.encoder.base()
    }

    const fn next(&self) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn take(recorder: &mut Recorder, pcs: &[u64]) -> Vec<Record> {
        let mut records: Vec<_> = pcs.iter().filter_map(|&pc| recorder.begin(3, pc)).collect();
        records.extend(recorder.finish(3));
        records
    }

    #[test]
    fn a_jump_ends_a_run() {
        let records = take(&mut Recorder::default(), &[0x100, 0x104, 0x108, 0x200, 0x204]);
        let run = |pc, length| Record::Run { vcpu: 3, pc, length };
        assert_eq!(records, [run(0x100, 3), run(0x200, 2)]);
    }

    #[test]
    fn a_loop_of_one_instruction_is_a_run_each_time() {
        let run = Record::Run { vcpu: 3, pc: 0x100, length: 1 };
        assert_eq!(take(&mut Recorder::default(), &[0x100; 3]), [run; 3]);
    }

    #[test]
    fn a_run_is_no_longer_than_its_record_can_say() {
        let pcs: Vec<u64> = (0..70_000).map(|n| n * 4).collect();
        let records = take(&mut Recorder::default(), &pcs);
        let total: u64 = records
            .iter()
            .map(|record| match record {
                Record::Run { length, .. } => u64::from(*length),
                Record::Interrupt { .. } => 0,
            })
            .sum();
        assert_eq!((records.len(), total), (3, 70_000));
    }

    #[test]
    fn what_the_fast_path_stepped_counts() {
        let mut recorder = Recorder::default();
        assert_eq!(recorder.begin(0, 0x100), None);
        assert_eq!(recorder.run(), (0x100, 0x104));
        recorder.resume(0x100, 0x128);
        assert_eq!(recorder.finish(0), Some(Record::Run { vcpu: 0, pc: 0x100, length: 10 }));
    }

    #[test]
    fn an_instruction_that_did_not_execute_is_taken_back() {
        let mut recorder = Recorder::default();
        assert_eq!(recorder.begin(0, 0x100), None);
        recorder.take_back();
        assert_eq!(recorder.finish(0), None);
    }
}
