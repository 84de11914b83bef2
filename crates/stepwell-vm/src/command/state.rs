//! Registers and memory of a stopped vCPU.

use super::{Result, find, stopped, vectors};
use crate::cpu::Cpu;
use crate::domain::{Domain, Power};
use crate::machine::Machine;
use crate::memory::GuestMemory;
use crate::vcpu::guest_view;
use crate::vcpu::state::VcpuCore;
use heapless::Vec;
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_protocol::{Place, Refusal, Registers};
use stepwell_wire::message::MAX_BYTES;
use stepwell_wire::{Answer, Bytes, Command};

/// Commands that read or write a stopped vCPU, or its memory.
pub(super) fn inspect<C: Cpu>(cpu: &C, machine: &Machine<C>, command: Command) -> Result {
    match command {
        Command::ReadRegisters { domain, vcpu } => {
            with_core(find(machine, domain)?, vcpu, |_, core| {
                Ok(Answer::Registers(core.registers()))
            })
        }
        Command::WriteRegisters { domain, vcpu, registers } => {
            with_core(find(machine, domain)?, vcpu, |_, core| write_registers(core, &registers))
        }
        Command::ReadSimd { domain, vcpu } => {
            with_core(find(machine, domain)?, vcpu, |_, core| Ok(vectors::read_simd(core)))
        }
        Command::WriteSimd { domain, vcpu, registers } => {
            with_core(find(machine, domain)?, vcpu, |_, core| vectors::write_simd(core, &registers))
        }
        Command::VectorLength { domain, vcpu } => {
            with_core(find(machine, domain)?, vcpu, |_, core| vectors::vector_length(core))
        }
        Command::ReadSve { domain, vcpu, register } => {
            with_core(find(machine, domain)?, vcpu, |_, core| vectors::read_sve(core, register))
        }
        Command::WriteSve { domain, vcpu, register, bytes } => {
            with_core(find(machine, domain)?, vcpu, |_, core| {
                vectors::write_sve(core, register, &bytes)
            })
        }
        Command::ReadSystemRegister { domain, vcpu, register } => {
            with_core(find(machine, domain)?, vcpu, |domain, core| {
                let register = SystemRegister(register);
                let value = guest_view::read_system(cpu, domain, vcpu, core, register);
                value.map(Answer::Value).ok_or(Refusal::NoSuchRegister)
            })
        }
        Command::WriteSystemRegister { domain, vcpu, register, value } => {
            with_core(find(machine, domain)?, vcpu, |_, core| {
                let written = guest_view::write_system(cpu, core, SystemRegister(register), value);
                if written { Ok(Answer::Done) } else { Err(Refusal::NoSuchRegister) }
            })
        }
        Command::ReadMemory { domain, vcpu, place, length } => {
            with_core(find(machine, domain)?, vcpu, |domain, core| {
                read_memory(cpu, domain, core, place, usize::from(length))
            })
        }
        Command::WriteMemory { domain, vcpu, place, bytes } => {
            with_core(find(machine, domain)?, vcpu, |domain, core| {
                write_memory(cpu, domain, core, place, &bytes)
            })
        }
        Command::Translate { domain, vcpu, va } => {
            with_core(find(machine, domain)?, vcpu, |domain, core| {
                let ipa = guest_view::translate(cpu, domain, core, Va(va));
                ipa.map(|ipa| Answer::Value(ipa.0)).ok_or(Refusal::NotMapped(va))
            })
        }
        _ => Err(Refusal::Unsupported),
    }
}

/// For more bytes than a message has room for.
const TOO_LONG: Refusal = Refusal::TooLong(MAX_BYTES as u16);

fn with_core<T, C: Cpu>(
    domain: &Domain<C>,
    vcpu: u8,
    act: impl FnOnce(&Domain<C>, &mut VcpuCore<C>) -> Result<T>,
) -> Result<T> {
    let control = stopped(domain)?;
    let index = usize::from(vcpu);
    let vcpu = domain.vcpus.get(index).ok_or(Refusal::NoSuchVcpu)?;
    if control.power(index) == Power::Off {
        return Err(Refusal::Off);
    }
    act(domain, &mut vcpu.core.lock())
}

fn write_registers<C: Cpu>(core: &mut VcpuCore<C>, registers: &Registers) -> Result {
    if guest_view::write(core, registers) { Ok(Answer::Done) } else { Err(Refusal::BadValue) }
}

/// Splits an access at page borders, because each page has a translation of its own.
fn pages<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    core: &VcpuCore<C>,
    place: Place,
    length: usize,
    mut act: impl FnMut(Ipa, core::ops::Range<usize>) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < length {
        let (start, ipa) = match place {
            Place::Va(va) => {
                let va = va.offset(done as u64);
                let ipa = guest_view::translate(cpu, domain, core, va);
                (va.0, ipa.ok_or(Refusal::NotMapped(va.0))?)
            }
            Place::Ipa(ipa) => {
                let ipa = ipa.offset(done as u64);
                (ipa.0, ipa)
            }
        };
        let left_in_page = 4096 - (start as usize & 0xfff);
        let end = length.min(done + left_in_page);
        act(ipa, done..end)?;
        done = end;
    }
    Ok(())
}

fn read_memory<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    core: &VcpuCore<C>,
    place: Place,
    length: usize,
) -> Result {
    if length > MAX_BYTES {
        return Err(TOO_LONG);
    }
    let mut bytes = [0; MAX_BYTES];
    pages(cpu, domain, core, place, length, |ipa, range| {
        let into = bytes.get_mut(range).ok_or(TOO_LONG)?;
        domain.ram.read(ipa, into).map_err(|_| Refusal::NotMapped(ipa.0))
    })?;
    let read = bytes.get(..length).ok_or(TOO_LONG)?;
    Ok(Answer::Memory(Vec::from_slice(read).map_err(|_| TOO_LONG)?))
}

fn write_memory<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    core: &VcpuCore<C>,
    place: Place,
    bytes: &Bytes,
) -> Result {
    // Every page first: a write that is refused has written nothing.
    pages(cpu, domain, core, place, bytes.len(), |ipa, range| {
        let located = domain.ram.locate(ipa, range.len() as u64);
        located.map(|_| ()).map_err(|_| Refusal::NotMapped(ipa.0))
    })?;
    pages(cpu, domain, core, place, bytes.len(), |ipa, range| {
        let from = bytes.get(range).ok_or(TOO_LONG)?;
        domain.about_to_store(ipa, from.len() as u64);
        domain.ram.write(ipa, from).map_err(|_| Refusal::NotMapped(ipa.0))?;
        let bytes = from.len() as u64;
        domain.sync_views(ipa, bytes);
        // The bytes are written; a breakpoint that they have moved cannot be.
        domain.stored(Some((ipa, bytes))).map_err(|_| Refusal::NoMemory)?;
        Ok(())
    })?;
    Ok(Answer::Done)
}
