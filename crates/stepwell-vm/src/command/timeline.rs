//! Commands about positions, where the machine counts instructions.

use super::{Result, running, stopped};
use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::domain::{Control, Domain, Power};
use crate::machine::Machine;
use crate::memory::GuestMemory;
use crate::timeline::Moment;
use crate::vcpu::state::VcpuCore;
use stepwell_arch::{Ipa, SystemRegister};
use stepwell_protocol::Refusal;
use stepwell_wire::{Answer, Timeline};

pub(super) fn read<C: Cpu>(domain: &Domain<C>) -> Result {
    let control = stopped(domain)?;
    let timeline = domain.timeline.as_ref().ok_or(Refusal::NotCounted)?.lock();
    let Moment { position, clock } = timeline.now();
    Ok(Answer::Timeline(Timeline {
        position,
        clock,
        executed: timeline.executed(),
        registers: hash_of_registers(domain, &control),
        ram: domain.ram.base().0,
        ram_bytes: domain.ram.bytes(),
    }))
}

pub(super) fn run_until<C: Cpu>(
    cpu: &C,
    machine: &Machine<C>,
    domain: &Domain<C>,
    (moment, turn): (Moment, Option<u8>),
    record: bool,
) -> Result {
    let control = stopped(domain)?;
    let timeline = domain.timeline.as_ref().ok_or(Refusal::NotCounted)?;
    drop(control);
    // Commands are served one at a time: nothing moves in between.
    let (until, until_turn) = timeline.lock().stop_at(Some(moment), turn);
    let result = match record {
        true => running::record_until(cpu, machine, domain),
        false => running::go_on_until(cpu, domain),
    };
    if result.is_err() {
        let _ours = timeline.lock().stop_at(until, until_turn);
    }
    result
}

pub(super) fn keep<C: Cpu>(domain: &Domain<C>) -> Result {
    let control = stopped(domain)?;
    domain.keep_moment(&control).map(|number| Answer::Value(number_of(domain, number)))
}

pub(super) fn go_to<C: Cpu>(cpu: &C, domain: &Domain<C>, checkpoint: u64) -> Result {
    let mut control = stopped(domain)?;
    let number = number_in(domain, checkpoint).ok_or(Refusal::NoSuchCheckpoint)?;
    domain.go_to_moment(cpu, &mut control, number).map(|()| Answer::Done)
}

pub(super) fn forget<C: Cpu>(machine: &Machine<C>, checkpoint: u64) -> Result {
    let mut domains = machine.domains.iter();
    let is_forgotten = domains.any(|domain| {
        number_in(domain, checkpoint).is_some_and(|number| domain.forget_moment(number))
    });
    if is_forgotten { Ok(Answer::Done) } else { Err(Refusal::NoSuchCheckpoint) }
}

pub(super) fn wrote<C: Cpu>(
    domain: &Domain<C>,
    (from, to): (u64, u64),
    ipa: Ipa,
    bytes: u64,
) -> Result {
    let number = |one| number_in(domain, one).ok_or(Refusal::NoSuchCheckpoint);
    let wrote = domain.wrote_between((number(from)?, number(to)?), ipa, bytes)?;
    Ok(Answer::Value(wrote.into()))
}

pub(super) fn fork<C: Cpu>(domain: &Domain<C>) -> Result {
    let _control = stopped(domain)?;
    domain.timeline.as_ref().ok_or(Refusal::NotCounted)?.lock().fork();
    Ok(Answer::Done)
}

/// The number of a moment among those of all domains.
fn number_of<C: Cpu>(domain: &Domain<C>, number: u64) -> u64 {
    number << u8::BITS | u64::from(domain.id)
}

/// A moment's number in its domain, if it is one of this domain's.
fn number_in<C: Cpu>(domain: &Domain<C>, number: u64) -> Option<u64> {
    (number as u8 == domain.id).then_some(number >> u8::BITS)
}

/// A hash of the registers of every vCPU that is on, and of which are.
fn hash_of_registers<C: Cpu>(domain: &Domain<C>, control: &Control) -> u64 {
    let mut hash = Hash::new();
    for (index, vcpu) in domain.vcpus.iter().enumerate() {
        hash.take((control.power(index) == Power::On).into());
        if control.power(index) == Power::On {
            take_registers(&mut hash, &vcpu.core.lock());
        }
    }
    hash.finish()
}

fn take_registers<C: Cpu>(hash: &mut Hash, core: &VcpuCore<C>) {
    let context = &core.context;
    hash.take_all(context.general());
    hash.take_all([context.sp_el0, context.elr, context.spsr]);
    for (register, value) in core.snapshot.iter() {
        // ISTATUS is the clock's, which may go on while the vCPU is stopped.
        let kept = if register == SystemRegister::CNTV_CTL_EL0 { value & 0b11 } else { value };
        hash.take(kept);
    }
    hash.take_all(core.private.iter().copied());
    let simd = &core.simd;
    hash.take_all(simd.v.into_iter().flat_map(|v| [v as u64, (v >> 64) as u64]));
    hash.take_all([simd.fpcr, simd.fpsr]);
    if let Some(sve) = &simd.sve {
        hash.take_all(sve.z.iter().flatten().map(|&byte| byte.into()));
        hash.take_all(sve.p.iter().flatten().map(|&byte| byte.into()));
        hash.take_all(sve.ffr.map(u64::from));
    }
    hash.take(core.is_suspended.into());
    if core.wakes_at != u64::MAX {
        hash.take(core.wakes_at);
    }
}

/// A hash that takes words: each is mixed by a multiplication and a shift, so that every bit of it
/// reaches every other.
struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0)
    }

    const fn take(&mut self, word: u64) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(ODD);
        self.0 = mixed ^ mixed >> 32;
    }

    fn take_all(&mut self, words: impl IntoIterator<Item = u64>) {
        words.into_iter().for_each(|word| self.take(word));
    }

    const fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_of_each_word_counts() {
        let of = |words: [u64; 2]| {
            let mut hash = Hash::new();
            hash.take_all(words);
            hash.finish()
        };
        let mut all: Vec<_> =
            (0..64).flat_map(|bit| [of([1 << bit, 0]), of([0, 1 << bit])]).collect();
        all.push(of([0, 0]));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 129);
    }
}
