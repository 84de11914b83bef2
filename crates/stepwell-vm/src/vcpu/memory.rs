//! Aborts at stage 2: devices, and guests that reach for what is not there.

use super::{debug, device_access, flash, operand, pages, time, walk_abort};
use crate::checkpoint::withheld::Seen;
use crate::cpu::{Cpu, Purpose};
use crate::memory::GuestMemory;
use crate::vcpu::handled::Handled;
use crate::vcpu::handled::advance;
use crate::vcpu::handled::fault;
use crate::vcpu::operand::fault_address;
use crate::vcpu::roots::WriteSet;
use crate::vcpu::running::Running;
use stepwell_arch::Va;
use stepwell_arch::esr::EsrEl2;
use stepwell_protocol::{FaultKind, StopReason};

/// Handles a stage-2 data abort.
#[inline(never)]
pub fn data_abort<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    let iss = esr.data_abort();
    let is_permission = iss.dfsc().is_permission();
    if is_permission {
        if let Some(handled) = flash::data_abort(running, esr) {
            return handled;
        }
        if is_first_store(running, iss.s1ptw()) {
            return Handled::Resume;
        }
    }
    if let Some(handled) = pages::data_abort(running, esr) {
        return handled;
    }
    if is_permission && is_about_ram(running, esr) {
        return Handled::Resume;
    }
    let address = fault_address(running);
    if !iss.dfsc().is_translation() {
        return fault(running, FaultKind::UnmappedAccess, address.0);
    }
    if iss.s1ptw() {
        return walk_abort::handle(running, esr, false);
    }
    if operand::is_maintenance(running, esr) {
        // Cache maintenance where there is no memory: nothing is cached.
        advance(running);
        return Handled::Emulated;
    }
    if let Some(handled) = pages::watchpoint(running, esr) {
        return handled;
    }
    time::withdraw(running);
    device_access::carry_out(running, esr, address)
}

/// Tells whether a permission fault was that of a store that was withheld to be seen, and which can
/// execute now: see [`crate::checkpoint::withheld`].
fn is_first_store<C: Cpu>(running: &Running<'_, C>, is_walk: bool) -> bool {
    if !running.domain.checkpoints.withholds() {
        return false;
    }
    // HPFAR_EL2 is UNKNOWN for permission faults but those of walks.
    let address = match is_walk {
        true => Some(fault_address(running)),
        false => operand::to_ipa(running, running.core.context.far),
    };
    let Some(address) = address else { return false };
    match running.domain.has_faulted(running.core.vttbr, address) {
        Seen::Permitted => true,
        Seen::Already => {
            // If it was a store, the CPU goes by what its TLB has kept.
            running.cpu.invalidate_guest_stage1();
            false
        }
        Seen::NotOurs => false,
    }
}

/// Tells whether an abort is about RAM, of which the domain's own tables keep nothing back: a page
/// that was withheld when the CPU looked, and is not any more, or a stage 1 that has just changed.
#[inline(never)]
fn is_about_ram<C: Cpu>(running: &Running<'_, C>, esr: EsrEl2) -> bool {
    // HPFAR_EL2 is UNKNOWN for permission faults but those of walks.
    let address = if esr.data_abort().s1ptw() {
        Ok(fault_address(running))
    } else {
        running.cpu.to_ipa(Va(running.core.context.far), false, Purpose::Read)
    };
    address.is_ok_and(|address| running.domain.ram.locate(address, 1).is_ok())
}

/// Handles a stage-2 instruction abort: no memory at all, or a page that was withheld meanwhile.
#[inline(never)]
pub fn instruction_abort<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    let mut address = fault_address(running);
    let iss = esr.instruction_abort();
    if iss.ifsc().is_translation() && pages::is_being_changed(running) {
        return Handled::Resume;
    }
    // The CPU keeps the access flag in the guest's tables by stores.
    if iss.ifsc().is_permission() && iss.s1ptw() && is_first_store(running, true) {
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
        if let Ok(ipa) = running.cpu.to_ipa(pc, false, Purpose::Read) {
            address = ipa;
        }
    }
    if running.domain.shows_otherwise(address) {
        return device_access::fetch(running, address);
    }
    if running.domain.ram.locate(address, 4).is_ok() {
        return Handled::Past;
    }
    match (iss.ifsc().is_translation(), iss.s1ptw()) {
        (false, _) => fault(running, FaultKind::UnmappedFetch, address.0),
        (true, true) => walk_abort::handle(running, esr, true),
        (true, false) => device_access::fetch(running, address),
    }
}
