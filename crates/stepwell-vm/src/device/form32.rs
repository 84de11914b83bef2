//! [`Form`]s of AArch32: what EL0 loads and stores in A32 and T32.
//!
//! Both sets come to the same: a base register, what is added to it before and after, and registers. An
//! index is a number by the time that an instruction is looked at, and so is the PC where it is the base.
//!
//! Deliberately absent, and answered with nothing: structures of SIMD registers, whatever loads the PC or
//! stores it, and forms that the manual calls UNPREDICTABLE. A load-exclusive of two words reads one after
//! the other.
//!
//! Source: Arm ARM, DDI 0487 L.b, "A32 Instruction Set Encoding" and "T32 Instruction Set Encoding".

use super::form::{Action, Extension, Form, Moved, Operation, Piece, Place};
use heapless::Vec;
use stepwell_arch::LoadStore;
use stepwell_arch::aarch32::t32::is_wide;
use stepwell_arch::aarch32::{self, Found, InstructionSet};
use stepwell_arch::load_store::{Address, Direction};

/// The PC as an operand.
const PC: u8 = 15;
const SP: u8 = 13;
const LR: u8 = 14;

const fn bits(word: u32, high: u32, low: u32) -> u32 {
    word << (31 - high) >> (31 - high + low)
}

const fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 == 1
}

const fn number(word: u32, low: u32) -> u8 {
    (word >> low & 0xf) as u8
}

/// A word of code, and what an instruction of it may be made of.
struct Code<R> {
    word: u32,
    /// What the PC reads as.
    pc: u32,
    at: u32,
    register: R,
}

/// Decodes an instruction whose condition holds, at `at`; none where it is nothing that this knows. Of
/// T32, the first halfword is the lower one. `register` reads R0 to R14.
#[must_use]
pub fn decode(
    set: InstructionSet,
    word: u32,
    at: u32,
    register: impl Fn(u8) -> u32,
) -> Option<Form> {
    let found = Found::decode(set, word)?;
    let ahead = if set == InstructionSet::A32 { 8 } else { 4 };
    let joined = if set == InstructionSet::A32 { word } else { word.rotate_right(16) };
    let code = Code { word: joined, pc: at.wrapping_add(ahead), at, register };
    match found.instruction {
        aarch32::Instruction::LoadExclusive { bytes, pair, rn, offset, rt, rt2 } => {
            let form = code.form(true, bytes, rn, offset.into())?;
            exclusive(form, Action::LoadExclusive, pair, rt, rt2)
        }
        aarch32::Instruction::StoreExclusive { bytes, pair, rn, offset, rd, rt, rt2 } => {
            let form = code.form(false, bytes, rn, offset.into())?;
            exclusive(form, Action::StoreExclusive(rd), pair, rt, rt2)
        }
        _ if set == InstructionSet::A32 && word >> 28 == 0xf => None,
        _ if set == InstructionSet::A32 => code.a32(),
        _ if is_wide(word as u16) => code.wide(),
        _ => code.narrow(),
    }
}

fn exclusive(mut form: Form, action: Action, pair: bool, rt: u8, rt2: u8) -> Option<Form> {
    form.action = action;
    add(&mut form, rt, Extension::Zero)?;
    if pair {
        add(&mut form, rt2, Extension::Zero)?;
    }
    Some(form)
}

/// Adds a general-purpose register, behind the others in memory.
fn add(form: &mut Form, register: u8, extension: Extension) -> Option<()> {
    (register != PC).then_some(())?;
    push(form, Place::General(register, extension))
}

fn push(form: &mut Form, place: Place) -> Option<()> {
    let bytes = form.what.bytes;
    let offset = form.pieces.len() as u64 * u64::from(bytes);
    form.pieces.push(Piece { offset, bytes, place }).ok()?;
    form.what.count = form.pieces.len() as u8;
    Some(())
}

const fn extension(is_signed: bool) -> Extension {
    if is_signed { Extension::Sign32 } else { Extension::Zero }
}

impl<R: Fn(u8) -> u32> Code<R> {
    /// An access so far from a base register.
    fn form(&self, is_load: bool, bytes: u8, rn: u8, offset: i64) -> Option<Form> {
        let direction = if is_load { Direction::Load } else { Direction::Store };
        let address = if rn == PC {
            let base = self.pc & !3;
            Address::Literal { offset: i64::from(base.wrapping_sub(self.at)) + offset }
        } else {
            Address::Base { rn, offset }
        };
        Some(Form {
            what: LoadStore { direction, address, bytes, count: 0, rt: 31, simd: false },
            pieces: Vec::new(),
            action: Action::Transfer,
            clears_rest: false,
            vector_bytes: 16,
            is_of_bytes: false,
            base: rn,
            moved: Moved::Not,
        })
    }

    /// As [`Self::form`], by the bits P, W and U: before the access or after it, kept or not, up or down.
    fn indexed(&self, is_load: bool, bytes: u8, rn: u8, distance: u32) -> Option<Form> {
        let (p, w) = (bit(self.word, 24), bit(self.word, 21));
        let distance = i64::from(distance);
        let distance = if bit(self.word, 23) { distance } else { -distance };
        let mut form = self.form(is_load, bytes, rn, if p { distance } else { 0 })?;
        if !p || w {
            (rn != PC).then_some(())?;
            form.moved = Moved::By(distance);
        }
        Some(form)
    }

    fn one(form: Option<Form>, rt: u8, is_signed: bool) -> Option<Form> {
        let mut form = form?;
        let is_moved_and_loaded =
            form.moved != Moved::Not && form.what.direction == Direction::Load && rt == form.base;
        (!is_moved_and_loaded).then_some(())?;
        add(&mut form, rt, extension(is_signed))?;
        Some(form)
    }

    fn a32(&self) -> Option<Form> {
        let word = self.word;
        let (rn, rt, is_load) = (number(word, 16), number(word, 12), bit(word, 20));
        match bits(word, 27, 25) {
            0b000 if word & 0x90 == 0x90 => self.extra(),
            0b010 | 0b011 if !(bit(word, 25) && bit(word, 4)) => {
                let bytes = if bit(word, 22) { 1 } else { 4 };
                let distance =
                    if bit(word, 25) { self.shifted(number(word, 0))? } else { bits(word, 11, 0) };
                Self::one(self.indexed(is_load, bytes, rn, distance), rt, false)
            }
            0b100 if !bit(word, 22) => {
                let (is_up, is_before) = (bit(word, 23), bit(word, 24));
                self.multiple(is_load, rn, bits(word, 15, 0), is_up, is_before, bit(word, 21))
            }
            0b110 => self.vector(),
            _ => None,
        }
    }

    /// An index of A32, shifted by a number.
    fn shifted(&self, rm: u8) -> Option<u32> {
        (rm != PC).then_some(())?;
        let (value, amount) = ((self.register)(rm), bits(self.word, 11, 7));
        Some(match (bits(self.word, 6, 5), amount) {
            (0, _) => value.wrapping_shl(amount),
            (1, 0) => 0,
            (1, _) => value.wrapping_shr(amount),
            (2, 0) => ((value as i32) >> 31) as u32,
            (2, _) => ((value as i32).wrapping_shr(amount)) as u32,
            // RRX needs the carry flag.
            (_, 0) => return None,
            (..) => value.rotate_right(amount),
        })
    }

    /// Halves, signed bytes and pairs; SWP, and load-acquire and store-release.
    fn extra(&self) -> Option<Form> {
        let word = self.word;
        let (rn, rt, load) = (number(word, 16), number(word, 12), bit(word, 20));
        let kind = bits(word, 6, 5);
        if kind == 0 {
            return self.synchronization();
        }
        let distance = if bit(word, 22) {
            bits(word, 11, 8) << 4 | bits(word, 3, 0)
        } else {
            (number(word, 0) != PC).then_some(())?;
            (self.register)(number(word, 0))
        };
        if load || kind == 1 {
            let bytes = if kind == 2 { 1 } else { 2 };
            return Self::one(self.indexed(load, bytes, rn, distance), rt, kind > 1);
        }
        // Without P, W would be that of LDRHT.
        let is_defined = rt.is_multiple_of(2) && (bit(word, 24) || !bit(word, 21));
        is_defined.then_some(())?;
        self.pair(kind == 2, rn, distance, (rt, rt + 1))
    }

    fn pair(&self, load: bool, rn: u8, distance: u32, (rt, rt2): (u8, u8)) -> Option<Form> {
        let mut form = Self::one(self.indexed(load, 4, rn, distance), rt, false)?;
        let is_moved_and_loaded = form.moved != Moved::Not && load && rt2 == rn;
        (!is_moved_and_loaded).then_some(())?;
        add(&mut form, rt2, Extension::Zero)?;
        Some(form)
    }

    fn synchronization(&self) -> Option<Form> {
        let word = self.word;
        let rn = number(word, 16);
        if !bit(word, 24) {
            return None;
        }
        if !bit(word, 23) {
            // SWP and SWPB; bits 21:20 are 0.
            (bits(word, 21, 20) == 0).then_some(())?;
            let mut form = self.form(true, if bit(word, 22) { 1 } else { 4 }, rn, 0)?;
            form.what.direction = Direction::Both;
            form.action = Action::Update(Operation::Swap, number(word, 0));
            return Self::one(Some(form), number(word, 12), false);
        }
        let bytes = match (bits(word, 22, 21), bits(word, 9, 8)) {
            (0, 0) => 4,
            (2, 0) => 1,
            (3, 0) => 2,
            _ => return None,
        };
        let is_load = bit(word, 20);
        let rt = number(word, if is_load { 12 } else { 0 });
        Self::one(self.form(is_load, bytes, rn, 0), rt, false)
    }

    /// LDM, STM, PUSH and POP.
    fn multiple(
        &self,
        is_load: bool,
        rn: u8,
        list: u32,
        is_up: bool,
        is_before: bool,
        moves: bool,
    ) -> Option<Form> {
        let bytes = i64::from(list.count_ones()) * 4;
        let first = match (is_up, is_before) {
            (true, false) => 0,
            (true, true) => 4,
            (false, false) => 4 - bytes,
            (false, true) => -bytes,
        };
        let is_moved_and_loaded = moves && is_load && list >> rn & 1 == 1;
        let is_defined = rn != PC && bytes > 0 && !is_moved_and_loaded;
        is_defined.then_some(())?;
        let mut form = self.form(is_load, 4, rn, first)?;
        for register in (0..16).filter(|n| list >> n & 1 == 1) {
            add(&mut form, register, Extension::Zero)?;
        }
        if moves {
            form.moved = Moved::By(if is_up { bytes } else { -bytes });
        }
        Some(form)
    }

    /// VLDR, VSTR, VLDM and VSTM, which both sets encode alike.
    fn vector(&self) -> Option<Form> {
        let word = self.word;
        let (p, u, w) = (bit(word, 24), bit(word, 23), bit(word, 21));
        let (rn, is_load) = (number(word, 16), bit(word, 20));
        let (is_double, number) = match bits(word, 11, 8) {
            0xa => (false, bits(word, 15, 12) << 1 | bits(word, 22, 22)),
            0xb => (true, bits(word, 22, 22) << 4 | bits(word, 15, 12)),
            _ => return None,
        };
        let (words, bytes) = (bits(word, 7, 0), if is_double { 8 } else { 4 });
        let distance = i64::from(words) * 4;
        let (offset, count, moved) = match (p, u, w) {
            (true, _, false) => (if u { distance } else { -distance }, 1, Moved::Not),
            (false, true, false) => (0, words * 4 / bytes, Moved::Not),
            (false, true, true) => (0, words * 4 / bytes, Moved::By(distance)),
            (true, false, true) => (-distance, words * 4 / bytes, Moved::By(-distance)),
            _ => return None,
        };
        let is_defined = count > 0 && !(rn == PC && moved != Moved::Not);
        is_defined.then_some(())?;
        let mut form = self.form(is_load, bytes as u8, rn, offset)?;
        (form.what.simd, form.moved) = (true, moved);
        let in_quad = 16 / bytes;
        for register in number..number + count {
            (register < 32).then_some(())?;
            let (quad, at) = (register / in_quad, register % in_quad * bytes);
            push(&mut form, Place::Vector(quad as u8, at as u8))?;
        }
        Some(form)
    }

    /// T32 of two halfwords.
    fn wide(&self) -> Option<Form> {
        let word = self.word;
        let (rn, rt, is_load) = (number(word, 16), number(word, 12), bit(word, 20));
        match (bits(word, 31, 25), bit(word, 22)) {
            (0b111_0100, false) if bit(word, 24) != bit(word, 23) => {
                let (list, is_up) = (bits(word, 15, 0), bit(word, 23));
                self.multiple(is_load, rn, list, is_up, !is_up, bit(word, 21))
            }
            (0b111_0100, true) if bit(word, 24) || bit(word, 21) => {
                self.pair(is_load, rn, bits(word, 7, 0) << 2, (rt, number(word, 8)))
            }
            // LDA and STL, beside exclusives.
            (0b111_0100, true) if bit(word, 23) => {
                let bytes = match bits(word, 7, 4) {
                    0b1000 => 1,
                    0b1001 => 2,
                    0b1010 => 4,
                    _ => return None,
                };
                Self::one(self.form(is_load, bytes, rn, 0), rt, false)
            }
            (0b111_0110, _) => self.vector(),
            (0b111_1100, _) => self.wide_single(),
            _ => None,
        }
    }

    /// LDR, STR and relatives of T32, of two halfwords.
    fn wide_single(&self) -> Option<Form> {
        let word = self.word;
        let (rn, rt) = (number(word, 16), number(word, 12));
        let (is_load, is_signed, size) = (bit(word, 20), bit(word, 24), bits(word, 22, 21));
        let is_defined = size < 3 && !(is_signed && (!is_load || size == 2));
        is_defined.then_some(())?;
        let (bytes, is_up) = (1_u8 << size, bit(word, 23));
        let far = i64::from(bits(word, 11, 0));
        let near = i64::from(bits(word, 7, 0));
        let mut moved = Moved::Not;
        let offset = if rn == PC {
            is_load.then_some(if is_up { far } else { -far })?
        } else if is_up {
            far
        } else if bit(word, 11) {
            // P, U and W are one byte further down than elsewhere.
            let distance = if bit(word, 9) { near } else { -near };
            let (p, w) = (bit(word, 10), bit(word, 8));
            (p || w).then_some(())?;
            // P and U alone are LDRT and relatives, which EL0 has no other rights by.
            if w {
                moved = Moved::By(distance);
            }
            if p { distance } else { 0 }
        } else {
            let rm = number(word, 0);
            (bits(word, 11, 6) == 0 && rm != PC).then_some(())?;
            (self.register)(rm).wrapping_shl(bits(word, 5, 4)).into()
        };
        let mut form = self.form(is_load, bytes, rn, offset)?;
        form.moved = moved;
        Self::one(Some(form), rt, is_signed)
    }

    /// T32 of one halfword.
    fn narrow(&self) -> Option<Form> {
        // The only halfword is above.
        let word = self.word >> 16;
        let low = |at: u32| (word >> at & 7) as u8;
        let (is_load, offset) = (bit(word, 11), i64::from(bits(word, 10, 6)));
        match bits(word, 15, 12) {
            0b0100 if bit(word, 11) => {
                let offset = i64::from(bits(word, 7, 0)) * 4;
                Self::one(self.form(true, 4, PC, offset), low(8), false)
            }
            0b0101 => {
                let (is_load, bytes, is_signed) = match bits(word, 11, 9) {
                    0 => (false, 4, false),
                    1 => (false, 2, false),
                    2 => (false, 1, false),
                    3 => (true, 1, true),
                    4 => (true, 4, false),
                    5 => (true, 2, false),
                    6 => (true, 1, false),
                    _ => (true, 2, true),
                };
                let index = (self.register)(low(6)).into();
                Self::one(self.form(is_load, bytes, low(3), index), low(0), is_signed)
            }
            0b0110 => Self::one(self.form(is_load, 4, low(3), offset * 4), low(0), false),
            0b0111 => Self::one(self.form(is_load, 1, low(3), offset), low(0), false),
            0b1000 => Self::one(self.form(is_load, 2, low(3), offset * 2), low(0), false),
            0b1001 => {
                let offset = i64::from(bits(word, 7, 0)) * 4;
                Self::one(self.form(is_load, 4, SP, offset), low(8), false)
            }
            0b1100 => {
                let (rn, list) = (low(8), bits(word, 7, 0));
                let moves = !is_load || list >> rn & 1 == 0;
                self.multiple(is_load, rn, list, true, false, moves)
            }
            0b1011 if bits(word, 10, 9) == 0b10 => {
                // PUSH has LR, and POP the PC, which is not for here.
                let other = if is_load { PC } else { LR };
                let list = bits(word, 7, 0) | u32::from(bit(word, 8)) << other;
                self.multiple(is_load, SP, list, is_load, !is_load, true)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "form32/tests.rs"]
mod tests;
