//! What an A64 instruction loads and stores: where, how much, and in which direction.
//!
//! A trace with memory accesses needs this before an instruction executes, while its base register
//! still holds what the address is made from. Data is not looked at here: whoever asks reads it.
//!
//! Deliberately absent, and answered with nothing: instructions that access no data (prefetches,
//! barriers, cache maintenance, allocation tags alone), and those that no CPU of ours has: SVE, the
//! memory copies of FEAT_MOPS, 64-byte accesses (FEAT_LS64), 128-bit atomics (FEAT_LSE128) and the
//! SIMD and pair forms of FEAT_LRCPC3.
//!
//! Source: Arm ARM, DDI 0487 L.b, A64 instruction set encoding: Loads and Stores.

use crate::bit_field::{bit, field, signed_field};

/// What an instruction does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It loads.
    Load,
    /// It stores.
    Store,
    /// It loads and stores: an atomic, or a compare-and-swap (which may store nothing).
    Both,
}

/// How the address of the first byte comes about. Register number 31 is the stack pointer as a
/// base, and the zero register as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A base register and an offset in bytes; 0 where the instruction moves the base afterwards.
    Base {
        /// Base register.
        rn: u8,
        /// Offset.
        offset: i64,
    },
    /// A base register and an index.
    Indexed {
        /// Base register.
        rn: u8,
        /// Index register.
        rm: u8,
        /// How the index is extended.
        extend: Extend,
        /// By how many bits it is shifted.
        shift: u8,
    },
    /// So far from the instruction itself.
    Literal {
        /// Distance in bytes.
        offset: i64,
    },
    /// Bytes up to the next multiple of a size, around a base register: DC ZVA.
    Block {
        /// Register with an address in the block.
        rn: u8,
    },
    /// A base register that is authenticated first: LDRAA and LDRAB. Its address is not in it.
    Authenticated {
        /// Base register.
        rn: u8,
        /// Offset.
        offset: i64,
    },
}

/// How an index register becomes an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extend {
    /// Bits 31:0, zero-extended.
    Uxtw,
    /// All of it.
    Uxtx,
    /// Bits 31:0, sign-extended.
    Sxtw,
}

/// The memory operands of an instruction: `count` of `bytes` bytes each, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadStore {
    /// In which direction.
    pub direction: Direction,
    /// Where the first byte is.
    pub address: Address,
    /// Bytes for each register: 1, 2, 4, 8 or 16. 0 for DC ZVA, whose block DCZID_EL0 tells.
    pub bytes: u8,
    /// Registers transferred, 1 to 4.
    pub count: u8,
    /// First register; 31 is the zero register.
    pub rt: u8,
    /// Registers are SIMD ones.
    pub simd: bool,
}

impl LoadStore {
    /// Decodes an instruction word; nothing where it accesses no data.
    #[must_use]
    pub const fn decode(word: u32) -> Option<Self> {
        if word & 0xffff_ffe0 == 0xd50b_7420 {
            let address = Address::Block { rn: (word & 31) as u8 };
            let direction = Direction::Store;
            return Some(Self { direction, address, bytes: 0, count: 1, rt: 31, simd: false });
        }
        let wide = word as u64;
        match (field(wide, 29, 27), bit(wide, 26), field(wide, 25, 24)) {
            (0b001, false, 0b00) => exclusive(wide),
            (0b001, true, 0b00) => structures(wide),
            (0b001, true, 0b01) => structure(wide),
            (0b011, simd, 0b00) => literal(wide, simd),
            (0b011, false, 0b01) => ordered_unscaled(wide),
            (0b101, simd, 0b00 | 0b01) => pair(wide, simd),
            (0b111, simd, 0b00 | 0b01) => single(wide, simd),
            _ => None,
        }
    }

    /// Computes the address of the first byte. `base` reads a register where 31 is the stack
    /// pointer, `index` one where it is zero. Nothing for an authenticated base.
    #[must_use]
    pub fn address(
        &self,
        pc: u64,
        base: impl Fn(u8) -> u64,
        index: impl Fn(u8) -> u64,
    ) -> Option<u64> {
        Some(match self.address {
            Address::Base { rn, offset } => base(rn).wrapping_add(offset as u64),
            Address::Indexed { rn, rm, extend, shift } => {
                let value = index(rm);
                let value = match extend {
                    Extend::Uxtx => value,
                    Extend::Uxtw => value & 0xffff_ffff,
                    Extend::Sxtw => value as u32 as i32 as i64 as u64,
                };
                base(rn).wrapping_add(value.wrapping_shl(u32::from(shift)))
            }
            Address::Literal { offset } => pc.wrapping_add(offset as u64),
            Address::Block { rn } => index(rn),
            Address::Authenticated { .. } => return None,
        })
    }
}

/// Two to the power of a field of a few bits.
const fn power(exponent: u64) -> u8 {
    1_u8.wrapping_shl(exponent as u32)
}

const fn rn(word: u64) -> u8 {
    field(word, 9, 5) as u8
}

const fn rt(word: u64) -> u8 {
    field(word, 4, 0) as u8
}

const fn load_if(load: bool) -> Direction {
    if load { Direction::Load } else { Direction::Store }
}

const fn at_base(word: u64, offset: i64) -> Address {
    Address::Base { rn: rn(word), offset }
}

/// Exclusives, compare-and-swap, load-acquire and store-release.
const fn exclusive(word: u64) -> Option<LoadStore> {
    let size = field(word, 31, 30);
    let (o2, o1, load) = (bit(word, 23), bit(word, 21), bit(word, 22));
    let one = power(size);
    let (bytes, count, direction) = match (o2, o1) {
        (false, false) | (true, false) => (one, 1, load_if(load)),
        (false, true) if size >= 2 => (one, 2, load_if(load)),
        // CASP: size 0 is of 4 bytes, 1 of 8.
        (false, true) => (power(size).wrapping_mul(4), 2, Direction::Both),
        (true, true) => (one, 1, Direction::Both),
    };
    let address = at_base(word, 0);
    Some(LoadStore { direction, address, bytes, count, rt: rt(word), simd: false })
}

/// LD1 to LD4 and ST1 to ST4 of whole registers.
const fn structures(word: u64) -> Option<LoadStore> {
    if bit(word, 31) || bit(word, 21) || (!bit(word, 23) && field(word, 20, 16) != 0) {
        return None;
    }
    let count = match field(word, 15, 12) {
        0b0000 | 0b0010 => 4,
        0b0100 | 0b0110 => 3,
        0b1000 | 0b1010 => 2,
        0b0111 => 1,
        _ => return None,
    };
    // LD2 to LD4 of single doublewords do not exist.
    let interleaves = matches!(field(word, 15, 12), 0b0000 | 0b0100 | 0b1000);
    if interleaves && field(word, 11, 10) == 3 && !bit(word, 30) {
        return None;
    }
    let bytes = if bit(word, 30) { 16 } else { 8 };
    let (direction, address) = (load_if(bit(word, 22)), at_base(word, 0));
    Some(LoadStore { direction, address, bytes, count, rt: rt(word), simd: true })
}

/// LD1 to LD4 and ST1 to ST4 of one element, and LD1R to LD4R.
const fn structure(word: u64) -> Option<LoadStore> {
    if bit(word, 31) || (!bit(word, 23) && field(word, 20, 16) != 0) {
        return None;
    }
    let (load, size, s) = (bit(word, 22), field(word, 11, 10), bit(word, 12));
    let count = (field(word, 13, 13) << 1 | field(word, 21, 21)).wrapping_add(1) as u8;
    let bytes = match field(word, 15, 14) {
        0 => 1,
        1 if size & 1 == 0 => 2,
        2 if size == 0 => 4,
        2 if size == 1 && !s => 8,
        3 if load && !s => power(size),
        _ => return None,
    };
    let (direction, address) = (load_if(load), at_base(word, 0));
    Some(LoadStore { direction, address, bytes, count, rt: rt(word), simd: true })
}

/// LDR of a literal.
const fn literal(word: u64, simd: bool) -> Option<LoadStore> {
    let bytes = match (simd, field(word, 31, 30)) {
        (false, 0 | 2) | (true, 0) => 4,
        (false, 1) | (true, 1) => 8,
        (true, 2) => 16,
        // PRFM, and nothing.
        _ => return None,
    };
    let address = Address::Literal { offset: signed_field(word, 23, 5) << 2 };
    Some(LoadStore { direction: Direction::Load, address, bytes, count: 1, rt: rt(word), simd })
}

/// LDAPUR and STLUR (FEAT_LRCPC2). The rest of this corner is tags and FEAT_MOPS.
const fn ordered_unscaled(word: u64) -> Option<LoadStore> {
    let (size, opc) = (field(word, 31, 30), field(word, 23, 22));
    if bit(word, 21) || field(word, 11, 10) != 0 || !is_general(size, opc) || size == 3 && opc > 1 {
        return None;
    }
    let (direction, address) = (load_if(opc != 0), at_base(word, signed_field(word, 20, 12)));
    Some(LoadStore { direction, address, bytes: power(size), count: 1, rt: rt(word), simd: false })
}

/// LDP, STP and relatives.
const fn pair(word: u64, simd: bool) -> Option<LoadStore> {
    let (opc, mode, load) = (field(word, 31, 30), field(word, 24, 23), bit(word, 22));
    let bytes: u8 = match (simd, opc) {
        (true, 0..=2) => power(opc).wrapping_mul(4),
        (false, 0) => 4,
        (false, 2) => 8,
        // LDPSW.
        (false, 1) if load && mode != 0 => 4,
        // STGP stores a tag for each 16 bytes, too, and scales by that.
        (false, 1) if mode != 0 => 8,
        _ => return None,
    };
    let scale = if !simd && opc == 1 && !load { 16 } else { bytes as i64 };
    let offset = if mode == 1 { 0 } else { signed_field(word, 21, 15).wrapping_mul(scale) };
    let (direction, address) = (load_if(load), at_base(word, offset));
    Some(LoadStore { direction, address, bytes, count: 2, rt: rt(word), simd })
}

/// LDR, STR and relatives of one register, in every addressing mode, and the atomics.
const fn single(word: u64, simd: bool) -> Option<LoadStore> {
    let (size, opc) = (field(word, 31, 30), field(word, 23, 22));
    let mode = field(word, 11, 10);
    let is_unsigned_offset = bit(word, 24);
    if !is_unsigned_offset && bit(word, 21) {
        match mode {
            0 if !simd => return atomic(word),
            // LDRAA and LDRAB.
            1 | 3 if !simd && size == 3 => return Some(authenticated(word)),
            2 => {}
            _ => return None,
        }
    }
    let scale = if simd { (opc & 2) << 1 | size } else { size };
    if scale > 4
        || !simd && !is_general(size, opc)
        || simd && mode == 2 && has_unprivileged_mode(word)
    {
        return None;
    }
    let address = if is_unsigned_offset {
        at_base(word, field(word, 21, 10).wrapping_shl(scale as u32) as i64)
    } else if bit(word, 21) {
        match indexed(word, scale as u8) {
            Some(address) => address,
            None => return None,
        }
    } else if mode == 1 {
        at_base(word, 0)
    } else {
        at_base(word, signed_field(word, 20, 12))
    };
    let direction = load_if(if simd { opc & 1 != 0 } else { opc != 0 });
    Some(LoadStore { direction, address, bytes: power(scale), count: 1, rt: rt(word), simd })
}

/// The place of LDTR and STTR: there are none for SIMD registers.
const fn has_unprivileged_mode(word: u64) -> bool {
    !bit(word, 24) && !bit(word, 21) && field(word, 11, 10) == 2
}

/// Tells whether an instruction is LDTR, STTR or a relative, which EL1 uses for accesses with EL0's
/// rights.
#[must_use]
pub const fn is_unprivileged(word: u32) -> bool {
    word & 0x3f20_0c00 == 0x3800_0800 && LoadStore::decode(word).is_some()
}

/// Whether size and opc are a load or store of a general register: not a prefetch, and no
/// sign-extension to less than there is.
const fn is_general(size: u64, opc: u64) -> bool {
    !(size == 3 && opc > 1 || size == 2 && opc == 3)
}

/// A register offset.
const fn indexed(word: u64, scale: u8) -> Option<Address> {
    let extend = match field(word, 15, 13) {
        0b010 => Extend::Uxtw,
        0b011 | 0b111 => Extend::Uxtx,
        0b110 => Extend::Sxtw,
        _ => return None,
    };
    let shift = if bit(word, 12) { scale } else { 0 };
    Some(Address::Indexed { rn: rn(word), rm: field(word, 20, 16) as u8, extend, shift })
}

const fn authenticated(word: u64) -> LoadStore {
    let offset = signed_field(word, 22, 22) << 12 | (field(word, 20, 12) << 3) as i64;
    LoadStore {
        direction: Direction::Load,
        address: Address::Authenticated { rn: rn(word), offset },
        bytes: 8,
        count: 1,
        rt: rt(word),
        simd: false,
    }
}

/// LDADD and relatives, SWP (FEAT_LSE), and LDAPR (FEAT_LRCPC).
const fn atomic(word: u64) -> Option<LoadStore> {
    let (acquire, release) = (bit(word, 23), bit(word, 22));
    let direction = match (bit(word, 15), field(word, 14, 12)) {
        (false, _) | (true, 0) => Direction::Both,
        (true, 0b100) if acquire && !release => Direction::Load,
        _ => return None,
    };
    let bytes = power(field(word, 31, 30));
    let address = at_base(word, 0);
    Some(LoadStore { direction, address, bytes, count: 1, rt: rt(word), simd: false })
}

#[cfg(test)]
mod tests;
