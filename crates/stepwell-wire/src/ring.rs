//! Layout of the trace ring: RAM that the hypervisor writes and the tool maps.
//!
//! The ring holds *runs*, not instructions. A run is a PC and how many instructions were stepped
//! from there on, each at the last PC + 4; only a jump writes a record. A record is one 64-bit
//! word, or several:
//!
//! ```text
//! 63        60 59      55 54            40 39                                  0
//! | kind (4) | vcpu (5) | length (15)    | payload (40)                         |
//! ```
//!
//! | kind | length | payload | further words | meaning |
//! | --- | --- | --- | --- | --- |
//! | 1 run, near | instructions | PC bits 41:2, the rest as in the last full PC of this vCPU | | instructions executed |
//! | 2 run, full | instructions | 0 | PC | instructions executed |
//! | 3 interrupt | 0 | 0 | PC | the instruction there gave way to an interrupt |
//! | 4 exception entry | cause | INTID + 1, or 0 | return address, vector, ESR_EL1 | an exception was entered at EL1 |
//! | 5 exception return | EL | 0 | target | the last instruction was an exception return |
//! | 6 exclusive | 1 if it stored | 0 | PC | the last instruction was a store-exclusive |
//! | 7 context | EL | 15:0 ASID, 31:16 VMID | TTBR0_EL1's base address | the address space from here on |
//! | 8 time | 0 | 0 | nanoseconds | the guest's clock |
//! | 9 register | 7:0 number, 8 found | 0 | value | a register has changed |
//! | 10 memory | 1:0 access, 2 has value | bytes | address, value's low half if there is a value, its high half if there are more than 8 bytes | the last instruction accessed memory |
//! | 11 others' turns | why | instructions | PC | the vCPU made no progress there until others had moved |
//! | 12 instruction set | 0 A64, 1 A32, 2 T32 | 0 | | what the vCPU executes from here on; A64 until it is told |
//!
//! Causes are numbered as the vectors: 0 synchronous, 1 IRQ, 2 FIQ, 3 SError. Registers: X0 to X30,
//! 31 is the stack pointer in use, 32 is PSTATE; *found* ones were not changed by the last
//! instruction but by somebody else before it. Why: 0 it waited for an event, 1 for an interrupt, 2
//! it went round and nothing changed. Accesses: 0 load, 1 store, 2 bytes set to zero.
//!
//! The header is one page: words that only one side writes lie 64 bytes apart. `head` and `tail`
//! count words since the ring was made and never wrap; the word's place is the count modulo the
//! capacity. The hypervisor publishes words by a release store of `head`; the tool frees them by a
//! release store of `tail`.

use stepwell_arch::{InstructionSet, Va};
use stepwell_protocol::{
    Context, ExceptionCause, ExceptionEntry, MemoryAccess, MemoryAccessKind, Register, TraceRecord,
    Waiting,
};

/// `"STEPRING"`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STEPRING");
/// Bytes of the header; the words follow.
pub const HEADER_BYTES: u64 = 4096;
/// Offset of the magic.
pub const OFFSET_MAGIC: u64 = 0;
/// Offset of the layout's version, [`crate::VERSION`] as a 64-bit word.
pub const OFFSET_VERSION: u64 = 8;
/// Offset of the capacity in words.
pub const OFFSET_CAPACITY: u64 = 16;
/// Offset of `head`: words ever written. The hypervisor's.
pub const OFFSET_HEAD: u64 = 64;
/// Offset of `tail`: words ever drained. The tool's.
pub const OFFSET_TAIL: u64 = 128;
/// Longest run of one record.
pub const MAX_RUN: u16 = 0x7fff;

const KIND_SHIFT: u32 = 60;
const VCPU_SHIFT: u32 = 55;
/// Where a record has its length, behind the payload.
pub const LENGTH_SHIFT: u32 = 40;
const PAYLOAD: u64 = (1 << LENGTH_SHIFT) - 1;
/// How far a PC is shifted to be the payload of a near record.
pub const NEAR_SHIFT: u32 = 2;
/// The bits of a PC that a near record has; the rest is that of the last full PC.
pub const NEAR_BITS: u64 = PAYLOAD << NEAR_SHIFT;

const KIND_NEAR: u64 = 1;
const KIND_FULL: u64 = 2;
const KIND_INTERRUPT: u64 = 3;
const KIND_EXCEPTION_ENTRY: u64 = 4;
const KIND_EXCEPTION_RETURN: u64 = 5;
const KIND_EXCLUSIVE: u64 = 6;
const KIND_CONTEXT: u64 = 7;
const KIND_TIME: u64 = 8;
const KIND_REGISTER: u64 = 9;
const KIND_MEMORY: u64 = 10;
const KIND_TURNS: u64 = 11;
const KIND_INSTRUCTION_SET: u64 = 12;

/// In a register's length: it was found, and not changed by the last instruction.
const FOUND: u16 = 1 << 8;
/// In the length of a memory access: it has a value.
const HAS_VALUE: u16 = 1 << 2;
/// Bytes of a value that has no high half.
const HALF: u16 = 8;

/// Most words of a record.
pub const MAX_WORDS: usize = 4;

/// The words of one record, in their order.
pub type Words = heapless::Vec<u64, MAX_WORDS>;

/// The ring's words are not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trace ring holds an unknown record {word:#018x}")]
pub struct BadRecord {
    /// The first word of the record.
    pub word: u64,
}

/// Turns records into words. One for each vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Encoder {
    base: Option<u64>,
}

impl Encoder {
    /// The full PC that near records build on, once one was written.
    #[must_use]
    pub const fn base(&self) -> Option<u64> {
        self.base
    }

    /// Returns the words of a record. `vcpu` is below 32, a run no longer than [`MAX_RUN`].
    pub fn encode(&mut self, record: TraceRecord) -> Words {
        let head = |kind, vcpu, length| word(kind, vcpu, length);
        match record {
            TraceRecord::Run { vcpu, pc: Va(pc), length } => {
                let length = u16::try_from(length).unwrap_or(MAX_RUN);
                let near = self.base.is_some_and(|base| (base ^ pc) & !NEAR_BITS == 0);
                if near {
                    let payload = (pc >> NEAR_SHIFT) & PAYLOAD;
                    return words([head(KIND_NEAR, vcpu, length) | payload]);
                }
                self.base = Some(pc);
                words([head(KIND_FULL, vcpu, length), pc])
            }
            TraceRecord::Interrupt { vcpu, pc } => words([head(KIND_INTERRUPT, vcpu, 0), pc.0]),
            TraceRecord::Event(never) => match never {},
            TraceRecord::ExceptionEntry(entry) => {
                let payload = entry.intid.map_or(0, |intid| u64::from(intid).saturating_add(1));
                let cause = u16::from(entry.cause.number());
                let head = head(KIND_EXCEPTION_ENTRY, entry.vcpu, cause) | payload;
                words([head, entry.return_address.0, entry.vector.0, entry.syndrome])
            }
            TraceRecord::ExceptionReturn { vcpu, to, el } => {
                words([head(KIND_EXCEPTION_RETURN, vcpu, u16::from(el)), to.0])
            }
            TraceRecord::Exclusive { vcpu, pc, stored } => {
                words([head(KIND_EXCLUSIVE, vcpu, u16::from(stored)), pc.0])
            }
            TraceRecord::Context(Context { vcpu, el, vmid, asid, ttbr0 }) => {
                let payload = u64::from(asid) | u64::from(vmid) << 16;
                words([head(KIND_CONTEXT, vcpu, u16::from(el)) | payload, ttbr0])
            }
            // The clock is the domain's, whichever vCPU looks at it.
            TraceRecord::Time { ns } => words([head(KIND_TIME, 0, 0), ns]),
            TraceRecord::InstructionSet { vcpu, set } => {
                words([head(KIND_INSTRUCTION_SET, vcpu, set as u16)])
            }
            TraceRecord::Register { vcpu, register, value, found } => {
                let flag = if found { FOUND } else { 0 };
                words([head(KIND_REGISTER, vcpu, u16::from(register.number()) | flag), value])
            }
            TraceRecord::Turns { vcpu, pc, why, steps } => {
                words([head(KIND_TURNS, vcpu, u16::from(why.number())) | steps & PAYLOAD, pc.0])
            }
            TraceRecord::Memory(MemoryAccess {
                vcpu,
                access,
                address: Va(address),
                size,
                value,
            }) => {
                let flag = if value.is_some() { HAS_VALUE } else { 0 };
                let access = u16::from(access.number());
                let head = head(KIND_MEMORY, vcpu, access | flag) | u64::from(size);
                match value {
                    None => words([head, address]),
                    Some(value) if size <= HALF => words([head, address, value as u64]),
                    Some(value) => words([head, address, value as u64, (value >> 64) as u64]),
                }
            }
        }
    }
}

fn words<const N: usize>(words: [u64; N]) -> Words {
    const { assert!(N <= MAX_WORDS, "a record has no more") };
    Words::from_slice(&words).unwrap_or_default()
}

/// A near record of `vcpu` but for its length and PC: for who writes them without an [`Encoder`],
/// as `(PC >> 2) & (2^40 - 1) | length << 40` on top, where [`Encoder::base`] allows it.
#[must_use]
pub const fn near_tag(vcpu: u8) -> u64 {
    word(KIND_NEAR, vcpu, 0)
}

const fn word(kind: u64, vcpu: u8, length: u16) -> u64 {
    kind << KIND_SHIFT
        | (vcpu as u64 & 0x1f) << VCPU_SHIFT
        | (length as u64 & 0x7fff) << LENGTH_SHIFT
}

/// How many words a record has, by its first.
const fn word_count(head: u64) -> Option<usize> {
    let length = (head >> LENGTH_SHIFT) as u16 & MAX_RUN;
    Some(match head >> KIND_SHIFT {
        KIND_NEAR if length > 0 => 1,
        KIND_INSTRUCTION_SET if length < 3 => 1,
        KIND_FULL if length > 0 => 2,
        KIND_INTERRUPT
        | KIND_EXCEPTION_RETURN
        | KIND_EXCLUSIVE
        | KIND_CONTEXT
        | KIND_TIME
        | KIND_REGISTER
        | KIND_TURNS => 2,
        KIND_EXCEPTION_ENTRY => 4,
        KIND_MEMORY if length & HAS_VALUE == 0 => 2,
        KIND_MEMORY if head as u16 <= HALF => 3,
        KIND_MEMORY => 4,
        _ => return None,
    })
}

/// Turns words into records. One for the whole ring.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bases: [u64; 32],
    waiting: Words,
}

impl Decoder {
    /// Takes one word and returns the record that it completed, if it did.
    ///
    /// # Errors
    ///
    /// [`BadRecord`] for a word that no encoder writes.
    pub fn push(&mut self, word: u64) -> Result<Option<TraceRecord>, BadRecord> {
        let head = self.waiting.first().copied().unwrap_or(word);
        let bad = BadRecord { word: head };
        let count = word_count(head).ok_or(bad)?;
        self.waiting.push(word).map_err(|_| bad)?;
        if self.waiting.len() < count {
            return Ok(None);
        }
        let waiting = core::mem::take(&mut self.waiting);
        let word = |index: usize| waiting.get(index).copied().unwrap_or(0);
        self.decode(head, [word(1), word(2), word(3)]).map(Some).ok_or(bad)
    }

    fn decode(&mut self, head: u64, rest: [u64; 3]) -> Option<TraceRecord> {
        let vcpu = ((head >> VCPU_SHIFT) & 0x1f) as u8;
        let length = ((head >> LENGTH_SHIFT) & 0x7fff) as u16;
        let payload = head & PAYLOAD;
        let [first, second, third] = rest;
        let pc = Va(first);
        let base = self.bases.get_mut(usize::from(vcpu))?;
        Some(match head >> KIND_SHIFT {
            KIND_NEAR => {
                let pc = Va((*base & !NEAR_BITS) | payload << NEAR_SHIFT);
                TraceRecord::Run { vcpu, pc, length: u32::from(length) }
            }
            KIND_FULL => {
                *base = first;
                TraceRecord::Run { vcpu, pc, length: u32::from(length) }
            }
            KIND_INTERRUPT => TraceRecord::Interrupt { vcpu, pc },
            KIND_EXCEPTION_ENTRY => TraceRecord::ExceptionEntry(ExceptionEntry {
                vcpu,
                cause: ExceptionCause::from_number(length as u8 & 3)?,
                return_address: pc,
                vector: Va(second),
                syndrome: third,
                intid: payload.checked_sub(1).map(|intid| intid as u32),
            }),
            KIND_EXCEPTION_RETURN => {
                TraceRecord::ExceptionReturn { vcpu, to: pc, el: length as u8 }
            }
            KIND_EXCLUSIVE => TraceRecord::Exclusive { vcpu, pc, stored: length != 0 },
            KIND_CONTEXT => TraceRecord::Context(Context {
                vcpu,
                el: length as u8,
                vmid: (payload >> 16) as u16,
                asid: payload as u16,
                ttbr0: first,
            }),
            KIND_TIME => TraceRecord::Time { ns: first },
            KIND_INSTRUCTION_SET => {
                let all = [InstructionSet::A64, InstructionSet::A32, InstructionSet::T32];
                TraceRecord::InstructionSet { vcpu, set: *all.get(usize::from(length))? }
            }
            KIND_TURNS => {
                let why = Waiting::from_number(length as u8)?;
                TraceRecord::Turns { vcpu, pc, why, steps: payload }
            }
            KIND_REGISTER => {
                let (register, found) = (Register::new(length as u8)?, length & FOUND != 0);
                TraceRecord::Register { vcpu, register, value: first, found }
            }
            KIND_MEMORY => TraceRecord::Memory(MemoryAccess {
                vcpu,
                access: MemoryAccessKind::from_number(length as u8 & 3)?,
                address: pc,
                size: payload as u16,
                value: (length & HAS_VALUE != 0)
                    .then_some(u128::from(second) | u128::from(third) << 64),
            }),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = TraceRecord> {
        let pc =
            prop_oneof![any::<u64>(), (0..4096_u64).prop_map(|n| 0xffff_8000_0800_0000 + n * 4)]
                .prop_map(Va);
        prop_oneof![
            (0..8_u8, pc.clone(), 1..=u32::from(MAX_RUN))
                .prop_map(|(vcpu, pc, length)| TraceRecord::Run { vcpu, pc, length }),
            (0..8_u8, pc).prop_map(|(vcpu, pc)| TraceRecord::Interrupt { vcpu, pc }),
            details(),
        ]
    }

    fn details() -> impl Strategy<Value = TraceRecord> {
        let (vcpu, word) = (0..8_u8, any::<u64>);
        let va = || word().prop_map(Va);
        let sets = vec![InstructionSet::A64, InstructionSet::A32, InstructionSet::T32];
        prop_oneof![
            (vcpu.clone(), 0..4_u8, (va(), va()), word(), any::<Option<u32>>()).prop_map(
                |(vcpu, cause, (return_address, vector), syndrome, intid)| {
                    let cause = ExceptionCause::from_number(cause).unwrap();
                    TraceRecord::ExceptionEntry(ExceptionEntry {
                        vcpu,
                        cause,
                        return_address,
                        vector,
                        syndrome,
                        intid,
                    })
                }
            ),
            (vcpu.clone(), va(), 0..2_u8).prop_map(|(vcpu, to, el)| TraceRecord::ExceptionReturn {
                vcpu,
                to,
                el
            }),
            (vcpu.clone(), va(), any::<bool>())
                .prop_map(|(vcpu, pc, stored)| TraceRecord::Exclusive { vcpu, pc, stored }),
            (vcpu.clone(), va(), 0..3_u8, 0..1_u64 << 40).prop_map(|(vcpu, pc, why, steps)| {
                let why = Waiting::from_number(why).unwrap();
                TraceRecord::Turns { vcpu, pc, why, steps }
            }),
            (vcpu.clone(), 0..2_u8, any::<u16>(), any::<u16>(), word()).prop_map(
                |(vcpu, el, vmid, asid, ttbr0)| {
                    TraceRecord::Context(Context { vcpu, el, vmid, asid, ttbr0 })
                }
            ),
            word().prop_map(|ns| TraceRecord::Time { ns }),
            (vcpu.clone(), proptest::sample::select(sets))
                .prop_map(|(vcpu, set)| TraceRecord::InstructionSet { vcpu, set }),
            (vcpu.clone(), 0..33_u8, word(), any::<bool>()).prop_map(
                |(vcpu, register, value, found)| {
                    let register = Register::new(register).unwrap();
                    TraceRecord::Register { vcpu, register, value, found }
                }
            ),
            (vcpu, 0..3_u8, va(), 1..64_u16, any::<Option<u128>>()).prop_map(
                |(vcpu, access, address, size, value)| {
                    let mask = if size <= 8 { u128::from(u64::MAX) } else { u128::MAX };
                    let value = value.map(|value| value & mask);
                    let access = MemoryAccessKind::from_number(access).unwrap();
                    TraceRecord::Memory(MemoryAccess { vcpu, access, address, size, value })
                }
            ),
        ]
    }

    const fn vcpu_of(record: TraceRecord) -> u8 {
        match record {
            TraceRecord::Run { vcpu, .. }
            | TraceRecord::Interrupt { vcpu, .. }
            | TraceRecord::ExceptionEntry(ExceptionEntry { vcpu, .. })
            | TraceRecord::ExceptionReturn { vcpu, .. }
            | TraceRecord::Exclusive { vcpu, .. }
            | TraceRecord::Turns { vcpu, .. }
            | TraceRecord::InstructionSet { vcpu, .. }
            | TraceRecord::Context(Context { vcpu, .. })
            | TraceRecord::Register { vcpu, .. }
            | TraceRecord::Memory(MemoryAccess { vcpu, .. }) => vcpu,
            TraceRecord::Time { .. } => 0,
            TraceRecord::Event(never) => match never {},
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(records in proptest::collection::vec(records(), 0..200)) {
            let mut encoders: [Encoder; 8] = Default::default();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for &record in &records {
                for word in encoders[usize::from(vcpu_of(record))].encode(record) {
                    got.extend(decoder.push(word).unwrap());
                }
            }
            prop_assert_eq!(got, records);
        }

        #[test]
        fn any_words_are_survived(words in proptest::collection::vec(any::<u64>(), 0..200)) {
            let mut decoder = Decoder::default();
            for word in words {
                let _ = decoder.push(word);
            }
        }
    }
}
