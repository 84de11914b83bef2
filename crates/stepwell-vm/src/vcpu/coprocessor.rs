//! Coprocessor transfers of AArch32 EL0 that trap: physical counter and timer, and, while somebody
//! debugs, the few debug registers that EL0 may read.
//!
//! LDC and STC of the debug data registers are undefined here: no guest has a debugger at the other
//! end of those.
//!
//! Source: Arm ARM (DDI 0487, issue L.b), ESR_EL2, ISS encodings for an exception from an MCR or MRC
//! access and from an MCRR or MRRC access; "AArch32 debug registers".

use super::{inject, time};
use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::vcpu::handled::{Handled, advance};
use crate::vcpu::running::Running;
use stepwell_arch::SystemRegister;
use stepwell_arch::aarch32::{Transfer, condition_holds, timer_of_pair};
use stepwell_arch::debug::mdscr_el1;
use stepwell_arch::esr::{CoprocessorIss, EsrEl1, EsrEl2, ec};
use stepwell_arch::generic_timer;

/// MRC and MCR.
#[inline(never)]
pub fn transfer<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    let iss = esr.coprocessor();
    if is_skipped(running, iss) {
        return done(running);
    }
    if esr.ec() == ec::CP14_MCR_MRC {
        return debug_register(running, esr, iss.transfer());
    }
    let Some(register) = iss.transfer().timer() else { return inject::undefined(running) };
    if iss.is_read() {
        let value = time::read(running, register);
        running.core.context.set_register(iss.rt(), value);
    } else {
        let value = running.core.context.register(iss.rt());
        time::write(running, register, value);
    }
    done(running)
}

/// MRRC and MCRR.
#[inline(never)]
pub fn transfer_pair<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    let iss = esr.coprocessor();
    if is_skipped(running, iss) {
        return done(running);
    }
    let (rt, rt2) = (iss.rt(), iss.rt2());
    if esr.ec() == ec::CP14_MRRC {
        return debug_address(running, esr, rt, rt2);
    }
    let register = timer_of_pair(iss.opc1_of_pair(), iss.crm());
    let Some(register) = register.filter(|&it| generic_timer::is_access(it, iss.is_read())) else {
        return inject::undefined(running);
    };
    if iss.is_read() {
        let value = time::read(running, register);
        set_pair(running, rt, rt2, value);
    } else {
        let context = &running.core.context;
        let value = context.register(rt) & 0xffff_ffff | context.register(rt2) << 32;
        time::write(running, register, value);
    }
    done(running)
}

/// LDC and STC.
#[inline(never)]
pub fn transfer_memory<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    if is_skipped(running, esr.coprocessor()) {
        return done(running);
    }
    inject::undefined(running)
}

/// A CPU may trap an instruction whose condition fails, which does nothing.
fn is_skipped<C: Cpu>(running: &Running<'_, C>, iss: CoprocessorIss) -> bool {
    iss.condition().is_some_and(|condition| !condition_holds(condition, running.core.pstate()))
}

fn done<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    advance(running);
    Handled::Emulated
}

fn set_pair<C: Cpu>(running: &mut Running<'_, C>, rt: u8, rt2: u8, value: u64) {
    running.core.context.set_register(rt, value & 0xffff_ffff);
    running.core.context.set_register(rt2, value >> 32);
}

/// The guest's kernel keeps EL0 from these registers: the trap is its own.
fn belongs_to_guest<C: Cpu>(running: &Running<'_, C>) -> bool {
    running.core.debug.mdscr() & mdscr_el1::TDCC != 0
}

/// DBGDIDR, DBGDSCRint, DBGDTRRXint and DBGDTRTXint, DBGDRAR and DBGDSAR. Nobody is at the other
/// end of the data registers, and there are no memory-mapped debug components to point to.
fn debug_register<C: Cpu>(
    running: &mut Running<'_, C>,
    esr: EsrEl2,
    transfer: Transfer,
) -> Handled {
    if belongs_to_guest(running) {
        return inject::synchronous(running, EsrEl1(esr.0), None);
    }
    let iss = esr.coprocessor();
    let Transfer { opc1, crn, crm, opc2 } = transfer;
    let value = match (opc1, crn, crm, opc2) {
        (0, 0, 0, 0) if iss.is_read() => debug_id(running.cpu),
        (0, 0, 1, 0) if iss.is_read() => running.core.debug.mdscr() & mdscr_el1::MDE,
        (0, 0, 5, 0) | (0, 1 | 2, 0, 0) if iss.is_read() => 0,
        (0, 0, 5, 0) => return done(running),
        _ => return inject::undefined(running),
    };
    match iss.rt() {
        // To APSR_nzcv, which only DBGDSCRint has: debuggers of old waited for the flags.
        15 => {
            const FLAGS: u64 = 0xf << 28;
            let spsr = running.core.context.spsr;
            running.core.context.spsr = spsr & !FLAGS | value & FLAGS;
        }
        rt => running.core.context.set_register(rt, value),
    }
    done(running)
}

/// DBGDRAR and DBGDSAR as 64 bits.
fn debug_address<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2, rt: u8, rt2: u8) -> Handled {
    if belongs_to_guest(running) {
        return inject::synchronous(running, EsrEl1(esr.0), None);
    }
    set_pair(running, rt, rt2, 0);
    done(running)
}

/// DBGDIDR, which EL2 cannot read: as ID_AA64DFR0_EL1 has it, but for the version on QEMU 7.2's own CPU,
/// `max`, which has that of the CPU from which it was made.
///
/// Source: Arm ARM (DDI 0487, issue L.b), DBGDIDR, Debug ID Register.
fn debug_id<C: Cpu>(cpu: &C) -> u64 {
    const RES1: u64 = 1 << 15;
    const NO_SECURE_HALTING: u64 = 1 << 14;
    const EL3: u64 = 1 << 12;
    const ARMV8_0: u64 = 6;
    const ARMV8_8: u64 = 10; // what `max` has since
    let features = cpu.read(SystemRegister::ID_AA64DFR0_EL1);
    let is_qemu_max = cpu.read(SystemRegister::MIDR_EL1) >> 24 & 0xff == 0;
    let version = match features & 0xf {
        ..ARMV8_8 if is_qemu_max => ARMV8_0,
        version => version,
    };
    let breakpoints = features >> 12 & 0xf;
    let (watchpoints, contexts) = (features >> 20 & 0xf, features >> 28 & 0xf);
    let numbers = watchpoints << 28 | breakpoints << 24 | contexts << 20 | version << 16;
    numbers | RES1 | NO_SECURE_HALTING | EL3
}
