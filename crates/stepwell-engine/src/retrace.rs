//! Whether a load-exclusive has read what lies in memory now, as far as registers tell.
//!
//! A monitor that is armed after the fact makes a store-exclusive succeed. Where somebody has written
//! meanwhile, a handler of the guest's own, say, that update would be lost. So the instructions since the
//! load are gone through once more, with what a load would read now: if that leaves in the registers what
//! is there, the guest is where it would be had the load been executed just now, and nothing is lost by a
//! store that succeeds. Only that the value has changed and changed back is not seen.
//!
//! The load's own register is often overwritten (LDXR, ADD, STXR). What was added can be taken off again:
//! sums, differences and exclusive ORs have one value of the load's for each result. What is set or
//! masked has not, but then that is all that is left of the load. Where something else is made of it (a
//! decision, a store, flags), nothing is known.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Exclusive access instructions and Non-shareable memory locations": a
//! store-exclusive may always fail.

use crate::exclusive::LoadExclusive;
use stepwell_arch::Operands;

/// What registers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The registers are what they would be.
    Same,
    /// They are not.
    Other,
    /// They do not tell.
    Unknown,
}

/// Goes through `words`, which have been executed since `load`: would it read `value` now?
///
/// `is_straight`: each once, one behind the other. `now` reads a register, of which 31 is zero.
#[must_use]
pub fn retrace(
    load: LoadExclusive,
    value: [u64; 2],
    words: &[u32],
    is_straight: bool,
    now: impl Fn(u8) -> u64,
) -> Finding {
    let targets = set(load.rt) | if load.pair { set(load.rt2) } else { 0 };
    let written = words.iter().fold(0, |all, &word| all | Operands::decode(word).writes);
    if written & targets == 0 {
        let [first, second] = value;
        let is_same = load.rt == 31 || now(load.rt) == first;
        let is_second_same = !load.pair || load.rt2 == 31 || now(load.rt2) == second;
        return if is_same && is_second_same { Finding::Same } else { Finding::Other };
    }
    if load.pair || !is_straight {
        return Finding::Unknown;
    }
    let mut derived = Derived::of(load, value);
    for (index, &word) in words.iter().enumerate() {
        let rest = words.get(index..).unwrap_or_default();
        derived.execute(word, |n| {
            let is_kept = !rest.iter().any(|&word| Operands::decode(word).writes & set(n) != 0);
            (n == 31 || is_kept).then(|| now(n))
        });
    }
    derived.compare(now)
}

/// The set of one register. The zero register is in none.
const fn set(n: u8) -> u32 {
    if n < 31 { 1_u32.wrapping_shl(n as u32) } else { 0 }
}

/// What is made of the value that a load has read.
struct Derived {
    /// Registers that depend on it.
    all: u32,
    /// Those that have another value for each of it.
    one_to_one: u32,
    /// What is in them.
    values: [Option<u64>; 31],
    /// Something depends on it that is in none of them.
    is_lost: bool,
    is_word: bool,
}

impl Derived {
    const fn of(load: LoadExclusive, value: [u64; 2]) -> Self {
        let [value, _] = value;
        let all = set(load.rt);
        let is_word = load.bytes <= 4;
        // Only that of the load's own register is asked for.
        Self { all, one_to_one: all, values: [Some(value); 31], is_lost: false, is_word }
    }

    /// Takes an instruction. `other` reads a register that does not depend on the load, if it is as it
    /// was.
    fn execute(&mut self, word: u32, other: impl Fn(u8) -> Option<u64>) {
        let Operands { reads, writes } = Operands::decode(word);
        let is_derived = reads & self.all != 0;
        let made = if is_derived { self.make(word, other) } else { None };
        self.is_lost |= is_derived && made.is_none();
        self.all &= !writes;
        self.one_to_one &= !writes;
        if let Some(Made { register, value, is_one_to_one }) = made
            && let Some(slot) = self.values.get_mut(usize::from(register))
        {
            *slot = value;
            self.all |= set(register);
            self.one_to_one |= if is_one_to_one { set(register) } else { 0 };
        }
    }

    fn make(&self, word: u32, other: impl Fn(u8) -> Option<u64>) -> Option<Made> {
        let Computation { operation, register, first, second } = Computation::decode(word)?;
        let read = |n: u8| {
            let value = self.values.get(usize::from(n)).copied().flatten();
            if self.all & set(n) != 0 { value } else { other(n) }
        };
        let (second_register, second_value) = match second {
            Second::Immediate(value) => (31, Some(value)),
            Second::Register { number, shift } => {
                (number, read(number).map(|value| value.wrapping_shl(shift)))
            }
        };
        let value = read(first).zip(second_value).map(|(a, b)| operation.apply(a, b));
        let is_wide = word >> 31 != 0;
        let value = value.map(|value| if is_wide { value } else { value & 0xffff_ffff });
        // Exactly one of both, and all its bits.
        let is_from = |n: u8| self.one_to_one & set(n) != 0;
        let is_unshifted = !matches!(second, Second::Register { shift: 1.., .. });
        let from = match (is_from(first), is_from(second_register)) {
            (true, false) => self.all & set(second_register) == 0,
            (false, true) => is_unshifted && self.all & set(first) == 0,
            _ => false,
        };
        let is_copy = first == 31 && operation == Operation::Or;
        let is_one_to_one =
            from && (operation.is_one_to_one() || is_copy) && (is_wide || self.is_word);
        Some(Made { register, value, is_one_to_one: is_one_to_one && value.is_some() })
    }

    fn compare(&self, now: impl Fn(u8) -> u64) -> Finding {
        let is_in = |all: u32, n: u8| all & set(n) != 0;
        let value = |n: u8| self.values.get(usize::from(n)).copied().flatten();
        let mut is_known = !self.is_lost;
        for n in (0..31).filter(|&n| is_in(self.all, n)) {
            match value(n) {
                Some(value) if value != now(n) => return Finding::Other,
                Some(_) if is_in(self.one_to_one, n) => return Finding::Same,
                Some(_) => {}
                None => is_known = false,
            }
        }
        if is_known { Finding::Same } else { Finding::Unknown }
    }
}

struct Made {
    register: u8,
    value: Option<u64>,
    is_one_to_one: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Subtract,
    And,
    Clear,
    Or,
    ExclusiveOr,
}

impl Operation {
    const fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            Self::Add => a.wrapping_add(b),
            Self::Subtract => a.wrapping_sub(b),
            Self::And => a & b,
            Self::Clear => a & !b,
            Self::Or => a | b,
            Self::ExclusiveOr => a ^ b,
        }
    }

    const fn is_one_to_one(self) -> bool {
        matches!(self, Self::Add | Self::Subtract | Self::ExclusiveOr)
    }
}

enum Second {
    Immediate(u64),
    /// Shifted left.
    Register {
        number: u8,
        shift: u32,
    },
}

/// One that is followed.
struct Computation {
    operation: Operation,
    register: u8,
    first: u8,
    second: Second,
}

impl Computation {
    /// ADD, SUB, AND, BIC, ORR and EOR that set no flags, of registers shifted left; ADD and SUB of an
    /// immediate, but of the stack pointer.
    fn decode(word: u32) -> Option<Self> {
        let number = |low: u32| (word.wrapping_shr(low) & 31) as u8;
        let (register, first) = (number(0), number(5));
        let is_subtraction = word & 1 << 30 != 0;
        let sum = if is_subtraction { Operation::Subtract } else { Operation::Add };
        if word & 0x3f80_0000 == 0x1100_0000 {
            let value = u64::from(word >> 10 & 0xfff);
            let second = Second::Immediate(if word & 1 << 22 == 0 { value } else { value << 12 });
            let is_of_stack = register == 31 || first == 31;
            return (!is_of_stack).then_some(Self { operation: sum, register, first, second });
        }
        let operation = match word & 0x7f20_0000 {
            0x0b00_0000 | 0x4b00_0000 => sum,
            0x0a00_0000 => Operation::And,
            0x0a20_0000 => Operation::Clear,
            0x2a00_0000 => Operation::Or,
            0x4a00_0000 => Operation::ExclusiveOr,
            _ => return None,
        };
        let shift = word >> 10 & 0x3f;
        let is_left = word >> 22 & 3 == 0 && (shift < 32 || word >> 31 != 0);
        let second = Second::Register { number: number(16), shift };
        is_left.then_some(Self { operation, register, first, second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: u32 = 0x9100_0400; // add x0, x0, #1
    const ORR: u32 = 0xaa02_0000; // orr x0, x0, x2
    const MRS: u32 = 0xd538_0404; // mrs x4, id_aa64pfr0_el1

    const fn load(bytes: u8, rt: u8) -> LoadExclusive {
        LoadExclusive { bytes, pair: false, rn: 9, rt, rt2: 31 }
    }

    /// With these registers, and 0 in all others.
    fn found(bytes: u8, words: &[u32], value: u64, registers: &[(u8, u64)]) -> Finding {
        let now = |n| registers.iter().find(|&&(m, _)| m == n).map_or(0, |&(_, x)| x);
        retrace(load(bytes, 0), [value, 0], words, true, now)
    }

    #[test]
    fn its_own_register_tells_what_a_load_has_read() {
        assert_eq!(found(8, &[], 7, &[(0, 7)]), Finding::Same);
        assert_eq!(found(8, &[MRS], 107, &[(0, 7)]), Finding::Other);
        let pair = LoadExclusive { bytes: 8, pair: true, rn: 9, rt: 0, rt2: 1 };
        let of = |value, words| retrace(pair, value, words, true, |n| u64::from(n) + 5);
        assert_eq!(of([5, 6], &[MRS]), Finding::Same);
        assert_eq!(of([5, 7], &[MRS]), Finding::Other);
        assert_eq!(of([5, 6], &[ADD]), Finding::Unknown);
    }

    #[test]
    fn what_was_added_is_taken_off_again() {
        assert_eq!(found(8, &[ADD, MRS], 7, &[(0, 8)]), Finding::Same);
        assert_eq!(found(8, &[ADD, MRS], 107, &[(0, 8)]), Finding::Other);
        // sub w0, w0, w2, which wraps; eor x0, x2, x0; mov x5, x0 and mov x0, #0.
        assert_eq!(found(4, &[0x4b02_0000], 0, &[(0, 0xffff_fffe), (2, 2)]), Finding::Same);
        assert_eq!(found(8, &[0xca00_0040], 5, &[(0, 7), (2, 2)]), Finding::Same);
        assert_eq!(found(8, &[0xaa00_03e5, 0xd280_0000], 5, &[(5, 5)]), Finding::Same);
        assert_eq!(found(8, &[0xaa00_03e5, 0xd280_0000], 6, &[(5, 5)]), Finding::Other);
        // W0 of a doubleword: half of it is nowhere, and does not matter.
        assert_eq!(found(8, &[0x1100_0400], 1 << 32 | 7, &[(0, 8)]), Finding::Same);
        // What was added is not there any more: add x0, x0, x2; mov x2, #0.
        assert_eq!(found(8, &[0x8b02_0000, 0xd280_0002], 7, &[(0, 8)]), Finding::Unknown);
        // add x0, x0, x0
        assert_eq!(found(8, &[0x8b00_0000], 7, &[(0, 14)]), Finding::Same);
    }

    #[test]
    fn of_bits_that_are_set_the_result_is_all_that_is_left() {
        assert_eq!(found(8, &[ORR], 0b101, &[(0, 0b111), (2, 2)]), Finding::Same);
        assert_eq!(found(8, &[ORR], 0b100, &[(0, 0b111), (2, 2)]), Finding::Other);
        // and x0, x0, x2; bic x0, x0, x2
        assert_eq!(found(8, &[0x8a02_0000], 0b111, &[(0, 0b010), (2, 2)]), Finding::Same);
        assert_eq!(found(8, &[0x8a22_0000], 0b111, &[(0, 0b101), (2, 2)]), Finding::Same);
        // mov x0, #0x55: nothing is left.
        assert_eq!(found(8, &[0xd280_0aa0], 7, &[(0, 0x55)]), Finding::Same);
    }

    #[test]
    fn what_goes_elsewhere_is_not_known() {
        // cbnz x0, …; str x0, [x1]; cmp x0, #1; fmov d5, x0; csel x5, x0, x1, eq
        for word in [0xb500_0060, 0xf900_0020, 0xf100_041f, 0x9e67_0005, 0x9a81_0005] {
            assert_eq!(found(8, &[word, ORR], 5, &[(0, 7), (2, 2)]), Finding::Unknown, "{word:#x}");
            // As long as it is still there, that does not matter.
            assert_eq!(found(8, &[word], 5, &[(0, 5)]), Finding::Same, "{word:#x}");
        }
        let now = |n| if n == 0 { 8 } else { 0 };
        assert_eq!(retrace(load(8, 0), [7, 0], &[ADD], false, now), Finding::Unknown);
    }
}
