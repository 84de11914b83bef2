//! Call frame information from instructions.
//!
//! Functions of a kernel that keeps frame pointers look alike: they push x29 and x30 as a pair, set
//! x29 to it, and pop the pair where they return. That is followed from the first instruction to
//! the last. A function that calls and does not look like that is assembly, of which is known that
//! x29 points to a frame record; one that calls nobody has its return address in x30.
//!
//! On a CPU that authenticates pointers the return address is signed before it is pushed. What
//! leads back there is found with the signature taken off, whatever the debugger knows of such
//! things: the kernel's addresses have all bits set where a signature is.
//!
//! Where the kernel enters from an exception it stores all registers in one order, at SP, and calls
//! on. There every register of what was interrupted is found again, x30 of a leaf function too, and
//! SP, and the PC that is no return address. A program at EL0 is where a stack ends.
//!
//! Source: Procedure Call Standard for the Arm 64-bit Architecture, The Frame Pointer; DWARF
//! Debugging Information Format 4, Call Frame Information.

const CODE_ALIGN: u64 = 4;
const SP: u8 = 31;
const FP: u8 = 29;
const LR: u8 = 30;
/// DWARF for the Arm 64-bit Architecture: the program counter.
const PC: u8 = 32;
const ADVANCE: u8 = 0x40;
const OFFSET: u8 = 0x80;
const RESTORE: u8 = 0xc0;
const ADVANCE_FAR: u8 = 0x04;
const UNDEFINED: u8 = 0x07;
const REMEMBER: u8 = 0x0a;
const RESTORE_STATE: u8 = 0x0b;
const DEFINE_CFA: u8 = 0x0c;
const DEFINE_CFA_OFFSET: u8 = 0x0e;
const OFFSET_EXTENDED_SIGNED: u8 = 0x11;
const VALUE_EXPRESSION: u8 = 0x16;
const OP_DEREF: u8 = 0x06;
const OP_CONST_8_BYTES: u8 = 0x0e;
const OP_CONST: u8 = 0x10;
const OP_MINUS: u8 = 0x1c;
const OP_OR: u8 = 0x21;
/// The value of x30, and a number in SLEB128 to be added to it.
const OP_LR: u8 = 0x70 + LR;
/// Length of the data that come with the augmentation "zS".
const NO_DATA: u8 = 0;

/// The last stores of the kernel's entry from an exception, in their order: `stp x28, x29, [sp,
/// #224]`, `stp x30, x21, [sp, #240]` (x21: the interrupted SP), `stp x22, x23, [sp, #256]` (PC and
/// PSTATE).
const ENTRY_STORES: [u32; 3] = [0xa90e_77fc, 0xa90f_57fe, 0xa910_5ff6];
/// `mrs x21, sp_el0`: it entered from EL0.
const READS_SP_EL0: u32 = 0xd538_4115;

/// Where a task of the kernel begins, `mov x0, x20`, `blr x19`: nobody has called that.
const TASK_BEGINS: [u32; 2] = [0xaa14_03e0, 0xd63f_0260];

/// Makes the contents of `.debug_frame` for functions given as address and size.
pub(super) fn debug_frame(functions: &[(u64, u64)], base: u64, code: &[u8]) -> Vec<u8> {
    let mut section = Vec::new();
    entry(&mut section, u32::MAX, |cie| {
        // Version 1, no augmentation, code in words, data in doublewords downwards.
        cie.extend([1, 0, CODE_ALIGN as u8, 0x78, LR]);
        cie.extend([DEFINE_CFA, SP, 0]);
    });
    let of_entries = section.len() as u32;
    entry(&mut section, u32::MAX, |cie| {
        // As above, but that what is further out was interrupted, and did not call.
        cie.extend([1, b'z', b'S', 0, CODE_ALIGN as u8, 0x78, PC, NO_DATA]);
        cie.extend([DEFINE_CFA, SP, 0]);
    });
    let signature = signature(base);
    for &(address, size) in functions {
        let start = address.checked_sub(base).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| code.get(start..)?.get(..usize::try_from(size).ok()?));
        let Some(bytes) = bytes else { continue };
        let words: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let stored = entry_from_exception(&words);
        entry(&mut section, if stored.is_some() { of_entries } else { 0 }, |fde| {
            fde.extend(address.to_le_bytes());
            fde.extend(size.to_le_bytes());
            match stored {
                Some(stored) => {
                    fde.push(NO_DATA);
                    describe_entry(fde, stored, words.contains(&READS_SP_EL0));
                }
                None => describe(fde, &words, signature),
            }
        });
    }
    section
}

/// The bits of a kernel's return address that a signature takes. A kernel is in the upper half of
/// its half of the address space: what is above that is all ones, and so is the highest bit below.
fn signature(base: u64) -> u64 {
    match base.leading_ones() {
        0 => 0,
        ones => !(u64::MAX >> (ones - 1)),
    }
}

/// Tells how many instructions the kernel's entry from an exception has executed when everything is
/// stored, if this is one.
fn entry_from_exception(words: &[u32]) -> Option<u64> {
    let mut missing = ENTRY_STORES.as_slice();
    for (n, word) in (1..).zip(words) {
        match missing {
            [next] if word == next => return Some(n),
            [next, rest @ ..] if word == next => missing = rest,
            _ => {}
        }
    }
    None
}

/// Where an entry from an exception has stored the registers of what was interrupted.
fn describe_entry(out: &mut Vec<u8>, stored: u64, is_from_el0: bool) {
    let mut rules = Rules::new(out, 0);
    rules.advance(stored);
    if is_from_el0 {
        out.extend([UNDEFINED, PC]);
        return;
    }
    for register in 0..=PC {
        // Doublewords are counted downwards: this is one that is above, in SLEB128.
        out.extend([OFFSET_EXTENDED_SIGNED, register, register.wrapping_neg() & 0x7f]);
    }
}

/// Writes a length, an identifier, and what `body` writes, padded.
fn entry(section: &mut Vec<u8>, id: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = id.to_le_bytes().to_vec();
    body(&mut bytes);
    // With DW_CFA_nop, which is 0.
    bytes.resize((bytes.len() + 4).next_multiple_of(8) - 4, 0);
    section.extend((bytes.len() as u32).to_le_bytes());
    section.extend(bytes);
}

/// What an instruction does to the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    None,
    /// SP goes down by so many bytes.
    Grow(u64),
    /// SP goes down by so many bytes, and x29 and x30 are stored there.
    Push(u64),
    /// x29 and x30 are stored so far above SP.
    Save(u64),
    /// x29 is set to so far above SP.
    SetFrame(u64),
    /// x29 and x30 are loaded, and SP goes up to where it was.
    Pop,
    /// x30 is signed (PACIASP, PACIBSP).
    Sign,
    /// x30 is no longer signed (AUTIASP, AUTIBSP).
    Authenticate,
    /// Somebody is called.
    Call,
    /// What follows is not reached from here.
    Leave,
}

const fn effect(word: u32) -> Effect {
    /// x29, x30 and SP in the fields of a pair's load or store.
    const PAIR: u32 = 0x7bfd;
    let pair_offset = ((word << 10) as i32 >> 25) as i64 * 8;
    match word {
        _ if word & 0xffc0_7fff == 0xa980_0000 | PAIR && pair_offset < 0 => {
            Effect::Push(pair_offset.unsigned_abs())
        }
        _ if word & 0xffc0_7fff == 0xa900_0000 | PAIR && pair_offset >= 0 => {
            Effect::Save(pair_offset.unsigned_abs())
        }
        _ if word & 0xffc0_7fff == 0xa8c0_0000 | PAIR
            || word & 0xffc0_7fff == 0xa940_0000 | PAIR =>
        {
            Effect::Pop
        }
        0xd503_233f | 0xd503_237f => Effect::Sign,
        0xd503_23bf | 0xd503_23ff => Effect::Authenticate,
        _ if word & 0xffc0_03ff == 0xd100_03ff => Effect::Grow((word >> 10 & 0xfff) as u64),
        _ if word & 0xffc0_03ff == 0x9100_03fd => Effect::SetFrame((word >> 10 & 0xfff) as u64),
        _ if word >> 26 == 0x25 || word & 0xffff_fc1f == 0xd63f_0000 => Effect::Call,
        // B, BR and RET with any register, ERET, and the RETs that authenticate.
        _ if word >> 26 == 0x05
            || word & 0xff9f_fc1f == 0xd61f_0000
            || word & 0xffff_fbff == 0xd65f_0bff
            || word == 0xd69f_03e0 =>
        {
            Effect::Leave
        }
        _ => Effect::None,
    }
}

fn describe(out: &mut Vec<u8>, words: &[u32], signature: u64) {
    let effects = || words.iter().map(|&word| effect(word));
    if words.windows(TASK_BEGINS.len()).any(|two| two == TASK_BEGINS) {
        out.extend([UNDEFINED, LR]);
        return;
    }
    let has_frame = effects().any(|effect| matches!(effect, Effect::Push(_) | Effect::Save(_)));
    if !has_frame {
        if effects().any(|effect| effect == Effect::Call) {
            // The frame record that x29 points to is all that is known.
            out.extend([DEFINE_CFA, FP, 16, OFFSET | FP, 2, OFFSET | LR, 1]);
        }
        return;
    }
    let mut writer = Rules::new(out, signature);
    for (n, effect) in (1_u64..).zip(effects()) {
        writer.take(n, effect);
    }
}

/// The rules as they are after some instructions.
struct Rules<'a> {
    out: &'a mut Vec<u8>,
    /// The instruction that the last rule holds from.
    told: u64,
    /// How far SP is below the CFA, while SP is what it is counted from.
    below: u64,
    is_framed: bool,
    is_saved: bool,
    /// The pair was popped: what SP was below the CFA before.
    popped: Option<u64>,
    /// The bits that a signature takes.
    signature: u64,
    is_signed: bool,
}

impl<'a> Rules<'a> {
    const fn new(out: &'a mut Vec<u8>, signature: u64) -> Self {
        Self {
            out,
            told: 0,
            below: 0,
            is_framed: false,
            is_saved: false,
            popped: None,
            signature,
            is_signed: false,
        }
    }

    /// Takes the effect of the instruction before the `n`th.
    fn take(&mut self, n: u64, effect: Effect) {
        match effect {
            Effect::Push(bytes) if !self.is_saved => {
                self.below += bytes;
                self.advance(n);
                self.emit(&[DEFINE_CFA_OFFSET], &[self.below]);
                self.save(0);
            }
            Effect::Grow(bytes) if !self.is_framed && self.popped.is_none() => {
                self.below += bytes;
                self.advance(n);
                self.emit(&[DEFINE_CFA_OFFSET], &[self.below]);
            }
            Effect::Save(offset) if !self.is_saved && offset + 16 <= self.below => {
                self.advance(n);
                self.save(offset);
            }
            Effect::SetFrame(offset)
                if self.is_saved && !self.is_framed && offset <= self.below =>
            {
                self.is_framed = true;
                self.advance(n);
                self.emit(&[DEFINE_CFA, FP], &[self.below - offset]);
            }
            Effect::Pop if self.is_saved && self.popped.is_none() => {
                self.popped = Some(self.below);
                self.advance(n);
                self.out.push(REMEMBER);
                self.emit(&[DEFINE_CFA, SP], &[0]);
                self.out.extend([RESTORE | FP, RESTORE | LR]);
                self.emit_signed();
            }
            Effect::Sign if !self.is_saved && self.signature != 0 => {
                self.is_signed = true;
                self.advance(n);
                self.emit_signed();
            }
            Effect::Authenticate if self.is_signed && self.popped.is_some() => {
                self.advance(n);
                self.out.push(RESTORE | LR);
            }
            Effect::Leave => {
                if let Some(below) = self.popped.take() {
                    self.below = below;
                    self.advance(n);
                    self.out.push(RESTORE_STATE);
                }
            }
            _ => {}
        }
    }

    /// x29 and x30 are in memory, so far above SP.
    fn save(&mut self, offset: u64) {
        let doublewords = (self.below - offset) / 8;
        self.is_saved = true;
        self.emit(&[OFFSET | FP], &[doublewords]);
        if self.is_signed {
            // The CFA is what an expression begins with.
            let mut place = vec![OP_CONST];
            unsigned(&mut place, 8 * (doublewords - 1));
            place.extend([OP_MINUS, OP_DEREF]);
            self.emit_unsigned(place);
        } else {
            self.emit(&[OFFSET | LR], &[doublewords - 1]);
        }
    }

    /// The return address is in x30, signed if it ever was.
    fn emit_signed(&mut self) {
        if self.is_signed {
            self.emit_unsigned(vec![OP_LR, 0]);
        }
    }

    /// The return address is what an expression gives, its signature taken off.
    fn emit_unsigned(&mut self, mut expression: Vec<u8>) {
        expression.push(OP_CONST_8_BYTES);
        expression.extend(self.signature.to_le_bytes());
        expression.push(OP_OR);
        self.emit(&[VALUE_EXPRESSION, LR], &[expression.len() as u64]);
        self.out.extend(expression);
    }

    /// The next rule holds from the `n`th instruction on.
    fn advance(&mut self, n: u64) {
        let by = n - self.told;
        self.told = n;
        match u8::try_from(by) {
            Ok(0) => {}
            Ok(by) if by < ADVANCE => self.out.push(ADVANCE | by),
            _ => {
                self.out.push(ADVANCE_FAR);
                self.out.extend((by as u32).to_le_bytes());
            }
        }
    }

    fn emit(&mut self, head: &[u8], operands: &[u64]) {
        self.out.extend(head);
        for &operand in operands {
            unsigned(self.out, operand);
        }
    }
}

/// Writes a number in LEB128.
fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
