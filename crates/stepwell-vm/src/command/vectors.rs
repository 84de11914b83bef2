//! FP/SIMD and SVE registers of a stopped vCPU.

use super::Result;
use crate::cpu::Cpu;
use crate::simd::Sve;
use crate::vcpu::state::VcpuCore;
use heapless::Vec;
use stepwell_protocol::{Refusal, SimdRegisters, SveRegister, VectorLength};
use stepwell_wire::message::MAX_BYTES;
use stepwell_wire::{Answer, Bytes};

pub(super) fn read_simd<C: Cpu>(core: &VcpuCore<C>) -> Answer {
    Answer::Simd(SimdRegisters { v: core.simd.v, fpcr: core.simd.fpcr, fpsr: core.simd.fpsr })
}

pub(super) fn write_simd<C: Cpu>(core: &mut VcpuCore<C>, registers: &SimdRegisters) -> Result {
    let simd = &mut core.simd;
    if simd.sve.as_ref().is_some_and(|sve| sve.is_streaming) {
        // Writing V0 to V31 would clear what the longer registers of that mode have beyond.
        return Err(Refusal::NoSuchRegister);
    }
    (simd.v, simd.fpcr, simd.fpsr) = (registers.v, registers.fpcr, registers.fpsr);
    simd.take_over_v();
    simd.is_written = true;
    Ok(Answer::Done)
}

pub(super) fn vector_length<C: Cpu>(core: &VcpuCore<C>) -> Result {
    let sve = core.simd.sve.as_ref().ok_or(Refusal::NoSuchRegister)?;
    let (longest, current) = (sve.longest(), sve.bytes());
    Ok(Answer::VectorLength(VectorLength { longest, current }))
}

pub(super) fn read_sve<C: Cpu>(core: &VcpuCore<C>, register: SveRegister) -> Result {
    let sve = core.simd.sve.as_ref().filter(|sve| !sve.is_streaming);
    let sve = sve.ok_or(Refusal::NoSuchRegister)?;
    let (longest, current) = lengths(sve, register);
    let place = match register {
        SveRegister::Z(n) => sve.z.get(usize::from(n)).map(<[u8; _]>::as_slice),
        SveRegister::P(n) => sve.p.get(usize::from(n)).map(<[u8; _]>::as_slice),
        SveRegister::Ffr => Some(sve.ffr.as_slice()),
    };
    let reachable = place.and_then(|bytes| bytes.get(..current)).ok_or(Refusal::NoSuchRegister)?;
    let too_long = Refusal::TooLong(MAX_BYTES as u16);
    let mut bytes = Vec::from_slice(reachable).map_err(|_| too_long)?;
    bytes.resize(longest, 0).map_err(|_| too_long)?;
    Ok(Answer::Memory(bytes))
}

pub(super) fn write_sve<C: Cpu>(
    core: &mut VcpuCore<C>,
    register: SveRegister,
    bytes: &Bytes,
) -> Result {
    let sve = core.simd.sve.as_mut().filter(|sve| !sve.is_streaming);
    let sve = sve.ok_or(Refusal::NoSuchRegister)?;
    let (longest, current) = lengths(sve, register);
    let is_out_of_reach = |(at, &byte): (usize, &u8)| at >= current && byte != 0;
    if bytes.len() > longest {
        return Err(Refusal::TooLong(longest as u16));
    }
    if bytes.iter().enumerate().any(is_out_of_reach) {
        return Err(Refusal::BadValue);
    }
    let place = match register {
        SveRegister::Z(n) => sve.z.get_mut(usize::from(n)).map(<[u8; _]>::as_mut_slice),
        SveRegister::P(n) => sve.p.get_mut(usize::from(n)).map(<[u8; _]>::as_mut_slice),
        SveRegister::Ffr => Some(sve.ffr.as_mut_slice()),
    };
    let place = place.ok_or(Refusal::NoSuchRegister)?;
    place.fill(0);
    for (to, from) in place.iter_mut().zip(bytes) {
        *to = *from;
    }
    core.simd.take_over_z();
    core.simd.is_written = true;
    Ok(Answer::Done)
}

/// Bytes of a register with the CPU's longest vectors, and with the guest's.
fn lengths(sve: &Sve, register: SveRegister) -> (usize, usize) {
    let bits_per_bit = match register {
        SveRegister::Z(_) => 1,
        SveRegister::P(_) | SveRegister::Ffr => 8,
    };
    (sve.longest() / bits_per_bit, sve.bytes() / bits_per_bit)
}
