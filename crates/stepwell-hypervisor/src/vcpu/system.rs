//! System registers that trap: ID registers, the physical timer, SGIs, what is IMPLEMENTATION
//! DEFINED, and the guest's own debug registers. What traps besides belongs to features that the guest
//! is not offered, and is undefined.

use super::exit::{Handled, advance_under};
use super::{Running, inject, interrupt, time, translation};
use crate::hw::registers::mrs;
use crate::hw::setup::{guest_feature_id, midr};
use stepwell_arch::esr::SystemRegisterIss;
use stepwell_arch::{SystemRegister, generic_timer};
use stepwell_vm::implementation_defined;

/// Carries out a trapped MRS or MSR.
pub fn access(running: &mut Running<'_>, iss: SystemRegisterIss) -> Handled {
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
fn read(running: &mut Running<'_>, register: SystemRegister, before: u64) -> Option<u64> {
    if register.is_feature_id() {
        return Some(guest_feature_id(register));
    }
    if generic_timer::is_access(register, true) {
        return Some(time::read(running, register));
    }
    match register {
        // Writes change nothing: it is as the CPU was reset.
        SystemRegister::ACTLR_EL1 => Some(mrs!("actlr_el1")),
        // No error record, so that those that select one and reach it are undefined.
        SystemRegister::ERRIDR_EL1 => Some(0),
        _ => {
            running.core.debug.read_for_guest(register, before).or_else(|| {
                implementation_defined::read(midr(), register, running.domain.vcpus.len())
            })
        }
    }
}

fn write(running: &mut Running<'_>, register: SystemRegister, value: u64) -> Option<()> {
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
            running.domain.vgic.change().write_dir(running.index, value);
            interrupt::kick_others(running);
            Some(())
        }
        _ if generic_timer::is_access(register, false) => {
            time::write(running, register, value);
            Some(())
        }
        SystemRegister::ACTLR_EL1 => Some(()),
        _ if implementation_defined::is_written(midr(), register) => Some(()),
        _ => {
            running.core.debug.write_for_guest(register, value)?;
            running.core.engine.set_guest_mdscr(running.core.debug.mdscr());
            Some(())
        }
    }
}
