//! Operations that came with version 1.1 and later: each follows its length, so that a reader of
//! 1.0 skips it, and may grow at its end, so that we skip what a later version adds.
//!
//! Values are distances from the last one of their kind and vCPU in the chunk, which starts at 0.

use super::varint::{self, Cursor, unzigzag, zigzag};
use super::{
    Context, ExceptionCause, ExceptionEntry, MemoryAccess, MemoryAccessKind, Record, Register,
    Waiting,
};
use stepwell_arch::InstructionSet;
use stepwell_arch::address::Va;

pub(super) const EXCEPTION_ENTRY: u64 = 11;
pub(super) const EXCEPTION_RETURN: u64 = 13;
pub(super) const EXCLUSIVE: u64 = 15;
pub(super) const CONTEXT: u64 = 17;
pub(super) const TIME: u64 = 19;
pub(super) const REGISTER: u64 = 21;
pub(super) const MEMORY: u64 = 23;
pub(super) const REPEATED: u64 = 25;
pub(super) const TURNS: u64 = 27;
pub(super) const INSTRUCTION_SET: u64 = 29;
pub(super) const TASK: u64 = 31;
/// Odd numbers from here on are a later version's.
#[cfg(test)]
pub(super) const FIRST_UNKNOWN: u64 = 33;

/// Set in a register's number: its value was found, and not changed by the last instruction.
const FOUND: u8 = 0x80;
/// Set in the number of an access: there is no value.
const NO_VALUE: u8 = 0x80;

/// Values that the next ones are told by, on both sides.
#[derive(Clone, Debug, Default)]
pub(super) struct Last {
    time: u64,
    vcpus: Vec<LastOfVcpu>,
}

#[derive(Clone, Debug)]
struct LastOfVcpu {
    address: u64,
    registers: [u64; Register::COUNT],
}

impl Last {
    fn of(&mut self, vcpu: u8) -> &mut LastOfVcpu {
        let index = usize::from(vcpu);
        if self.vcpus.len() <= index {
            let none = LastOfVcpu { address: 0, registers: [0; Register::COUNT] };
            self.vcpus.resize(index + 1, none);
        }
        &mut self.vcpus[index]
    }
}

/// Appends `value` as its distance from `last`, which it becomes.
fn put_distance(out: &mut Vec<u8>, last: &mut u64, value: u64) {
    varint::put(out, zigzag(value.wrapping_sub(*last) as i64));
    *last = value;
}

fn take_distance(cursor: &mut Cursor<'_>, last: &mut u64) -> Option<u64> {
    *last = last.wrapping_add(unzigzag(cursor.take()?) as u64);
    Some(*last)
}

const fn number_of(set: InstructionSet) -> u8 {
    match set {
        InstructionSet::A64 => 0,
        InstructionSet::A32 => 1,
        InstructionSet::T32 => 2,
    }
}

const fn set_of(number: u8) -> Option<InstructionSet> {
    match number {
        0 => Some(InstructionSet::A64),
        1 => Some(InstructionSet::A32),
        2 => Some(InstructionSet::T32),
        _ => None,
    }
}

/// Writes the fields of a record into `out`, and returns its operation. Nothing for a record that
/// is none of these.
pub(super) fn encode(
    record: &Record,
    expected: u64,
    last: &mut Last,
    out: &mut Vec<u8>,
) -> Option<u64> {
    let distance = |out: &mut Vec<u8>, pc: Va| {
        varint::put(out, zigzag(pc.0.wrapping_sub(expected) as i64));
    };
    Some(match record {
        Record::ExceptionEntry(entry) => {
            out.push(entry.cause.number());
            distance(out, entry.return_address);
            distance(out, entry.vector);
            varint::put(out, entry.syndrome);
            varint::put(out, entry.intid.map_or(0, |intid| u64::from(intid) + 1));
            EXCEPTION_ENTRY
        }
        Record::ExceptionReturn { to, el, .. } => {
            distance(out, *to);
            out.push(*el);
            EXCEPTION_RETURN
        }
        Record::Exclusive { pc, stored, .. } => {
            distance(out, *pc);
            out.push(u8::from(*stored));
            EXCLUSIVE
        }
        Record::Turns { pc, why, steps, .. } => {
            out.push(why.number());
            distance(out, *pc);
            varint::put(out, *steps);
            TURNS
        }
        Record::InstructionSet { set, .. } => {
            out.push(number_of(*set));
            INSTRUCTION_SET
        }
        Record::Context(context) => {
            out.push(context.el);
            varint::put(out, u64::from(context.vmid));
            varint::put(out, u64::from(context.asid));
            varint::put(out, context.ttbr0);
            CONTEXT
        }
        Record::Time { ns } => {
            put_distance(out, &mut last.time, *ns);
            TIME
        }
        Record::Register { vcpu, register, value, found } => {
            let flag = if *found { FOUND } else { 0 };
            out.push(register.number() | flag);
            let place = usize::from(register.number());
            put_distance(out, &mut last.of(*vcpu).registers[place], *value);
            REGISTER
        }
        Record::Memory(memory) => {
            let flag = if memory.value.is_none() { NO_VALUE } else { 0 };
            out.push(memory.access.number() | flag);
            varint::put(out, u64::from(memory.size));
            put_distance(out, &mut last.of(memory.vcpu).address, memory.address.0);
            if let Some(value) = memory.value {
                varint::put(out, value as u64);
                varint::put(out, (value >> 64) as u64);
            }
            MEMORY
        }
        Record::Run { .. } | Record::Interrupt { .. } | Record::Event(_) => return None,
    })
}

/// Reads the fields of an operation on `vcpu`. `None` if they are damaged, `Some(None)` if the
/// operation is of a later version.
pub(super) fn decode(
    operation: u64,
    cursor: &mut Cursor<'_>,
    vcpu: u8,
    expected: u64,
    last: &mut Last,
) -> Option<Option<Record>> {
    let distance =
        |cursor: &mut Cursor<'_>| Some(Va(expected.wrapping_add(unzigzag(cursor.take()?) as u64)));
    Some(Some(match operation {
        EXCEPTION_ENTRY => Record::ExceptionEntry(ExceptionEntry {
            vcpu,
            cause: ExceptionCause::from_number(cursor.take_u8()?)?,
            return_address: distance(cursor)?,
            vector: distance(cursor)?,
            syndrome: cursor.take()?,
            intid: match cursor.take()? {
                0 => None,
                intid => Some(u32::try_from(intid - 1).ok()?),
            },
        }),
        EXCEPTION_RETURN => {
            Record::ExceptionReturn { vcpu, to: distance(cursor)?, el: cursor.take_u8()? }
        }
        EXCLUSIVE => {
            Record::Exclusive { vcpu, pc: distance(cursor)?, stored: cursor.take_u8()? != 0 }
        }
        TURNS => {
            let why = Waiting::from_number(cursor.take_u8()?);
            let (pc, steps) = (distance(cursor)?, cursor.take()?);
            let Some(why) = why else { return Some(None) };
            Record::Turns { vcpu, pc, why, steps }
        }
        INSTRUCTION_SET => {
            let Some(set) = set_of(cursor.take_u8()?) else { return Some(None) };
            Record::InstructionSet { vcpu, set }
        }
        CONTEXT => Record::Context(Context {
            vcpu,
            el: cursor.take_u8()?,
            vmid: u16::try_from(cursor.take()?).ok()?,
            asid: u16::try_from(cursor.take()?).ok()?,
            ttbr0: cursor.take()?,
        }),
        TIME => Record::Time { ns: take_distance(cursor, &mut last.time)? },
        REGISTER => {
            let number = cursor.take_u8()?;
            // A later version may record more registers than we know.
            let Some(register) = Register::new(number & !FOUND) else { return Some(None) };
            let place = usize::from(register.number());
            let value = take_distance(cursor, &mut last.of(vcpu).registers[place])?;
            Record::Register { vcpu, register, value, found: number & FOUND != 0 }
        }
        MEMORY => {
            let number = cursor.take_u8()?;
            let size = u16::try_from(cursor.take()?).ok()?;
            let address = Va(take_distance(cursor, &mut last.of(vcpu).address)?);
            let value = match number & NO_VALUE {
                0 => Some(u128::from(cursor.take()?) | u128::from(cursor.take()?) << 64),
                _ => None,
            };
            let Some(access) = MemoryAccessKind::from_number(number & !NO_VALUE) else {
                return Some(None);
            };
            Record::Memory(MemoryAccess { vcpu, access, address, size, value })
        }
        _ => return Some(None),
    }))
}
