//! Interrupts: the physical ones that EL2 takes, and the virtual CPU interface.

use super::time;
use crate::cpu::{Cpu, Interrupt};
use crate::domain::{Domain, bit};
use crate::machine::Machine;
use crate::vcpu::running::Running;
use crate::vcpu::state::IdleInterface;
use crate::vgic::Signal;
use stepwell_arch::Pstate;

/// PPI 11: the virtual timer, for the guest as for us.
pub const VIRTUAL_TIMER_INTID: u32 = 27;

/// Takes all that is pending while a guest's exit is in hand.
pub fn take_all<C: Cpu>(running: &mut Running<'_, C>) {
    while let Some(interrupt) = running.cpu.take_interrupt() {
        match interrupt {
            Interrupt::VirtualTimer => time::virtual_timer_fired(running),
            other => take(running.machine, running.cpu, other),
        }
    }
}

/// Takes all that is pending while this CPU has no guest in hand.
pub fn take_all_at_el2<C: Cpu>(machine: &Machine<C>, cpu: &C, number: usize) {
    while let Some(interrupt) = cpu.take_interrupt() {
        match interrupt {
            // Its vCPU is stopped: it is looked at again when that goes on.
            Interrupt::VirtualTimer => cpu.enable_virtual_timer(false),
            other => take(machine, cpu, other),
        }
    }
    if number == 0 {
        machine.link.pass_by(cpu, machine);
    }
}

fn take<C: Cpu>(machine: &Machine<C>, cpu: &C, interrupt: Interrupt) {
    match interrupt {
        Interrupt::Link => machine.link.serve(cpu, machine),
        Interrupt::El2Timer => {
            cpu.cancel_interrupt();
            for domain in &machine.domains {
                machine.flush_console(domain);
            }
        }
        // The exit itself was the point.
        Interrupt::Kick | Interrupt::Maintenance | Interrupt::VirtualTimer => {}
        Interrupt::Unknown(_) => {}
    }
}

/// Calls out the other vCPUs for which the GIC has something new.
pub fn kick_others<C: Cpu>(running: &Running<'_, C>) {
    call_out(running.cpu, running.domain, !bit(running.index));
}

/// Calls out those of `vcpus` for which the GIC has something new.
pub fn call_out<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpus: u8) {
    let vcpus = domain.vgic.lock().take_kicks() & vcpus;
    if vcpus == 0 {
        return;
    }
    // It may have come about by taking list registers back, which does not count as a change.
    domain.vgic.count_change();
    // Those that wait for an interrupt under a step get a turn to look.
    let _has_turn = domain.turns.lock().wake(vcpus);
    let cpus = domain.vcpus.iter().enumerate();
    let mask = cpus.filter(|(n, _)| vcpus & bit(*n) != 0).fold(0, |m, (_, v)| m | bit(v.cpu));
    cpu.kick(mask);
}

/// Tells whether nothing can be delivered to a stepped vCPU, without asking the GIC.
#[must_use]
pub fn is_idle<C: Cpu>(running: &Running<'_, C>) -> bool {
    running.core.idle_interface.holds(running.domain.vgic.count()) && running.core.serror.is_none()
}

/// An asynchronous exception that is pending for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asynchronous {
    /// What the GIC signals, and the INTID that it signals it for.
    Interrupt(Signal, u32),
    /// An SError.
    SError,
}

/// Tells what would be taken next if the guest went on now, by its PSTATE.
///
/// Which of an SError and an interrupt comes first is the implementation's to choose
/// ("Prioritization and recognition of interrupts"). The error does here: what it spoiled may
/// matter to the handler.
#[must_use]
pub fn to_be_taken<C: Cpu>(running: &Running<'_, C>) -> Option<Asynchronous> {
    let pstate = running.core.pstate();
    if running.core.serror.is_some() && !pstate.serror_masked() {
        return Some(Asynchronous::SError);
    }
    if pstate.irq_masked() && pstate.fiq_masked() {
        return None;
    }
    let vgic = running.domain.vgic.lock();
    let (signal, intid) = vgic.signalled(running.index, &running.core.interface)?;
    let is_masked = match signal {
        Signal::Irq => pstate.irq_masked(),
        Signal::Fiq => pstate.fiq_masked(),
    };
    (!is_masked).then_some(Asynchronous::Interrupt(signal, intid))
}

/// Tells whether PSTATE keeps every asynchronous exception from being taken.
#[must_use]
pub fn all_masked(pstate: Pstate) -> bool {
    const ALL: u64 = Pstate::A | Pstate::I | Pstate::F;
    pstate.0 & ALL == ALL
}

/// Tells whether WFI ends: whether anything is pending that PSTATE alone can mask.
#[must_use]
pub fn has_pending<C: Cpu>(running: &Running<'_, C>) -> bool {
    running.core.serror.is_some()
        || running.domain.vgic.lock().has_pending(running.index, &running.core.interface)
}

/// Tells whether a wait for an interrupt is over: one is pending, or a WFIT's time is up.
pub fn has_waited<C: Cpu>(running: &Running<'_, C>) -> bool {
    has_pending(running) || time::is_to_wake(running)
}

/// Makes the next step look at the GIC, whatever it knows.
pub fn invalidate_interface<C: Cpu>(running: &mut Running<'_, C>) {
    running.core.idle_interface = IdleInterface::default();
}

/// As [`load`], for a step. `all_held`: nothing is to be delivered before stepping ends, so what is
/// pending does not matter.
pub fn load_for_step<C: Cpu>(running: &mut Running<'_, C>, hold: bool, all_held: bool) {
    let seen = running.domain.vgic.count();
    load(running, hold);
    let core = &*running.core;
    let is_empty = core.interface.lr.iter().all(|&register| register == 0);
    let is_idle = is_empty
        && (all_held || !running.domain.vgic.lock().has_pending(running.index, &core.interface));
    running.core.idle_interface = IdleInterface::found(is_idle, seen);
}

/// Before an entry: fills the list registers. With `hold`, nothing is delivered.
pub fn load<C: Cpu>(running: &mut Running<'_, C>, hold: bool) {
    let core = &mut *running.core;
    running.domain.vgic.lock().flush(running.index, hold, &mut core.interface);
    running.cpu.load_interface(&core.interface);
    if let Some(iss) = core.serror.filter(|_| !hold) {
        running.cpu.raise_serror(iss);
    }
}

/// After an exit: takes the list registers back.
pub fn sync<C: Cpu>(running: &mut Running<'_, C>) {
    running.cpu.save_interface(&mut running.core.interface);
    if running.core.serror.is_some() && running.cpu.take_serror_back() {
        running.core.serror = None;
    }
    let deactivated = running.domain.vgic.lock().sync(running.index, &running.core.interface);
    if deactivated & 1 << VIRTUAL_TIMER_INTID != 0 {
        time::virtual_timer_ended(running);
    }
    kick_others(running);
}
