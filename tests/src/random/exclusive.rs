//! Blocks of load- and store-exclusives.
//!
//! An interrupt between the two breaks a pair, on any CPU. So a pair that can succeed is always a
//! loop, whose every turn does the same; and one alone is made to fail whatever comes.

use super::blocks::{Block, SGI_TO_SELF, SGI1R};
use super::code::word;
use super::program::{Exclusive, reg};

/// An exclusive access: size as an exponent, pair, acquire or release.
#[derive(Clone, Copy)]
struct Form {
    size: u32,
    pair: bool,
    ordered: u32,
}

impl Form {
    fn random(block: &mut Block) -> Self {
        let pair = block.chance.one_in(3);
        let size = if pair { 2 + block.chance.below(2) } else { block.chance.below(4) };
        Self { size, pair, ordered: block.chance.below(2) << 15 }
    }

    const fn bytes(self) -> u32 {
        1 << (self.size + self.pair as u32)
    }

    const fn load(self, rt: u32, rt2: u32, rn: u32) -> u32 {
        let pair = if self.pair { 1 << 21 | rt2 << 10 } else { 31 << 10 };
        0x085f_0000 | self.size << 30 | self.ordered | pair | rn << 5 | rt
    }

    const fn store(self, rs: u32, rt: u32, rt2: u32, rn: u32) -> u32 {
        let pair = if self.pair { 1 << 21 | rt2 << 10 } else { 31 << 10 };
        0x0800_0000 | self.size << 30 | self.ordered | pair | rs << 16 | rn << 5 | rt
    }
}

/// Two data registers that differ.
fn two(block: &mut Block) -> (u32, u32) {
    let rt = block.chance.data();
    (rt, (rt + 1 + block.chance.below(15)) % 16)
}

/// An address for an access of `form`, in `reg::A`.
fn address(block: &mut Block, base: u32, form: Form) {
    let place = block.chance.between(0x100, 0xe00) & !(form.bytes() - 1);
    block.code.add(reg::A, base, place);
}

/// A loop until the store succeeds. `at_el1`: it may interrupt itself and use the other mapping.
pub fn retry_loop(block: &mut Block, base: u32, at_el1: bool) {
    let form = Form::random(block);
    let (rt, rt2) = two(block);
    let read_only = at_el1 && block.chance.one_in(6);
    let over_itself = !read_only && block.chance.one_in(6);
    let poked = at_el1 && block.chance.one_in(3);
    address(block, if read_only { reg::READ_ONLY } else { base }, form);
    block.code.mov(reg::B, reg::A);
    if poked {
        block.code.constant(reg::SCRATCH, SGI_TO_SELF);
    }
    if at_el1 {
        block.poke_without(reg::SCRATCH, poked);
    }
    let start = block.code.here();
    if read_only {
        // The store faults, and its handler skips it: the status is nobody's.
        block.code.constant(reg::STATUS, 0);
    }
    block.code.mov(reg::A, reg::B);
    let load = block.code.here();
    // LDXR Xn, [Xn]: afterwards its address is gone.
    let loaded = if over_itself { reg::A } else { rt };
    block.code.put(form.load(loaded, rt2, reg::A));
    for _ in 0..block.chance.below(4) {
        let other = block.chance.data();
        match block.chance.below(3) {
            0 => block.code.eor(reg::C, loaded, other),
            1 => block.code.put(0x8b00_0000 | other << 16 | loaded << 5 | reg::C),
            _ => {
                let place = block.chance.below(0x100);
                block.code.put(0xf940_0000 | place << 10 | base << 5 | reg::C);
            }
        }
    }
    let mut trap = 0;
    if poked {
        // Once only: the interrupt breaks the pair.
        let skip = block.code.forward(0x3600_0000 | reg::SCRATCH);
        block.code.put(word::MASK);
        trap = block.code.here();
        block.code.msr(SGI1R, reg::SCRATCH);
        block.code.put(word::ISB);
        block.code.put(0xd100_0400 | reg::SCRATCH << 5 | reg::SCRATCH);
        block.code.put(word::UNMASK);
        block.code.land(skip);
    }
    let store = block.code.here();
    let (first, second) = (block.chance.data(), block.chance.data());
    block.code.put(form.store(reg::STATUS, first, second, reg::B));
    let end = block.code.here();
    block.code.branch_to(0x3500_0000 | reg::STATUS, start);
    block.exclusives.push(Exclusive { start, load, store, end, trap, el0: !at_el1 });
    block.code.eor(first, first, loaded);
}

/// Store-exclusives that fail on every CPU: without a load, or with something in between that
/// clears the monitor.
pub fn failing(block: &mut Block) {
    let form = Form::random(block);
    let (rt, rt2) = two(block);
    address(block, reg::DATA, form);
    match block.chance.below(5) {
        0 => {
            block.code.put(word::CLREX);
            block.poke();
        }
        1 => {
            block.poke();
            block.code.put(form.load(rt, rt2, reg::A));
            block.poke();
            block.code.put(word::CLREX);
        }
        2 => {
            block.code.put(form.load(rt, rt2, reg::A));
            block.code.put(word::SVC | block.chance.below(0xff) << 5);
        }
        3 => {
            block.code.put(form.load(rt, rt2, reg::A));
            block.code.put(word::BRK);
            block.poke();
        }
        _ => {
            // Another address than the load's.
            block.code.put(form.load(rt, rt2, reg::A));
            block.code.add(reg::A, reg::A, 64);
            block.poke();
        }
    }
    let (first, second) = (block.chance.data(), block.chance.data());
    block.code.put(form.store(reg::STATUS, first, second, reg::A));
    block.code.eor(rt, rt, reg::STATUS);
    block.code.put(word::CLREX);
}

/// At EL0, where each instruction is followed by the guest's own step exception: always fails.
pub fn broken_by_steps(block: &mut Block) {
    let form = Form::random(block);
    let (rt, rt2) = two(block);
    address(block, reg::EL0_DATA, form);
    block.code.put(form.load(rt, rt2, reg::A));
    let (first, second) = (block.chance.data(), block.chance.data());
    block.code.put(form.store(reg::STATUS, first, second, reg::A));
    block.code.eor(rt, rt, reg::STATUS);
}
