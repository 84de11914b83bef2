//! Records as bytes: what a `Records` payload holds before zstd packs it.
//!
//! A run is its length and the distance from where the last run of its vCPU ended to where it
//! begins. A direct branch has the same distance each time it is taken, so loops become repeated
//! bytes, which zstd packs to nearly nothing; absolute addresses would do the same for loops but
//! worse for code that runs once.
//!
//! | first integer | meaning | then |
//! | --- | --- | --- |
//! | `length << 1` | run, on the current vCPU | distance / 4 (signed) |
//! | 1 | the current vCPU changes | vCPU |
//! | 3 | interrupt | distance (signed) |
//! | 5 | privileged call | distance (signed), immediate |
//! | 7 | note | length, bytes |
//! | 9 | run at a PC that is no multiple of 4 from the last | distance (signed), length |
//! | 11 | exception entry | length; cause, return address (distance), vector (distance), ESR_EL1, INTID + 1 or 0 |
//! | 13 | exception return | length; target (distance), EL |
//! | 15 | store-exclusive | length; PC (distance), 1 if it stored |
//! | 17 | context | length; EL, VMID, ASID, TTBR0_EL1's address |
//! | 19 | time | length; nanoseconds (from the last) |
//! | 21 | register | length; number (bit 7: found, not changed), value (from the register's last) |
//! | 23 | memory | length; access (bit 7: no value), size, address (from the last), value's low and high half |
//! | 25 | state from the chunks before is repeated | length; how many of the records that follow are that |
//! | 27 | others' turns | length; why, PC (distance), instructions of the others |
//! | 29 | instruction set | length; 0 A64, 1 A32, 2 T32 |
//! | 31 | task | length; PID, process, its name with its length |
//! | 33 and up, odd | of a later version | length, bytes: skipped |
//!
//! Causes, ELs, register numbers and accesses are single bytes, all else are variable-length
//! integers. What an operation has behind the fields named here is skipped.
//!
//! Distances and the current vCPU start at 0 in each chunk, so that a chunk decodes alone. Those
//! of operations are signed, in bytes, and from where the vCPU's last run ended; they are not what
//! the next one is counted from.

use super::details::{self, Last};
use super::varint::{self, Cursor, unzigzag, zigzag};
use super::{Event, Known, RUN_MAX, Record};
use stepwell_arch::address::Va;

const SWITCH: u64 = 1;
const INTERRUPT: u64 = 3;
const PRIVILEGED_CALL: u64 = 5;
const NOTE: u64 = 7;
const ODD_RUN: u64 = 9;

/// Where each vCPU is expected next, on both sides.
#[derive(Clone, Debug)]
struct Places {
    vcpu: u8,
    expected: [u64; 256],
}

impl Places {
    const fn new() -> Self {
        Self { vcpu: 0, expected: [0; 256] }
    }

    fn here(&mut self) -> &mut u64 {
        &mut self.expected[usize::from(self.vcpu)]
    }

    fn distance_to(&mut self, pc: Va) -> i64 {
        pc.0.wrapping_sub(*self.here()) as i64
    }

    fn after(&mut self, distance: i64) -> Va {
        Va(self.here().wrapping_add(distance as u64))
    }

    fn ran(&mut self, pc: Va, length: u32) {
        *self.here() = pc.0.wrapping_add(u64::from(length) * 4);
    }
}

/// Collects the payload of one `Records` chunk.
#[derive(Clone, Debug)]
pub(crate) struct RecordEncoder {
    places: Places,
    last: Last,
    fields: Vec<u8>,
    bytes: Vec<u8>,
    instructions: u64,
}

impl RecordEncoder {
    /// Returns an encoder for a new chunk.
    pub(crate) fn new() -> Self {
        Self {
            places: Places::new(),
            last: Last::default(),
            fields: Vec::new(),
            bytes: Vec::new(),
            instructions: 0,
        }
    }

    /// Returns the payload so far.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the instructions in the payload so far.
    pub(crate) const fn instructions(&self) -> u64 {
        self.instructions
    }

    /// Starts the next chunk and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.places = Places::new();
        self.last = Last::default();
        self.bytes.clear();
        self.instructions = 0;
    }

    /// Appends a record.
    pub(crate) fn record(&mut self, record: &Record) {
        match record {
            Record::Run { vcpu, pc, length } => self.run(*vcpu, *pc, *length),
            Record::Interrupt { vcpu, pc } => self.interrupt(*vcpu, *pc),
            Record::Event(event) => self.event(event),
            Record::ExceptionEntry(entry) => self.detail(entry.vcpu, record),
            Record::Context(context) => self.detail(context.vcpu, record),
            Record::Memory(memory) => self.detail(memory.vcpu, record),
            Record::ExceptionReturn { vcpu, .. }
            | Record::Exclusive { vcpu, .. }
            | Record::Turns { vcpu, .. }
            | Record::InstructionSet { vcpu, .. }
            | Record::Register { vcpu, .. } => self.detail(*vcpu, record),
            Record::Time { .. } => self.detail(self.places.vcpu, record),
        }
    }

    /// Begins a chunk with what the ones before have told.
    pub(crate) fn repeat(&mut self, known: &Known) {
        let count = known.records().count();
        if count == 0 {
            return;
        }
        let mut fields = Vec::new();
        varint::put(&mut fields, count as u64);
        varint::put(&mut self.bytes, details::REPEATED);
        varint::put_bytes(&mut self.bytes, &fields);
        known.records().for_each(|record| self.record(&record));
    }

    fn detail(&mut self, vcpu: u8, record: &Record) {
        self.switch(vcpu);
        self.fields.clear();
        let expected = *self.places.here();
        let operation = details::encode(record, expected, &mut self.last, &mut self.fields);
        if let Some(operation) = operation {
            varint::put(&mut self.bytes, operation);
            varint::put_bytes(&mut self.bytes, &self.fields);
        }
    }

    /// Appends a run of `length` instructions.
    pub(crate) fn run(&mut self, vcpu: u8, pc: Va, length: u32) {
        self.switch(vcpu);
        let distance = self.places.distance_to(pc);
        if distance & 3 == 0 {
            varint::put(&mut self.bytes, u64::from(length) << 1);
            varint::put(&mut self.bytes, zigzag(distance >> 2));
        } else {
            varint::put(&mut self.bytes, ODD_RUN);
            varint::put(&mut self.bytes, zigzag(distance));
            varint::put(&mut self.bytes, u64::from(length));
        }
        self.places.ran(pc, length);
        self.instructions += u64::from(length);
    }

    /// Appends an interrupt.
    pub(crate) fn interrupt(&mut self, vcpu: u8, pc: Va) {
        self.switch(vcpu);
        self.place(INTERRUPT, pc);
    }

    /// Appends an event.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::PrivilegedCall { vcpu, pc, immediate } => {
                self.switch(*vcpu);
                self.place(PRIVILEGED_CALL, *pc);
                varint::put(&mut self.bytes, u64::from(*immediate));
            }
            Event::Note(text) => {
                varint::put(&mut self.bytes, NOTE);
                varint::put_bytes(&mut self.bytes, text.as_bytes());
            }
            Event::Task { vcpu, pid, tgid, name } => {
                self.switch(*vcpu);
                self.fields.clear();
                varint::put(&mut self.fields, u64::from(*pid));
                varint::put(&mut self.fields, u64::from(*tgid));
                varint::put_bytes(&mut self.fields, name.as_bytes());
                varint::put(&mut self.bytes, details::TASK);
                varint::put_bytes(&mut self.bytes, &self.fields);
            }
        }
    }

    fn place(&mut self, operation: u64, pc: Va) {
        let distance = self.places.distance_to(pc);
        varint::put(&mut self.bytes, operation);
        varint::put(&mut self.bytes, zigzag(distance));
    }

    fn switch(&mut self, vcpu: u8) {
        if vcpu != self.places.vcpu {
            self.places.vcpu = vcpu;
            varint::put(&mut self.bytes, SWITCH);
            varint::put(&mut self.bytes, u64::from(vcpu));
        }
    }
}

/// Takes the payload of one `Records` chunk apart.
#[derive(Clone, Debug)]
pub(crate) struct RecordDecoder {
    places: Places,
    last: Last,
    /// How many of the next records repeat what chunks before have told.
    repeated: u64,
    payload: Vec<u8>,
    position: usize,
}

/// A record, and whether it is news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) record: Record,
    /// The chunks before have told it, too.
    pub(crate) repeated: bool,
}

/// What an operation comes to.
enum Operation {
    Record(Record),
    /// So many records that follow are repeated.
    Repeated(u64),
    /// A record of a later version.
    Unknown,
    /// The vCPU changed.
    Switch,
}

impl RecordDecoder {
    /// Starts on a payload.
    pub(crate) fn new(payload: Vec<u8>) -> Self {
        Self { places: Places::new(), last: Last::default(), repeated: 0, payload, position: 0 }
    }

    /// Returns the next record, `Ok(None)` after the last.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the payload.
    pub(crate) fn next_record(&mut self) -> Result<Option<Decoded>, &'static str> {
        loop {
            let mut cursor = Cursor::new(&self.payload[self.position..]);
            if cursor.is_empty() {
                return Ok(None);
            }
            let decoded = decode_one(&mut self.places, &mut self.last, &mut cursor);
            self.position = self.payload.len() - cursor.remaining();
            match decoded {
                Some(Operation::Record(Record::Run { length, .. })) if length > RUN_MAX => {
                    self.position = self.payload.len();
                    return Err("a run is longer than any that is written");
                }
                Some(Operation::Record(record)) => {
                    let repeated = self.repeated > 0;
                    self.repeated = self.repeated.saturating_sub(1);
                    return Ok(Some(Decoded { record, repeated }));
                }
                Some(Operation::Repeated(count)) => self.repeated = count,
                Some(Operation::Unknown) => self.repeated = self.repeated.saturating_sub(1),
                Some(Operation::Switch) => {}
                None => {
                    self.position = self.payload.len();
                    return Err("a trace record makes no sense");
                }
            }
        }
    }
}

/// Decodes one operation; `None` if it is damaged.
fn decode_one(places: &mut Places, last: &mut Last, cursor: &mut Cursor<'_>) -> Option<Operation> {
    let operation = cursor.take()?;
    if operation & 1 == 0 {
        let distance = unzigzag(cursor.take()?);
        return run(places, distance.wrapping_shl(2), operation >> 1).map(Operation::Record);
    }
    let record = match operation {
        SWITCH => {
            places.vcpu = u8::try_from(cursor.take()?).ok()?;
            return Some(Operation::Switch);
        }
        INTERRUPT => {
            let pc = places.after(unzigzag(cursor.take()?));
            Record::Interrupt { vcpu: places.vcpu, pc }
        }
        PRIVILEGED_CALL => {
            let pc = places.after(unzigzag(cursor.take()?));
            let immediate = u16::try_from(cursor.take()?).ok()?;
            Record::Event(Event::PrivilegedCall { vcpu: places.vcpu, pc, immediate })
        }
        NOTE => Record::Event(Event::Note(String::from_utf8_lossy(cursor.take_bytes()?).into())),
        ODD_RUN => {
            let distance = unzigzag(cursor.take()?);
            run(places, distance, cursor.take()?)?
        }
        operation => {
            let mut fields = Cursor::new(cursor.take_bytes()?);
            if operation == details::REPEATED {
                return Some(Operation::Repeated(fields.take()?));
            }
            if operation == details::TASK {
                return task(places.vcpu, &mut fields).map(Operation::Record);
            }
            let expected = *places.here();
            let decoded = details::decode(operation, &mut fields, places.vcpu, expected, last)?;
            return Some(decoded.map_or(Operation::Unknown, Operation::Record));
        }
    };
    Some(Operation::Record(record))
}

fn task(vcpu: u8, fields: &mut Cursor<'_>) -> Option<Record> {
    let pid = u32::try_from(fields.take()?).ok()?;
    let tgid = u32::try_from(fields.take()?).ok()?;
    let name = String::from_utf8_lossy(fields.take_bytes()?).into_owned();
    Some(Record::Event(Event::Task { vcpu, pid, tgid, name }))
}

fn run(places: &mut Places, distance: i64, length: u64) -> Option<Record> {
    let length = u32::try_from(length).ok().filter(|length| *length > 0)?;
    let pc = places.after(distance);
    places.ran(pc, length);
    Some(Record::Run { vcpu: places.vcpu, pc, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_costs_the_same_bytes_each_time_round() {
        let mut encoder = RecordEncoder::new();
        let mut lengths = Vec::new();
        for _ in 0..4 {
            let before = encoder.payload().len();
            encoder.run(0, Va(0xffff_8000_0800_0000), 3);
            lengths.push(encoder.payload()[before..].to_vec());
        }
        assert_eq!(lengths[1], [6, 5]);
        assert_eq!(lengths[2], lengths[1]);
        assert_eq!(encoder.instructions(), 12);
    }

    #[test]
    fn operations_of_a_later_version_are_skipped() {
        let mut payload = vec![127, 3, 1, 2, 3];
        payload.extend([2, 8]);
        let mut decoder = RecordDecoder::new(payload);
        let record = Record::Run { vcpu: 0, pc: Va(16), length: 1 };
        assert_eq!(decoder.next_record(), Ok(Some(Decoded { record, repeated: false })));
        assert_eq!(decoder.next_record(), Ok(None));
    }

    #[test]
    fn a_run_that_is_longer_than_any_is_damage() {
        let decode = |length: u32| {
            let mut encoder = RecordEncoder::new();
            encoder.run(0, Va(0), length);
            RecordDecoder::new(encoder.payload().to_vec()).next_record()
        };
        assert!(decode(RUN_MAX).is_ok());
        assert!(decode(RUN_MAX + 1).is_err());
        assert!(decode(u32::MAX).is_err());
    }

    #[test]
    fn an_empty_run_is_damage() {
        let mut decoder = RecordDecoder::new(vec![0, 0]);
        assert!(decoder.next_record().is_err());
        assert_eq!(decoder.next_record(), Ok(None));
    }
}
