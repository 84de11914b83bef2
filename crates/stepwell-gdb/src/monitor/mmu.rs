//! `monitor mmu`: the walk of the guest's own tables, descriptor by descriptor.

use super::{line, number};
use crate::guest::Guest;
use std::cell::RefCell;
use stepwell_arch::stage1::{
    self, Access, DescriptorKind, Mapping, PhysicalMemory, Regime, WalkError,
};
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_debuggee::{Debuggee, Error, Place, VcpuId};

/// The guest's memory as the walk wants it.
struct Memory<'a> {
    debuggee: RefCell<&'a mut dyn Debuggee>,
    vcpu: VcpuId,
}

impl PhysicalMemory for Memory<'_> {
    type Error = Error;

    fn read_u64(&self, ipa: Ipa) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        self.debuggee.borrow_mut().read_memory(self.vcpu, Place::Ipa(ipa), &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

pub(super) fn show(guest: &mut Guest<'_>, address: &str) -> Result<String, Error> {
    let va = Va(number(guest, address)?);
    let vcpu = guest.current();
    let Some(system) = guest.debuggee.support_system_registers() else {
        return Ok(super::unable());
    };
    let mut read = |register: SystemRegister| system.read_system_register(vcpu, register.0);
    let regime = Regime {
        sctlr: read(SystemRegister::SCTLR_EL1)?,
        tcr: read(SystemRegister::TCR_EL1)?,
        ttbr0: read(SystemRegister::TTBR0_EL1)?,
        ttbr1: read(SystemRegister::TTBR1_EL1)?,
        mair: read(SystemRegister::MAIR_EL1)?,
        pa_bits: Regime::pa_bits_of(read(SystemRegister::ID_AA64MMFR0_EL1)?),
    };
    let memory = Memory { debuggee: RefCell::new(&mut guest.debuggee), vcpu };
    let walk = stage1::walk(&regime, va, Access::PRIVILEGED_READ, &memory);
    let mut text = String::new();
    if !regime.mmu_enabled() {
        line(&mut text, format_args!("the MMU is off (SCTLR_EL1.M = 0)"));
    }
    for step in walk.steps() {
        let kind = match step.kind {
            DescriptorKind::Invalid => "invalid",
            DescriptorKind::Table => "table",
            DescriptorKind::Block => "block",
            DescriptorKind::Page => "page",
        };
        let (level, at, value) = (step.level, step.descriptor_ipa, step.descriptor);
        line(&mut text, format_args!("level {level}  [{at:#x}]  {value:016x}  {kind}"));
    }
    match walk.outcome {
        Ok(mapping) => found(&mut text, va, mapping),
        Err(WalkError::Memory { error: error @ Error::Lost(_), .. }) => return Err(error),
        Err(error) => line(&mut text, format_args!("{va:#x}  {error}")),
    }
    Ok(text)
}

fn found(text: &mut String, va: Va, mapping: Mapping) {
    let Mapping { ipa, memory_type, shareability, permissions, accessed, page_bytes, .. } = mapping;
    let right = |right: bool, letter: char| if right { letter } else { '-' };
    let el1 = ['r', right(permissions.el1_write, 'w'), right(permissions.el1_execute, 'x')];
    let el0 = [
        right(permissions.el0_read, 'r'),
        right(permissions.el0_write, 'w'),
        right(permissions.el0_execute, 'x'),
    ];
    line(text, format_args!("{va:#x} -> IPA {ipa:#x}, {} KiB", page_bytes >> 10));
    let (el1, el0) = (String::from_iter(el1), String::from_iter(el0));
    let access = if accessed { "" } else { ", access flag clear" };
    line(text, format_args!("EL1 {el1}  EL0 {el0}  {memory_type:?}  {shareability:?}{access}"));
}
