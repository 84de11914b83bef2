//! Layout of the trace ring: RAM that the hypervisor writes and the tool maps.
//!
//! The ring holds *runs*, not instructions. A run is a PC and how many instructions were stepped
//! from there on, each at the last PC + 4; only a jump writes a record. A record is one 64-bit
//! word, or two where the PC does not fit the short form:
//!
//! ```text
//! 63        60 59      55 54            40 39                                  0
//! | kind (4) | vcpu (5) | length (15)    | payload (40)                         |
//! ```
//!
//! | kind | payload | meaning |
//! | --- | --- | --- |
//! | 1 run, near | PC bits 41:2, the rest as in the last full PC of this vCPU | `length` instructions |
//! | 2 run, full | 0; the next word is the PC | `length` instructions |
//! | 3 interrupt | 0; the next word is the PC that was interrupted | an interrupt was entered |
//!
//! The header is one page: words that only one side writes lie 64 bytes apart. `head` and `tail`
//! count words since the ring was made and never wrap; the word's place is the count modulo the
//! capacity. The hypervisor publishes words by a release store of `head`; the tool frees them by a
//! release store of `tail`.

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
const LENGTH_SHIFT: u32 = 40;
const PAYLOAD: u64 = (1 << LENGTH_SHIFT) - 1;
const NEAR_SHIFT: u32 = 2;
const NEAR_BITS: u64 = PAYLOAD << NEAR_SHIFT;

const KIND_NEAR: u64 = 1;
const KIND_FULL: u64 = 2;
const KIND_INTERRUPT: u64 = 3;

/// One thing that the ring tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// `length` instructions from `pc` on, 4 bytes apart.
    Run {
        /// The vCPU.
        vcpu: u8,
        /// First PC.
        pc: u64,
        /// Instructions, 1 to [`MAX_RUN`].
        length: u16,
    },
    /// The instruction at `pc` was about to execute when an interrupt was entered instead.
    Interrupt {
        /// The vCPU.
        vcpu: u8,
        /// The interrupted PC, which did not execute.
        pc: u64,
    },
}

/// The ring's words are not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trace ring holds an unknown record {word:#018x}")]
pub struct BadRecord {
    /// The first word of the record.
    pub word: u64,
}

/// Turns records into words. One for each vCPU.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    base: Option<u64>,
}

impl Encoder {
    /// The full PC that near records build on, once one was written.
    #[must_use]
    pub const fn base(&self) -> Option<u64> {
        self.base
    }

    /// Returns the words of a record: one or two.
    pub fn encode(&mut self, record: Record) -> (u64, Option<u64>) {
        match record {
            Record::Run { vcpu, pc, length } => {
                let near = self.base.is_some_and(|base| (base ^ pc) & !NEAR_BITS == 0);
                if near {
                    let payload = (pc >> NEAR_SHIFT) & PAYLOAD;
                    return (word(KIND_NEAR, vcpu, length) | payload, None);
                }
                self.base = Some(pc);
                (word(KIND_FULL, vcpu, length), Some(pc))
            }
            Record::Interrupt { vcpu, pc } => (word(KIND_INTERRUPT, vcpu, 0), Some(pc)),
        }
    }
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

/// Turns words into records. One for the whole ring.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bases: [u64; 32],
    waiting: Option<u64>,
}

impl Decoder {
    /// Takes one word and returns the record that it completed, if it did.
    ///
    /// # Errors
    ///
    /// [`BadRecord`] for a word that no encoder writes.
    pub fn push(&mut self, word: u64) -> Result<Option<Record>, BadRecord> {
        let first = self.waiting.take();
        let head = first.unwrap_or(word);
        let vcpu = ((head >> VCPU_SHIFT) & 0x1f) as u8;
        let length = ((head >> LENGTH_SHIFT) & 0x7fff) as u16;
        let base = self.bases.get_mut(usize::from(vcpu)).ok_or(BadRecord { word: head })?;
        match (head >> KIND_SHIFT, first) {
            (KIND_NEAR, None) if length > 0 => {
                let pc = (*base & !NEAR_BITS) | (head & PAYLOAD) << NEAR_SHIFT;
                Ok(Some(Record::Run { vcpu, pc, length }))
            }
            (KIND_FULL, None) if length > 0 => {
                self.waiting = Some(head);
                Ok(None)
            }
            (KIND_INTERRUPT, None) => {
                self.waiting = Some(head);
                Ok(None)
            }
            (KIND_FULL, Some(_)) => {
                *base = word;
                Ok(Some(Record::Run { vcpu, pc: word, length }))
            }
            (KIND_INTERRUPT, Some(_)) => Ok(Some(Record::Interrupt { vcpu, pc: word })),
            _ => Err(BadRecord { word: head }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = Record> {
        let pc =
            prop_oneof![any::<u64>(), (0..4096_u64).prop_map(|n| 0xffff_8000_0800_0000 + n * 4)];
        prop_oneof![
            (0..8_u8, pc.clone(), 1..=MAX_RUN).prop_map(|(vcpu, pc, length)| Record::Run {
                vcpu,
                pc,
                length
            }),
            (0..8_u8, pc).prop_map(|(vcpu, pc)| Record::Interrupt { vcpu, pc }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(records in proptest::collection::vec(records(), 0..200)) {
            let mut encoders: [Encoder; 8] = Default::default();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for &record in &records {
                let (Record::Run { vcpu, .. } | Record::Interrupt { vcpu, .. }) = record;
                let (first, second) = encoders[usize::from(vcpu)].encode(record);
                for word in [Some(first), second].into_iter().flatten() {
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
