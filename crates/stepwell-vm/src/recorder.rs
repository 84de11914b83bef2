//! Runs of the trace: what is stepped, until a jump makes it a record of the ring. And what was
//! told last of the things that are told only when they change.

use stepwell_arch::{InstructionSet, Va};
use stepwell_protocol::TraceRecord;
use stepwell_wire::ring::{Encoder, MAX_RUN, Words};

/// X0 to X30, SP, PSTATE, in the order of the ring's register numbers.
pub const REGISTERS: usize = 33;

/// Words that can come into the ring between two looks at its room: all registers found (66),
/// those that one step changes (6), four accesses of 16 bytes (16), the run (2), clock and address
/// space (4), a return (2), the interrupt and the exception that come at the next boundary (8), and
/// the last run (2), rounded up.
pub const WORDS_PER_STEP: u64 = 128;

/// In which address space a vCPU executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressSpace {
    /// VMID of stage 2.
    pub vmid: u16,
    /// ASID of stage 1.
    pub asid: u16,
    /// Base address in TTBR0_EL1.
    pub ttbr0: u64,
}

/// The current run of one vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recorder {
    encoder: Encoder,
    start: u64,
    length: u16,
    space: Option<AddressSpace>,
    set: InstructionSet,
    time_ns: Option<u64>,
    registers: Option<[u64; REGISTERS]>,
}

impl Recorder {
    /// Takes an instruction that begins to execute. Returns the record of the run that it did not
    /// lengthen.
    pub fn begin(&mut self, vcpu: u8, pc: u64) -> Option<TraceRecord> {
        if self.lengthen(self.set, pc) {
            return None;
        }
        let done = self.finish(vcpu);
        (self.start, self.length) = (pc, 1);
        done
    }

    /// Takes an instruction that lengthens the run, and is of the set that it is of; tells whether it is
    /// one.
    #[inline]
    pub fn lengthen(&mut self, set: InstructionSet, pc: u64) -> bool {
        let lengthens =
            set == self.set && self.length > 0 && self.length < MAX_RUN && pc == self.next();
        self.length += u16::from(lengthens);
        lengthens
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
    pub fn finish(&mut self, vcpu: u8) -> Option<TraceRecord> {
        let length = core::mem::take(&mut self.length);
        let (pc, length) = (Va(self.start), u32::from(length));
        (length > 0).then_some(TraceRecord::Run { vcpu, pc, length })
    }

    /// Forgets the last instruction begun: an interrupt was entered instead.
    pub fn take_back(&mut self) {
        self.length = self.length.saturating_sub(1);
    }

    /// The words of a record.
    pub fn encode(&mut self, record: TraceRecord) -> Words {
        self.encoder.encode(record)
    }

    /// Forgets what was told: whoever reads from here on was not there.
    pub fn emit_all(&mut self) {
        (self.space, self.time_ns, self.registers) = (None, None, None);
        self.set = InstructionSet::A64;
    }

    /// Takes the address space, and tells whether it is another than before.
    pub fn is_new_space(&mut self, space: AddressSpace) -> bool {
        self.space.replace(space) != Some(space)
    }

    /// Takes the instruction set, and tells whether it is another than before. Whoever reads takes
    /// A64 for granted.
    pub fn is_new_set(&mut self, set: InstructionSet) -> bool {
        core::mem::replace(&mut self.set, set) != set
    }

    /// Takes the time, and returns it if it is another than before.
    pub fn has_passed(&mut self, ns: u64) -> Option<u64> {
        (self.time_ns.replace(ns) != Some(ns)).then_some(ns)
    }

    /// Takes one of the registers of `now`, and returns its value if it is another than before.
    pub fn has_changed(&mut self, register: u8, now: &[u64; REGISTERS]) -> Option<u64> {
        let value = *now.get(usize::from(register))?;
        let Some(last) = &mut self.registers else {
            // All of them are new, and this is the first one that is asked for.
            let mut others = *now;
            others.iter_mut().for_each(|other| *other = !*other);
            self.registers = Some(others);
            return self.has_changed(register, now);
        };
        let last = last.get_mut(usize::from(register))?;
        (core::mem::replace(last, value) != value).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(recorder: &mut Recorder, pcs: &[u64]) -> Vec<TraceRecord> {
        let mut records: Vec<_> = pcs.iter().filter_map(|&pc| recorder.begin(3, pc)).collect();
        records.extend(recorder.finish(3));
        records
    }

    #[test]
    fn a_jump_ends_a_run() {
        let records = take(&mut Recorder::default(), &[0x100, 0x104, 0x108, 0x200, 0x204]);
        let run = |pc, length| TraceRecord::Run { vcpu: 3, pc: Va(pc), length };
        assert_eq!(records, [run(0x100, 3), run(0x200, 2)]);
    }

    #[test]
    fn a_loop_of_one_instruction_is_a_run_each_time() {
        let run = TraceRecord::Run { vcpu: 3, pc: Va(0x100), length: 1 };
        assert_eq!(take(&mut Recorder::default(), &[0x100; 3]), [run; 3]);
    }

    #[test]
    fn a_run_is_no_longer_than_its_record_can_say() {
        let pcs: Vec<u64> = (0..70_000).map(|n| n * 4).collect();
        let records = take(&mut Recorder::default(), &pcs);
        let total: u64 = records
            .iter()
            .map(|record| match record {
                TraceRecord::Run { length, .. } => u64::from(*length),
                _ => 0,
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
        assert_eq!(
            recorder.finish(0),
            Some(TraceRecord::Run { vcpu: 0, pc: Va(0x100), length: 10 })
        );
    }

    #[test]
    fn registers_are_told_when_they_change() {
        let mut recorder = Recorder::default();
        let mut now = [7; REGISTERS];
        let told = |recorder: &mut Recorder, now: &[u64; REGISTERS]| {
            (0..REGISTERS as u8).filter(|&n| recorder.has_changed(n, now).is_some()).count()
        };
        assert_eq!(told(&mut recorder, &now), REGISTERS);
        assert_eq!(told(&mut recorder, &now), 0);
        now[31] = 8;
        assert_eq!(recorder.has_changed(31, &now), Some(8));
        assert_eq!(told(&mut recorder, &now), 0);
        recorder.emit_all();
        assert_eq!(told(&mut recorder, &now), REGISTERS);
    }

    #[test]
    fn a64_goes_without_saying() {
        let mut recorder = Recorder::default();
        let sets =
            [InstructionSet::A64, InstructionSet::T32, InstructionSet::T32, InstructionSet::A64];
        assert_eq!(sets.map(|set| recorder.is_new_set(set)), [false, true, false, true]);
        assert!(recorder.is_new_set(InstructionSet::A32));
        recorder.emit_all();
        assert!(recorder.is_new_set(InstructionSet::A32));
    }

    #[test]
    fn only_what_follows_in_the_same_set_lengthens_a_run() {
        let mut recorder = Recorder::default();
        assert!(!recorder.lengthen(InstructionSet::A64, 0), "there is none");
        assert_eq!(recorder.begin(0, 0x100), None);
        assert!(!recorder.lengthen(InstructionSet::T32, 0x104));
        assert!(!recorder.lengthen(InstructionSet::A64, 0x108));
        assert!(recorder.lengthen(InstructionSet::A64, 0x104));
        let run = TraceRecord::Run { vcpu: 0, pc: Va(0x100), length: 2 };
        assert_eq!(recorder.finish(0), Some(run));
    }

    #[test]
    fn an_instruction_that_did_not_execute_is_taken_back() {
        let mut recorder = Recorder::default();
        assert_eq!(recorder.begin(0, 0x100), None);
        recorder.take_back();
        assert_eq!(recorder.finish(0), None);
    }
}
