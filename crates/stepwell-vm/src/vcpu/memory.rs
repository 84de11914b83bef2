//! Aborts at stage 2: devices, and guests that reach for what is not there.

use super::{debug, pages};
use crate::cpu::Cpu;
use crate::device::board::{PL011_INTID, Region, region};
use crate::device::mmio::MmioAccess;
use crate::memory::GuestMemory;
use crate::vcpu::handled::Handled;
use crate::vcpu::handled::advance;
use crate::vcpu::handled::fault;
use crate::vcpu::roots::WriteSet;
use crate::vcpu::running::Running;
use stepwell_arch::esr::EsrEl2;
use stepwell_arch::{Ipa, Va};
use stepwell_protocol::{FaultKind, StopReason};

/// How long a partial line waits for more.
const CONSOLE_PATIENCE_NS: u64 = 5_000_000;

/// The guest-physical address of an abort: HPFAR_EL2 has its page, FAR_EL2 the rest.
pub(super) fn fault_address<C: Cpu>(running: &Running<'_, C>) -> Ipa {
    let page = running.core.context.hpfar >> 4 << 12;
    Ipa(page & 0x000f_ffff_ffff_f000 | running.core.context.far & 0xfff)
}

/// Handles a stage-2 data abort.
#[inline(never)]
pub fn data_abort<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    if let Some(handled) = pages::data_abort(running, esr) {
        return handled;
    }
    if is_given_back(running, esr) {
        return Handled::Resume;
    }
    let address = fault_address(running);
    let known = region(address, running.domain.vcpus.len());
    if esr.data_abort().cm() && !esr.data_abort().s1ptw() {
        // Cache maintenance where there is no memory: nothing is cached.
        advance(running);
        return Handled::Emulated;
    }
    let is_device = known != Region::Nothing && esr.data_abort().dfsc().is_translation();
    if !is_device || esr.data_abort().s1ptw() {
        return fault(running, FaultKind::UnmappedAccess, address.0);
    }
    let Some(access) = MmioAccess::decode(esr.0) else {
        return fault(running, FaultKind::BadDeviceAccess, address.0);
    };
    if let Some(handled) = pages::own_watchpoint(running, esr) {
        return handled;
    }
    if access.write {
        let value = access.store_value(running.core.context.register(access.register));
        write(running, known, address, access.bytes, value);
    } else {
        let value = access.load_result(read(running, known, address, access.bytes));
        running.core.context.set_register(access.register, value);
    }
    advance(running);
    Handled::Emulated
}

/// Tells whether an abort is about RAM, of which the domain's own tables keep nothing back: a page
/// that was withheld when the CPU looked, and is not any more, or a stage 1 that has just changed.
fn is_given_back<C: Cpu>(running: &Running<'_, C>, esr: EsrEl2) -> bool {
    let iss = esr.data_abort();
    if !iss.dfsc().is_permission() {
        return false;
    }
    // HPFAR_EL2 is UNKNOWN for permission faults but those of walks.
    let address = if iss.s1ptw() {
        Ok(fault_address(running))
    } else {
        running.cpu.to_ipa(Va(running.core.context.far), false)
    };
    address.is_ok_and(|address| running.domain.ram.locate(address, 1).is_ok())
}

fn read<C: Cpu>(running: &mut Running<'_, C>, known: Region, address: Ipa, bytes: u8) -> u64 {
    match known {
        Region::Gicd | Region::Gicr => {
            let value = running.domain.vgic.change().mmio_read(running.index, address, bytes);
            // Of what others have in their list registers it tells at the next read.
            super::interrupt::kick_others(running);
            value
        }
        Region::Pl011(offset) => {
            let value = running.domain.uart.lock().read(offset, bytes);
            update_uart_line(running);
            value
        }
        Region::RazWi(_) | Region::Nothing => 0,
    }
}

fn write<C: Cpu>(running: &mut Running<'_, C>, known: Region, address: Ipa, bytes: u8, value: u64) {
    match known {
        Region::Gicd | Region::Gicr => {
            let mut vgic = running.domain.vgic.change();
            vgic.mmio_write(running.index, address, bytes, value);
            drop(vgic);
            super::interrupt::kick_others(running);
        }
        Region::Pl011(offset) => {
            let sent = running.domain.uart.lock().write(offset, bytes, value);
            if let Some(byte) = sent {
                print(running, byte);
            }
            update_uart_line(running);
        }
        Region::RazWi(_) | Region::Nothing => {}
    }
}

/// Takes the UART's interrupt line to the GIC.
pub fn update_uart_line<C: Cpu>(running: &mut Running<'_, C>) {
    update_domain_uart_line(running.domain);
    super::interrupt::kick_others(running);
}

/// As [`update_uart_line`], from outside of any vCPU. The vCPU that is to notice is kicked by the
/// caller.
pub fn update_domain_uart_line<C: Cpu>(domain: &crate::domain::Domain<C>) {
    let mut uart = domain.uart.lock();
    // Within the lock: a later change is not to get to the GIC first.
    if let Some(line) = uart.line_change() {
        domain.vgic.change().set_line(PL011_INTID, None, line);
    }
}

fn print<C: Cpu>(running: &Running<'_, C>, byte: u8) {
    let mut console = running.domain.console.lock();
    if console.is_full() {
        running.machine.send_console(running.domain.id, &mut console);
    }
    // There is room now.
    let _fits = console.push(byte);
    if byte == b'\n' {
        running.machine.send_console(running.domain.id, &mut console);
    } else {
        running.cpu.interrupt_in(CONSOLE_PATIENCE_NS);
    }
}

/// Handles a stage-2 instruction abort: no memory at all, or a page that was withheld meanwhile.
#[inline(never)]
pub fn instruction_abort<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    let mut address = fault_address(running);
    let iss = esr.instruction_abort();
    if iss.ifsc().is_translation() && pages::is_being_changed(running) {
        return Handled::Resume;
    }
    if iss.ifsc().is_permission() && iss.s1ptw() && running.core.vttbr != running.domain.vttbr {
        // A walk of the guest's tables met a page that is withheld. If that page has the
        // instruction too, nothing of it is executed from the copy with the BRKs.
        let is_free = running.core.vttbr == running.domain.roots.of_running();
        if is_free && debug::breakpoint_at_pc(running).is_some() {
            return Handled::Stop(StopReason::Breakpoint);
        }
        running.core.write_set = WriteSet::Unknown;
        return Handled::Unrestricted;
    }
    if iss.ifsc().is_permission() && !iss.s1ptw() {
        // HPFAR_EL2 is UNKNOWN for these.
        let pc = running.core.pc();
        if let Ok(ipa) = running.cpu.to_ipa(pc, false) {
            address = ipa;
        }
    }
    if running.domain.ram.locate(address, 4).is_ok() {
        return Handled::Past;
    }
    fault(running, FaultKind::UnmappedFetch, address.0)
}
