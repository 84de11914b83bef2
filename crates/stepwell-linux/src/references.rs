//! Which addresses the code of a function refers to.
//!
//! A kernel's kallsyms often have functions only (without `CONFIG_KALLSYMS_ALL`), and its types no
//! addresses. But a variable is where the function that is known to use it says: A64 code makes an
//! address in the image by ADRP and an ADD, a load or a store. This follows such pairs through a
//! function's instructions in the order of their addresses: no branches, no calls. What comes out
//! are candidates; whoever asks has to know the right one by its contents.

use std::collections::BTreeSet;

/// Most bytes of a function that are looked at.
const FUNCTION_MAX: usize = 4096;

/// Returns the addresses that `code`, which runs at `address`, refers to.
#[must_use]
pub fn of(code: &[u8], address: u64) -> BTreeSet<u64> {
    let code = code.get(..FUNCTION_MAX).unwrap_or(code);
    let (mut registers, mut found, mut pc) = ([None; 32], BTreeSet::new(), address);
    for word in code.chunks_exact(4).filter_map(|word| <[u8; 4]>::try_from(word).ok()) {
        follow(u32::from_le_bytes(word), pc, &mut registers, &mut found);
        pc = pc.wrapping_add(4);
    }
    found
}

/// What an instruction does with addresses.
fn follow(word: u32, pc: u64, registers: &mut [Option<u64>; 32], found: &mut BTreeSet<u64>) {
    let (d, n) = ((word & 0x1f) as usize, (word >> 5 & 0x1f) as usize);
    let base = registers.get(n).copied().flatten();
    if word & 0x9f00_0000 == 0x9000_0000 {
        set(registers, d, Some(adrp(word, pc)));
    } else if word & 0xff80_0000 == 0x9100_0000 {
        // ADD (immediate), 64-bit.
        let immediate = u64::from(word >> 10 & 0xfff) << if word & 1 << 22 == 0 { 0 } else { 12 };
        let sum = base.map(|base| base.wrapping_add(immediate));
        found.extend(sum);
        set(registers, d, sum);
    } else if word & 0x3b00_0000 == 0x3900_0000 {
        // Load or store with an unsigned offset, scaled by the size of the access.
        let size = if word & 1 << 26 == 0 { word >> 30 } else { word >> 30 | word >> 21 & 4 };
        let offset = u64::from(word >> 10 & 0xfff) << size;
        found.extend(base.map(|base| base.wrapping_add(offset)));
        let loads = word >> 22 & 3 != 0 && word & 1 << 26 == 0;
        if loads {
            set(registers, d, None);
        }
    } else if word & 0x3b20_0400 == 0x3800_0400 {
        // Load or store with write-back: pre-indexed accesses the sum, post-indexed the base.
        let offset = i64::from(((word >> 12) as i32) << 23 >> 23);
        let sum = base.map(|base| base.wrapping_add_signed(offset));
        found.extend(if word & 1 << 11 == 0 { base } else { sum });
        if word >> 22 & 3 != 0 && word & 1 << 26 == 0 {
            set(registers, d, None);
        }
        set(registers, n, sum);
    } else if writes_general_register(word) {
        set(registers, d, None);
    }
}

fn set(registers: &mut [Option<u64>; 32], number: usize, value: Option<u64>) {
    if let Some(register) = registers.get_mut(number) {
        *register = value;
    }
}

fn adrp(word: u32, pc: u64) -> u64 {
    let immediate = u64::from(word >> 29 & 3) | u64::from(word >> 5 & 0x7_ffff) << 2;
    let pages = (immediate << 43) as i64 >> 43;
    (pc & !0xfff).wrapping_add_signed(pages << 12)
}

/// Tells whether bits 4 to 0 may name a register that is written: of all data processing, and of
/// loads of other forms. (For those that store it costs a candidate, no more.)
const fn writes_general_register(word: u32) -> bool {
    let class = word >> 25 & 0xf;
    // Data processing with an immediate or registers; loads and stores. Branches write X30 at most.
    matches!(class, 0b1000 | 0b1001 | 0b0101 | 0b1101 | 0b0100 | 0b0110 | 0b1100 | 0b1110)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: u64 = 0xffff_8000_0814_f4a8;

    fn references(words: &[u32]) -> Vec<u64> {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        of(&code, PC).into_iter().collect()
    }

    #[test]
    fn pages_and_what_is_added_make_addresses() {
        // adrp x20, #0xffff8000098bc000; add x20, x20, #0x5c0; ldr x19, [x20, #0x50]!
        let adrp = 0x9000_0000 | 20 | ((0x176d & 3) << 29) | ((0x176d >> 2) << 5);
        let words = [adrp, 0x9117_0294, 0xf845_0e93];
        assert_eq!(references(&words), [0xffff_8000_098b_c5c0, 0xffff_8000_098b_c610]);
        // ldr x0, [x20, #0x550] right behind the ADRP.
        assert_eq!(references(&[adrp, 0xf942_aa80]), [0xffff_8000_098b_c550]);
        // A store of four bytes at 0x10, then a load that ends the register's use.
        let words = [adrp, 0xb900_1281, 0xf942_aa94, 0x9117_0294];
        assert_eq!(references(&words), [0xffff_8000_098b_c010, 0xffff_8000_098b_c550]);
        // mov x20, x0 in between.
        assert!(references(&[adrp, 0xaa00_03f4, 0x9117_0294]).is_empty());
    }

    #[test]
    fn any_words_are_survived() {
        let mut word = 0x9e37_79b9_u32;
        let words: Vec<u32> = std::iter::repeat_with(|| {
            word = word.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            word
        })
        .take(4096)
        .collect();
        assert!(references(&words).len() <= FUNCTION_MAX / 4);
        assert_eq!(of(&[1, 2, 3], u64::MAX), BTreeSet::new());
    }
}
