//! System registers that trap: ID registers, the physical timer, SGIs, what makes an address space, what is IMPLEMENTATION
//! DEFINED, and the guest's own debug registers. What traps besides belongs to features that the guest
//! is not offered, and is undefined.

use super::{address_space, debug, inject, interrupt, time, translation};
use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::feature_id::counted_value;
use crate::implementation_defined;
use crate::vcpu::handled::{Handled, advance, advance_under};
use crate::vcpu::running::Running;
use stepwell_arch::esr::SystemRegisterIss;
use stepwell_arch::{SystemRegister, generic_timer};

impl<C: Cpu> Domain<C> {
    /// A feature ID register as the domain's vCPUs read it.
    #[inline]
    pub fn feature_id(&self, cpu: &C, register: SystemRegister) -> u64 {
        let value = cpu.guest_feature_id(register);
        if self.timeline.is_some() { counted_value(register, value) } else { value }
    }
}

/// Carries out a trapped MRS or MSR.
#[inline(never)]
pub fn access<C: Cpu>(running: &mut Running<'_, C>, iss: SystemRegisterIss) -> Handled {
    if !iss.is_read() || !iss.register().is_feature_id() {
        return access_other(running, iss);
    }
    // As programs do in loops. Nothing of the guest's depends on it.
    let value = running.domain.feature_id(running.cpu, iss.register());
    running.core.context.set_register(iss.rt(), value);
    advance(running);
    Handled::Emulated
}

#[inline(never)]
fn access_other<C: Cpu>(running: &mut Running<'_, C>, iss: SystemRegisterIss) -> Handled {
    let register = iss.register();
    let guest = running.core.debug.guest();
    let done = if iss.is_read() {
        let before = running.core.context.register(iss.rt());
        let value = read(running, register, before);
        value.map(|value| running.core.context.set_register(iss.rt(), value))
    } else {
        let value = running.core.context.register(iss.rt());
        write(running, register, value)
    };
    match done {
        Some(()) => {
            advance_under(running, guest);
            Handled::Emulated
        }
        None => inject::undefined(running),
    }
}

/// `before`: what the destination holds.
fn read<C: Cpu>(
    running: &mut Running<'_, C>,
    register: SystemRegister,
    before: u64,
) -> Option<u64> {
    if generic_timer::is_access(register, true) {
        return Some(time::read(running, register));
    }
    match register {
        // Writes change nothing: it is as the CPU was reset.
        SystemRegister::ACTLR_EL1 => Some(running.cpu.read(SystemRegister::ACTLR_EL1)),
        // No error record, so that those that select one and reach it are undefined.
        SystemRegister::ERRIDR_EL1 => Some(0),
        _ => running.core.debug.read_for_guest(running.cpu, register, before).or_else(|| {
            implementation_defined::read(
                running.cpu.read(SystemRegister::MIDR_EL1),
                register,
                running.domain.vcpus.len(),
            )
        }),
    }
}

fn write<C: Cpu>(running: &mut Running<'_, C>, register: SystemRegister, value: u64) -> Option<()> {
    match register {
        // TLBI, with and without nXS.
        _ if register.op0() == 1 && matches!(register.crn(), 8 | 9) => {
            translation::invalidate(running);
            Some(())
        }
        SystemRegister::ICC_SGI1R_EL1 => {
            running.domain.vgic.change().write_sgi1r(running.index, value);
            interrupt::kick_others(running);
            Some(())
        }
        SystemRegister::ICC_SGI0R_EL1 | SystemRegister::ICC_ASGI1R_EL1 => {
            running.domain.vgic.change().write_sgi0r(running.index, value);
            interrupt::kick_others(running);
            Some(())
        }
        SystemRegister::ICC_DIR_EL1 => {
            // Else it is ignored.
            if running.core.interface.splits_eoi() {
                interrupt::sync_holders(running, |vgic| vgic.holder_of(running.index, value));
                let ended = running.domain.vgic.change().write_dir(running.index, value);
                interrupt::deactivated(running, ended);
                interrupt::kick_others(running);
            }
            Some(())
        }
        _ if generic_timer::is_access(register, false) => {
            time::write(running, register, value);
            Some(())
        }
        SystemRegister::ACTLR_EL1 => Some(()),
        _ if address_space::write(running, register, value) => Some(()),
        _ if implementation_defined::is_written(
            running.cpu.read(SystemRegister::MIDR_EL1),
            register,
        ) =>
        {
            Some(())
        }
        _ => {
            running.core.debug.write_for_guest(running.cpu, register, value)?;
            running.core.engine.set_guest_mdscr(running.core.debug.mdscr());
            // Its own may need the place of the debugger's now.
            debug::program_for_step(running);
            Some(())
        }
    }
}
