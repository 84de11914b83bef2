//! System registers that trap: ID registers, the physical timer, SGIs, and, while somebody
//! debugs, the guest's own debug registers.

use super::exit::{Handled, advance_under};
use super::{Running, inject, interrupt, time};
use crate::hw::setup::guest_feature_id;
use stepwell_arch::SystemRegister;
use stepwell_arch::esr::SystemRegisterIss;

/// Carries out a trapped MRS or MSR.
pub fn access(running: &mut Running<'_>, iss: SystemRegisterIss) -> Handled {
    let register = iss.register();
    let mdscr = running.core.debug.mdscr();
    let done = if iss.is_read() {
        read(running, register).map(|value| running.core.context.set_register(iss.rt(), value))
    } else {
        let value = running.core.context.register(iss.rt());
        write(running, register, value)
    };
    match done {
        Some(()) => {
            advance_under(running, mdscr);
            Handled::Emulated
        }
        None => inject::undefined(running),
    }
}

fn read(running: &mut Running<'_>, register: SystemRegister) -> Option<u64> {
    if register.is_feature_id() {
        return Some(guest_feature_id(register));
    }
    if time::is_timer(register) {
        return Some(time::read(running, register));
    }
    running.core.debug.read(register)
}

fn write(running: &mut Running<'_>, register: SystemRegister, value: u64) -> Option<()> {
    match register {
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
        _ if time::is_timer(register) => {
            time::write(running, register, value);
            Some(())
        }
        _ => {
            running.core.debug.write(register, value)?;
            running.core.engine.set_guest_mdscr(running.core.debug.mdscr());
            Some(())
        }
    }
}
