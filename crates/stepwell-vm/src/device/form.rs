//! How what an instruction transfers lies in memory and in registers, piece by piece.
//!
//! Stage 2 describes only the simplest loads and stores of a device in ESR_EL2. On the guest's board
//! all others work there as well: pairs, SIMD registers and structures of them, exclusives, atomics,
//! DC ZVA, and whatever moves its base register. [`LoadStore`] tells where they access memory; this
//! tells the order of accesses and what becomes of the registers, so that EL2 can do in the CPU's
//! place what the CPU would have done.
//!
//! Accesses have the sizes that QEMU makes of them: registers of 16 bytes go in halves, and elements
//! of one structure register that lie side by side go together, 8 bytes at a time.
//!
//! Those of AArch32 are decoded in [`super::form32`]. Deliberately absent: SVE, allocation tags.
//!
//! Source: Arm ARM, DDI 0487 L.b, A64 instruction set encoding: Loads and Stores.

use heapless::Vec;
use stepwell_arch::LoadStore;
use stepwell_arch::load_store::Address;

/// Most pieces that an instruction has: LD4 of four registers of bytes.
pub const PIECES_MAX: usize = 64;

/// One access to memory, and the part of a register that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// So far behind the first byte.
    pub offset: u64,
    /// 1, 2, 4 or 8.
    pub bytes: u8,
    /// The part of a register.
    pub place: Place,
}

/// A part of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A general-purpose register; 31 is XZR.
    General(u8, Extension),
    /// A SIMD register, from this byte on.
    Vector(u8, u8),
    /// All elements of a SIMD register.
    Replicated(u8),
}

/// How a load fills the rest of a general-purpose register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// With zeros.
    Zero,
    /// With the sign, up to bit 31.
    Sign32,
    /// With the sign, up to bit 63.
    Sign64,
}

impl Extension {
    /// What a load of the low `bytes` bytes of `value` leaves in the register.
    #[must_use]
    pub const fn extend(self, value: u64, bytes: u8) -> u64 {
        let unused = 64_u32.saturating_sub(8 * bytes as u32);
        let zero = value.wrapping_shl(unused).wrapping_shr(unused);
        let sign = ((value.wrapping_shl(unused) as i64).wrapping_shr(unused)) as u64;
        match self {
            Self::Zero => zero,
            Self::Sign32 => sign as u32 as u64,
            Self::Sign64 => sign,
        }
    }
}

/// What an instruction does with its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Loads or stores them.
    Transfer,
    /// Loads them, and marks where they are.
    LoadExclusive,
    /// Would store them, and says so in this register.
    StoreExclusive(u8),
    /// Loads a value into its register and stores what comes of it and of this one.
    Update(Operation, u8),
    /// Stores its register where memory holds this one, which gets what was there; of a pair, two each.
    CompareAndSwap(u8),
    /// Stores zeros: DC ZVA.
    Zero,
}

/// What an atomic does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// LDADD.
    Add,
    /// LDCLR.
    Clear,
    /// LDEOR.
    ExclusiveOr,
    /// LDSET.
    Set,
    /// LDSMAX.
    SignedMax,
    /// LDSMIN.
    SignedMin,
    /// LDUMAX.
    UnsignedMax,
    /// LDUMIN.
    UnsignedMin,
    /// SWP.
    Swap,
}

impl Operation {
    /// What is stored, of `bytes` bytes.
    #[must_use]
    pub const fn apply(self, old: u64, operand: u64, bytes: u8) -> u64 {
        let (a, b) =
            (Extension::Sign64.extend(old, bytes), Extension::Sign64.extend(operand, bytes));
        let (x, y) = (Extension::Zero.extend(old, bytes), Extension::Zero.extend(operand, bytes));
        match self {
            Self::Add => x.wrapping_add(y),
            Self::Clear => x & !y,
            Self::ExclusiveOr => x ^ y,
            Self::Set => x | y,
            Self::SignedMax => {
                if (a as i64) > b as i64 {
                    x
                } else {
                    y
                }
            }
            Self::SignedMin => {
                if (a as i64) < b as i64 {
                    x
                } else {
                    y
                }
            }
            Self::UnsignedMax => {
                if x > y {
                    x
                } else {
                    y
                }
            }
            Self::UnsignedMin => {
                if x < y {
                    x
                } else {
                    y
                }
            }
            Self::Swap => y,
        }
    }
}

/// What becomes of the base register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Nothing.
    Not,
    /// This is added.
    By(i64),
    /// This register is added.
    ByRegister(u8),
    /// It gets the address that was accessed.
    ToAddress,
}

/// An instruction, decoded as far as it takes to carry it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Where it accesses memory, and in which direction.
    pub what: LoadStore,
    /// Its accesses, in order.
    pub pieces: Vec<Piece, PIECES_MAX>,
    /// What it does with them.
    pub action: Action,
    /// A load clears what it does not load of a SIMD register.
    pub clears_rest: bool,
    /// Bytes of a SIMD register that a replicated element fills.
    pub vector_bytes: u8,
    /// What it transfers are bytes, to which the order of a guest's data is nothing.
    pub is_of_bytes: bool,
    /// Base register; 31 is the stack pointer.
    pub base: u8,
    /// What becomes of it.
    pub moved: Moved,
}

const fn bits(word: u32, high: u32, low: u32) -> u32 {
    word << (31 - high) >> (31 - high + low)
}

const fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 == 1
}

const fn signed(word: u32, high: u32, low: u32) -> i64 {
    ((word << (31 - high)) as i32 >> (31 - high + low)) as i64
}

impl Form {
    /// Decodes an instruction; none where it is nothing that this knows.
    #[must_use]
    pub fn decode(word: u32, big_endian: bool) -> Option<Self> {
        let what = LoadStore::decode(word)?;
        let mut form = Self {
            what,
            pieces: Vec::new(),
            action: Action::Transfer,
            clears_rest: true,
            vector_bytes: 16,
            is_of_bytes: false,
            base: bits(word, 9, 5) as u8,
            moved: Moved::Not,
        };
        if let Address::Block { .. } = what.address {
            form.action = Action::Zero;
            return Some(form);
        }
        match (bits(word, 29, 27), bit(word, 26), bits(word, 25, 24)) {
            (0b001, false, 0b00) => form.exclusive(word)?,
            (0b001, true, 0b00) => form.structures(word, big_endian)?,
            (0b001, true, _) => form.structure(word)?,
            (0b011, simd, 0b00) => {
                let extension = match (simd, bits(word, 31, 30)) {
                    (false, 2) => Extension::Sign64,
                    _ => Extension::Zero,
                };
                form.whole(0, what.rt, extension, big_endian)?;
            }
            (0b011, ..) => form.whole(0, what.rt, extension_of(word), big_endian)?,
            (0b101, ..) => form.pair(word, big_endian)?,
            _ => form.single(word, big_endian)?,
        }
        Some(form)
    }

    fn add(&mut self, offset: u64, bytes: u8, place: Place) -> Option<()> {
        self.pieces.push(Piece { offset, bytes, place }).ok()
    }

    /// A whole register, the `n`th in memory.
    fn whole(&mut self, n: u64, rt: u8, extension: Extension, big_endian: bool) -> Option<()> {
        let bytes = self.what.bytes;
        let offset = n * u64::from(bytes);
        match (self.what.simd, bytes) {
            (false, 1..=8) => self.add(offset, bytes, Place::General(rt, extension)),
            (true, 1..=8) => self.add(offset, bytes, Place::Vector(rt, 0)),
            (true, 16) => {
                // The first byte is the highest one of a big-endian register.
                let (first, second) = if big_endian { (8, 0) } else { (0, 8) };
                self.add(offset, 8, Place::Vector(rt, first))?;
                self.add(offset + 8, 8, Place::Vector(rt, second))
            }
            _ => None,
        }
    }

    /// Exclusives, compare-and-swap, load-acquire and store-release.
    fn exclusive(&mut self, word: u32) -> Option<()> {
        let (rt, rt2) = (self.what.rt, bits(word, 14, 10) as u8);
        let rs = bits(word, 20, 16) as u8;
        let is_load = bit(word, 22);
        let (o2, o1) = (bit(word, 23), bit(word, 21));
        let is_pair = self.what.count == 2;
        let is_swap = o1 && (o2 || bits(word, 31, 30) < 2);
        let second = if is_swap { rt | 1 } else { rt2 };
        self.action = match (is_swap, o2, is_load) {
            (true, ..) => Action::CompareAndSwap(rs),
            (false, true, _) => Action::Transfer,
            (false, false, true) => Action::LoadExclusive,
            (false, false, false) => Action::StoreExclusive(rs),
        };
        self.whole(0, rt, Extension::Zero, false)?;
        if is_pair {
            self.whole(1, second, Extension::Zero, false)?;
        }
        Some(())
    }

    /// LD1 to LD4 and ST1 to ST4 of whole registers.
    fn structures(&mut self, word: u32, big_endian: bool) -> Option<()> {
        let (repeats, interleaved) = match bits(word, 15, 12) {
            0b0000 => (1, 4),
            0b0010 => (4, 1),
            0b0100 => (1, 3),
            0b0110 => (3, 1),
            0b0111 => (1, 1),
            0b1000 => (1, 2),
            0b1010 => (2, 1),
            _ => return None,
        };
        self.is_of_bytes = bits(word, 11, 10) == 0;
        let is_together = interleaved == 1 && (!big_endian || self.is_of_bytes);
        let bytes = if is_together { 8 } else { 1_u8 << bits(word, 11, 10) };
        let mut offset = 0;
        for repeat in 0..repeats {
            for at in (0..self.what.bytes).step_by(usize::from(bytes)) {
                for register in 0..interleaved {
                    let register = (self.what.rt + repeat + register) % 32;
                    self.add(offset, bytes, Place::Vector(register, at))?;
                    offset += u64::from(bytes);
                }
            }
        }
        self.moves_structure(word, offset);
        Some(())
    }

    /// LD1 to LD4 and ST1 to ST4 of one element, and LD1R to LD4R.
    fn structure(&mut self, word: u32) -> Option<()> {
        let (bytes, size) = (self.what.bytes, bits(word, 11, 10));
        let index = u32::from(bit(word, 30)) << 3 | u32::from(bit(word, 12)) << 2 | size;
        let is_replicated = bits(word, 15, 14) == 3;
        // Q, S and size are the index, as many of them as elements of this size need.
        let at = (index >> bytes.trailing_zeros()) as u8 * bytes;
        for n in 0..self.what.count {
            let register = (self.what.rt + n) % 32;
            let place = match is_replicated {
                true => Place::Replicated(register),
                false => Place::Vector(register, at),
            };
            self.add(u64::from(n * bytes), bytes, place)?;
        }
        self.clears_rest = is_replicated;
        self.vector_bytes = if bit(word, 30) { 16 } else { 8 };
        self.moves_structure(word, u64::from(self.what.count * bytes));
        Some(())
    }

    fn moves_structure(&mut self, word: u32, bytes: u64) {
        if bit(word, 23) {
            self.moved = match bits(word, 20, 16) as u8 {
                31 => Moved::By(bytes as i64),
                register => Moved::ByRegister(register),
            };
        }
    }

    /// LDP, STP and relatives.
    fn pair(&mut self, word: u32, big_endian: bool) -> Option<()> {
        let is_word_signed = !self.what.simd && bits(word, 31, 30) == 1;
        if is_word_signed && !bit(word, 22) {
            // STGP stores a tag as well.
            return None;
        }
        let extension = if is_word_signed { Extension::Sign64 } else { Extension::Zero };
        self.whole(0, self.what.rt, extension, big_endian)?;
        self.whole(1, bits(word, 14, 10) as u8, extension, big_endian)?;
        if bit(word, 23) {
            self.moved = Moved::By(signed(word, 21, 15) * i64::from(self.what.bytes));
        }
        Some(())
    }

    /// LDR, STR and relatives of one register, in every addressing mode, and the atomics.
    fn single(&mut self, word: u32, big_endian: bool) -> Option<()> {
        let (is_immediate, mode) = (bit(word, 24), bits(word, 11, 10));
        let rt = self.what.rt;
        if let Address::Authenticated { .. } = self.what.address {
            if bit(word, 11) {
                self.moved = Moved::ToAddress;
            }
            return self.whole(0, rt, Extension::Zero, big_endian);
        }
        if !is_immediate && bit(word, 21) && mode == 0 {
            return self.atomic(word, big_endian);
        }
        let extension = if self.what.simd { Extension::Zero } else { extension_of(word) };
        self.whole(0, rt, extension, big_endian)?;
        if !is_immediate && !bit(word, 21) && bit(word, 10) {
            self.moved = Moved::By(signed(word, 20, 12));
        }
        Some(())
    }

    fn atomic(&mut self, word: u32, big_endian: bool) -> Option<()> {
        let operation = match (bit(word, 15), bits(word, 14, 12)) {
            // LDAPR.
            (true, 0b100) => None,
            (true, _) => Some(Operation::Swap),
            (false, 0) => Some(Operation::Add),
            (false, 1) => Some(Operation::Clear),
            (false, 2) => Some(Operation::ExclusiveOr),
            (false, 3) => Some(Operation::Set),
            (false, 4) => Some(Operation::SignedMax),
            (false, 5) => Some(Operation::SignedMin),
            (false, 6) => Some(Operation::UnsignedMax),
            (false, _) => Some(Operation::UnsignedMin),
        };
        if let Some(operation) = operation {
            self.action = Action::Update(operation, bits(word, 20, 16) as u8);
        }
        self.whole(0, self.what.rt, Extension::Zero, big_endian)
    }
}

/// How a load of one register extends it: by opc.
const fn extension_of(word: u32) -> Extension {
    match bits(word, 23, 22) {
        2 => Extension::Sign64,
        3 => Extension::Sign32,
        _ => Extension::Zero,
    }
}

#[cfg(test)]
#[path = "form/tests.rs"]
mod tests;
