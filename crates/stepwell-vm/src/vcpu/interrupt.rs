//! Interrupts: the physical ones that EL2 takes, and the virtual CPU interface.

use super::{time, virtio};
use crate::cpu::{Cpu, Interrupt};
use crate::domain::{Domain, bit};
use crate::machine::Machine;
use crate::mutation::{self, LoopMutant};
use crate::vcpu::running::Running;
use crate::vcpu::state::Signalled;
use crate::vgic::{Signal, Vgic};
use stepwell_arch::Pstate;

/// PPI 11: the virtual timer, for the guest as for us.
pub const VIRTUAL_TIMER_INTID: u32 = 27;

/// Takes all that is pending while a guest's exit is in hand.
#[inline(never)]
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
        virtio::attend(machine, cpu);
    }
}

fn take<C: Cpu>(machine: &Machine<C>, cpu: &C, interrupt: Interrupt) {
    match interrupt {
        Interrupt::Link => {
            machine.link.serve(cpu, machine);
            virtio::attend(machine, cpu);
        }
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
    if kick(cpu, domain, vcpus)
        && let Some(timeline) = &domain.timeline
    {
        timeline.lock().call_for_turn();
    }
}

/// As [`call_out`], where that is no part of the run. Tells whether there was anything new.
fn kick<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpus: u8) -> bool {
    let vcpus = domain.vgic.lock().take_kicks() & vcpus;
    if vcpus == 0 {
        return false;
    }
    // It may have come about by taking list registers back, which does not count as a change.
    domain.vgic.count_change();
    // Those that wait for an interrupt under a step get a turn to look.
    let _has_turn = domain.turns.lock().wake(vcpus);
    call(cpu, domain, vcpus);
    true
}

/// Calls vCPUs out of the guest.
pub(super) fn call<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpus: u8) {
    let cpus = domain.vcpus.iter().enumerate().filter(|(n, _)| vcpus & bit(*n) != 0);
    cpu.kick(cpus.fold(0, |mask, (_, vcpu)| mask | bit(vcpu.cpu)));
}

/// Before the GIC is asked, or told, what list registers may know better: has the vCPUs come out that hold
/// it there, by what `holders` says, and waits until each has been synced once. None of them waits for
/// anybody between its flush and its entry; a CPU that does not come for seconds, as an emulator's may
/// not, is left.
pub fn sync_holders<C: Cpu>(running: &Running<'_, C>, holders: impl Fn(&Vgic) -> u8) {
    /// Each is a microsecond, of an emulated CPU's too.
    const LOOKS_MAX: u32 = 10_000_000;
    /// Whoever is waited for has to get the GIC's lock.
    const PAUSES: u32 = 32;
    let (vgic, index) = (&running.domain.vgic, running.index);
    let mut asked = vgic.lock();
    let holders = holders(&asked);
    if holders == 0 {
        return;
    }
    asked.wait_for(index, holders);
    drop(asked);
    call(running.cpu, running.domain, holders);
    for _ in 0..LOOKS_MAX {
        if vgic.lock().awaited_by(index) == 0 {
            return;
        }
        (0..PAUSES).for_each(|_| core::hint::spin_loop());
    }
    vgic.lock().wait_for(index, 0);
}

/// Tells whether something may be taken if a stepped guest went on now, without asking the GIC.
#[inline]
#[must_use]
pub fn may_be_taken<C: Cpu>(running: &Running<'_, C>) -> bool {
    let core = &*running.core;
    let pstate = core.pstate();
    let has_serror = core.serror.is_some() && !pstate.serror_masked();
    let takes_interrupts = !pstate.irq_masked() || !pstate.fiq_masked();
    has_serror || takes_interrupts && !core.signalled.is_still_nothing(running.domain.vgic.count())
}

/// An asynchronous exception that is pending for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
pub fn to_be_taken<C: Cpu>(running: &mut Running<'_, C>) -> Option<Asynchronous> {
    let pstate = running.core.pstate();
    if running.core.serror.is_some() && !pstate.serror_masked() {
        return Some(Asynchronous::SError);
    }
    if pstate.irq_masked() && pstate.fiq_masked() {
        return None;
    }
    let vgic = &running.domain.vgic;
    let seen = vgic.count();
    let signalled = vgic.lock().signalled(running.index, &running.core.interface);
    let Some((signal, intid)) = signalled else {
        running.core.signalled = Signalled::nothing(seen);
        return None;
    };
    let is_masked = match signal {
        Signal::Irq => pstate.irq_masked(),
        Signal::Fiq => pstate.fiq_masked(),
    };
    (!is_masked).then_some(Asynchronous::Interrupt(signal, intid))
}

/// Tells whether PSTATE keeps every asynchronous exception from being taken.
#[inline]
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

/// Has the next boundary ask the GIC, whatever is known of it.
pub fn forget_signalled<C: Cpu>(running: &mut Running<'_, C>) {
    running.core.signalled = Signalled::default();
}

/// Before an entry: fills the list registers. With `hold`, nothing is delivered.
#[inline(never)]
pub fn load<C: Cpu>(running: &mut Running<'_, C>, hold: bool) {
    let core = &mut *running.core;
    running.domain.vgic.lock().flush(running.index, hold, &mut core.interface);
    running.cpu.load_interface(&core.interface);
    if let Some(iss) = core.serror.filter(|_| !hold) {
        running.cpu.raise_serror(iss);
    }
}

/// After an exit: takes the list registers back. `hold`: as it was at the entry, when what is not
/// delivered was not made pending in the CPU either.
#[inline(never)]
pub fn sync<C: Cpu>(running: &mut Running<'_, C>, hold: bool) {
    running.cpu.save_interface(&mut running.core.interface);
    // It was the guest's to change, which counts no change.
    forget_signalled(running);
    if !hold && running.core.serror.is_some() && running.cpu.take_serror_back() {
        let kept = running.core.serror.filter(|_| mutation::is(LoopMutant::SystemErrorKept));
        running.core.serror = kept;
    }
    let ended = running.domain.vgic.lock().sync(running.index, &running.core.interface);
    deactivated(running, ended);
    // An exit for a stop is not to end anybody's turn.
    let _is_new = kick(running.cpu, running.domain, !bit(running.index));
}

/// The guest has deactivated these PPIs of its own, bit n for INTID n.
pub fn deactivated<C: Cpu>(running: &mut Running<'_, C>, ppis: u32) {
    if ppis & 1 << VIRTUAL_TIMER_INTID != 0 {
        time::virtual_timer_ended(running);
    }
}
